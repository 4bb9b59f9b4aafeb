import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reimpl.claims import Claims
from reimpl.engines import Event, Room, at_once, inprocess
from reimpl.estimates import (
    Estimator,
    Planned,
    Probing,
    Tell,
    Want,
    peak_memory_mb,
    wall_seconds,
    within,
)
from reimpl.jobs import Job, Probe, computing, execute
from reimpl.planning import Request, plan
from reimpl.reading import load_claims
from reimpl.records import Record
from reimpl.registry import Entry, find
from reimpl.report import plan_line
from reimpl.reproduction import plans, reproduce

QUAD = Room(threads=4, memory_mb=10_000)


@pytest.fixture
def entry(tiny_paper: Path) -> Entry:
    return find("tiny", (tiny_paper,))


@pytest.fixture
def claims(tiny_paper: Path) -> Claims:
    return load_claims(tiny_paper / "claims.toml")


def work(
    entry: Entry, variant: str, runs: int, *, seconds: float | None = None, memory: float = 100
) -> Planned:
    jobs = [
        Job(
            entry=entry,
            variant=variant,
            seeds=(seed,),
            keys=(f"{variant}{seed}",),
            key_parts=({"seed": str(seed), "variant": variant},),
            root=Path("runs"),
            memory_mb=memory,
        )
        for seed in range(runs)
    ]
    return Planned(
        variant=variant,
        part="train",
        seeds=tuple(range(runs)),
        cached=(),
        jobs=tuple(jobs),
        seconds=seconds,
    )


def want(name: str, *variants: str, rank: int = 0) -> Want:
    return Want(name=name, variants=frozenset(variants), rank=rank)


# Time and memory of the whole


def test_work_is_shared_out_but_no_run_is_cut(entry: Entry) -> None:
    assert wall_seconds([work(entry, "a", 8, seconds=80)], QUAD) == 20
    assert wall_seconds([work(entry, "a", 2, seconds=80)], QUAD) == 40
    many = [work(entry, "a", 8, seconds=80), work(entry, "b", 1, seconds=50)]
    assert wall_seconds(many, QUAD) == 50


def test_memory_bounds_how_many_go_at_once(entry: Entry) -> None:
    large = work(entry, "a", 8, seconds=80, memory=4000)
    assert len(at_once(large.jobs, QUAD)) == 2
    assert wall_seconds([large], QUAD) == 40
    assert peak_memory_mb([large], QUAD) == 8000
    beyond = work(entry, "a", 3, memory=50_000)
    assert len(at_once(beyond.jobs, QUAD)) == 1


# Budget


def test_the_cheapest_wants_come_first_and_shared_work_is_paid_once(entry: Entry) -> None:
    planned = [work(entry, name, 4, seconds=s) for name, s in (("a", 40), ("b", 80), ("c", 120))]
    wants = [want("abc", "a", "b", "c"), want("b", "b"), want("ab", "a", "b")]
    room = Room(threads=1)
    fits, beyond = within(planned, wants, seconds=130, room=room)
    assert [p.variant for p in fits] == ["b", "a"]  # in the order of work
    assert list(beyond) == ["abc"]
    late = dict.fromkeys(["b", "ab", "abc"], "beyond the budget")
    assert within(planned, wants, seconds=79, room=room) == ([], late)
    a, b, c = planned
    assert within(planned, wants, seconds=240, room=room) == ([b, a, c], {})


def test_a_lower_rank_comes_first_whatever_it_costs(entry: Entry) -> None:
    planned = [work(entry, "dear", 4, seconds=100), work(entry, "cheap", 4, seconds=10)]
    wants = [want("decided", "cheap", rank=2), want("open", "dear", rank=1)]
    fits, beyond = within(planned, wants, seconds=105, room=Room(threads=1))
    assert [p.variant for p in fits] == ["dear"]
    assert list(beyond) == ["decided"]


