import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reimpl.errors import RecordError
from reimpl.records import Record, Store, read_measured, write_measured

SIMPLE = Record(
    paper="p2001_x",
    variant="plain",
    seed=3,
    part="train",
    status="ok",
    measurements={"test/error": 0.95, "epochs": inf, "solved": True, "sorted": None},
    key="0123456789abcdef",
    key_parts={"seed": "3", "torch": "2.13.0"},
    overrides={"lr": 0.1},
    curves={"test/error": [[0, 90.5], [1.0, 1.25], [2.0, -inf]]},
    started="2026-01-02T03:04:05+00:00",
    wall_s=1.5,
    cpu_s=1.25,
    parameters=60_000,
    environment={"python": "3.11.2", "git_dirty": False, "gpu": None},
)
FAILED = replace(SIMPLE, status="error", measurements={}, curves={}, error="Traceback ...")

NUMBERS = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53)
TEXTS = st.text(max_size=20)
RECORDS = st.builds(
    Record,
    paper=TEXTS,
    variant=TEXTS,
    seed=st.integers(0, 2**40),
    part=st.sampled_from(["train", "counts", "baseline"]),
    status=st.sampled_from(["ok", "error"]),
    measurements=st.dictionaries(TEXTS, NUMBERS | st.booleans() | st.none(), max_size=4),
    key=TEXTS,
    key_parts=st.dictionaries(TEXTS, TEXTS, max_size=3),
    overrides=st.dictionaries(TEXTS, st.integers() | st.booleans() | TEXTS, max_size=3),
    model=st.none() | TEXTS,
    curves=st.dictionaries(TEXTS, st.lists(st.lists(NUMBERS, min_size=2, max_size=2)), max_size=2),
    started=TEXTS,
    wall_s=st.floats(0, 1e9),
    cpu_s=st.floats(0, 1e9),
    parameters=st.none() | st.integers(0),
    flops=st.none() | st.integers(0),
    environment=st.dictionaries(TEXTS, st.none() | st.booleans() | TEXTS, max_size=3),
    error=st.none() | TEXTS,
    note=st.none() | TEXTS,
)


def found(store: Store, record: Record = SIMPLE) -> Record | None:
    return store.find(
        paper=record.paper,
        variant=record.variant,
        seed=record.seed,
        key=record.key,
        part=record.part,
    )


# One record as text


@given(RECORDS)
@settings(deadline=None)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    assert Record.from_json(record.to_json()) == record


@given(RECORDS)
@settings(deadline=None)
def test_a_record_is_one_line_of_strict_json(record: Record) -> None:
    text = record.to_json()
    assert "\n" not in text
    assert json.loads(text, parse_constant=pytest.fail)["seed"] == record.seed


@given(RECORDS)
@settings(max_examples=20, deadline=None)
def test_a_record_cut_anywhere_is_refused(record: Record) -> None:
    text = record.to_json()
    for end in range(len(text)):
        with pytest.raises(RecordError):
            Record.from_json(text[:end])


def test_infinity_is_written_as_text() -> None:
    assert '"epochs":"inf"' in SIMPLE.to_json()


@pytest.mark.parametrize(
    "broken",
    [
        {"measurements": {"loss": nan}},
        {"curves": {"loss": [[0, nan]]}},
        {"wall_s": nan},
    ],
)
def test_nan_is_refused_and_its_place_named(broken: Mapping[str, Any]) -> None:
    with pytest.raises(RecordError, match=f"p2001_x/plain seed 3: '{next(iter(broken))}'"):
        replace(SIMPLE, **broken).to_json()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "schema 2 is not known here"),
        ({"schema": None}, "schema None is not known here"),
        ({"extra": 1}, "field 'extra' is unknown"),
        ({"seed": "3"}, "field 'seed' is '3'"),
        ({"seed": True}, "field 'seed' is True"),
        ({"measurements": []}, r"field 'measurements' is \[\]"),
        ({"measurements": {"loss": "low"}}, "'loss' is 'low', no number"),
        ({"measurements": {"loss": [1]}}, r"'loss' is \[1\], no number"),
        ({"curves": {"loss": [1, 2]}}, "curve 'loss'"),
        ({"curves": {"loss": [[1, 2, 3]]}}, "curve 'loss'"),
        ({"curves": {"loss": [[1, "low"]]}}, "'loss' is 'low'"),
        ({"part": "test"}, "part is 'test'"),
        ({"status": "fine"}, "status 'fine'"),
    ],
)
def test_a_record_with_a_wrong_field_is_refused(change: Mapping[str, Any], said: str) -> None:
    table = {**json.loads(SIMPLE.to_json()), **change}
    with pytest.raises(RecordError, match=said):
        Record.from_json(json.dumps(table))


def test_a_record_with_a_missing_field_is_refused() -> None:
    table = json.loads(SIMPLE.to_json())
    del table["key"]
    with pytest.raises(RecordError, match="field 'key' is missing"):
        Record.from_json(json.dumps(table))


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "NaN", '{"schema": NaN}', "[" * 10**5])
def test_text_that_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(RecordError):
        Record.from_json(text)


# A store


