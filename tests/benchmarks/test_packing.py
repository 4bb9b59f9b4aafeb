"""Runs packed with a thread each against one process with all threads, for every paper."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reimpl.engines import Room, cores
from reimpl.engines.processes import Team
from reimpl.estimates import GAIN
from reimpl.jobs import Job
from reimpl.planning import Request, open_data, plan

ROUNDS = 3
FEW = [
    ("rumelhart1986", "families"),
    ("lecun1998", "lenet5"),
    ("wang2012", "nbsvm-bi-mr"),
    ("kim2014", "cnn-rand-trec"),
    ("kipf2017", "cora-renormalisation"),
    ("nanda2023", "mainline"),
    ("ioffe2015", "bn"),
    ("santurkar2018", "vgg-bn"),
    ("bai2018", "adding-600-tcn"),
    ("schulman2017", "hopper-clip"),
]


def typical_seconds(team: Team, jobs: Sequence[Job]) -> float:
    events = team.run(jobs, Room(threads=cores()))
    return statistics.median(
        event.contents["result"].seconds for event in events if event.kind == "done"
    )


@pytest.mark.data
@pytest.mark.skipif(cores() == 1, reason="one core packs nothing")
@pytest.mark.parametrize(("paper", "variant"), FEW, ids=[paper for paper, _ in FEW])
def test_packed_runs_get_as_much_done_as_one_process_with_all_threads(
    benchmark: Any, paper: str, variant: str, tmp_path: Path
) -> None:
    made = plan(Request(paper=paper, variants=(variant,), runs=tmp_path), estimate=False)
    job = next(job for job in made.jobs if job.part == "train")
    open_data(made.entry.claims, [job])
    packed = [replace(job, part="probe", threads=1) for _ in range(cores())]
    alone = [replace(job, part="probe", threads=cores())]
    with Team() as team:
        pairs = [
            (typical_seconds(team, alone), typical_seconds(team, packed)) for _ in range(ROUNDS)
        ]
    assert all(seconds > 0 for pair in pairs for seconds in pair)
    gain = statistics.median(cores() * alone / packed for alone, packed in pairs)
    tried = made.entry.claims.variant(variant).recipe is not None  # a `fit` has one thread
    taken = max(gain, 1.0) if tried and gain < 1 / GAIN else gain  # or the planner takes them all
    benchmark.extra_info[f"{paper}, packed / one process with all threads"] = round(gain, 2)
    benchmark.pedantic(lambda: None, rounds=1)
    assert taken >= 0.95