def test_counting_a_variant_fits_where_training_it_does_not(entry: Entry) -> None:
    counts = replace(work(entry, "two-inputs", 1, seconds=0.1), part="counts")
    training = work(entry, "two-inputs", 5, seconds=500)
    wants = [
        Want(name="test-error", variants=frozenset({"two-inputs"}), rank=1),
        Want(name=counts.label, variants=frozenset({counts.label})),
    ]
    taken, beyond = within([training, counts], wants, seconds=5, room=QUAD)
    assert (taken, list(beyond)) == ([counts], ["test-error"])


def test_kept_probes_that_are_no_table_are_none(
    claims: Claims, entry: Entry, tmp_path: Path
) -> None:
    for text in ("[]", "null", '"s"', '{"a": 1}', "{"):
        (tmp_path / "probes.json").write_text(text)
        found = estimated(claims, tmp_path, Machine({1: 4, 4: 4}), work(entry, "two-inputs", 8))
        assert found.basis == "a short probe here"


def test_work_of_unknown_length_fits_no_budget(entry: Entry) -> None:
    planned = [work(entry, "a", 1)]
    why = {"a": "its time is not known before the first run"}
    assert within(planned, [want("a", "a")], seconds=1e9, room=QUAD) == ([], why)


def test_what_broke_in_a_probe_fits_every_budget(entry: Entry) -> None:
    broken = replace(work(entry, "a", 1), broken="ValueError: no")
    assert within([broken], [want("a", "a")], seconds=1, room=QUAD) == ([broken], {})


def test_a_budget_runs_what_fits_and_says_what_it_leaves(tiny_paper: Path, tmp_path: Path) -> None:
    request = Request(paper="tiny", papers=(tiny_paper,), runs=tmp_path, engine="inprocess")
    reproduce(replace(request, seeds=1))
    slow = {"two-inputs": 10.0, "one-input": 500.0}
    for path in tmp_path.glob("*/*/*.json"):
        record = json.loads(path.read_text())
        record["wall_s"] = slow.get(record["variant"], record["wall_s"])
        path.write_text(json.dumps(record))
    asked = replace(request, seeds=3, budget_s=60.0, workers=1)
    made = plan(asked)
    assert [p.variant for p in made.planned if p.jobs] == ["two-inputs"]
    assert made.left_out == {"two-beat-one": "beyond the budget"}
    assert made.beyond_s == 1000.0
    result = reproduce(asked)
    lanes = {verdict.id: (verdict.lane, verdict.n) for verdict in result.verdicts}
    assert lanes["test-error"][1] == 3
    assert len(result.fresh) == 2


def test_a_clock_that_cuts_leaves_the_cheapest_claim_whole(
    tiny_paper: Path, tmp_path: Path
) -> None:
    claims = tiny_paper / "claims.toml"
    text = claims.read_text(encoding="utf-8")
    claim = text[text.index('[[claim]]\nid = "test-error"') :].partition("\n\n")[0]
    dear = claim.replace('"test-error"', '"one-error"').replace('"two-inputs"', '"one-input"')
    claims.write_text(f"{text}\n{dear}\n", encoding="utf-8")
    request = Request(paper="tiny", papers=(tiny_paper,), runs=tmp_path, engine="inprocess")
    reproduce(replace(request, seeds=1))
    for path in tmp_path.glob("*/*/*.json"):
        record = json.loads(path.read_text())
        record["wall_s"] = {"two-inputs": 1.0, "one-input": 5.0}[record["variant"]]
        path.write_text(json.dumps(record))
    asked = replace(request, seeds=3, budget_s=600.0, claims=("one-error", "test-error"))
    made = plan(asked)
    assert made.left_out == {}

    def cut(jobs: Sequence[Job], room: Room, *, until: float) -> Generator[Event]:
        yield from inprocess.run(jobs[:2], room, until=until)

    said: list[str] = []
    result = reproduce(asked, planned=[made], run=cut, say=said.append)
    assert {verdict.id: verdict.n for verdict in result.verdicts} == {
        "test-error": 3,
        "one-error": 1,
    }
    assert said == ["the budget is spent; the same command goes on, 2 left to run"]
    usual = plan(replace(asked, budget_s=None))
    assert [job.variant for job in usual.jobs][:2] == ["one-input"] * 2


