"""Processes of ours with a pipe to each, which end when the one that started them does."""

import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection, Pipe

STDERR = 2


def start(
    module: str, environment: Mapping[str, str], *, stdout: int = STDERR
) -> "tuple[subprocess.Popen[bytes], Connection]":
    """Start `python -m module FD`, where FD is its end of the pipe.

    Ctrl-C reaches the one that starts it only, which tells it what to do.

    Args:
        module: its name in full.
        environment: what is set beside our own.
        stdout: where it prints, as `subprocess.Popen` takes it; our own is for what was asked for.
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
