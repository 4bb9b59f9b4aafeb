import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from importlib import metadata
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from reimpl import cli, evidence, planning, reproduction
from reimpl.cli import parser
from reimpl.cli.app import COMMANDS, overrides
from reimpl.cli.progress import Progress
from reimpl.engines import Event
from reimpl.errors import RequestError
from reimpl.jobs import Job
from reimpl.records import Record, Store, read_measured
from reimpl.registry import find

TWO = [15.5, 15.9, 16.0, 15.7, 16.1]
ONE = [24.0, 24.5, 23.9, 24.2, 24.1]
CSV = """variant,seed,metric,value
two-inputs,0,test/error,15.5
two-inputs,1,test/error,15.9
two-inputs,2,test/error,16.1
"""


class Said(SimpleNamespace):
    """What a command wrote, and its exit status."""

    status: int
    out: str
    err: str


def reimpl(*words: object) -> Said:
    written, said = StringIO(), StringIO()
    with redirect_stdout(written), redirect_stderr(said), pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    return Said(status=ended.value.code, out=written.getvalue(), err=said.getvalue())


def on(folder: Path, command: str, *words: object) -> Said:
    return reimpl(command, "tiny", "--papers", folder, *words)


def keep(folder: Path, measured: Mapping[str, Sequence[float]]) -> None:
    """Records of the current code, as if it had run."""
    entry = find(folder.name, [folder])
    store = Store(planning.Request(paper="").root)
    for name, values in measured.items():
        keys = evidence.current_keys(entry, entry.claims.variant(name), "train")
        for seed, value in enumerate(values):
            key, parts = keys(seed)
            store.write(
                Record(
                    paper=entry.slug,
                    variant=name,
                    seed=seed,
                    part="train",
                    status="ok",
                    measurements={"test/error": value},
                    key=key,
                    key_parts=parts,
                    started="2026-01-01T00:00:00+00:00",
                    wall_s=0.1,
                    cpu_s=0.1,
                )
            )


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def claims_of(said: Said) -> dict[str, dict[str, Any]]:
    return {claim["id"]: claim for claim in json.loads(said.out)["claims"]}


# Reading


def test_the_list_names_each_paper(tiny_paper: Path) -> None:
    said = reimpl("list", "--papers", tiny_paper)
    assert said.status == 0
    assert "tiny2026_logistic" in said.out
    assert "rumelhart1986_backprop" in said.out


def test_the_list_as_json_counts_claims(tiny_paper: Path) -> None:
    papers = json.loads(reimpl("list", "--papers", tiny_paper, "--json").out)["papers"]
    tiny = next(paper for paper in papers if paper["slug"] == "tiny2026_logistic")
    assert (tiny["claims"], tiny["variants"], tiny["records"]) == (3, 2, 0)


def test_the_list_shows_a_broken_paper_as_broken_and_goes_on(tiny_paper: Path) -> None:
    edit(tiny_paper / "claims.toml", 'kind = "exact"', 'kind = "exakt"')
    said = reimpl("list", "--papers", tiny_paper)
    assert said.status == 0
    assert "broken: tiny2026_logistic/claims.toml: claim 'parameters'" in said.out
    assert "Did you mean 'exact'?" in said.out


def test_show_names_claims_variants_and_gaps(tiny_paper: Path) -> None:
    said = on(tiny_paper, "show")
    assert said.status == 0
    assert "two-beat-one" in said.out
    assert "one-input" in said.out
    assert "torch's own initial weights" in said.out
    assert said.out.endswith("3 claims, 2 variants, 0 deviations, 1 gap\n")


def test_show_of_one_claim_gives_the_margin_and_its_reason(tiny_paper: Path) -> None:
    said = on(tiny_paper, "show", "--claim", "test-error")
    assert "a tenth of the error" in said.out
    assert "two-beat-one" not in said.out


def test_show_as_json_holds_every_claim_with_its_margin(tiny_paper: Path) -> None:
    found = json.loads(on(tiny_paper, "show", "--json").out)
    assert {c["id"]: c["margin"] for c in found["claims"]} == {
        "parameters": 0.5,
        "test-error": 1.5,
        "two-beat-one": None,
    }


def test_verdict_judges_the_records_without_running(tiny_paper: Path) -> None:
    keep(tiny_paper, {"two-inputs": TWO, "one-input": ONE})
    said = on(tiny_paper, "verdict")
    assert said.status == 0
    assert "15.84 ± 0.24" in said.out
    assert said.out.rstrip().splitlines()[-1].startswith("2 of 3 claims reproduced, 1 not run")


def test_verdict_as_json_has_the_shape_of_the_design(tiny_paper: Path) -> None:
    keep(tiny_paper, {"two-inputs": TWO})
    claim = claims_of(on(tiny_paper, "verdict", "--json"))["test-error"]
    wanted = {"kind": "value", "lane": "reproduced", "n": 5, "published": "15.9", "margin": 1.5}
    assert {name: claim[name] for name in wanted} == wanted
    assert claim["mean"] == pytest.approx(15.84)
    assert claim["interval"][0] < 15.84 < claim["interval"][1]
    assert claim["seeds_needed"] is None
    assert claim["best_baseline"] is None