# Packing


class Machine:
    """Stands in for an engine: knows how long a run takes by its threads."""

    def __init__(self, seconds: Mapping[int, float]) -> None:
        self.seconds = seconds
        self.tried: list[Job] = []

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        self.tried += jobs
        for job in jobs:
            probe = Probe(seconds=self.seconds[job.threads], memory_mb=1000, flops=5e9)
            yield Event(kind="done", job=job, contents={"result": probe})


def estimated(
    claims: Claims,
    root: Path,
    machine: Machine,
    planned: Planned,
    room: Room = QUAD,
    local: Sequence[Record] = (),
    committed: Sequence[Record] = (),
    probing: Probing = "here",
    tell: Tell = lambda _made, _of: None,
) -> Planned:
    estimator = Estimator(
        claims=claims,
        root=root,
        room=room,
        local=local,
        committed=lambda: committed,
        probing=probing,
        run=machine.run,
        tell=tell,
    )
    return estimator.estimated([planned])[0]


def test_many_runs_have_a_thread_each_unless_that_gets_less_done(
    claims: Claims, entry: Entry, tmp_path: Path
) -> None:
    eight = work(entry, "two-inputs", 8)
    found = estimated(claims, tmp_path / "a", Machine({1: 100, 2: 90, 4: 50}), eight)
    assert {job.threads for job in found.jobs} == {1}
    assert (found.seconds, found.flops) == (800, 4e10)
    assert {job.memory_mb for job in found.jobs} == {1200}
    crowded = estimated(claims, tmp_path / "b", Machine({1: 100, 2: 45, 4: 20}), eight)
    assert {job.threads for job in crowded.jobs} == {4}
    assert crowded.seconds == 160
    assert wall_seconds([crowded], QUAD) == 160


def test_threads_in_between_are_taken_where_they_get_the_most_done(
    claims: Claims, entry: Entry, tmp_path: Path
) -> None:
    machine = Machine({1: 100, 2: 40, 4: 15, 8: 12, 16: 11})
    twenty = work(entry, "two-inputs", 20)
    found = estimated(claims, tmp_path, machine, twenty, room=Room(threads=16))
    assert {job.threads for job in found.jobs} == {4}
    assert found.seconds == 300
    assert [job.threads for job in at_once(found.jobs, Room(threads=16))] == [4, 4, 4, 4]


def test_few_runs_share_out_the_threads_when_that_is_faster(
    claims: Claims, entry: Entry, tmp_path: Path
) -> None:
    two = work(entry, "two-inputs", 2)
    found = estimated(claims, tmp_path / "a", Machine({1: 100, 2: 60}), two)
    assert {job.threads for job in found.jobs} == {2}
    assert wall_seconds([found], QUAD) == 60
    hardly = estimated(claims, tmp_path / "b", Machine({1: 100, 2: 90}), two)
    assert {job.threads for job in hardly.jobs} == {1}


def test_each_probe_has_the_neighbours_that_its_runs_will_have_and_is_made_once(
    claims: Claims, entry: Entry, tmp_path: Path
) -> None:
    machine = Machine({1: 100, 2: 90, 4: 50})
    for _ in range(2):
        estimated(claims, tmp_path, machine, work(entry, "two-inputs", 8))
    assert [job.threads for job in machine.tried] == [1, 1, 1, 1, 2, 2, 4]


def test_what_is_tried_is_told_and_nothing_is_tried_unasked(
    claims: Claims, entry: Entry, tmp_path: Path
) -> None:
    machine, said = Machine({1: 100, 2: 90, 4: 50}), list[tuple[int, int]]()
    eight = work(entry, "two-inputs", 8)

    def tell(made: int, of: int) -> None:
        said.append((made, of))

    untried = estimated(claims, tmp_path, machine, eight, probing="never", tell=tell)
    assert (untried.seconds, untried.basis) == (None, "not known before the first run")
    assert (machine.tried, said) == ([], [])
    estimated(claims, tmp_path, machine, eight, tell=tell)
    two = [(0, 2), (1, 2), (2, 2)]
    assert said == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4), *two, (0, 1), (1, 1)]
    kept = estimated(claims, tmp_path, machine, eight, probing="never")
    assert kept.basis == "a short probe here"


