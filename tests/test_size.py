"""Many records of one paper: what the commands that read them take of processor and memory."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from reimpl.evidence import current_keys
from reimpl.records import Record, Store
from reimpl.registry import Entry, find

VARIANTS, SEEDS = 20, 1000
"""A fifth of what `make bench` reads, which is alone on the machine."""
SECONDS, MEGABYTES = 2.0, 500
ANEW, SECONDS_ANEW = "verdict when one record has changed", 3.0
"""All claims are judged again then, which takes more than the two seconds: a known miss."""
"""What a command may take of a processor and of memory."""


class Stored(NamedTuple):
    """Where the records lie."""

    paper: Path
    runs: Path
    seeds: int


def more_variants(claims: Path) -> None:
    """Twenty variants, and claims of several kinds about them."""
    text = claims.read_text()
    for n in range(2, VARIANTS):
        text += f"""
[[variant]]
id = "v{n}"
extends = "two-inputs"
says = "as before"
lr = {0.2 + n / 1000}

[[claim]]
id = "error-v{n}"
kind = "value"
says = "as good"
source = "table 2"
metric = "test/error"
variant = "v{n}"
published = "15.9"
cost = "minutes"

[[claim]]
id = "order-v{n}"
kind = "order"
says = "better than one input"
source = "table 2"
metric = "test/error"
variants = ["v{n}", "one-input"]
cost = "minutes"
"""
    claims.write_text(text)


def example(entry: Entry) -> Record:
    curve = [[step, 20.0 - step / 10] for step in range(25)]
    return Record(
        paper=entry.slug,
        variant="",
        seed=0,
        part="train",
        status="ok",
        measurements={},
        key="",
        key_parts={},
        curves={"test/error": curve, "train/error": curve},
        started="2026-01-02T03:04:05+00:00",
        wall_s=0.5,
        cpu_s=0.5,
        parameters=3,
        environment={"python": "3.11.2", "platform": "Linux", "cpu": "one", "git_dirty": False},
    )


def write_all(entry: Entry, runs: Path, seeds: int) -> None:
    """As `Store` and `reimpl record` do, without waiting for the disk each time."""
    chance, template = random.Random(0), example(entry)
    committed = (entry.folder / "measured.jsonl").open("w")
    for variant in entry.claims.variants.values():
        keys = current_keys(entry, variant, "train")
        record = replace(template, variant=variant.id, key=keys.key(0))
        folder = Store(runs).write(record).parent
        table = json.loads(record.to_json())
        for seed in range(seeds):
            error = chance.gauss(30.0 if variant.id == "one-input" else 15.9, 0.5)
            key, parts = keys(seed)
            table |= {"seed": seed, "key": key, "key_parts": parts}
            table["measurements"] = {"test/error": error, "train/error": error - 1}
            text = json.dumps(table, separators=(",", ":"))
            (folder / f"{seed}-{key[:8]}.json").write_text(f"{text}\n")
            committed.write(json.dumps(table | {"curves": {}}, separators=(",", ":")) + "\n")
    committed.close()


@contextmanager
def stored(paper: Path, runs: Path, seeds: int) -> Iterator[Stored]:
    more_variants(paper / "claims.toml")
    write_all(find(paper.name, [paper]), runs, seeds)
    yield Stored(paper, runs, seeds)
    shutil.rmtree(runs)  # pytest would keep half a gigabyte of the last three


MEASURED = """
import json, resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "reimpl", *sys.argv[1:]], capture_output=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, done.stdout.decode()]))
sys.exit(done.returncode)
"""


def took(*words: str) -> tuple[float, float, Any]:
    """Seconds of a processor, megabytes and output of a command, Python's own start included."""
    line = [sys.executable, "-c", MEASURED, *words]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    seconds, megabytes, said = json.loads(done.stdout)
    return seconds, megabytes, json.loads(said)


def least(*words: str, before: Callable[[], object] = lambda: None) -> tuple[float, float, Any]:
    """The fastest of three, each after what is done `before`: the machine may be busy."""
    tries = []
    for _ in range(3):
        before()
        tries.append(took(*words, "--json"))
    return min(tries, key=lambda one: one[0])


def add_one(record: Path) -> None:
    """Let a run have measured another error."""
    table = json.loads(record.read_text())
    table["measurements"]["test/error"] += 1
    record.write_text(json.dumps(table, separators=(",", ":")) + "\n")


def check(there: Stored, print_: Callable[[str], object]) -> None:
    """Every command answers in time and within bounds, and says what the first reading said."""
    where = ["--papers", str(there.paper), "--runs", str(there.runs)]
    first, first_mb, before = took("verdict", "tiny", *where, "--json")
    record = next(there.runs.glob("tiny*/two-inputs/0-*.json"))
    was = record.read_text()
    commands = {
        ANEW: least("verdict", "tiny", *where, before=lambda: add_one(record)),
        "verdict": least("verdict", "tiny", *where),
        "plan": least("plan", "tiny", "--seeds", str(there.seeds), *where),
        "list": least("list", *where[:2]),
    }
    record.write_text(was)
    *_, after = took("verdict", "tiny", *where, "--json")
    print_(f"\n{VARIANTS * there.seeds:,} records, opened once: {first:.1f} s, {first_mb:.0f} MB\n")
    for name, (seconds, megabytes, _) in commands.items():
        print_(f"then {name}: {seconds:.2f} s, {megabytes:.0f} MB\n")
    assert (after == before, commands[ANEW][2] == before) == (True, False)
    assert {c["n"] for c in before["claims"] if c["kind"] != "exact"} == {there.seeds}
    planned = commands["plan"][2]["planned"]
    assert {len(row["cached"]) for row in planned if row["part"] == "train"} == {there.seeds}
    listed = {paper["slug"]: paper["records"] for paper in commands["list"][2]["papers"]}
    assert listed[there.paper.name] == VARIANTS * there.seeds
    late = {name for name, (seconds, _, _) in commands.items() if seconds >= SECONDS}
    assert late <= {ANEW}
    assert commands[ANEW][0] < SECONDS_ANEW
    assert [name for name, (_, megabytes, _) in commands.items() if megabytes >= MEGABYTES] == []
    assert first_mb < MEGABYTES


def test_records_by_the_thousand_are_judged_planned_and_listed_at_once(
    tiny_paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with stored(tiny_paper, tmp_path / "many", SEEDS) as there, capsys.disabled():
        check(there, sys.stdout.write)
