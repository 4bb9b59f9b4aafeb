"""What the control groups of this process leave it: those of a container, or of a job of SLURM's.

Linux alone has them, in two versions; where nothing is limited, the answers are infinite.
"""

from collections.abc import Iterator
from math import inf
from pathlib import Path

OWN = Path("/proc/self/cgroup")
"""The groups of this process: `NUMBER:CONTROLLERS:PATH`; no controllers in version 2."""
ROOT = Path("/sys/fs/cgroup")
MEMORY = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""In both versions: limit, usage, and what of `memory.stat` is a cache that gives way."""


def memory_left() -> float:
    """Bytes that may yet be taken."""
    left = (_left(group, *names) for group in _around("memory") for names in MEMORY)
    return max(0.0, min(left, default=inf))


def processors() -> float:
    """Processors' worth of time that may be taken; 1.5 is one and a half."""
    return min(map(_quota, _around("cpu")), default=inf)


def _around(controller: str) -> Iterator[Path]:
    """The group of this process and those around it, for each limits what is inside.

    In a container, the inner ones may be folders that it does not see.
    """
    try:
        lines = OWN.read_text().splitlines()
    except OSError:
        return
    for _, names, path in (line.split(":", 2) for line in lines):
        if names == "" or controller in names.split(","):
            top = ROOT / controller if names else ROOT
            group = top / path.lstrip("/")
            yield from (g for g in (group, *group.parents) if g.is_relative_to(top))


def _left(group: Path, limit: str, usage: str, cache: str) -> float:
    try:
        most = float((group / limit).read_text().replace("max", "inf"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return most - float((group / usage).read_text()) + float(stat.get(cache, 0))
    except (OSError, ValueError):  # of the other version, or not limited
        return inf


def _quota(group: Path) -> float:
    """Microseconds of processors in a period, by its length."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((group / name).read_text() for name in names).split()
        except (OSError, ValueError):
            continue
        return inf if quota in ("max", "-1") else float(quota) / float(period)
    return inf