def test_short_work_is_not_worth_a_second_probe(
    claims: Claims, entry: Entry, tmp_path: Path
) -> None:
    machine = Machine({1: 1.0})
    estimated(claims, tmp_path, machine, work(entry, "two-inputs", 8))
    assert {job.threads for job in machine.tried} == {1}


def test_cached_runs_count_so_that_cut_off_work_goes_on_with_the_same_threads(
    claims: Claims, entry: Entry, tmp_path: Path
) -> None:
    machine = Machine({1: 100, 2: 45, 4: 50})
    eight = work(entry, "two-inputs", 8)
    left = replace(eight, jobs=eight.jobs[6:])
    assert {job.threads for job in estimated(claims, tmp_path, machine, left).jobs} == {2}
    record = reproduce(
        Request(paper="tiny", papers=(entry.folder,), runs=tmp_path, engine="inprocess", seeds=1)
    ).fresh[-1]
    cached = replace(left, cached=(replace(record, wall_s=100.0),) * 6)
    assert {job.threads for job in estimated(claims, tmp_path, machine, cached).jobs} == {1}


def test_an_estimate_goes_by_the_last_runs_of_this_processor(
    claims: Claims, entry: Entry, tmp_path: Path
) -> None:
    runs = Request(paper="tiny", papers=(entry.folder,), runs=tmp_path, engine="inprocess", seeds=1)
    record = reproduce(runs).fresh[-1]
    five = work(entry, record.variant, 5)

    def made(seconds: float, month: int, **environment: Any) -> Record:
        started = f"2026-{month:02}-01T00:00:00+00:00"
        known = {**record.environment, **environment}
        return replace(record, wall_s=seconds, started=started, environment=known)

    here, elsewhere = made(100.0, 1), made(7.0, 2, cpu="a processor of another make")
    long_ago = [made(1.0, 1)] * 30
    on_a_card = made(0.5, 3, device="cuda:0", gpu="H100")
    for local, cached, seconds, basis in (
        ([on_a_card, here], [on_a_card], 500.0, "earlier runs here"),
        ([elsewhere, here, elsewhere], [], 500.0, "earlier runs here"),
        ([here], [elsewhere], 500.0, "earlier runs here"),
        ([elsewhere], [elsewhere], 20.0, "a short probe here"),
        ([*long_ago, *[made(3.0, 3)] * 20], [], 15.0, "earlier runs here"),
    ):
        planned = replace(five, cached=tuple(cached))
        found = estimated(claims, tmp_path, Machine({1: 4, 2: 4, 4: 4}), planned, local=local)
        assert (found.seconds, found.basis) == (seconds, basis)


def test_runs_altered_otherwise_say_nothing_of_the_time(
    claims: Claims, entry: Entry, tmp_path: Path
) -> None:
    runs = Request(paper="tiny", papers=(entry.folder,), runs=tmp_path, engine="inprocess", seeds=1)
    record = replace(reproduce(runs).fresh[-1], flops=1000)
    usual = replace(record, wall_s=10.0)
    halved = {"epochs": 5}
    short = replace(record, wall_s=2.0, flops=500, overrides=halved)
    mine = replace(record, wall_s=3.0, model="mine.py:Net")
    five = work(entry, record.variant, 5)
    altered = replace(five, jobs=tuple(replace(job, overrides=halved) for job in five.jobs))
    machine = Machine({1: 4, 2: 4, 4: 4})
    for planned, local, seconds, flops in (
        (five, [short, usual, mine], 50.0, 5000),
        (altered, [short, usual, mine], 10.0, 2500),
        (five, [short, mine], 20.0, 2.5e10),
        (altered, [usual], 20.0, 2.5e10),
    ):
        where = tmp_path / str(seconds)
        found = estimated(claims, where, machine, planned, local=local)
        assert (found.seconds, found.flops) == (seconds, flops)
    found = estimated(claims, tmp_path / "c", machine, altered, committed=[usual], probing="new")
    assert (found.seconds, found.basis) == (20, "a short probe here")


