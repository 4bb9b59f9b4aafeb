"""Runs packed as the planner packs them, against one process with all threads, for every paper."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reimpl import registry
from reimpl.engines import Room, cores
from reimpl.engines.processes import Team
from reimpl.jobs import Job
from reimpl.planning import Probes, Request, open_data, plan

ROUNDS = 3
TYPICAL = {
    "bai2018_tcn": "adding-600-tcn",
    "ioffe2015_batchnorm": "bn",
    "kim2014_textcnn": "cnn-rand-trec",
    "kipf2017_gcn": "cora-renormalisation",
    "lecun1998_lenet5": "lenet5",
    "nanda2023_grokking": "mainline",
    "rumelhart1986_backprop": "families",
    "santurkar2018_bn_optimization": "vgg-bn",
    "schulman2017_ppo": "hopper-clip",
    "wang2012_nbsvm": "nbsvm-bi-mr",
}
"""A variant of each paper; one that is not here fails."""


def typical_seconds(team: Team, jobs: Sequence[Job]) -> float:
    events = team.run(jobs, Room(threads=cores()))
    return statistics.median(
        event.contents["result"].seconds for event in events if event.kind == "done"
    )


@pytest.mark.data
@pytest.mark.skipif(cores() == 1, reason="one core packs nothing")
@pytest.mark.parametrize("paper", [entry.slug for entry in registry.entries()])
def test_packed_runs_get_as_much_done_as_one_process_with_all_threads(
    benchmark: Any, paper: str, tmp_path: Path
) -> None:
    asked = Request(paper=paper, variants=(TYPICAL[paper],), runs=tmp_path)
    with Team() as team:
        made = plan(asked, probes=Probes(of="here", run=team.run))
        chosen = next(job for job in made.jobs if job.part == "train")
        open_data(made.entry.claims, [chosen])
        packed = [replace(chosen, part="probe") for _ in range(cores() // chosen.threads)]
        alone = [replace(chosen, part="probe", threads=cores())]
        pairs = [
            (typical_seconds(team, alone), typical_seconds(team, packed))
            for _ in range(ROUNDS if len(packed) > 1 else 0)
        ]
    assert all(seconds > 0 for pair in pairs for seconds in pair)
    gains = [len(packed) * one / several for one, several in pairs]
    gain = statistics.median(gains) if gains else 1.0  # the planner takes all threads itself
    benchmark.extra_info[f"{paper}, threads of a run"] = chosen.threads
    benchmark.extra_info[f"{paper}, packed / one process with all threads"] = round(gain, 2)
    benchmark.pedantic(lambda: None, rounds=1)
    assert gain >= 0.95
