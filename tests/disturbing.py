"""For tests that disturb a reproduction of the tiny paper while it runs."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reimpl.evidence import Result
from reimpl.jobs import claim
from reimpl.planning import Request, plan
from reimpl.reproduction import reproduce

HALF = 4000
"""Steps of the slow paper's 8,000."""
HALF_WAY = """

import os
import time

from reimpl import context

context.CHECKPOINT_EVERY = 0.0
put = context._put


def put_and_once(path, kept):
    put(path, kept)
    if kept["state"]["step"] < {step}:
        return
    try:
        mark = open({mark!r}, "x")
    except FileExistsError:
        return
    with mark:
        mark.write(str(os.getpid()))
    {does}


context._put = put_and_once
"""


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


def once_half_way(paper: Path, mark: Path, does: str, *, step: int = HALF) -> None:
    """Make the first run that has kept a checkpoint half way do this; no later one does.

    It writes the number of its process to `mark` before.
    """
    with (paper / "__init__.py").open("a") as code:
        code.write(HALF_WAY.format(mark=str(mark), does=does, step=step))


def process_at(mark: Path) -> int:
    """The process of the run that has come half way, once there is one."""
    wait_until(lambda: mark.exists() and mark.read_text(), 120)
    return int(mark.read_text())


@dataclass(frozen=True, slots=True)
class Attempts:
    """At which step each attempt at a run began."""

    begun: dict[str, list[float]] = field(default_factory=dict)

    def see(self, event: Any) -> None:
        """Take an event."""
        if event.kind == "started":
            self.begun.setdefault(event.job.name, []).append(0.0)
        if event.kind == "progress":
            self.begun[event.job.name][-1] = event.contents["before"]

    def second(self) -> list[float]:
        """Where runs went on that were begun twice."""
        return [starts[1] for starts in self.begun.values() if len(starts) == 2]


def came_out(result: Result) -> object:
    """All that was measured, and the verdicts."""
    return measured(result), result.verdicts


def measured(result: Result) -> dict[tuple[str, str, int], object]:
    """All that was measured: final figures and curves of each run."""
    return {
        (r.part, r.variant, r.seed): (dict(r.measurements), dict(r.curves))
        for r in result.evidence.records
    }