def test_a_kind_of_device_says_nothing_of_the_pace_of_another(
    claims: Claims, entry: Entry, tmp_path: Path
) -> None:
    runs = Request(paper="tiny", papers=(entry.folder,), runs=tmp_path, engine="inprocess", seeds=1)
    record = replace(reproduce(runs).fresh[-1], wall_s=50.0)
    card = {**record.environment, "device": "cuda:1", "gpu": "H100"}
    on_a_card = replace(record, wall_s=1.0, environment=card)
    five = work(entry, record.variant, 5)
    there = replace(five, jobs=tuple(replace(job, device="cuda") for job in five.jobs))
    for planned, known, wrong, seconds in (
        (five, record, on_a_card, 250.0),
        (there, on_a_card, record, 5.0),
    ):
        machine = Machine({1: 4, 2: 4, 4: 4})
        probed = estimated(claims, tmp_path / f"{seconds}", machine, planned, local=[wrong])
        assert (probed.seconds, probed.basis) == (20, "a short probe here")
        unknown = estimated(claims, tmp_path, machine, planned, committed=[wrong], probing="never")
        assert unknown.seconds is None
        found = estimated(
            claims, tmp_path, machine, planned, committed=[wrong, known], probing="never"
        )
        assert found.seconds == seconds


def test_a_probe_here_comes_before_records_of_another_machine(
    claims: Claims, entry: Entry, tmp_path: Path
) -> None:
    runs = Request(paper="tiny", papers=(entry.folder,), runs=tmp_path, engine="inprocess", seeds=1)
    record = reproduce(runs).fresh[-1]
    elsewhere = {**record.environment, "cpu": "a processor of another make"}
    five, machine = work(entry, record.variant, 5), Machine({1: 4, 2: 4, 4: 4})

    def known(wall_s: float, root: Path) -> tuple[float | None, str]:
        there = replace(record, wall_s=wall_s, environment=elsewhere)
        found = estimated(claims, root, machine, five, committed=[there], probing="new")
        return found.seconds, found.basis

    assert known(2.0, tmp_path / "a") == (10.0, "records of another machine, perhaps")
    assert machine.tried == []
    estimated(claims, tmp_path / "a", machine, five)
    assert known(2.0, tmp_path / "a") == (20.0, "a short probe here")
    assert known(100.0, tmp_path / "b") == (20.0, "a short probe here")  # tried for its packing


def test_the_line_of_a_plan_says_when_its_time_is_of_another_machine(
    tiny_paper: Path, tmp_path: Path
) -> None:
    made = plan(Request(paper="tiny", papers=(tiny_paper,), runs=tmp_path), estimate=False)
    training = [replace(p, seconds=80.0) for p in made.planned if p.part == "train"]
    there = [replace(p, basis="records of another machine, perhaps") for p in training]
    said = " (by records of another machine, perhaps), "
    assert said in plan_line(replace(made, planned=tuple(there)))
    mixed = plan_line(replace(made, planned=(there[0], *training[1:])))
    assert said.replace("(", "(in part ") in mixed
    assert "another machine" not in plan_line(replace(made, planned=tuple(training)))


def test_runs_that_are_forced_are_timed_by_those_of_their_key(
    claims: Claims, entry: Entry, tmp_path: Path
) -> None:
    runs = Request(paper="tiny", papers=(entry.folder,), runs=tmp_path, engine="inprocess", seeds=1)
    record = reproduce(runs).fresh[-1]
    five = work(entry, record.variant, 5)
    same = [replace(record, key=job.keys[0], wall_s=2.0, started="2026") for job in five.jobs]
    other = [replace(record, wall_s=50.0)] * 30
    found = estimated(claims, tmp_path, Machine({}), five, local=[*same, *other])
    assert (found.seconds, found.basis) == (10.0, "earlier runs here")


