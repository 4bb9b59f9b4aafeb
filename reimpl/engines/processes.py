"""Jobs packed into processes of one thread each.

On small networks that beats one process with all threads. Every worker has a pipe of its own, so
that one that is killed takes nothing with it: its job is tried once more, from its checkpoint, and
the others do not notice. Workers end when the parent does.
"""

import os
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from reimpl.engines import Event
from reimpl.errors import RunError
from reimpl.jobs import Job

TRIES = 2
"""How often a job is begun whose worker dies."""
ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    # glibc: keep freed blocks, or every evaluation hands its pages back and faults them in again
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
}
"""One thread for each worker, and no churn of memory."""
GRACE = 5.0
"""Seconds a worker has to write its checkpoint when it is told to stop."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker:
    process: "subprocess.Popen[bytes]"
    pipe: Connection
    job: Job | None = None


def run(jobs: Sequence[Job], *, workers: int) -> Iterator[Event]:
    """Run jobs in order of their list, as workers become free, and yield what happens."""
    waiting, tries = deque(jobs), Counter[int]()
    team = [_start() for _ in range(min(workers, len(jobs)))]
    try:
        while waiting or any(worker.job for worker in team):
            for worker in team:
                if worker.job is None and waiting:
                    worker.job = waiting.popleft()
                    tries[id(worker.job)] += 1
                    _send(worker, worker.job)
                    yield Event(kind="started", job=worker.job)
            for worker in _speaking(team):
                event = _receive(worker)
                if event is not None and event.kind == "lost" and worker.process.poll() is not None:
                    team[team.index(worker)] = _start()
                    if tries[id(event.job)] < TRIES:
                        waiting.appendleft(event.job)
                        event = None
                if event is not None:
                    yield event
    finally:
        _stop(team)


def _speaking(team: Sequence[_Worker]) -> list[_Worker]:
    """Workers that have something to say, or have gone."""
    pipes = wait([worker.pipe for worker in team], timeout=1.0)
    return [worker for worker in team if worker.pipe in pipes]


def _start() -> _Worker:
    ours, theirs = Pipe()
    command = [sys.executable, "-m", "reimpl.engines.worker", str(theirs.fileno())]
    process = subprocess.Popen(
        command,
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches the parent only, which tells the workers
        env={**os.environ, **ENVIRONMENT},
    )
    theirs.close()
    return _Worker(process=process, pipe=ours)


def _send(worker: _Worker, message: Any) -> None:
    with suppress(OSError):  # `wait` reports the closed pipe of a worker that has gone
        worker.pipe.send(message)


def _receive(worker: _Worker) -> Event | None:
    """What a worker says; a worker that dies idle is replaced when it is next needed."""
    job = worker.job
    try:
        kind, *contents = worker.pipe.recv()
    except (EOFError, OSError):
        status = worker.process.wait()
        why = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
        if job is None:
            raise RunError(
                f"a worker process {why} before it had work; see `reimpl doctor`"
            ) from None
        return Event(
            kind="lost", job=job, contents={"why": f"its process was {why}, {TRIES} times"}
        )
    if kind == "ready" or job is None:
        return None
    if kind == "event":
        return Event(kind=contents[0], job=job, contents=contents[1])
    worker.job = None
    if kind == "broken":
        return Event(kind="lost", job=job, contents={"why": contents[0]})
    name = "result" if kind == "done" else "error"
    return Event(kind=kind, job=job, contents={name: contents[0]})


def _stop(team: Sequence[_Worker]) -> None:
    """Busy workers write a checkpoint first; whoever takes too long is killed."""
    until = time.monotonic() + GRACE
    for worker in team:
        _send(worker, "stop")
    for worker in team:
        try:
            worker.process.wait(max(0.05, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        worker.pipe.close()
