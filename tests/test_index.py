"""The index beside the records: never the truth, and never in the way."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reimpl import records as module
from reimpl.errors import RecordError
from reimpl.index import MARK, SPARE
from reimpl.keys import Keys, key
from reimpl.records import Record, Store

PARTS = {"seed": "3", "torch": "2.13.0", "overrides": '{"seed":"0"}'}
SIMPLE = Record(
    paper="p2001_x",
    variant="plain",
    seed=3,
    part="train",
    status="ok",
    measurements={"test/error": 0.1 + 0.2, "epochs": inf, "solved": True, "sorted": None},
    key="0123456789abcdef",
    key_parts=PARTS,
    curves={"test/error": [[0, 90.5], [1.0, 1.25]]},
    started="2026-01-02T03:04:05+00:00",
    wall_s=1.5,
    cpu_s=1.25,
    environment={"python": "3.11.2", "git_dirty": False},
)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the record files that were opened."""
    names: list[str] = []
    read = module._read_or_set_aside

    def watched(path: Path, paper: str) -> Record | Path | None:
        names.append(path.name)
        return read(path, paper)

    monkeypatch.setattr(module, "_read_or_set_aside", watched)
    return names


def kept(root: Path, count: int = 3) -> list[Record]:
    """Records that are old enough to be in the index after the next reading."""
    records = [replace(SIMPLE, seed=seed) for seed in range(count)]
    for path in Store(root).write_many(records):
        age(path)
    Store(root).read("p2001_x")
    return records


def age(path: Path, seconds: int = 60) -> None:
    then = time.time_ns() - seconds * 10**9 + 1
    os.utime(path, ns=(then, then))


def index(root: Path) -> Path:
    return root / "p2001_x" / ".index"


def test_a_file_is_opened_once(tmp_path: Path, opened: list[str]) -> None:
    records = kept(tmp_path)
    assert len(opened) == 3
    assert Store(tmp_path).read("p2001_x").ok == records
    assert len(opened) == 3


def test_a_batch_that_was_written_here_is_not_opened(tmp_path: Path, opened: list[str]) -> None:
    store = Store(tmp_path)
    wanted = [replace(SIMPLE, seed=seed) for seed in range(200)]
    store.write_many(wanted)
    assert store.read("p2001_x").ok == wanted
    assert len(opened) < 150  # the last ones are too young for their time to tell a change


def test_what_the_index_leaves_out_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    (first, *_) = kept(tmp_path)
    (found, *_) = Store(tmp_path).read("p2001_x").ok
    assert found.to_json() == first.to_json()
    assert (found.curves, found.environment) == (first.curves, first.environment)


def test_what_is_asked_for_after_its_file_has_gone_is_one_line(tmp_path: Path) -> None:
    kept(tmp_path, 1)
    (found,) = Store(tmp_path).read("p2001_x").ok
    assert found.file is not None
    Path(found.file).unlink()
    with pytest.raises(RecordError, match="cannot be read any more"):
        _ = found.curves


def test_a_misspelt_field_is_no_field(tmp_path: Path) -> None:
    kept(tmp_path, 1)
    (found,) = Store(tmp_path).read("p2001_x").ok
    with pytest.raises(AttributeError, match="a record has no 'curve'"):
        getattr(found, "curve")  # noqa: B009  (a type checker would see it)


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    kept(tmp_path)
    other = replace(SIMPLE, seed=1, measurements={"test/error": 7.0})
    age(Store(tmp_path).write(other), 30)
    assert Store(tmp_path).read("p2001_x").ok[1] == other


@pytest.mark.parametrize("damage", [b"", b"{"], ids=["emptied", "cut"])
def test_a_file_that_was_damaged_in_its_place_is_set_aside(tmp_path: Path, damage: bytes) -> None:
    kept(tmp_path)
    path = next(tmp_path.glob("*/plain/1-*.json"))
    path.write_bytes(damage)
    read = Store(tmp_path).read("p2001_x")
    assert [record.seed for record in read.ok] == [0, 2]
    assert [p.name for p in read.unreadable] == [f"{path.name}.unreadable"]


def test_a_change_of_the_same_size_is_seen_however_quick_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.write(replace(SIMPLE, wall_s=1000.0))
    for wall in range(1000, 1200):
        path.write_text(replace(SIMPLE, wall_s=float(wall)).to_json())
        assert store.read("p2001_x").ok[0].wall_s == wall