def test_a_probe_that_breaks_says_why_and_is_not_kept(
    claims: Claims, entry: Entry, tmp_path: Path
) -> None:
    class Broken(Machine):
        def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
            for job in jobs:
                probe = Probe(seconds=0.0, memory_mb=0.0, error="ValueError: no")
                yield Event(kind="done", job=job, contents={"result": probe})

    eight = work(entry, "two-inputs", 8)
    found = estimated(claims, tmp_path, Broken({}), eight)
    assert (found.seconds, found.basis) == (None, "a short probe here broke: ValueError: no")
    mended = estimated(claims, tmp_path, Machine({1: 4, 4: 4}), eight)
    assert (mended.seconds, mended.basis) == (32, "a short probe here")


def test_a_batch_of_seeds_is_timed_by_batches_about_as_large(
    entry: Entry, claims: Claims, tmp_path: Path
) -> None:
    variant = replace(claims.variants["two-inputs"], vectorised=True)
    claims = replace(claims, variants={**claims.variants, "two-inputs": variant})
    runs = Request(paper="tiny", papers=(entry.folder,), runs=tmp_path, engine="inprocess", seeds=1)
    record = next(
        r for r in reproduce(runs).fresh if (r.variant, r.part) == ("two-inputs", "train")
    )
    alone = work(entry, "two-inputs", 1)
    batch = replace(alone, jobs=(replace(alone.jobs[0], seeds=tuple(range(50))),))
    small = [replace(record, seed=seed, wall_s=4.0) for seed in range(3)]
    large = [replace(record, seed=seed, wall_s=0.25, started="then") for seed in range(3, 43)]
    machine = Machine({1: 20, 4: 20})
    probed = estimated(claims, tmp_path, machine, batch, local=small)
    assert (probed.seconds, probed.basis) == (20, "a short probe here")
    known = estimated(claims, tmp_path, machine, batch, local=[*small, *large])
    assert (known.seconds, known.basis) == (12.5, "earlier runs here")
    cases: list[tuple[list[Record], Probing, float]] = [
        (small, "new", 20),
        (large, "new", 12.5),
        (small, "never", 200),
    ]
    for committed, probing, seconds in cases:
        root = tmp_path / f"{seconds}"  # where no probe is kept
        found = estimated(claims, root, machine, batch, committed=committed, probing=probing)
        assert found.seconds == seconds


class Compiler(Machine):
    """A machine that compiles what it is asked to, if it can."""

    def __init__(self, plain: float, compiled: float, *, compiling: float, error: str = "") -> None:
        super().__init__({})
        usual = Probe(seconds=plain, memory_mb=1000)
        other = Probe(seconds=compiled, memory_mb=1000, compiling=compiling, error=error)
        self.probes = {False: usual, True: other}

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        self.tried += jobs
        for job in jobs:
            probe = self.probes[job.compiled]
            yield Event(kind="done", job=job, contents={"result": probe})


@pytest.mark.parametrize(
    ("machine", "chosen"),
    [
        (Compiler(100, 50, compiling=20), True),
        (Compiler(100, 90, compiling=70), False),
        (Compiler(100, 50, compiling=0), False),  # it trains in a way of its own
        (Compiler(100, 0, compiling=0, error="RuntimeError: no compiler"), False),
    ],
)
def test_steps_are_compiled_where_that_is_left_to_a_probe_and_pays(
    claims: Claims, entry: Entry, tmp_path: Path, machine: Compiler, chosen: bool
) -> None:
    eight = work(entry, "two-inputs", 8)
    left = [replace(job, overrides={"compiled": "auto"}) for job in eight.jobs]
    found = estimated(claims, tmp_path / "auto", machine, replace(eight, jobs=tuple(left)))
    assert {job.compiled for job in found.jobs} == {chosen}
    assert found.seconds == (400 if chosen else 800)
    assert any(job.compiled for job in machine.tried)
    broke = machine.probes[True].error
    assert found.basis == "a short probe here" + (f"; compiling broke: {broke}" if broke else "")
    machine.tried.clear()
    estimated(claims, tmp_path / "no", machine, eight)
    assert not any(job.compiled for job in machine.tried)


