"""For tests that disturb a reproduction of the tiny paper while it runs."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from reimpl.evidence import Result
from reimpl.jobs import claim
from reimpl.planning import Request, plan
from reimpl.reproduction import reproduce


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


def with_a_run_taken(asked: Request) -> tuple[set[str], str, Result]:
    """Reproduce while another claim holds one run, until the engine says that it is taken.

    Gives the jobs that were said to be taken, the one that was, and what came of it all.
    """
    first = next(job for job in plan(asked, estimate=False).jobs if job.part == "train")
    said: set[str] = set()
    with ExitStack() as stack:
        assert stack.enter_context(claim(first))

        def let_go(event: Any) -> None:
            if event.kind == "taken":
                said.add(event.job.name)
                stack.close()

        result = reproduce(asked, watch=let_go)
    return said, first.name, result


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