def test_a_result_is_found_by_its_key(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(SIMPLE)
    assert found(store) == SIMPLE


@pytest.mark.parametrize(
    "other",
    [
        {"key": "0123456700000000"},
        {"key": "f" * 16},
        {"seed": 4},
        {"variant": "other"},
        {"paper": "q2002_y"},
        {"part": "counts"},
    ],
)
def test_a_run_that_differs_is_not_found(tmp_path: Path, other: Mapping[str, Any]) -> None:
    store = Store(tmp_path)
    store.write(SIMPLE)
    assert found(store, replace(SIMPLE, **other)) is None


def test_the_parts_of_one_run_lie_side_by_side(tmp_path: Path) -> None:
    store = Store(tmp_path)
    parts = [replace(SIMPLE, part=part) for part in ("baseline", "counts", "train")]
    names = [path.name for path in store.write_many(parts)]
    assert names == ["baseline-3-01234567.json", "counts-3-01234567.json", "3-01234567.json"]
    assert store.read("p2001_x").ok == parts


def test_records_come_in_order_of_part_variant_and_seed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    wanted = [
        replace(SIMPLE, part=part, variant=variant, seed=seed)
        for part in ("counts", "train")
        for variant in ("a", "b")
        for seed in (2, 10)
    ]
    store.write_many(reversed(wanted))
    assert store.read("p2001_x").ok == wanted


def test_a_failure_is_kept_apart_from_results(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(FAILED)
    read = store.read("p2001_x")
    assert (read.ok, read.errors, found(store)) == ([], [FAILED], None)


def test_a_failure_is_replaced_by_the_next_failure(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(FAILED)
    store.write(replace(FAILED, error="another"))
    assert [record.error for record in store.read("p2001_x").errors] == ["another"]


def test_a_success_removes_the_earlier_failure(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(FAILED)
    store.write(SIMPLE)
    assert store.read("p2001_x").errors == []


def test_a_later_failure_leaves_the_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(SIMPLE)
    store.write(FAILED)
    assert found(store) == SIMPLE


def test_a_paper_that_never_ran_has_no_records(tmp_path: Path) -> None:
    read = Store(tmp_path / "nothing").read("p2001_x")
    assert (read.ok, read.errors, read.unreadable) == ([], [], [])


@pytest.mark.parametrize("name", ["../../escape", "a/b", ".hidden", "..", "ünï", "x" * 80])
def test_no_name_leads_out_of_the_store(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "root")
    record = replace(SIMPLE, paper=name, variant=name)
    path = store.write(record)
    assert path.resolve().parent.parent.parent == (tmp_path / "root").resolve()
    assert store.read(name).ok == [record]


def test_a_record_file_cut_at_any_byte_is_whole_or_set_aside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.write(SIMPLE)
    whole = path.read_bytes()
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        read = store.read("p2001_x")
        assert read.ok == ([SIMPLE] if end >= len(whole) - 1 else [])
        for aside in read.unreadable:
            aside.unlink()
        assert bool(read.unreadable) == (not read.ok)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"{}", b"{", replace(SIMPLE, paper="q2002_y").to_json().encode()],
    ids=["empty", "no text", "no fields", "cut", "another paper's"],
)
def test_a_file_that_cannot_be_read_is_set_aside_and_the_others_are_read(
    tmp_path: Path, content: bytes
) -> None:
    store = Store(tmp_path)
    good = replace(SIMPLE, seed=4)
    path, _ = store.write_many([SIMPLE, good])
    path.write_bytes(content)
    read = store.read("p2001_x")
    assert read.ok == [good]
    assert read.unreadable == [path.with_name("3-01234567.json.unreadable")]


def test_a_file_set_aside_is_named_until_it_is_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.write(SIMPLE)
    path.write_text("{")
    assert found(store) is None
    names = [store.read("p2001_x").unreadable for _ in range(2)]
    assert names == [[path.with_name("3-01234567.json.unreadable")]] * 2


def test_a_file_set_aside_makes_room_for_the_next_try(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(SIMPLE).write_text("{")
    store.read("p2001_x")
    store.write(SIMPLE)
    assert found(store) == SIMPLE


def test_a_folder_in_the_place_of_a_record_is_named_not_fatal(tmp_path: Path) -> None:
    odd = tmp_path / "p2001_x" / "plain" / "3-01234567.json"
    odd.mkdir(parents=True)
    assert Store(tmp_path).read("p2001_x").unreadable == [odd]


def test_old_temporary_files_are_removed_and_new_ones_left(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.write(SIMPLE).parent
    old, new = folder / ".3-0.json.aa.tmp", folder / ".4-0.json.bb.tmp"
    for path in (old, new):
        path.write_text("{")
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    assert store.read("p2001_x").ok == [SIMPLE]
    assert (old.exists(), new.exists()) == (False, True)


def test_a_store_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"Not a directory\. Choose a folder"):
        Store(tmp_path / "file" / "runs").write(SIMPLE)


def test_a_claim_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RecordError, match="Not a directory"),
        Store(tmp_path / "file" / "runs").claim("key"),
    ):
        pass


def test_a_failed_write_leaves_the_earlier_record_and_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    path = store.write(SIMPLE)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordError, match="No space left"):
        store.write(replace(SIMPLE, wall_s=2.0))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert found(store) == SIMPLE


