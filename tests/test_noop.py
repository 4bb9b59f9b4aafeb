"""Runs that do nothing, by the hundred: what the harness itself takes, and whether it grows."""

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest

from reimpl.planning import Request
from reimpl.reproduction import reproduce

CODE = '''"""A paper whose runs do nothing but leave their number in a log."""

from reimpl.paper import Paper


def fit(variant, context):
    with open({log!r}, "a") as log:
        log.write(f"{{context.seeds.run}}\\n")
    return {{"test/error": float(context.seeds.run)}}


PAPER = Paper(slug="noop2026_nothing", fit=fit)
'''
CLAIMS = """[paper]
title = "Nothing"
authors = ["N. Body"]
year = 2026
url = "https://example.org/nothing"

[metric."test/error"]
unit = "%"
better = "lower"
definition = "the number of the run"

[[variant]]
id = "nothing"
says = "nothing is done"
source = "sec. 1"

[[claim]]
id = "none"
kind = "value"
says = "nothing comes of nothing"
source = "sec. 1"
metric = "test/error"
variant = "nothing"
published = "0.0"
margin = 1.0
margin_reason = "any"
cost = "minutes"
"""


def nothing(parent: Path, log: Path) -> Path:
    folder = parent / "papers" / "noop2026_nothing"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(CODE.format(log=str(log)))
    (folder / "claims.toml").write_text(CLAIMS)
    return folder


Engine = Literal["processes", "inprocess", "ray"]


def check(place: Path, engine: Engine, count: int) -> tuple[float, ...]:
    """None lost, none twice; seconds of a run in the best ten of the first and of the last tenth.

    Ten that follow each other; the best, because other tests are at work beside this one.
    """
    done: list[tuple[int, float]] = []
    log = place / "log"

    def watch(event: Any) -> None:
        if event.kind == "done":
            done.extend((record.seed, time.monotonic()) for record in event.contents["result"])

    request = Request(
        paper="noop2026_nothing",
        papers=(nothing(place, log),),
        runs=place / "runs",
        seeds=count,
        engine=engine,
        workers=2,
        wandb="disabled",
    )
    result = reproduce(request, watch=watch)
    wanted = Counter(range(count))
    assert Counter(map(int, log.read_text().split())) == wanted
    assert Counter(seed for seed, _ in done) == wanted
    assert Counter(record.seed for record in result.fresh) == wanted
    assert Counter(record.seed for record in result.evidence.records) == wanted
    assert all(r.measurements == {"test/error": float(r.seed)} for r in result.evidence.records)
    assert len(list((place / "runs").glob("noop*/nothing/*.json"))) == count
    assert len(list((place / "runs" / ".locks").glob("*"))) <= 1
    again = reproduce(request)
    assert (again.fresh, again.verdicts) == ((), result.verdicts)
    times = [time_ for _, time_ in done]
    each = [(after - before) / 10 for before, after in zip(times, times[10:], strict=False)]
    tenth = count // 10
    return min(each[:tenth]), min(each[-tenth:])


@pytest.mark.parametrize("engine", ["processes", "inprocess"])
def test_five_hundred_runs_that_do_nothing_are_all_there_once_and_take_no_longer_at_the_end(
    tmp_path: Path,
    engine: Engine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tries = [check(tmp_path / str(attempt), engine, 500) for attempt in range(3)]
    first, last = map(min, zip(*tries, strict=True))  # whatever disturbs a try only adds to it
    with capsys.disabled():
        sys.stdout.write(f"\n{engine}: {1000 * first:.1f} ms a run, {1000 * last:.1f} at the end\n")
    assert last <= 2 * first


@pytest.mark.slow
def test_two_hundred_runs_that_do_nothing_are_all_there_once_through_ray(tmp_path: Path) -> None:
    check(tmp_path, "ray", 200)
