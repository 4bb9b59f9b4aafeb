"""For tests that disturb a reproduction of the tiny paper while it runs."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from reimpl.evidence import Result


def command(paper: Path, runs: Path, *more: str) -> list[str]:
    """Reproduces the paper with two seeds."""
    options = ["--papers", str(paper), "--runs", str(runs), "--wandb", "disabled", "--seeds", "2"]
    return [sys.executable, "-m", "reimpl", "reproduce", "tiny", *options, *more]


def begin(paper: Path, runs: Path, *more: str) -> "subprocess.Popen[str]":
    """The command in a session of its own that hears Ctrl-C."""
    return subprocess.Popen(
        command(paper, runs, *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell starts what runs in its background with Ctrl-C ignored, and that is inherited
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_until(true: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def first_thing(paper: Path, *lines: str, of: str = "def data(variant, sources, seeds):") -> None:
    """Make a function of the paper begin with these lines."""
    code = paper / "__init__.py"
    text = code.read_text()
    assert f"{of}\n" in text
    body = "".join(f"    {line}\n" for line in lines)
    code.write_text(text.replace(f"{of}\n", f"{of}\n{body}"))


def measured(result: Result) -> dict[tuple[str, str, int], object]:
    """All that was measured: final figures and curves of each run."""
    return {
        (r.part, r.variant, r.seed): (dict(r.measurements), dict(r.curves))
        for r in result.evidence.records
    }