# Forks, because starting Python anew for each of many kills takes too long. The note is long so
# that a write takes much of the time and a kill is likely to fall into one.
KILLER = """
import os, signal, sys, time
from dataclasses import replace
from pathlib import Path
from reimpl.records import Record, Store
record = replace(Record.from_json(sys.stdin.readline()), note="x" * 300_000)
store = Store(Path(sys.argv[1]))
for turn in range(40):
    writer = os.fork()
    if writer == 0:
        while True:
            store.write(record)
    time.sleep(0.01 + turn / 10_000)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    read = store.read(record.paper)
    print(len(read.ok), len(read.unreadable))
"""


def test_kill_minus_nine_leaves_whole_records_only(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLER, str(tmp_path)]
    text = SIMPLE.to_json() + "\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()) <= {"1 0", "0 0"}
    assert done.stdout.splitlines()[-1] == "1 0"


def test_a_checkpoint_lies_beside_its_record(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.checkpoint_path(paper="p2001_x", variant="plain", seed=3, key=SIMPLE.key)
    assert path == store.write(SIMPLE).with_suffix(".ckpt")


# One process per run


def test_a_run_can_be_claimed_once_at_a_time(tmp_path: Path) -> None:
    with Store(tmp_path).claim("a") as first, Store(tmp_path).claim("a") as second:
        assert (first, second) == (True, False)


def test_a_claim_ends_with_its_block(tmp_path: Path) -> None:
    with Store(tmp_path).claim("a"):
        pass
    with Store(tmp_path).claim("a") as again:
        assert again


def test_claims_of_different_runs_do_not_meet(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.claim("a") as first, store.claim("b") as second:
        assert (first, second) == (True, True)


HOLDER = """
import sys, time
from pathlib import Path
from reimpl.records import Store
with Store(Path(sys.argv[1])).claim("a"):
    print("claimed", flush=True)
    time.sleep(60)
"""


def test_a_claim_ends_when_its_process_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "claimed\n"
        with Store(tmp_path).claim("a") as while_held:
            assert not while_held
        holder.kill()
    with Store(tmp_path).claim("a") as afterwards:
        assert afterwards


# Records kept with the paper


def test_measured_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "measured.jsonl"
    wanted = [replace(SIMPLE, seed=seed) for seed in (0, 1, 10)]
    write_measured(path, reversed(wanted))
    assert read_measured(path) == wanted


def test_writing_measured_records_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "measured.jsonl"
    long = [[float(i), i / 7] for i in range(1000)]
    write_measured(path, [replace(SIMPLE, curves={"loss": long})])
    before = path.read_bytes()
    write_measured(path, read_measured(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize("points", [0, 1, 24, 25, 26, 49, 50, 1000])
def test_a_promoted_curve_is_thin_and_keeps_its_ends(tmp_path: Path, points: int) -> None:
    path = tmp_path / "measured.jsonl"
    curve = [[float(i), 0.0] for i in range(points)]
    write_measured(path, [replace(SIMPLE, curves={"loss": curve})])
    kept = read_measured(path)[0].curves["loss"]
    assert len(kept) == min(points, 25)
    assert [kept[:1], kept[-1:]] == [curve[:1], curve[-1:]]
    assert sorted({step for step, _ in kept}) == [step for step, _ in kept]


def test_variants_that_are_not_wanted_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "measured.jsonl"
    odd = replace(SIMPLE, variant='a "quoted\\" one, ü')
    counts = replace(SIMPLE, part="counts")
    write_measured(path, [SIMPLE, odd, counts])
    unwanted = {("train", SIMPLE.variant), ("train", odd.variant)}
    assert read_measured(path, without=unwanted) == [counts]
    assert read_measured(path, without={("counts", "none")}) == read_measured(path)


def test_curves_of_a_batch_of_seeds_can_be_dropped(tmp_path: Path) -> None:
    path = tmp_path / "measured.jsonl"
    other = replace(SIMPLE, variant="wide")
    write_measured(path, [SIMPLE, other], without_curves={"wide"})
    assert [sorted(record.curves) for record in read_measured(path)] == [["test/error"], []]


def test_a_bad_line_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "measured.jsonl"
    write_measured(path, [SIMPLE, replace(SIMPLE, seed=4)])
    path.write_text(path.read_text() + '{"schema": 1\n')
    with pytest.raises(RecordError, match=rf"{tmp_path.name}/measured\.jsonl:3: not JSON"):
        read_measured(path)


def test_a_paper_without_measured_records_has_none(tmp_path: Path) -> None:
    assert read_measured(tmp_path / "measured.jsonl") == []


def test_a_measured_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "measured.jsonl").mkdir()
    with pytest.raises(RecordError, match="cannot be read"):
        read_measured(tmp_path / "measured.jsonl")
    with pytest.raises(RecordError, match="Choose a folder"):
        write_measured(tmp_path / "measured.jsonl", [SIMPLE])
