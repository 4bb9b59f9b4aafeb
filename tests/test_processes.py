import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reimpl.engines import Room
from reimpl.engines.processes import Team
from reimpl.jobs import Job
from reimpl.planning import Request, plan
from tests.disturbing import command, first_thing
from tests.test_noop import nothing


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    """Runs that measure the number of their process."""
    paper = nothing(tmp_path, tmp_path / "log")
    code = paper / "__init__.py"
    text = code.read_text().replace("float(context.seeds.run)", "float(os.getpid())")
    code.write_text(text.replace("from reimpl.paper", "import os\n\nfrom reimpl.paper"))
    asked = Request(paper="noop", papers=(paper,), runs=tmp_path / "runs", seeds=4)
    return plan(asked, estimate=False).jobs


@pytest.fixture
def team() -> Iterator[Team]:
    with Team() as team:
        yield team


def at_work(team: Team) -> int:
    return sum(worker.job is not None for worker in team.workers)


def pids(team: Team, jobs: Sequence[Job], room: Room) -> list[int]:
    """The processes that did the jobs, in order."""
    done = [event for event in team.run(jobs, room) if event.kind == "done"]
    return [int(record.measurements["test/error"]) for e in done for record in e.contents["result"]]


@pytest.mark.parametrize(
    ("room", "more", "most"),
    [
        (Room(threads=2), {}, 2),
        (Room(threads=2), {"threads": 2}, 1),
        (Room(threads=1), {"threads": 2}, 1),
        (Room(threads=4, memory_mb=2000), {"memory_mb": 900}, 2),
        (Room(threads=4, memory_mb=2000), {"memory_mb": 5000}, 1),
    ],
    ids=["threads", "wide", "wider than the room", "memory", "larger than the room"],
)
def test_as_many_are_at_work_as_the_room_holds(
    team: Team, jobs: list[Job], room: Room, more: dict[str, Any], most: int
) -> None:
    events = team.run([replace(job, **more) for job in jobs], room)
    assert max(at_work(team) for _ in events) == most
    assert len(team.workers) == most


@pytest.mark.parametrize(("memory_mb", "processes"), [(1, 3), (100_000, 1)])
def test_a_worker_that_has_grown_is_replaced(
    team: Team, jobs: list[Job], memory_mb: int, processes: int
) -> None:
    declared = [replace(job, memory_mb=memory_mb) for job in jobs[:3]]
    assert len(set(pids(team, declared, Room(threads=1)))) == processes


@pytest.mark.parametrize(("memory_mb", "kept"), [(990, 1), (500, 2)])
def test_idle_workers_make_way_for_a_job_that_needs_their_memory(
    team: Team, jobs: list[Job], memory_mb: int, kept: int
) -> None:
    room = Room(threads=2, memory_mb=1000)
    assert len(set(pids(team, [replace(job, memory_mb=499) for job in jobs[:2]], room))) == 2
    before = {worker.process.pid for worker in team.workers}
    (one,) = pids(team, [replace(jobs[2], memory_mb=memory_mb)], room)
    assert one in before
    assert len(team.workers) == kept


@pytest.mark.parametrize("engine", ["processes", "inprocess"])
def test_what_a_paper_prints_does_not_stand_in_the_json(
    tiny_paper: Path, tmp_path: Path, engine: str
) -> None:
    first_thing(tiny_paper, "print('a word')", of="def counts(variant):")
    asked = command(tiny_paper, tmp_path / "runs", "--claim", "parameters", "--engine", engine)
    said = subprocess.run([*asked, "--json"], capture_output=True, text=True, check=True)
    assert [claim["lane"] for claim in json.loads(said.stdout)["claims"]] == ["reproduced"]
    assert "a word" in said.stderr
