"""What a command takes that finds everything done, beside the least that any command takes."""

import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any


def used(*words: str) -> float:
    """Processor seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [sys.executable, "-m", "reimpl", *words]
    subprocess.run(line, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_second_reproduction_costs_little_more_than_a_list(
    benchmark: Any, tiny_paper: Path, tmp_path: Path
) -> None:
    again = ["reproduce", "tiny", "--papers", str(tiny_paper), "--runs", str(tmp_path / "runs")]
    used(*again)
    ours = statistics.median(used(*again) / used("list") for _ in range(7))
    benchmark.extra_info["a second reproduce / reimpl list"] = round(ours, 3)
    benchmark.pedantic(lambda: used(*again), rounds=1)
    assert ours <= 1.5
