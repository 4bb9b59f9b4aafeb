"""Jobs one after another in this process: for debuggers, and where processes are not wanted."""

import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import redirect_stdout
from math import inf
from typing import Any

from reimpl.engines import Event, Room
from reimpl.errors import ReimplError
from reimpl.jobs import WAIT, Job, Probe, execute
from reimpl.records import Record


def run(jobs: Sequence[Job], _room: Room, *, until: float = inf) -> Generator[Event]:
    """Yield what happens; a job's own points come together, when it is done.

    No job begins after `until` (of `time.monotonic()`).
    """
    for job in jobs:
        if time.monotonic() >= until:
            return
        yield Event(kind="started", job=job)
        seen: list[Event] = []

        def emit(
            kind: str, contents: Mapping[str, Any], job: Job = job, seen: list[Event] = seen
        ) -> None:
            if kind == "point":
                seen.append(Event(kind="point", job=job, contents=contents))

        try:
            while (result := _executed(job, emit)) is None:
                yield Event(kind="taken", job=job)
                time.sleep(WAIT)
        except ReimplError as error:
            yield Event(kind="refused", job=job, contents={"error": error})
            return
        yield from seen
        yield Event(kind="done", job=job, contents={"result": result})


def _executed(
    job: Job, emit: Callable[[str, Mapping[str, Any]], None]
) -> list[Record] | Probe | None:
    """Do the job; what a paper prints goes to stderr, for stdout is for what was asked for."""
    with redirect_stdout(sys.stderr):
        return execute(job, emit)
