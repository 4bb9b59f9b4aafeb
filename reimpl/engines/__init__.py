"""Engines take jobs and yield what happens: `processes` packs, `inprocess` is for debugging."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from reimpl.jobs import Job

Execute = Callable[[Job, Callable[[str, Mapping[str, Any]], None]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a job."""

    kind: Literal["started", "progress", "point", "done", "lost", "refused"]
    """`done` carries the result, `lost` why its process died, `refused` a `ReimplError`."""
    job: Job
    contents: Mapping[str, Any] = field(default_factory=dict)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_workers(jobs: Sequence[Job], *, memory_mb: int, asked: int | None = None) -> int:
    """How many processes of one thread each: one per core, as far as free memory goes."""
    import psutil

    free = psutil.virtual_memory().available / 2**20
    fit = max(1, int(0.8 * free // max(memory_mb, 1)))
    return max(1, min(asked or cores(), fit, len(jobs)))
