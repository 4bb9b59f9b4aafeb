"""Jobs packed into processes, as many as the room holds: on small networks one thread each.

Every worker has a pipe of its own, so that one that is killed takes nothing with it: its job is
tried once more, from its checkpoint, and the others do not notice. What another process is making
goes to the end of the line. Workers end when the parent does, and one that has grown beyond what
its job declared makes way for a fresh one, as does one that has imported a paper since edited; idle
ones make way for a job that needs their memory.
"""

import subprocess
import time
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from math import inf
from multiprocessing.connection import Connection, wait
from typing import Any, Self

from reimpl import children
from reimpl.engines import Event, Room
from reimpl.jobs import WAIT, Job

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
AHEAD = 64
"""How many waiting jobs are looked at for one that fits into the room left."""
GROWN = 1.5
"""Times the declared memory at which a worker is replaced when it is free."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker:
    process: "subprocess.Popen[bytes]"
    pipe: Connection
    job: Job | None = None
    code: str | None = None
    """The paper's, as it has imported it."""
    gone: bool = False


class _Line:
    """Jobs that wait for a worker."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.waiting = deque(jobs)
        self.resting = deque[tuple[float, Job]]()
        self.tries = Counter[int]()

    def is_left(self) -> bool:
        return bool(self.waiting or self.resting)

    def next(self, busy: Sequence[Job], room: Room) -> Job | None:
        """Take the first job that fits; wide ones go when they can, others meanwhile."""
        while self.resting and self.resting[0][0] <= time.monotonic():
            self.waiting.append(self.resting.popleft()[1])
        if len(busy) >= room.threads:
            return None
        for place, job in enumerate(islice(self.waiting, AHEAD)):
            if room.holds(job, busy):
                del self.waiting[place]
                self.tries[id(job)] += 1
                return job
        return None

    def takes_back(self, event: Event, *, gone: bool) -> bool:
        """Whether the job is to be done yet: another makes it now, or its worker has gone."""
        if event.kind == "taken":
            self.tries[id(event.job)] -= 1
            self.resting.append((time.monotonic() + WAIT, event.job))
            return True
        if gone and self.tries[id(event.job)] < TRIES:
            self.waiting.appendleft(event.job)
            return True
        return False


class Team:
    """Worker processes, which serve one list of jobs after another until the block ends."""

    def __init__(self) -> None:
        self.workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _stop(self.workers)

    def run(self, jobs: Sequence[Job], room: Room, *, until: float = inf) -> Generator[Event]:
        """Run jobs in order of their list, as room becomes free, and yield what happens.

        Args:
            jobs: what to run.
            room: what may be taken at once.
            until: the `time.monotonic()` at which work breaks off, with checkpoints kept.
        """
        line, team = _Line(jobs), self.workers
        codes = {_code(job) for job in jobs}
        self._dismiss([w for w in team if w.code is not None and w.code not in codes])
        try:
            while (line.is_left() or _busy(team)) and time.monotonic() < until:
                while (job := line.next(_busy(team), room)) is not None:
                    self._dismiss(_in_the_way(team, job, room))
                    _send(_free(team, job), job)
                for worker in _speaking(team):
                    event = _receive(worker)
                    if worker.gone or (event and worker.job is None and _grown(worker, event.job)):
                        self._dismiss([worker])
                    if event is None:
                        continue
                    back = line.takes_back(event, gone=worker.gone)
                    if event.kind == "taken" or not back:
                        yield event
        finally:
            self._dismiss([worker for worker in team if worker.job is not None])

    def _dismiss(self, workers: Sequence[_Worker]) -> None:
        self.workers[:] = [worker for worker in self.workers if worker not in workers]
        _stop(workers)


def _busy(team: Sequence[_Worker]) -> list[Job]:
    return [worker.job for worker in team if worker.job is not None]


def _in_the_way(team: Sequence[_Worker], job: Job, room: Room) -> list[_Worker]:
    """Idle workers, but for the one that will take the job, if it does not fit beside them all."""
    idle = [worker for worker in team if worker.job is None][1:]
    if not idle:
        return []
    declared = sum(other.memory_mb for other in (job, *_busy(team)))
    return idle if declared + sum(map(_held, idle)) > room.memory_mb else []


def _free(team: list[_Worker], job: Job) -> _Worker:
    """A worker for the job, a new one when all are at work."""
    worker = next((worker for worker in team if worker.job is None), None)
    if worker is None:
        worker = _start()
        team.append(worker)
    worker.job, worker.code = job, _code(job)
    return worker


def _code(job: Job) -> str:
    return job.key_parts[0]["paper_code"]


def _grown(worker: _Worker, job: Job) -> bool:
    """Whether it holds far more memory than its job declared."""
    return _held(worker) > GROWN * job.memory_mb


def _held(worker: _Worker) -> float:
    """Megabytes that it holds; none when it has gone."""
    import psutil

    try:
        return psutil.Process(worker.process.pid).memory_info().rss / 2**20
    except psutil.Error:
        return 0.0


def _speaking(team: Sequence[_Worker]) -> list[_Worker]:
    """Workers that have something to say, or have gone."""
    pipes = wait([worker.pipe for worker in team], timeout=1.0)
    return [worker for worker in team if worker.pipe in pipes]


def _start() -> _Worker:
    process, pipe = children.start("reimpl.engines.worker", ENVIRONMENT)
    return _Worker(process=process, pipe=pipe)


def _send(worker: _Worker, message: Any) -> None:
    with suppress(OSError):  # `wait` reports the closed pipe of a worker that has gone
        worker.pipe.send(message)


def _receive(worker: _Worker) -> Event | None:
    """What a worker says; one that died at work has lost its job."""
    job = worker.job
    try:
        kind, *contents = worker.pipe.recv()
    except (EOFError, OSError):
        worker.gone = True
        status = worker.process.wait()
        why = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
        contents = {"why": f"its process was {why}, {TRIES} times"}
        return Event(kind="lost", job=job, contents=contents) if job else None
    if kind == "ready" or job is None:
        return None
    if kind == "event":
        return Event(kind=contents[0], job=job, contents=contents[1])
    worker.job = None
    if kind == "taken":
        return Event(kind="taken", job=job)
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