def test_strict_ends_with_1_when_a_claim_is_below(tiny_paper: Path) -> None:
    keep(tiny_paper, {"two-inputs": ONE})
    assert on(tiny_paper, "verdict").status == 0
    assert on(tiny_paper, "verdict", "--strict").status == 1


def test_strict_ends_with_1_when_a_hint_is_off(tiny_paper: Path) -> None:
    keep(tiny_paper, {"two-inputs": ONE[:1]})
    assert claims_of(on(tiny_paper, "verdict", "--json"))["test-error"]["lane"] == "off"
    assert on(tiny_paper, "verdict", "--strict").status == 1


def test_a_record_that_was_cut_in_half_is_named_and_the_others_are_judged(tiny_paper: Path) -> None:
    keep(tiny_paper, {"two-inputs": TWO})
    first = next(Path(os.environ["REIMPL_RUNS"]).glob("*/*/0-*.json"))
    first.write_text(first.read_text(encoding="utf-8")[:100], encoding="utf-8")
    said = on(tiny_paper, "verdict")
    assert said.status == 0
    assert "set aside: 1 record that cannot be read" in said.out
    assert "4 seeds" not in said.out


# Numbers from somewhere else


def test_judge_reads_a_spreadsheet(tiny_paper: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.csv"
    numbers.write_text(CSV, encoding="utf-8")
    said = reimpl("judge", tiny_paper / "claims.toml", "--measurements", numbers, "--json")
    assert said.status == 0
    assert claims_of(said)["test-error"]["lane"] == "reproduced"


def test_judge_reads_json_and_prints_a_table(tiny_paper: Path, tmp_path: Path) -> None:
    rows = [
        {"variant": "two-inputs", "seed": seed, "metric": "test/error", "value": value}
        for seed, value in enumerate(ONE)
    ]
    numbers = tmp_path / "numbers.json"
    numbers.write_text(json.dumps(rows), encoding="utf-8")
    said = reimpl("judge", tiny_paper / "claims.toml", "--measurements", numbers, "--strict")
    assert said.status == 1
    assert "0 of 3 claims reproduced, 1 below, 2 not run" in said.out


def test_judge_names_the_line_with_an_unknown_variant(tiny_paper: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.csv"
    numbers.write_text(CSV.replace("two-inputs,1", "two-input,1"), encoding="utf-8")
    said = reimpl("judge", tiny_paper / "claims.toml", "--measurements", numbers)
    assert said.status == 2
    assert "numbers.csv" in said.err
    assert "Did you mean 'two-inputs'" in said.err


# Running


@pytest.fixture
def quick(tiny_paper: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny paper with one epoch and two seeds."""
    monkeypatch.setattr("reimpl.jobs.PROBE_SECONDS", 0.05)
    edit(tiny_paper / "claims.toml", "epochs = 10", "epochs = 1")
    edit(tiny_paper / "claims.toml", "seeds = 5", "seeds = 2")
    return tiny_paper


def test_reproduce_runs_judges_and_the_second_time_runs_nothing(quick: Path) -> None:
    said = on(quick, "reproduce", "--engine", "inprocess")
    assert said.status == 0
    assert "2 variants, 5 runs to make, 0 cached" in said.err
    assert "1 of 3 claims reproduced" in said.out
    again = on(quick, "reproduce", "--engine", "inprocess")
    assert "0 runs to make, 5 cached; nothing to run" in again.err
    assert again.out == said.out


def test_reproduce_as_json_keeps_stdout_clean(quick: Path) -> None:
    said = on(quick, "reproduce", "--engine", "inprocess", "--claim", "parameters", "--json")
    assert claims_of(said)["parameters"]["mean"] == 3


def test_runs_with_other_settings_are_never_judged_as_the_papers(quick: Path) -> None:
    words = ["--engine", "inprocess", "--set", "lr=0.5", "--variant", "two-inputs"]
    said = on(quick, "reproduce", *words)
    assert said.status == 0
    assert "altered runs (--set lr=0.5): not judged as the paper's" in said.out
    assert "reproduced" not in said.out
    lanes = {c["lane"] for c in claims_of(on(quick, "verdict", "--json")).values()}
    assert lanes == {"not run"}


def test_runs_with_fewer_bits_are_recorded_as_altered(quick: Path) -> None:
    words = ["--engine", "inprocess", "--precision", "bf16-mixed", "--variant", "two-inputs"]
    said = on(quick, "reproduce", *words)
    assert said.status == 0
    assert "altered runs (--precision bf16-mixed): not judged as the paper's" in said.out
    assert claims_of(on(quick, "verdict", "--json"))["test-error"]["lane"] == "not run"


def test_runs_with_somebodys_own_model_are_never_judged_as_the_papers(
    quick: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.linear = nn.Linear(2, 1)\n"
        "    def forward(self, X):\n"
        "        return self.linear(X).flatten()\n",
        encoding="utf-8",
    )
    words = ["--engine", "inprocess", "--model", f"{mine}:Net", "--variant", "two-inputs", "--json"]
    found = json.loads(on(quick, "reproduce", *words).out)
    assert found["claims"] == []
    assert set(found["measured"]["test/error"]["two-inputs"]) == {"0", "1"}


def test_somebodys_own_model_may_ask_for_the_variant(quick: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from torch import nn\n"
        "def net(variant):\n"
        "    assert variant.id == 'two-inputs'\n"
        "    return nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))\n",
        encoding="utf-8",
    )
    words = ["--engine", "inprocess", "--model", f"{mine}:net", "--variant", "two-inputs", "--json"]
    found = json.loads(on(quick, "reproduce", *words).out)
    assert found["altered"] == f"--model {mine}:net"
    assert set(found["measured"]["test/error"]["two-inputs"]) == {"0", "1"}


def test_the_same_failure_is_said_once_with_its_place(quick: Path) -> None:
    before, after = "    X, y = batch\n", "    return nn"
    edit(quick / "__init__.py", before + after, before + '    raise ValueError("no")\n' + after)
    words = ["--engine", "inprocess", "--variant", "two-inputs"]
    said = on(quick, "reproduce", *words)
    assert said.err.count("failed: two-inputs") == 1
    assert "failed: two-inputs, seed 0: ValueError: no (__init__.py:" in said.err
    (place,) = re.findall(r"the first traceback: (.+)", said.err)
    assert "Traceback" in json.loads(Path(place).read_text())["error"]
    assert on(quick, "verdict").status == 0
    assert on(quick, "verdict", "--strict").status == 1


def test_verdict_can_be_narrowed_to_claims(tiny_paper: Path) -> None:
    keep(tiny_paper, {"two-inputs": TWO, "one-input": [1.0] * 5})
    assert on(tiny_paper, "verdict", "--strict").status == 1
    said = on(tiny_paper, "verdict", "--strict", "--claim", "test-error")
    assert (said.status, "1 of 1 claim reproduced" in said.out) == (0, True)
    why = mistake("verdict", "tiny", "--papers", tiny_paper, "--claim", "test-errors")
    assert "Did you mean 'test-error'?" in why


def test_a_paper_is_found_by_its_folder(tiny_paper: Path, tmp_path: Path) -> None:
    assert reimpl("show", tiny_paper).out == on(tiny_paper, "show").out
    table = tmp_path / "measured.csv"
    table.write_text(CSV, encoding="utf-8")
    by_file = reimpl("judge", tiny_paper / "claims.toml", "--measurements", table)
    assert reimpl("judge", tiny_paper, "--measurements", table).out == by_file.out


def test_baselines_that_nothing_scores_are_refused(quick: Path) -> None:
    words = ("--engine", "inprocess", "--baselines", "--claim", "parameters")
    why = mistake("reproduce", "tiny", "--papers", quick, *words)
    assert "--baselines: no metric of these claims has a `score`" in why


def test_a_terminal_that_knows_ascii_alone_gets_the_table_too(tiny_paper: Path) -> None:
    keep(tiny_paper, {"two-inputs": TWO})
    said = subprocess.run(
        [sys.executable, "-m", "reimpl", "verdict", "tiny", "--papers", tiny_paper],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert b"15.84 ? 0.24" in said.stdout


def test_a_run_that_fails_ends_with_1_and_loses_no_other(quick: Path) -> None:
    check = '    assert model.linear.in_features == 2, "no such luck"\n'
    before, after = "    X, y = batch\n", "    return nn"
    edit(quick / "__init__.py", before + after, before + check + after)
    said = on(quick, "reproduce", "--engine", "inprocess")
    assert said.status == 1
    assert "failed: one-input, seed 0: AssertionError: no such luck" in said.err
    claims = claims_of(on(quick, "verdict", "--json"))
    assert claims["two-beat-one"]["lane"] == "error"
    assert claims["test-error"]["n"] == 2


def test_what_broke_in_a_probe_is_run_within_a_budget_and_ends_with_1(quick: Path) -> None:
    before, after = "    X, y = batch\n", "    return nn"
    edit(quick / "__init__.py", before + after, before + '    raise ValueError("no")\n' + after)
    said = on(quick, "reproduce", "--engine", "inprocess", "--budget", "1h")
    assert said.status == 1
    assert "beyond the budget" not in said.err
    assert "failed: two-inputs, seed 0: ValueError: no" in said.err


def test_data_that_are_missing_are_not_beyond_a_budget(
    quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REIMPL_DATA_MIRROR", raising=False)
    block = '[data.points]\nhub = "org/points"\nrevision = "abc"\nsplits = { train = 3 }\n'
    edit(quick / "claims.toml", "[metric.parameters]", f"{block}\n[metric.parameters]")
    words = ["--engine", "inprocess", "--claim", "test-error"]
    for budget in ([], ["--budget", "1h"]):
        said = on(quick, "reproduce", *words, *budget)
        assert said.status == 2
        assert "Three ways to get it" in said.err
        assert "beyond the budget" not in said.err


def test_an_interrupt_ends_with_130_and_says_what_is_kept(
    quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_words: object, **_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reproduction, "reproduce", interrupted)
    said = on(quick, "reproduce", "--claim", "parameters")
    assert said.status == 130
    assert said.err.endswith(
        "interrupted; 0 finished runs kept, and the same command goes on from there\n"
    )
    forced = on(quick, "reproduce", "--claim", "parameters", "--force")
    assert forced.err.endswith(
        "0 finished runs kept, and without --force, the same command goes on from there\n"
    )


def test_an_interrupt_of_any_command_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("reimpl.registry.entries", interrupted)
    said = reimpl("list")
    assert (said.status, said.err) == (130, "reimpl: interrupted\n")


def test_the_plan_tells_cached_from_new_and_what_is_left_out(tiny_paper: Path) -> None:
    keep(tiny_paper, {"two-inputs": TWO[:3]})
    said = on(tiny_paper, "plan", "--no-probe", "--cost", "instant")
    assert "left out: test-error, two-beat-one: costs minutes" in said.out
    probes = planning.Request(paper="").root / "probes.json"
    assert "not known before the first run" in on(tiny_paper, "plan", "--no-probe").out
    assert not probes.exists()
    found = json.loads(on(tiny_paper, "plan", "--claim", "test-error", "--json").out)
    assert found["planned"][0]["cached"] == [0, 1, 2]
    assert found["planned"][0]["to_run"] == [3, 4]
    on(tiny_paper, "plan")
    assert probes.exists()


def test_a_plan_is_made_for_the_cluster_at_an_address(
    tiny_paper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reimpl.engines import cluster

    words = ("--engine", "ray", "--address", "head:6379", "--json")
    nodes = [{"CPU": 7.0, "memory": 2.0**40}]
    monkeypatch.setattr(cluster, "nodes_at", lambda _address: nodes)
    assert json.loads(on(tiny_paper, "plan", *words).out)["workers"] == 7

    def silent(address: str) -> object:
        raise RequestError(f"--address {address}: no cluster answers there")

    monkeypatch.setattr(cluster, "nodes_at", silent)
    said = on(tiny_paper, "plan", *words)
    assert (said.status, said.err) == (
        0,
        "reimpl: --address head:6379: no cluster answers there\n",
    )


def test_why_rerun_names_the_part_that_changed(tiny_paper: Path) -> None:
    keep(tiny_paper, {"two-inputs": TWO})
    edit(tiny_paper / "claims.toml", "lr = 0.2", "lr = 0.1")
    said = on(tiny_paper, "why-rerun", "--claim", "test-error")
    assert said.status == 0
    assert "0-4  the variant's recipe or settings changed" in said.out


def test_runs_that_came_before_a_metric_are_made_again_for_its_claim(quick: Path) -> None:
    claims = quick / "claims.toml"
    whole = claims.read_text(encoding="utf-8")
    claim = whole[whole.index('[[claim]]\nid = "test-error"') :].partition("\n\n")[0]
    metric = whole[whole.index('[metric."train/error"]') :].partition("\n\n")[0]
    edit(claims, metric, "")
    on(quick, "reproduce", "--engine", "inprocess")
    added = claim.replace("test-error", "gap").replace("test/error", "train/error")
    claims.write_text(f"{whole}\n{added}\n", encoding="utf-8")
    said = on(quick, "why-rerun")
    assert "0-1  recorded before the metric 'train/error' was defined" in said.out
    assert "one-input" not in said.out
    said = on(quick, "reproduce", "--engine", "inprocess")
    assert "2 variants, 2 runs to make, 3 cached" in said.err
    assert claims_of(on(quick, "verdict", "--json"))["gap"]["n"] == 2
    assert "nothing to run" in on(quick, "reproduce", "--engine", "inprocess").err


def test_record_promotes_the_runs_and_rebuilds_the_table(tiny_paper: Path) -> None:
    keep(tiny_paper, {"two-inputs": TWO})
    readme = tiny_paper / "README.md"
    readme.write_text("# Tiny\n<!-- table -->\n<!-- /table -->\n", encoding="utf-8")
    said = on(tiny_paper, "record")
    assert said.status == 0
    assert "5 records, 5 of them new" in said.out
    assert len(read_measured(tiny_paper / "measured.jsonl")) == 5
    assert "15.84 ± 0.24" in readme.read_text(encoding="utf-8")
    assert "is as it was" in on(tiny_paper, "record").out


def test_record_rebuilds_the_table_where_a_claim_reads_otherwise_and_nothing_was_run(
    tiny_paper: Path,
) -> None:
    readme = tiny_paper / "README.md"
    readme.write_text("# Tiny\n<!-- table -->\n<!-- /table -->\n", encoding="utf-8")
    assert "no records here of the current code" in mistake(
        "record", "tiny", "--papers", tiny_paper
    )
    keep(tiny_paper, {"two-inputs": TWO})
    on(tiny_paper, "record")
    measured = (tiny_paper / "measured.jsonl").read_bytes()
    shutil.rmtree(os.environ["REIMPL_RUNS"])
    edit(tiny_paper / "claims.toml", 'published = "15.9', 'published = "15.8')
    said = on(tiny_paper, "record")
    assert "5 records, 0 of them new; 0 are gone" in said.out
    assert "the table was rebuilt" in said.out
    assert "| 15.8" in readme.read_text(encoding="utf-8")
    assert (tiny_paper / "measured.jsonl").read_bytes() == measured


def test_record_keeps_failed_runs_and_table_and_verdict_tell_of_them(tiny_paper: Path) -> None:
    keep(tiny_paper, {"two-inputs": TWO})
    entry = find(tiny_paper.name, [tiny_paper])
    keys = evidence.current_keys(entry, entry.claims.variant("two-inputs"), "train")
    store = Store(planning.Request(paper="").root)
    for seed in (5, 6):
        made = store.read(entry.slug).ok[0]
        key, parts = keys(seed)
        why = f"Traceback\n  File {tiny_paper}\nValueError: no such luck"
        failed = {"seed": seed, "key": key, "key_parts": parts, "status": "error", "error": why}
        store.write(replace(made, measurements={}, **failed))
    readme = tiny_paper / "README.md"
    readme.write_text("# Tiny\n<!-- table -->\n<!-- /table -->\n", encoding="utf-8")
    assert "2 runs failed" in on(tiny_paper, "verdict").out
    assert "7 records, 7 of them new" in on(tiny_paper, "record").out
    assert "5 committed runs and 2 that failed" in readme.read_text(encoding="utf-8")
    errors = [r.error for r in read_measured(tiny_paper / "measured.jsonl") if r.error]
    assert errors == ["ValueError: no such luck"] * 2
    shutil.rmtree(os.environ["REIMPL_RUNS"])
    there = on(tiny_paper, "verdict")
    assert "2 runs failed, and the others alone do not stand for the method" in there.out
    claims = json.loads(on(tiny_paper, "verdict", "--json").out)["claims"]
    assert {c["id"]: c["failures"] for c in claims}["test-error"] == 2
    assert "5 records restored; 2 records" in on(tiny_paper, "restore").out


def test_record_gives_up_no_committed_run_and_verdict_says_what_it_leaves_out(
    tiny_paper: Path,
) -> None:
    (tiny_paper / "README.md").write_text("<!-- table -->\n<!-- /table -->\n", encoding="utf-8")
    keep(tiny_paper, {"two-inputs": TWO, "one-input": ONE})
    on(tiny_paper, "record")
    measured = (tiny_paper / "measured.jsonl").read_bytes()
    shutil.rmtree(os.environ["REIMPL_RUNS"])
    keep(tiny_paper, {"two-inputs": TWO[:3]})
    said = on(tiny_paper, "verdict")
    assert "not counted: 2 committed runs of two-inputs, for which fewer here stand" in said.out
    why = mistake("record", "tiny", "--papers", tiny_paper)
    assert "2 committed records of the same code (two-inputs, seed 3, …) are not here" in why
    assert (tiny_paper / "measured.jsonl").read_bytes() == measured
    on(tiny_paper, "restore")
    assert "not counted" not in on(tiny_paper, "verdict").out
    assert "10 records, 0 of them new; 0 are gone" in on(tiny_paper, "record").out


def test_counting_parameters_here_does_not_make_the_runs_ours(quick: Path) -> None:
    (quick / "README.md").write_text("<!-- table -->\n<!-- /table -->\n", encoding="utf-8")
    on(quick, "reproduce", "--engine", "inprocess")
    on(quick, "record")
    shutil.rmtree(os.environ["REIMPL_RUNS"])
    said = on(quick, "reproduce", "--engine", "inprocess", "--cost", "instant")
    assert "1 run to make" in said.err
    assert "committed records of 2 variants; nothing was run here" in said.out
    table = json.loads(on(quick, "verdict", "--json").out)
    assert table["evidence"] == {"one-input": "committed", "two-inputs": "committed"}


def test_restored_records_are_added_to_and_not_repeated(quick: Path) -> None:
    (quick / "README.md").write_text("<!-- table -->\n<!-- /table -->\n", encoding="utf-8")
    on(quick, "reproduce", "--engine", "inprocess")
    on(quick, "record")
    runs = Path(os.environ["REIMPL_RUNS"])
    shutil.rmtree(runs)
    assert f"{runs / quick.name}: 5 records restored\n" == on(quick, "restore").out
    assert "0 records restored" in on(quick, "restore").out
    said = on(quick, "reproduce", "--engine", "inprocess", "--seeds", "3")
    assert "2 runs to make, 5 cached" in said.err
    assert "7 records, 2 of them new; 0 are gone" in on(quick, "record").out


def test_records_of_other_code_are_not_restored(tiny_paper: Path) -> None:
    keep(tiny_paper, {"two-inputs": TWO})
    (tiny_paper / "README.md").write_text("<!-- table -->\n<!-- /table -->\n", encoding="utf-8")
    on(tiny_paper, "record")
    edit(tiny_paper / "claims.toml", "lr = 0.2", "lr = 0.1")
    said = on(tiny_paper, "restore")
    assert "0 records restored; 5 records of other code or versions left" in said.out
    (tiny_paper / "measured.jsonl").unlink()
    assert "no measured.jsonl to restore from" in mistake("restore", "tiny", "--papers", tiny_paper)


def test_record_writes_nothing_when_the_readme_has_no_place(tiny_paper: Path) -> None:
    keep(tiny_paper, {"two-inputs": TWO})
    said = on(tiny_paper, "record")
    assert said.status == 2
    assert "write the lines <!-- table --> and <!-- /table -->" in said.err
    assert not (tiny_paper / "measured.jsonl").exists()


def test_verdicts_fall_back_on_the_committed_records_and_say_so(tiny_paper: Path) -> None:
    keep(tiny_paper, {"two-inputs": TWO})
    (tiny_paper / "README.md").write_text("<!-- table -->\n<!-- /table -->\n", encoding="utf-8")
    on(tiny_paper, "record")
    shutil.rmtree(os.environ["REIMPL_RUNS"])
    said = on(tiny_paper, "verdict")
    assert "committed records of 1 variant; nothing was run here" in said.out
    assert "1 of 3 claims reproduced" in said.out


# Data and checks


def test_data_of_a_paper_that_makes_its_own(tiny_paper: Path) -> None:
    assert on(tiny_paper, "data").out == "this paper names no data: it makes its own\n"


def test_data_that_cannot_be_had_name_the_three_ways(
    tiny_paper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REIMPL_DATA_MIRROR", raising=False)
    block = '[data.points]\nhub = "org/points"\nrevision = "abc"\nsplits = { train = 3 }\n'
    edit(tiny_paper / "claims.toml", "[metric.parameters]", f"{block}\n[metric.parameters]")
    said = on(tiny_paper, "data")
    assert said.status == 2
    assert "Three ways to get it" in said.err


def test_doctor_looks_at_everything_and_names_no_key(
    tiny_paper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.delenv("WANDB_MODE")
    said = reimpl("doctor", "--papers", tiny_paper)
    assert said.status == 0
    assert "torch" in said.out
    assert "mode online" in said.out
    assert "0123456789abcdef" not in said.out + said.err


def test_doctor_warns_of_a_broken_paper_and_a_folder_that_is_none(
    tiny_paper: Path, tmp_path: Path
) -> None:
    (tiny_paper / "claims.toml").write_text("[paper", encoding="utf-8")
    (tmp_path / "taken").write_text("", encoding="utf-8")
    said = reimpl("doctor", "--papers", tiny_paper, "--runs", tmp_path / "taken" / "runs", "--json")
    state = {check["what"]: check["state"] for check in json.loads(said.out)["checks"]}
    assert (state["tiny2026_logistic"], state["runs"]) == ("warn", "warn")


def test_check_fails_on_a_broken_paper(tiny_paper: Path) -> None:
    edit(tiny_paper / "claims.toml", 'source = "table 1"', "")
    said = reimpl("check", tiny_paper)
    assert said.status == 1
    assert "missing key 'source'" in said.out


def test_check_passes_a_paper_that_does_what_it_owes(tiny_paper: Path) -> None:
    said = reimpl("check", tiny_paper)
    assert said.status == 0
    assert "tiny2026_logistic: every exact claim holds" in said.out


# Progress


def progress(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Progress, list[Job]]:
    monkeypatch.setattr("reimpl.cli.progress.SAY_EVERY", -1.0)
    monkeypatch.setattr("reimpl.cli.progress.SAYING_SHARE", 0.0)
    runs = folder / "runs"
    request = planning.Request(paper="tiny", papers=(folder,), claims=("test-error",), runs=runs)
    shown = Progress(request)
    return shown, shown.begin(planning.plan(request, estimate=False)).jobs


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """The lines that are said of events, where there is no terminal."""

    def lines(shown: Progress, *events: Event) -> list[str]:
        capsys.readouterr()
        with shown:
            for event in events:
                shown.see(event)
        return capsys.readouterr().err.splitlines()

    return lines


def test_without_a_terminal_progress_is_a_line_now_and_then(
    tiny_paper: Path, monkeypatch: pytest.MonkeyPatch, log: Callable[..., list[str]]
) -> None:
    shown, (first, second, *_) = progress(tiny_paper, monkeypatch)
    said = log(
        shown,
        Event(kind="started", job=first),
        Event(kind="done", job=first, contents={"result": []}),
        Event(kind="progress", job=second, contents={"done": 1, "total": 2}),
    )
    assert said[0] == "0 of 5 jobs done"
    assert said[1].startswith("1 of 5 jobs done, 20 %, ")
    assert said[2].startswith("1 of 5 jobs done, 30 %, ")


def test_what_another_process_makes_is_said_until_it_is_made(
    tiny_paper: Path, monkeypatch: pytest.MonkeyPatch, log: Callable[..., list[str]]
) -> None:
    shown, (first, second, *_) = progress(tiny_paper, monkeypatch)
    said = log(
        shown,
        Event(kind="taken", job=first),
        Event(kind="taken", job=second),
        Event(kind="taken", job=first),  # it waits, and looks again
        Event(kind="started", job=second),
        Event(kind="done", job=first, contents={"result": []}),
    )
    assert said[2] == "0 of 5 jobs done, 2 being made by another process"
    assert said[3] == "0 of 5 jobs done, 1 being made by another process"
    assert said[4].startswith("1 of 5 jobs done, 20 %")


def test_what_was_done_before_does_not_count_as_pace(
    tiny_paper: Path, monkeypatch: pytest.MonkeyPatch, log: Callable[..., list[str]]
) -> None:
    shown, (first, second, *_) = progress(tiny_paper, monkeypatch)
    shown.began -= 60.0
    late = {"done": 0.9, "total": 1, "before": 0.75}  # 0.15 of a run in a minute
    half = {"done": 0.5, "total": 1, "before": 0.5}  # 3.5 runs are left
    assert log(
        shown,
        Event(kind="progress", job=first, contents=late),
        Event(kind="done", job=first, contents={"result": []}),  # now 0.25
        Event(kind="progress", job=second, contents=half),
    ) == [
        "0 of 5 jobs done, 18 %, 27 minutes left or so",
        "1 of 5 jobs done, 20 %, 16 minutes left or so",
        "1 of 5 jobs done, 30 %, 14 minutes left or so",
    ]


def test_probing_that_takes_long_says_how_far_it_is(
    tiny_paper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, _ = progress(tiny_paper, monkeypatch)
    said = on(tiny_paper, "plan").err.splitlines()
    assert said[0] == "timing by short probes: 0 of 2 made"
    assert said[-1] == "timing by short probes: 2 of 2 made"
    shown.probing(1, 2)
    console = Console(file=StringIO(), width=80, record=True)
    console.print(shown.drawn())
    assert "1 of 2 made" in console.export_text()


def test_on_a_terminal_each_running_job_has_its_line(
    tiny_paper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, jobs = progress(tiny_paper, monkeypatch)
    contents = {"done": 1, "total": 2, "shown": {"test/error": 15.25}}
    shown.see(Event(kind="progress", job=jobs[0], contents=contents))
    console = Console(file=StringIO(), width=80, record=True)
    console.print(shown.drawn())
    text = console.export_text()
    assert "two-inputs, seed 0" in text
    assert "test/error 15.25" in text


# The user's mistakes


def mistake(*words: object) -> str:
    """The one line of a command that ends with status 2."""
    said = reimpl(*words)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("reimpl: ")
    assert said.err.count("\n") == 1
    return said.err


def test_a_claim_that_cannot_be_settled_or_not_by_these_variants_is_one_line() -> None:
    why = mistake("plan", "kim2014", "--claim", "static-mr", "--no-probe")
    assert why.startswith("reimpl: claim 'static-mr' needs the GoogleNews word2vec vectors")
    words = ("--claim", "symmetry-sweeps", "--variant", "xor-direct", "--no-probe")
    why = mistake("plan", "rumelhart1986", *words)
    assert why == "reimpl: claim 'symmetry-sweeps' uses symmetry, not xor-direct\n"


def test_an_unknown_paper_gets_a_near_one() -> None:
    assert "Did you mean 'rumelhart1986'" in mistake("verdict", "rumelhard1986")


def test_an_ambiguous_paper_lists_the_matches(tiny_paper: Path) -> None:
    shutil.copytree(tiny_paper, tiny_paper.parent / "tiny2027_again")
    said = mistake("verdict", "tiny", "--papers", tiny_paper.parent)
    assert "ambiguous: tiny2026_logistic, tiny2027_again" in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["reproduce", "--variant", "two-input"], "Did you mean 'two-inputs'"),
        (["reproduce", "--claim", "test-errors"], "Did you mean 'test-error'?"),
        (["reproduce", "--set", "learning=1", "--variant", "two-inputs"], "has no key 'learning'"),
        (["reproduce", "--set", "lr"], "write KEY=VALUE"),
        (["reproduce", "--set", "precision=8", "--variant", "two-inputs"], "bf16-mixed"),
        (["reproduce", "--set", "lr=fast", "--variant", "two-inputs"], "must be a number"),
        (["reproduce", "--model", "none.py:Net"], "with a file that exists"),
        (["reproduce", "--wandb", "online"], "Run `wandb login`"),
        (["reproduce", "--wandb", "of"], "unknown mode 'of'"),
        (["reproduce", "--device", "gpu0"], "--device gpu0"),
        (["reproduce", "--address", "a:1"], "--address a:1: goes with --engine ray"),
        (["plan", "--address", "a:1"], "--address a:1: goes with --engine ray"),
        (["show", "--claim", "test-errors"], "Did you mean 'test-error'?"),
        (["record"], "no place for the table"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_mistake_is_one_line_and_status_2(tiny_paper: Path, words: list[str], hint: str) -> None:
    command, *rest = words
    assert hint in mistake(command, "tiny", "--papers", tiny_paper, *rest)


def test_a_misspelt_key_in_claims_is_one_line_and_status_2(tiny_paper: Path) -> None:
    edit(tiny_paper / "claims.toml", "margin = 1.5", "margn = 1.5")
    assert "Did you mean 'margin'" in mistake("verdict", "tiny", "--papers", tiny_paper)


def test_a_claim_without_source_is_one_line_and_status_2(tiny_paper: Path) -> None:
    edit(tiny_paper / "claims.toml", 'source = "table 1"', "")
    line = mistake("reproduce", "tiny", "--papers", tiny_paper)
    assert "claim 'test-error': missing key 'source'" in line


def test_a_paper_that_cannot_be_imported_names_file_and_line(tiny_paper: Path) -> None:
    edit(tiny_paper / "__init__.py", "import torch\n", "import torch\nimport nowhere_to_be_found\n")
    line = mistake("reproduce", "tiny", "--papers", tiny_paper, "--engine", "inprocess").lower()
    assert "no module named 'nowhere_to_be_found'" in line
    assert "tiny2026_logistic/__init__.py:4" in line


def test_a_folder_for_records_that_is_a_file_is_one_line_and_status_2(
    quick: Path, tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("", encoding="utf-8")
    said = on(quick, "reproduce", "--runs", taken, "--engine", "inprocess")
    assert said.status == 2
    assert said.err.splitlines()[-1].startswith(f"reimpl: {taken}")


def test_every_command_of_the_help_is_there() -> None:
    assert list(parser.COMMANDS) == list(COMMANDS)


def test_the_version_is_that_of_the_package() -> None:
    said = reimpl("--version")
    assert (said.status, said.out) == (0, f"reimpl {metadata.version('reimpl')}\n")


def test_no_command_gets_the_help() -> None:
    said = reimpl()
    assert (said.status, said.out) == (2, "")
    assert all(f"\n  {name} " in said.err for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["reprodce", "tiny"], "there is no command 'reprodce'. Did you mean 'reproduce'?"),
        (["--verison"], "`reimpl` has no option '--verison'. Did you mean '--version'?"),
        (["verdict", "tiny", "--strct"], "has no option '--strct'. Did you mean '--strict'?"),
        (["verdict", "tiny", "twice"], "'twice' is one word too many"),
        (["verdict"], "required: PAPER. See `reimpl verdict --help`"),
        (["plan", "tiny", "--cost", "hour"], "--cost takes no 'hour'. Did you mean 'hours'?"),
        (["reproduce", "tiny", "--cost", "days"], "--cost takes no 'days'"),
        (["reproduce", "tiny", "--engine", "steam"], "--engine takes no 'steam'"),
        (["reproduce", "tiny", "--seeds", "0"], "--seeds: '0' is neither a number above 0"),
        (["reproduce", "tiny", "--seeds", "9" * 11], "is more than 1,000,000, which are enough"),
        (["plan", "tiny", "--workers", "0"], "--workers: '0' is no number above 0"),
        (["plan", "tiny", "--budget", "soon"], "write it as 90s, 30m or 1h30m"),
        (["reproduce", "tiny", "--seeds", "many"], "'many' is neither a number above 0 nor auto"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_word_that_no_command_takes_is_one_line_and_status_2(words: list[str], hint: str) -> None:
    assert hint in mistake(*words)


def test_help_gives_examples_that_can_be_copied() -> None:
    said = reimpl("reproduce", "--help")
    assert "\n  reimpl reproduce lenet5 --set lr=0.01 --seeds 3\n" in said.out


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("1e-3", 1e-3),
        ("3", 3),
        ("true", True),
        ("adam", "adam"),
        ('"1"', "1"),
        ("", ""),
    ],
)
def test_a_setting_is_read_as_toml_or_else_as_text(text: str, value: object) -> None:
    assert overrides([f"key={text}"]) == {"key": value}


def test_seeds_auto_says_what_it_spent_and_what_it_saved(tiny_paper: Path) -> None:
    said = on(tiny_paper, "reproduce", "--seeds", "auto", "--engine", "inprocess")
    assert said.status == 0
    assert "3 seeds: parameters, test-error, two-beat-one" in said.err
    assert "decided with" in said.out
    spent = re.search(
        r"spent (\d+) runs; 20 seeds for each variant are 40, so (\d+) were", said.out
    )
    assert spent is not None
    assert int(spent[1]) + int(spent[2]) == 40
    again = on(tiny_paper, "verdict", "--seeds", "auto")
    assert spent[0] in again.out


def test_seeds_that_may_have_been_added_to_decide_are_pointed_out(tiny_paper: Path) -> None:
    asked, more = [3.0, 3.1, 2.9, 3.0, 3.1], [3.2, 3.3, 3.1]
    keep(tiny_paper, {"two-inputs": asked})
    assert "more seeds" not in on(tiny_paper, "verdict").out
    keep(tiny_paper, {"two-inputs": [*asked, *more], "one-input": asked})
    said = on(tiny_paper, "verdict")
    assert "more seeds than claims.toml asks for: up to 8, of two-inputs; " in said.out
    assert "reimpl verdict tiny2026_logistic --seeds auto" in said.out
    for seeds in ("5", "auto"):
        assert "more seeds" not in on(tiny_paper, "verdict", "--seeds", seeds).out


@pytest.mark.parametrize(("seeds", "n"), [(["--seeds", "4"], 4), ([], 8), (["--seeds", "9"], 8)])
def test_a_verdict_can_rest_on_a_number_of_seeds_fixed_beforehand(
    tiny_paper: Path, seeds: list[str], n: int
) -> None:
    keep(tiny_paper, {"two-inputs": [3.0, 3.1, 2.9, 3.0, 3.1, 3.2, 3.3, 3.1]})
    claims = claims_of(on(tiny_paper, "verdict", "--json", *seeds))
    assert claims["test-error"]["n"] == n
