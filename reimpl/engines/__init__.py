"""Engines take jobs and yield what happens.

`processes` packs them on this machine, `ray` sends them to a cluster, `inprocess` is for debugging.
"""

import math
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from reimpl import cgroup
from reimpl.errors import RequestError
from reimpl.jobs import Job

SHARE_OF_MEMORY = 0.8
"""Of the memory that is free when the work begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a job."""

    kind: Literal["started", "progress", "point", "taken", "done", "lost", "refused"]
    """`taken`: another process makes the same runs, and the job waits, which may be said again and
    again. `done` carries the result, `lost` why its process died, `refused` a `ReimplError`."""
    job: Job
    contents: Mapping[str, Any] = field(default_factory=dict)


def cores() -> int:
    """Processors that this process may use."""
    here = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        here = len(os.sched_getaffinity(0))
    return max(1, math.ceil(min(here, cgroup.processors())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the jobs that run at once may take together."""

    threads: int
    memory_mb: float = math.inf

    def holds(self, job: Job, busy: Sequence[Job]) -> bool:
        """Whether the job fits beside those at work; one alone always does."""
        threads = job.cores + sum(other.cores for other in busy)
        memory = job.memory_mb + sum(other.memory_mb for other in busy)
        return not busy or (threads <= self.threads and memory <= self.memory_mb)


Run = Callable[..., Generator[Event]]
"""Runs `(jobs, room, until=…)` and yields what happens."""


def room(
    asked: int | None = None, *, device: str = "cpu", devices: int = 1, nodes: int = 1
) -> Room:
    """A thread for every core, or for as many as asked for, and most of the free memory.

    On a GPU, one job at a time unless more are asked for: a second would take memory and pace from
    the first. Several nodes do one job at a time.

    Args:
        asked: threads on the CPU, at most, jobs on a GPU.
        device: where the jobs compute.
        devices: processes that share one job.
        nodes: machines that share it.
    """
    import psutil

    free = min(psutil.virtual_memory().available, cgroup.memory_left()) / 2**20
    threads = min(asked or cores(), cores()) if device == "cpu" else (asked or 1) * devices
    threads = devices if nodes > 1 else threads
    return Room(threads=threads, memory_mb=SHARE_OF_MEMORY * free)


def at_once(jobs: Sequence[Job], room: Room) -> list[Job]:
    """The jobs that start together."""
    begun: list[Job] = []
    for job in jobs:
        if len(begun) == room.threads:
            break
        if room.holds(job, begun):
            begun.append(job)
    return begun


def check_ray(device: str, processes: int = 1) -> None:
    """Whether jobs can be sent to Ray from here.

    Raises:
        RequestError: Ray is not installed, the device is not one that it hands out, or a run should
            be shared.
    """
    if processes > 1:
        hint = "Ray places whole runs, as docs/clusters.md says"
        raise RequestError(f"--devices and --num-nodes do not go with --engine ray: {hint}")
    if find_spec("ray") is None:
        hint = "install it with: pip install 'reimpl[ray]'"
        raise RequestError(f"--engine ray needs ray, which is not here; {hint}")
    if device not in ("cpu", "cuda"):
        hint = "Ray chooses which one, so write --device cuda or cpu"
        raise RequestError(f"--device {device}: {hint}")
