"""Every check is shown a paper that is broken in one place, and must name the culprit."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reimpl import conformance, registry
from reimpl.conformance import Finding, written
from reimpl.records import Record, write_measured
from reimpl.registry import Entry
from reimpl.report import rebuild_readme

MINIMAL = Path(__file__).resolve().parent.parent / "docs" / "examples" / "minimal_paper"
README = "# Two classes of points\n\n## Results\n\n<!-- table -->\n<!-- /table -->\n"
RECORD = Record(
    paper="tiny2026_logistic",
    variant="two-inputs",
    seed=0,
    part="train",
    status="ok",
    measurements={"test/error": 16.0},
    key="0" * 64,
    key_parts={},
    started="2026-01-01T00:00:00+00:00",
    wall_s=1.0,
    cpu_s=1.0,
    environment={"git_commit": "a" * 40, "git_dirty": False},
)


def entry_of(folder: Path) -> Entry:
    return registry.find(folder.name, [folder])


def faults(folder: Path) -> dict[str, str]:
    return {f.what: f.detail for f in conformance.check(entry_of(folder)) if not f.ok}


def finding(folder: Path, what: str) -> Finding:
    return next(f for f in conformance.check(entry_of(folder)) if f.what == what)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def code(folder: Path) -> Path:
    return folder / "__init__.py"


def claims(folder: Path) -> Path:
    return folder / "claims.toml"


def measure(folder: Path, *records: Record) -> None:
    write_measured(folder / "measured.jsonl", records)


def with_table(folder: Path) -> Path:
    measure(folder, *(replace(RECORD, seed=seed) for seed in range(5)))
    readme = folder / "README.md"
    readme.write_text(README, encoding="utf-8")
    readme.write_text(rebuild_readme(entry_of(folder)), encoding="utf-8")
    return readme


def only(detail: dict[str, str], what: str) -> str:
    assert list(detail) == [what]
    return detail[what]


def test_the_minimal_paper_passes() -> None:
    assert faults(MINIMAL) == {}


def test_the_tiny_paper_passes(tiny_paper: Path) -> None:
    assert faults(tiny_paper) == {}


def test_a_paper_with_a_table_of_its_records_passes(tiny_paper: Path) -> None:
    with_table(tiny_paper)
    assert faults(tiny_paper) == {}


def test_parts_that_a_paper_may_leave_out_are_reported_softly() -> None:
    found = {f.what: f.detail for f in conformance.check(entry_of(MINIMAL))}
    assert found["README.md"] == found["measured.jsonl"] == "none"
    assert found["example"].startswith("none")


def test_checking_leaves_the_random_numbers_alone(tiny_paper: Path) -> None:
    before = torch.get_rng_state()
    conformance.check(entry_of(tiny_paper))
    assert torch.equal(before, torch.get_rng_state())


# claims.toml


def test_claims_that_do_not_read_are_the_only_finding(tiny_paper: Path) -> None:
    change(claims(tiny_paper), "margin =", "margn =")
    assert "'margn'" in only(faults(tiny_paper), "claims.toml reads")


def test_a_claim_without_a_place_is_named(tiny_paper: Path) -> None:
    change(claims(tiny_paper), 'source = "table 1"\nmetric', 'source = "the paper"\nmetric')
    detail = only(faults(tiny_paper), "every claim cites a place")
    assert "'test-error'" in detail
    assert "'the paper'" in detail


@pytest.mark.parametrize(
    "source",
    [
        "Fig. 9",
        "table 2, row GCN",
        "secs III-C.5 and III-C.6",
        "section 'Learning'",
        "p. 331",
        "eq. (9)",
        "§3",
        "app. A",
        "abstract",
        "Hinton 1986; unconfirmed",
    ],
)
def test_a_place_is_recognised(tiny_paper: Path, source: str) -> None:
    change(claims(tiny_paper), '"table 1"', f'"{source}"')
    assert list(written.claims_without_a_place(entry_of(tiny_paper))) == []


@pytest.mark.parametrize(
    "source", ["the paper", "our own runs", "section", "a figure", "stable 2", "all of the text"]
)
def test_what_is_no_place_is_recognised(tiny_paper: Path, source: str) -> None:
    change(claims(tiny_paper), '"table 1"', f'"{source}"')
    assert len(list(written.claims_without_a_place(entry_of(tiny_paper)))) == 2


def test_a_proxy_needs_no_place_in_the_paper(tiny_paper: Path) -> None:
    change(claims(tiny_paper), '"table 1"', '"our own runs"\nproxy = true')
    assert list(written.claims_without_a_place(entry_of(tiny_paper))) == []


def test_a_definition_of_one_word_is_named(tiny_paper: Path) -> None:
    change(claims(tiny_paper), '"weights and biases"', '"parameters"')
    assert "'parameters'" in only(faults(tiny_paper), "every metric is defined")


def test_a_setting_that_no_variant_fixes_is_named(tiny_paper: Path) -> None:
    setting = '[setting.outputs]\nsays = "classes"\nsource = "sec. 1"\n\n[setting.inputs]'
    change(claims(tiny_paper), "[setting.inputs]", setting)
    assert "'outputs'" in only(faults(tiny_paper), "every setting is used")


def test_a_variant_that_no_claim_speaks_of_is_worth_a_remark(tiny_paper: Path) -> None:
    variant = '[[variant]]\nid = "idle"\nextends = "two-inputs"\nsays = "unused"\n\n[[gap]]'
    change(claims(tiny_paper), "[[gap]]", variant)
    spoken = finding(tiny_paper, "every variant is spoken of")
    assert spoken.ok
    assert "'idle'" in spoken.detail


# The code


@pytest.mark.parametrize(
    ("line", "culprit"),
    [
        ("import wandb", "wandb"),
        ("import pytorch_lightning as pl", "pytorch_lightning"),
        ("from argparse import ArgumentParser", "argparse.ArgumentParser"),
        ("from papers.rumelhart1986_backprop import PAPER", "papers.rumelhart1986_backprop.PAPER"),
        ("from papers import lecun1998_lenet5", "papers.lecun1998_lenet5"),
        ("from ..other2020_thing.model import Net", "..other2020_thing.model.Net"),
        ("from reimpl import reproduce", "reimpl.reproduce"),
        ("import reimpl.training", "reimpl.training"),
    ],
)
def test_a_forbidden_import_is_named_with_its_line(
    tiny_paper: Path, line: str, culprit: str
) -> None:
    (tiny_paper / "train.py").write_text(f"import torch\n{line}\n", encoding="utf-8")
    detail = only(faults(tiny_paper), "the paper stands alone")
    assert detail.startswith(f"train.py:2 imports {culprit}: ")


@pytest.mark.parametrize(
    "line",
    [
        "from reimpl.errors import RequestError",
        "from reimpl import claims",
        "from .data import points",
        "from . import data",
        "import numpy as np",
    ],
)
def test_an_allowed_import_is_no_problem(tiny_paper: Path, line: str) -> None:
    (tiny_paper / "train.py").write_text(f"{line}\n", encoding="utf-8")
    assert list(written.forbidden_imports(entry_of(tiny_paper))) == []


def test_a_model_that_knows_the_harness_is_named(tiny_paper: Path) -> None:
    (tiny_paper / "model.py").write_text("from reimpl.claims import Variant\n", encoding="utf-8")
    detail = only(faults(tiny_paper), "the paper stands alone")
    assert detail.startswith("model.py:1 imports reimpl.claims.Variant")


def test_a_long_model_is_measured(tiny_paper: Path) -> None:
    (tiny_paper / "model.py").write_text("import torch\n" * 150, encoding="utf-8")
    assert "150 lines" in only(faults(tiny_paper), "model.py is short")


def test_a_paper_that_does_not_import_is_named_with_its_line(tiny_paper: Path) -> None:
    change(code(tiny_paper), "TRAIN, TEST = 1000, 4000", "TRAIN, TEST = 1000")
    detail = only(faults(tiny_paper), "the Python imports")
    assert "TypeError" in detail
    assert "__init__.py:8" in detail


def test_a_slug_that_is_not_the_folder_s_name_is_named(tiny_paper: Path) -> None:
    change(code(tiny_paper), 'slug="tiny2026_logistic"', 'slug="tiny2027_logistic"')
    assert "'tiny2027_logistic'" in only(faults(tiny_paper), "the Python imports")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("torch.manual_seed(0)", "importing changes torch's random numbers"),
        ("__import__('numpy').random.rand()", "importing changes NumPy's random numbers"),
        ("open('notes.txt', 'w').close()", "importing writes notes.txt"),
        ("print('hello')", "importing prints 'hello'"),
    ],
)
def test_a_side_effect_of_importing_is_named(tiny_paper: Path, line: str, said: str) -> None:
    guarded = f"if __name__.startswith('_conformance'):\n    {line}\n"
    change(code(tiny_paper), "TRAIN, TEST", f"{guarded}TRAIN, TEST")
    with torch.random.fork_rng(devices=[]):
        assert said in only(faults(tiny_paper), "importing does nothing else")


# Counts


def test_a_wrong_count_is_named_with_both_figures(tiny_paper: Path) -> None:
    change(claims(tiny_paper), "published = 3", "published = 4")
    detail = only(faults(tiny_paper), "every exact claim holds")
    assert detail == "claim 'parameters': published 4, counted 3 of 'parameters'"


GAP = """
[[gap]]
id = "biases"
we_do = "none of them"
because = "the paper does not say"
alternatives = ["one"]
"""


@pytest.mark.parametrize("told", ["unconfirmed", "gap 'biases'"])
def test_a_wrong_count_that_is_told_of_is_worth_a_remark(tiny_paper: Path, told: str) -> None:
    change(claims(tiny_paper), "published = 3", "published = 4")
    change(claims(tiny_paper), '"sec. 1"\nmetric', f'"sec. 1; {told}"\nmetric')
    claims(tiny_paper).write_text(claims(tiny_paper).read_text() + GAP)
    counts = finding(tiny_paper, "counts that differ for a stated reason")
    assert counts.ok
    assert "published 4, counted 3" in counts.detail


def test_a_wrong_count_that_cites_no_gap_of_the_paper_is_named(tiny_paper: Path) -> None:
    change(claims(tiny_paper), "published = 3", "published = 4")
    change(claims(tiny_paper), '"sec. 1"\nmetric', "\"sec. 1; gap 'units'\"\nmetric")
    assert "counted 3" in only(faults(tiny_paper), "every exact claim holds")


def test_an_exact_claim_needs_counts(tiny_paper: Path) -> None:
    change(code(tiny_paper), "    counts=counts,\n", "")
    assert "no `counts`" in only(faults(tiny_paper), "every exact claim holds")


def test_a_count_that_is_not_given_is_named(tiny_paper: Path) -> None:
    change(code(tiny_paper), '{"parameters": sum', '{"weights": sum')
    assert "gives no 'parameters'" in only(faults(tiny_paper), "every exact claim holds")


# Training


def test_a_variant_that_nothing_trains_is_named(tiny_paper: Path) -> None:
    variant = '[[variant]]\nid = "idle"\nsays = "untrained"\nsource = "sec. 1"\n\n[[gap]]'
    change(claims(tiny_paper), "[[gap]]", variant)
    assert "'idle'" in only(faults(tiny_paper), "every variant can be trained")


def test_a_fit_of_no_variant_is_named(tiny_paper: Path) -> None:
    change(code(tiny_paper), "    counts=counts,\n", "    counts=counts,\n    fit={'two': data},\n")
    assert "'two'" in only(faults(tiny_paper), "every variant can be trained")


def test_a_part_that_training_lacks_is_named(tiny_paper: Path) -> None:
    change(code(tiny_paper), "    metrics=metrics,\n", "")
    assert "`metrics`" in only(faults(tiny_paper), "training has its parts")


def test_a_loss_that_is_nan_is_named_with_its_variant(tiny_paper: Path) -> None:
    change(code(tiny_paper), "(model(X), y)\n", "(model(X), y) * float('nan')\n")
    detail = faults(tiny_paper)["the model runs and the loss is a finite scalar"]
    assert detail.startswith("variant 'two-inputs': the loss is nan")


def test_a_loss_for_each_example_is_no_scalar(tiny_paper: Path) -> None:
    change(code(tiny_paper), "(model(X), y)\n", "(model(X), y, reduction='none')\n")
    detail = faults(tiny_paper)["the model runs and the loss is a finite scalar"]
    assert "shape (4,)" in detail


def test_a_model_that_raises_is_named_with_its_line(tiny_paper: Path) -> None:
    change(code(tiny_paper), "nn.Linear(inputs, 1)", "nn.Linear(inputs + 1, 1)")
    detail = faults(tiny_paper)["the model runs and the loss is a finite scalar"]
    assert "RuntimeError" in detail
    assert "__init__.py:19" in detail


def test_a_parameter_without_a_gradient_is_named(tiny_paper: Path) -> None:
    unused = "super().__init__()\n        self.unused = nn.Parameter(torch.zeros(1))"
    change(code(tiny_paper), "super().__init__()", unused)
    change(claims(tiny_paper), "published = 3", "published = 4")
    detail = only(faults(tiny_paper), "every gradient reaches a parameter")
    assert detail.startswith("variant 'two-inputs': no gradient reaches 'unused'")


def test_a_step_that_changes_nothing_is_named(tiny_paper: Path) -> None:
    change(claims(tiny_paper), "lr = 0.2", "lr = 0.0")
    detail = only(faults(tiny_paper), "a step of every recipe changes the network")
    assert "'two-inputs'" in detail


def test_a_step_that_overflows_is_named(tiny_paper: Path) -> None:
    change(claims(tiny_paper), "lr = 0.2", "lr = 1e38")
    change(code(tiny_paper), "(model(X), y)\n", "(model(X), y) * 1e6\n")
    detail = only(faults(tiny_paper), "a step of every recipe changes the network")
    assert "'linear.weight' not finite" in detail


@pytest.mark.parametrize("mean", [".mean()", ".mean().item()"])
def test_a_metric_that_is_a_mean_is_named(tiny_paper: Path, mean: str) -> None:
    change(code(tiny_paper), "(y > 0.5)).float()}", f"(y > 0.5)).float(){mean}}}")
    detail = only(faults(tiny_paper), "metrics are one value per example")
    assert "metric 'error' has shape ()" in detail


def test_a_metric_that_no_claim_file_knows_is_named(tiny_paper: Path) -> None:
    change(code(tiny_paper), '{"error": 100.0', '{"mistakes": 100.0')
    detail = only(faults(tiny_paper), "metrics are one value per example")
    assert "'mistakes'" in detail


def test_seeds_that_train_in_a_batch_as_alone_pass(tiny_paper: Path) -> None:
    change(claims(tiny_paper), "batch_size = 50", "batch_size = 50\nvectorised = true")
    assert faults(tiny_paper) == {}


def test_a_start_that_no_seed_decides_differs_in_a_batch_of_seeds(tiny_paper: Path) -> None:
    change(claims(tiny_paper), "batch_size = 50", "batch_size = 50\nvectorised = true")
    change(code(tiny_paper), "super().__init__()", "super().__init__()\n        torch.seed()")
    detail = only(faults(tiny_paper), "seeds in a batch train as alone")
    assert "'linear.weight' of seed 0" in detail


def test_data_that_must_be_fetched_leave_variants_untried(tiny_paper: Path) -> None:
    source = (
        '[data.points]\nhub = "a/b"\nrevision = "c"\nsplits = { train = 4 }\n\n[metric.parameters]'
    )
    change(claims(tiny_paper), "[metric.parameters]", source)
    change(code(tiny_paper), "    example=example,\n", "")
    example = finding(tiny_paper, "example")
    assert example.ok
    assert "no variant is tried" in example.detail


# README.md and measured.jsonl


def test_a_readme_of_something_else_is_named(tiny_paper: Path) -> None:
    change(tiny_paper / "README.md", "Two classes", "Three classes")
    assert "'Two classes of points'" in only(faults(tiny_paper), "README.md")


def test_a_table_edited_by_hand_is_named_with_its_line(tiny_paper: Path) -> None:
    readme = with_table(tiny_paper)
    change(readme, "16.00", "15.90")
    number = next(n for n, line in enumerate(readme.read_text().splitlines(), 1) if "15.90" in line)
    detail = only(faults(tiny_paper), "README.md")
    assert detail.startswith(f"README.md:{number} is not what measured.jsonl gives")


def test_records_need_a_place_for_their_table(tiny_paper: Path) -> None:
    measure(tiny_paper, RECORD)
    assert "<!-- table -->" in only(faults(tiny_paper), "README.md")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (replace(RECORD, measurements={"test/eror": 1.0}), "no metric 'test/eror'"),
        (replace(RECORD, variant="three-inputs"), "three-inputs, seed 0: claims.toml has no such"),
        (replace(RECORD, paper="tiny2025_linear"), "of paper 'tiny2025_linear'"),
        (replace(RECORD, status="error"), "the run failed"),
        (replace(RECORD, overrides={"lr": 0.1}), "altered by --set or --model"),
        (replace(RECORD, model="mine.py:Net"), "altered by --set or --model"),
        (replace(RECORD, environment={"git_dirty": True}), "not committed"),
    ],
    ids=["metric", "variant", "paper", "failed", "set", "model", "dirty"],
)
def test_a_record_that_is_no_evidence_is_named(tiny_paper: Path, record: Record, said: str) -> None:
    measure(tiny_paper, record)
    assert said in faults(tiny_paper)["measured.jsonl"]


def test_a_baseline_s_record_is_of_the_variant_whose_data_it_had(tiny_paper: Path) -> None:
    measure(tiny_paper, replace(RECORD, part="baseline", variant="5 nearest on two-inputs"))
    assert list(written.record_problems(entry_of(tiny_paper))) == []


def test_a_run_that_is_there_twice_is_named(tiny_paper: Path) -> None:
    measure(tiny_paper, RECORD, RECORD)
    assert "two-inputs, seed 0 (train) is there 2 times" in faults(tiny_paper)["measured.jsonl"]


def test_a_record_cut_in_half_is_named_with_its_line(tiny_paper: Path) -> None:
    with_table(tiny_paper)
    path = tiny_paper / "measured.jsonl"
    path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    assert "measured.jsonl:5" in faults(tiny_paper)["measured.jsonl"]


def test_many_problems_are_cut_short() -> None:
    def look(_entry: Entry) -> Iterator[str]:
        yield from "abcde"

    said = conformance._finding("letters", entry_of(MINIMAL), look)
    assert said.detail == "a; b; c; and 2 more"
