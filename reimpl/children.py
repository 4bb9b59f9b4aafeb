"""Processes of ours with a pipe to each, which end when the one that started them does."""

import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection, Pipe


def start(
    module: str, environment: Mapping[str, str], *, stdout: int | None = None
) -> "tuple[subprocess.Popen[bytes], Connection]":
    """Start `python -m module FD`, where FD is its end of the pipe.

    Ctrl-C reaches the one that starts it only, which tells it what to do.

    Args:
        module: its name in full.
        environment: what is set beside our own.
        stdout: as `subprocess.Popen` takes it.
    """
    ours, theirs = Pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        start_new_session=True,
        env={**os.environ, **environment},
    )
    theirs.close()
    return process, ours