def test_a_file_that_went_is_gone(tmp_path: Path) -> None:
    records = kept(tmp_path)
    next(tmp_path.glob("*/plain/1-*.json")).unlink()
    assert Store(tmp_path).read("p2001_x").ok == [records[0], records[2]]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def swap(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"0.30000000000000004", b"0.40000000000000004"))


def another_papers(path: Path) -> None:
    text = path.read_bytes()
    path.unlink()
    store = Store(path.parents[1])
    other = replace(SIMPLE, paper="q2002_y", measurements={"test/error": 9.0})
    age(store.write(other))
    store.read("q2002_y")
    path.write_bytes(text[:0] + (path.parents[1] / "q2002_y" / ".index").read_bytes())


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        swap,
        another_papers,
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(os.urandom(5000)),
        lambda path: path.write_bytes(MARK * 50),
    ],
    ids=["cut", "a figure changed", "another paper's", "deleted", "empty", "noise", "marks"],
)
def test_a_damaged_index_changes_nothing_and_is_mended(
    tmp_path: Path, damage: Callable[[Path], object], opened: list[str]
) -> None:
    records = kept(tmp_path)
    damage(index(tmp_path))
    assert Store(tmp_path).read("p2001_x").ok == records
    del opened[:]
    assert Store(tmp_path).read("p2001_x").ok == records
    assert opened == []


def test_an_index_of_other_fields_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    records = kept(tmp_path)
    monkeypatch.setattr(module, "_KEPT", (*module._KEPT, "note"))
    del opened[:]
    assert Store(tmp_path).read("p2001_x").ok == records
    assert len(opened) == 3


def test_an_index_cut_at_any_byte_changes_nothing(tmp_path: Path) -> None:
    records = kept(tmp_path)
    whole = index(tmp_path).read_bytes()
    for end in range(0, len(whole), 7):
        index(tmp_path).write_bytes(whole[:end])
        assert Store(tmp_path).read("p2001_x").ok == records


def test_an_index_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    index(tmp_path).mkdir(parents=True)  # root writes to a folder without permission, too
    records = kept(tmp_path)
    assert Store(tmp_path).read("p2001_x").ok == records


def test_an_index_full_of_what_has_changed_is_begun_anew(tmp_path: Path) -> None:
    records = kept(tmp_path, SPARE // 2)
    sizes = []
    for turn in range(8):
        for path in tmp_path.glob("*/plain/*.json"):
            age(path, 50 - turn)
        assert Store(tmp_path).read("p2001_x").ok == records
        sizes.append(index(tmp_path).stat().st_size if index(tmp_path).exists() else 0)
    assert max(sizes) < 6 * min(size for size in sizes if size)


READER = """
import sys
from pathlib import Path
from reimpl.records import Store
for _ in range(20):
    found = Store(Path(sys.argv[1])).read("p2001_x")
    assert [record.seed for record in found.ok] == list(range(int(sys.argv[2]))), found
    (Path(sys.argv[1]) / "p2001_x" / ".index").unlink(missing_ok=True)
"""


def test_readers_at_once_all_read_right_while_the_index_comes_and_goes(tmp_path: Path) -> None:
    kept(tmp_path, 300)
    line = [sys.executable, "-c", READER, str(tmp_path), "300"]
    readers = [subprocess.Popen(line) for _ in range(3)]
    assert [reader.wait() for reader in readers] == [0, 0, 0]


def test_an_index_holds_no_curves(tmp_path: Path) -> None:
    curve = [[float(step), 1 / (step + 1)] for step in range(10_000)]
    age(Store(tmp_path).write(replace(SIMPLE, curves={"loss": curve})))
    assert Store(tmp_path).read("p2001_x").ok[0].curves == {"loss": curve}
    assert index(tmp_path).stat().st_size < 500


@given(st.dictionaries(st.text(), st.text()), st.integers(0))
def test_keys_are_those_of_the_parts(parts: dict[str, str], seed: int) -> None:
    keys, own = Keys(parts), {**parts, "seed": str(seed)}
    assert keys(seed) == (key(own), own)
    assert keys.key(seed) == key(own)


def test_a_seed_inside_another_part_is_left_alone() -> None:
    parts = {"overrides": json.dumps({"seed": "0"}), 'a"seed":"': '"seed":"'}
    assert Keys(parts).key(7) == key({**parts, "seed": "7"})
