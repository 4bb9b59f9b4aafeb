"""Jobs as tasks of a Ray cluster: here, on several machines, on SLURM, on Kubernetes.

A task takes what its variant declares: processors, GPUs, memory. The driver alone writes records,
so that workers need not see its folder; where they do, they keep their checkpoints in it. A run
whose worker or node is lost is sent again: it goes on from its checkpoint, or from the start where
that folder cannot be seen.
"""

import asyncio
import resource
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from math import inf
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import (
    NodeDiedError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
    TaskUnschedulableError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from reimpl import data, jobs
from reimpl.engines import Event, Room, cluster
from reimpl.engines.processes import GRACE, TRIES
from reimpl.engines.ray_task import ENDS, Freight, Message, work
from reimpl.environment import environment
from reimpl.errors import RecordError, RequestError
from reimpl.jobs import Job, sources_read
from reimpl.records import Record

NODES = 10
"""How often a job is begun whose node dies: machines that can be taken away go in numbers."""
WAITING = 16
"""The least number of tasks that Ray knows of; of more it has twice what can run at once."""
FILES = 256
"""Open files that are left to Ray, torch and the records."""
GATHER = 0.01
"""Seconds that a first report waits for others, so that the disk is waited for once."""
LISTEN = 0.05
"""Seconds between looks at what has ended, when work breaks off."""
LISTENERS = 100_000
"""The most workers that wait for the bell."""
LOOK_EVERY = 5.0
"""Seconds between looks at the nodes that there are."""
PATIENCE = 300.0
"""Seconds in which a cluster may find a node for what none can take; one that grows needs some."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Flight:
    """A job that is claimed, and perhaps on its way."""

    job: Job
    left: Job
    kept: list[Record]
    claim: ExitStack
    begun: bool = False
    """Whether it is known to be on a worker."""
    worker_died: int = 0
    node_died: int = 0


def run(
    jobs: Sequence[Job],
    room: Room,
    *,
    address: str | None,
    most: int | None = None,
    until: float = inf,
) -> Generator[Event]:
    """Run jobs in order of their list, as the cluster has room, and yield what happens.

    Args:
        jobs: of one paper.
        room: of a cluster that is started here, the processors.
        address: `HOST:PORT` of a cluster, or `auto`; None starts one here.
        most: at an address, the most runs at once.
        until: the `time.monotonic()` at which work breaks off, with checkpoints kept.

    Raises:
        RequestError: no cluster answers, or it has no room for such a run.
    """
    first = jobs[0]
    with (
        cluster.packed(first) as parcel,
        _marked(first.root) as mark,
        cluster.connected(address, parcel.root, workers=room.threads),
    ):
        sources = sources_read(first.entry.claims, jobs) if address else {}
        freight = Freight(
            bell=_bell(),
            mark=mark,
            paper=parcel.paper,
            model=parcel.model,
            sources=sources,
            packed={name: ray.put(data.pack(source)) for name, source in sources.items()},
        )
        driver = _Driver(jobs, freight, most=most if address else None)
        driver.patience = PATIENCE if address else 0.0
        try:
            yield from driver.events(until)
        finally:
            driver.recall()


@contextmanager
def _marked(root: Path) -> Iterator[Path]:
    mark = root / f".ray-{uuid4().hex}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise RecordError(
            f"{root}: {error.strerror}. Choose a folder that can be written."
        ) from None
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def needs(job: Job) -> dict[str, float]:
    """What a job asks of a node, in Ray's words and units."""
    variant = job.entry.claims.variant(job.variant)
    gpus = {"GPU": variant.gpus} if job.device.startswith("cuda") else {}
    return {"CPU": max(variant.cpus, job.threads), "memory": int(job.memory_mb * 2**20), **gpus}


def _task(job: Job) -> Any:
    return _remote(tuple(needs(job).items()))


@cache
def _remote(wanted: tuple[tuple[str, float], ...]) -> Any:
    """The task of such needs; a repeated stream may tell otherwise, so that Ray repeats none."""
    of = dict(wanted)
    return ray.remote(
        num_cpus=of["CPU"],
        num_gpus=of.get("GPU", 0),
        memory=of["memory"],
        max_retries=0,
        num_returns="streaming",
    )(work)


class _Driver:
    """Keeps a window of jobs with Ray, so that thousands that wait cost nothing."""

    def __init__(self, jobs: Sequence[Job], freight: Freight, *, most: int | None) -> None:
        self.waiting, self.again = deque(jobs), deque[_Flight]()
        self.freight, self.most = freight, most
        self.flying: dict[Any, _Flight] = {}
        self.done: list[tuple[_Flight, list[Record]]] = []
        self.git = {
            name: value
            for name, value in environment(jobs[0].entry.folder).items()
            if name.startswith("git_")
        }
        self.patience = 0.0
        self.looked = self.heard = time.monotonic()
        self.window = self._window()
        self.needs = [dict(n) for n in {tuple(needs(job).items()) for job in jobs}]

    def events(self, until: float) -> Iterator[Event]:
        self.check_room()
        while (self.waiting or self.again or self.flying) and time.monotonic() < until:
            yield from self.send()
            if self.flying:
                yield from self.hear()
            elif self.waiting:
                time.sleep(jobs.WAIT)  # for runs that another process is making
            if time.monotonic() - self.looked > LOOK_EVERY:
                self.looked, self.window = time.monotonic(), self._window()
                self.check_room()

    def _window(self) -> int:
        return min(self.most or max(WAITING, 2 * cluster.cpus()), _files_allow())

    def check_room(self) -> None:
        """Give up on a cluster that has had no node for such a run in a long while.

        Raises:
            RequestError: says what is wanted.
        """
        lacking = [wanted for wanted in self.needs if not cluster.has_room_for(wanted)]
        if not lacking:
            self.heard = time.monotonic()
        elif time.monotonic() - self.heard >= self.patience:
            gpus = f", {lacking[0]['GPU']:g} GPUs" if "GPU" in lacking[0] else ""
            what = f"{lacking[0]['CPU']:g} CPUs{gpus} and {lacking[0]['memory'] / 2**20:,.0f} MB"
            raise RequestError(f"no node of the Ray cluster has the {what} that a run declares")

    # Out

    def send(self) -> Iterator[Event]:
        """Fill the window; what somebody else is making goes to the end of the line."""
        tried = 0
        while len(self.flying) < self.window and (self.again or tried < len(self.waiting)):
            flight = self.again.popleft() if self.again else self.claimed(self.waiting.popleft())
            if isinstance(flight, _Flight):
                flight.begun = False
                self.flying[_task(flight.left).remote(flight.left, self.freight)] = flight
            else:
                tried += flight.kind == "taken"
                yield flight

    def claimed(self, job: Job) -> "_Flight | Event":
        """The job, ready to go; or that it is done already, or that another makes it."""
        with ExitStack() as stack:
            if not stack.enter_context(jobs.claim(job)):
                self.waiting.append(job)
                return Event(kind="taken", job=job)
            kept, left = jobs.undone(job)
            if left is None:
                return Event(kind="done", job=job, contents={"result": kept})
            return _Flight(job=job, left=left, kept=kept, claim=stack.pop_all())

    # In

    def hear(self) -> Iterator[Event]:
        """What the tasks that have something to say tell."""
        if ray.wait(list(self.flying), num_returns=1, timeout=1.0)[0]:
            flying = list(self.flying)
            for task in ray.wait(flying, num_returns=len(flying), timeout=GATHER)[0]:
                yield from self.told(task)
        yield from self.kept()

    def told(self, task: Any) -> Iterator[Event]:
        flight = self.flying[task]
        flight.begun = True
        for kind, contents in self.messages(task, flight):
            if kind not in ENDS:
                yield Event(kind=kind, job=flight.job, contents=contents)  # type: ignore[arg-type]
                continue
            del self.flying[task]
            if kind == "done":
                self.done.append((flight, [self.signed(flight.job, r) for r in contents]))
            elif kind == "again":
                self.again.append(flight)
            else:
                flight.claim.close()
                name = "error" if kind == "refused" else "why"
                kind = "refused" if kind == "refused" else "lost"
                yield Event(kind=kind, job=flight.job, contents={name: contents})

    def messages(
        self, task: Any, flight: _Flight, *, patience: float | None = None
    ) -> list[Message]:
        """What a task says next, for which it has so many seconds, or as many as it wants."""
        try:
            report = task._next_sync(patience)
            said = [("silent", None)] if report.is_nil() else ray.get(report)
        except (RuntimeEnvSetupError, TaskUnschedulableError, RayTaskError) as error:
            return [("refused", RequestError(f"a worker cannot begin: {_last(error)}"))]
        except (RayError, StopIteration) as error:
            return [self.lost(flight, error)]
        if said[-1][0] == "died":
            flight.worker_died += 1
            said[-1] = self.fate(flight, f"its process was {said[-1][1]}, {TRIES} times")
        return said

    def kept(self) -> Iterator[Event]:
        """Write the records of what is done, together, and let others see them."""
        done, self.done = self.done, []
        jobs.keep([(flight.left, records) for flight, records in done])
        for flight, _ in done:
            flight.claim.close()
        for flight, records in done:
            result = [*flight.kept, *records]
            yield Event(kind="done", job=flight.job, contents={"result": result})

    def lost(self, flight: _Flight, error: Exception) -> Message:
        """What becomes of a job whose task died."""
        if isinstance(error, NodeDiedError):
            flight.node_died += 1
        else:
            flight.worker_died += 1
        died = f"{flight.worker_died} of its workers and {flight.node_died} of its nodes died"
        return self.fate(flight, f"{died}: {_last(error)}")

    def fate(self, flight: _Flight, why: str) -> Message:
        """Whether a job that was cut off is sent again, or else why not."""
        again = flight.worker_died < TRIES and flight.node_died < NODES
        return ("again", None) if again else ("broken", why)

    def signed(self, job: Job, record: Record) -> Record:
        """The record with what the driver alone knows: the state of its checkout."""
        return replace(record, model=job.model, environment={**record.environment, **self.git})

    # Back

    def recall(self) -> None:
        """Cancel what is queued; what runs has a moment to end or to write a checkpoint."""
        until = time.monotonic() + GRACE
        if self.flying:
            self.call_off()
        while self.flying and time.monotonic() < until:
            flying = list(self.flying)
            for task in ray.wait(flying, num_returns=len(flying), timeout=LISTEN)[0]:
                self.back(task)
        for task, flight in self.flying.items():
            ray.cancel(task, force=True)
            flight.claim.close()
        for flight in self.again:
            flight.claim.close()
        for _ in self.kept():
            pass

    def call_off(self) -> None:
        """Tell what runs to break off, and Ray to forget the rest.

        Ray would drop all that a cancelled task yet says, so what runs is not cancelled.
        """
        self.freight.bell.ring.remote()
        queued = [task for task, flight in self.flying.items() if not flight.begun]
        begun = ray.wait(queued, num_returns=len(queued), timeout=0)[0] if queued else []
        for task in set(queued) - set(begun):
            ray.cancel(task)

    def back(self, task: Any) -> None:
        """What a task still says: a result is kept, all else is as good as cancelled."""
        # Ray says of a cancelled task at once that it is ready, though it may yet run
        kind, contents = self.messages(task, self.flying[task], patience=GATHER)[-1]
        if kind in ENDS:
            flight = self.flying.pop(task)
            if kind == "done":
                self.done.append((flight, [self.signed(flight.job, r) for r in contents]))
            else:
                flight.claim.close()


class _Bell:
    """Rings at most once; an actor, because all workers of a cluster can listen to one."""

    def __init__(self) -> None:
        self.rung = asyncio.Event()

    async def ring(self) -> None:
        self.rung.set()

    async def heard(self) -> None:
        await self.rung.wait()


def _bell() -> Any:
    """A bell on the driver's own machine, so that no other that is lost takes it along."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    bell: Any = ray.remote(_Bell)
    return bell.options(num_cpus=0, max_concurrency=LISTENERS, scheduling_strategy=here).remote()


def _last(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _files_allow() -> int:
    """The most runs for which this process may open files: a claim, and a line to the worker."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if most == resource.RLIM_INFINITY else max(1, (most - FILES) // 2)
