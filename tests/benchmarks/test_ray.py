"""What Ray costs and gives, as ratios and milliseconds of one session; `make bench` prints them."""

import statistics
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from reimpl.planning import Request
from reimpl.reproduction import reproduce

WARM = 20
"""Runs after which workers are up and everything is imported."""


def note(benchmark: Any, name: str, value: float) -> None:
    benchmark.extra_info[name] = round(value, 3)


def request(paper: Path, runs: Path, **more: Any) -> Request:
    return Request(
        paper="tiny",
        papers=(paper,),
        runs=runs,
        variants=("two-inputs",),
        claims=("test-error",),
        wandb="disabled",
        engine="ray",
        **more,
    )


def nothing(paper: Path, log: Path) -> None:
    """A paper whose runs do nothing but leave their number in a log."""
    code = paper / "__init__.py"
    leave = f"open({str(log)!r}, 'a').write(f'{{context.seeds.run}}\\n')"
    fit = f"    fit=lambda variant, context: ({leave}, {{'test/error': 15.9}})[1],\n"
    fit += "    example=example,\n"
    code.write_text(code.read_text().replace("    example=example,\n", fit))


def finished(asked: Request) -> tuple[list[float], list[int]]:
    """When each run was recorded, and its seed."""
    times: list[float] = []
    seeds: list[int] = []

    def see(event: Any) -> None:
        if event.kind == "done":
            times.append(time.perf_counter())
            seeds.extend(event.job.seeds)

    assert reproduce(asked, watch=see).errors == []
    return times, seeds


def pace(times: list[float]) -> float:
    """Milliseconds for each run, once all is warm."""
    warm = times[WARM:]
    return 1e3 * (warm[-1] - warm[0]) / (len(warm) - 1)


def trivial() -> float:
    """Milliseconds of `ray.get` of a task that does nothing, on a warm worker."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    task = ray.remote(lambda: None)
    took = []
    for _ in range(300):
        began = time.perf_counter()
        ray.get(task.remote())
        took.append(time.perf_counter() - began)
    ray.shutdown()
    return 1e3 * statistics.median(took[WARM:])


def test_a_run_that_does_nothing_costs_little_more_than_a_task_of_rays_own(
    benchmark: Any, tiny_paper: Path, tmp_path: Path
) -> None:
    nothing(tiny_paper, tmp_path / "log")
    pairs = []
    for attempt in range(3):
        asked = request(tiny_paper, tmp_path / f"runs{attempt}", seeds=300, workers=1)
        pairs.append((pace(finished(asked)[0]), trivial()))
    ours, bare = (statistics.median(times) for times in zip(*pairs, strict=True))
    note(benchmark, "Ray: ms for a run that does nothing", ours)
    note(benchmark, "Ray: ms for its own trivial task", bare)
    benchmark.pedantic(lambda: None, rounds=1)
    assert ours <= bare + 5.0


@pytest.mark.timeout(1800)
def test_ten_thousand_runs_through_ray_none_lost_none_twice_and_none_slower(
    benchmark: Any, tiny_paper: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    nothing(tiny_paper, log)
    count = 10_000
    runs = tmp_path / "runs"
    times, seeds = finished(request(tiny_paper, runs, seeds=count, workers=2))
    assert sorted(seeds) == list(range(count))
    assert sorted(map(int, log.read_text().split())) == list(range(count))
    assert len(list(runs.glob("tiny*/two-inputs/*.json"))) == count
    growth = pace(times[-2000:]) / pace(times[:2000])
    note(benchmark, "Ray: ms for each of 10,000 runs", pace(times))
    note(benchmark, "Ray: last 2,000 of them / first 2,000", growth)
    benchmark.pedantic(lambda: None, rounds=1)
    assert growth <= 1.5


def test_two_workers_of_one_processor_beat_one(
    benchmark: Any, tiny_paper: Path, tmp_path: Path
) -> None:
    claims = tiny_paper / "claims.toml"
    claims.write_text(claims.read_text().replace("epochs = 10", "epochs = 400\nevaluate = 100"))

    def seconds(workers: int, attempt: int) -> float:
        runs = tmp_path / f"runs{workers}-{attempt}"
        times, _ = finished(request(tiny_paper, runs, seeds=16, workers=workers))
        return (times[-1] - times[3]) / (len(times) - 4)

    pairs = [(seconds(1, attempt), seconds(2, attempt)) for attempt in range(3)]
    one, two = map(min, zip(*pairs, strict=True))  # whatever disturbs a try only adds to it
    value = one / two
    note(benchmark, "Ray: one worker / two workers", value)
    benchmark.pedantic(lambda: None, rounds=1)
    assert value >= 1.8
