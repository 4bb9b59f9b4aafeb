"""What every paper of this repository owes; a new paper is tested without a line here."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from statistics import median

import pytest

from reimpl import registry
from reimpl.claims import Variant
from reimpl.conformance import run, trials, written
from reimpl.conformance.trials import Trial
from reimpl.errors import ReimplError
from reimpl.records import read_measured
from reimpl.registry import Entry
from reimpl.report import rebuild_readme

ROOT = Path(__file__).resolve().parent.parent
PAPERS = [e for e in registry.entries() if e.folder.parent == ROOT / "papers"]
TRAINED: list[tuple[Entry, Variant]] = []
for _entry in PAPERS:
    with suppress(ReimplError):  # a broken paper fails a test of its own
        TRAINED += [(_entry, variant) for variant in run.trained_variants(_entry)]
VECTORISED = [(entry, variant) for entry, variant in TRAINED if variant.vectorised]
MEASURED = [entry for entry in PAPERS if (entry.folder / "measured.jsonl").exists()]


def each(papers: list[Entry]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", papers, ids=[entry.slug for entry in papers])


def each_variant(pairs: list[tuple[Entry, Variant]]) -> pytest.MarkDecorator:
    ids = [f"{entry.slug}-{variant.id}" for entry, variant in pairs]
    return pytest.mark.parametrize(("entry", "variant"), pairs, ids=ids)


def tried(entry: Entry, variant: Variant) -> Trial:
    trial = trials.trial(entry, variant)
    assert trial is not None, "the paper needs an example, for its data have to be fetched"
    return trial


@each(PAPERS)
def test_the_paper_can_be_used(entry: Entry) -> None:
    assert entry.broken is None
    assert list(run.loading_problems(entry)) == []


@each(PAPERS)
def test_importing_the_paper_does_nothing_else(entry: Entry) -> None:
    assert list(run.side_effects(entry)) == []


@each(PAPERS)
def test_every_claim_cites_a_place(entry: Entry) -> None:
    assert list(written.claims_without_a_place(entry)) == []


@each(PAPERS)
def test_every_metric_is_defined(entry: Entry) -> None:
    assert list(written.vague_definitions(entry)) == []


@each(PAPERS)
def test_every_setting_is_used(entry: Entry) -> None:
    assert list(written.unused_settings(entry)) == []


@each(PAPERS)
def test_the_paper_stands_alone(entry: Entry) -> None:
    assert list(written.forbidden_imports(entry)) == []


@each(PAPERS)
def test_the_model_is_short(entry: Entry) -> None:
    assert list(written.long_model(entry)) == []


@each(PAPERS)
def test_every_exact_claim_is_reproduced(entry: Entry) -> None:
    assert list(run.failing_exact_claims(entry)) == []


@each(PAPERS)
def test_every_variant_can_be_trained(entry: Entry) -> None:
    assert list(run.untrainable_variants(entry)) == []
    assert list(run.missing_parts(entry)) == []


@each_variant(TRAINED)
def test_the_model_runs_and_its_loss_is_a_finite_scalar(entry: Entry, variant: Variant) -> None:
    assert list(trials.loss_problems(tried(entry, variant))) == []


@each_variant(TRAINED)
def test_every_gradient_reaches_a_parameter(entry: Entry, variant: Variant) -> None:
    assert list(trials.gradient_problems(tried(entry, variant))) == []


@each_variant(TRAINED)
def test_a_step_of_the_recipe_changes_the_network(entry: Entry, variant: Variant) -> None:
    assert list(trials.step_problems(tried(entry, variant))) == []


@each_variant(TRAINED)
def test_metrics_are_one_value_per_example(entry: Entry, variant: Variant) -> None:
    assert list(trials.metric_problems(tried(entry, variant))) == []


@each(PAPERS)
def test_every_fit_without_data_takes_its_first_step(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REIMPL_DATA_MIRROR", raising=False)
    assert list(run.fit_problems(entry)) == []


@pytest.mark.data
@each([entry for entry in PAPERS if entry.broken is None and entry.claims.sources])
def test_every_fit_takes_its_first_step_on_its_data(
    entry: Entry, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("REIMPL_CACHE", str(tmp_path_factory.getbasetemp() / "decoded"))
    assert list(run.fit_problems(entry)) == []


@each_variant(VECTORISED)
def test_seeds_in_a_batch_train_as_alone(entry: Entry, variant: Variant) -> None:
    assert list(trials.vectorised_problems(tried(entry, variant))) == []


def test_papers_are_short() -> None:
    def lines(entry: Entry) -> dict[str, int]:
        files = entry.folder.rglob("*.py")
        return {
            str(file.relative_to(entry.folder)): len(file.read_text(encoding="utf-8").splitlines())
            for file in files
        }

    counted = [lines(entry) for entry in PAPERS]
    assert median(table.get("model.py", 0) for table in counted) < 100
    beside = [sum(n for name, n in table.items() if name != "model.py") for table in counted]
    assert median(beside) < 150


@each(PAPERS)
def test_the_readme_opens_with_the_paper_and_has_a_place_for_the_table(entry: Entry) -> None:
    assert rebuild_readme(entry)
    assert list(written.readme_problems(entry)) == []


@each(MEASURED)
def test_committed_records_are_evidence(entry: Entry) -> None:
    assert list(written.record_problems(entry)) == []


@each(MEASURED)
def test_committed_records_name_their_commit(entry: Entry) -> None:
    records = read_measured(entry.folder / "measured.jsonl")
    nameless = [(r.variant, r.seed) for r in records if not r.environment.get("git_commit")]
    assert nameless == []


@each(PAPERS)
def test_without_its_folder_only_the_paper_itself_is_missing(entry: Entry, tmp_path: Path) -> None:
    for package in ("reimpl", "papers"):
        ignored = shutil.ignore_patterns("__pycache__", "measured.jsonl")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    shutil.rmtree(tmp_path / "papers" / entry.slug)
    done = subprocess.run(
        [sys.executable, "-m", "reimpl", "list", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    broken = {paper["slug"]: paper["broken"] for paper in json.loads(done.stdout)["papers"]}
    others = {paper.slug: paper.broken for paper in PAPERS if paper != entry}
    assert "no such module" in broken.pop(entry.slug)
    assert {slug: broken.get(slug, "gone") for slug in others} == others
