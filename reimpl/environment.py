"""Where and when a run was made: versions, machine, commit and time; no person, host or path."""

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from reimpl.installed import version


def environment(folder: Path | None = None) -> dict[str, Any]:
    """Versions, machine and the git state of `folder`; names no person, host or path."""
    return {**_machine(), "threads": _threads(), "gpu": _gpu(), **_git(folder)}


class Clock:
    """When a run began, and what it took, with the attempts that were cut off."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.begins_again()

    def begins_again(self) -> None:
        """Count from now on; what was taken before, a checkpoint says."""
        self.wall, self.cpu = time.monotonic(), time.process_time()

    def took(self) -> tuple[float, float]:
        """Seconds of wall and processor time so far."""
        return time.monotonic() - self.wall, time.process_time() - self.cpu

    def goes_on(self, wall: float, cpu: float) -> None:
        """Count the seconds that earlier attempts took until their last checkpoint."""
        self.wall, self.cpu = self.wall - wall, self.cpu - cpu


@cache
def _machine() -> Mapping[str, Any]:
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "lightning": version("pytorch-lightning"),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": _cores(),
    }


def _cpu() -> str:
    with suppress(OSError):
        named = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if named:
            return named[1].strip()
    if sys.platform == "darwin":
        return _said("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _threads() -> int | None:
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None


@cache
def _git(folder: Path | None) -> Mapping[str, Any]:
    """The commit, and whether anything but a log was changed beside it."""
    where = ("-C", str(folder)) if folder else ()
    said = _said("git", "--no-optional-locks", *where, "status", "--porcelain=v2", "--branch")
    commit = re.match(r"# branch\.oid ([0-9a-f]+)$", said or "", re.MULTILINE)
    if said is None or commit is None:
        return {"git_commit": None, "git_dirty": None}
    dirty = any(not line.startswith("#") and not _is_log(line) for line in said.splitlines())
    return {"git_commit": commit[1], "git_dirty": dirty}


def _is_log(line: str) -> bool:
    """A log that git does not know; any other such file may be one that runs read."""
    return line.startswith("? ") and line.rstrip('"').endswith((".log", ".out"))


def _said(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