def test_a_run_is_compiled_as_its_job_says_and_its_record_tells(
    tiny_paper: Path, tmp_path: Path, compiled: list[torch.nn.Module]
) -> None:
    request = Request(
        paper="tiny",
        papers=(tiny_paper,),
        runs=tmp_path,
        seeds=1,
        variants=("two-inputs",),
        overrides={"compiled": "auto", "epochs": 2},
        engine="inprocess",
    )
    made = plan(request, estimate=False)
    for choice in (False, True):
        again = replace(request, force=True)
        chosen = [
            replace(p, jobs=tuple(replace(job, compiled=choice, force=True) for job in p.jobs))
            for p in made.planned
        ]
        result = reproduce(again, planned=[replace(made, planned=tuple(chosen))])
        (record,) = result.fresh
        assert record.overrides == request.overrides
        assert record.environment.get("compiled", False) is choice is bool(compiled)


def test_a_probe_of_compiled_steps_tells_what_compiling_takes(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def slowly(model: torch.nn.Module) -> object:
        def run(x: torch.Tensor) -> torch.Tensor:
            if len(x) not in seen:
                seen.append(len(x))
                time.sleep(0.1)
            return model(x)

        return run

    monkeypatch.setattr(torch, "compile", slowly)
    (job,) = work(entry, "two-inputs", 1).jobs
    job = replace(job, part="probe", overrides={"compiled": True, "batch_size": 3})
    found = execute(job, lambda _kind, _contents: None)
    assert isinstance(found, Probe)
    assert 0.2 <= found.compiling < found.seconds
    assert seen == [3, 1]  # an epoch of four rows ends with a batch of one


def test_wide_jobs_never_make_more_threads_than_the_room_has(entry: Entry) -> None:
    jobs = [replace(job, threads=3) for job in work(entry, "a", 3).jobs]
    narrow = work(entry, "b", 3).jobs
    assert [job.threads for job in at_once([*jobs, *narrow], QUAD)] == [3, 1]


def test_a_run_computes_with_the_threads_of_its_job(tiny_paper: Path, tmp_path: Path) -> None:
    request = Request(paper="tiny", papers=(tiny_paper,), runs=tmp_path, seeds=2)
    made = plan(request, estimate=False)
    wide = [replace(p, jobs=tuple(replace(job, threads=2) for job in p.jobs)) for p in made.planned]
    result = reproduce(request, planned=[replace(made, planned=tuple(wide))])
    assert {record.environment["threads"] for record in result.fresh} == {2}


def test_gradients_that_vanish_become_zero_before_they_slow_a_run_down() -> None:
    weight = torch.tensor(0.1)

    def slope() -> float:
        x = torch.tensor(1.0, requires_grad=True)
        y = x
        for _ in range(40):
            y = y * weight
        y.backward()
        assert x.grad is not None
        return x.grad.item()

    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot take denormal numbers for zero")
    torch.set_flush_denormal(False)
    assert 0.0 < slope() < torch.finfo().tiny
    with computing(1):
        assert slope() == 0.0
    assert slope() > 0.0


# Plans


def test_auto_seeds_make_a_plan_for_each_look_within_one_budget(
    tiny_paper: Path, tmp_path: Path
) -> None:
    request = Request(
        paper="tiny",
        papers=(tiny_paper,),
        runs=tmp_path,
        seeds="auto",
        variants=("two-inputs",),
        budget_s=3600.0,
        engine="inprocess",
    )
    seen = []
    began = time.monotonic()
    for made in plans(request):
        seen.append((made.request.seeds, made.request.budget_s))
        assert {p.variant for p in made.planned if p.part == "train"} <= {"two-inputs"}
        reproduce(made.request, planned=[made])
    assert seen[0][0] == 3
    budgets = [left for _, left in seen if left is not None]
    assert budgets == sorted(budgets, reverse=True)
    assert budgets[-1] >= 3600 - (time.monotonic() - began)
