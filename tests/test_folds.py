"""Cross-validation as part of a protocol, and claims across papers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reimpl import registry
from reimpl.claims import Exact, Metric, Order, Printed, Property, Ratio, Trend, Value
from reimpl.errors import ClaimsError, DataError, PaperError
from reimpl.evidence import judged, promote
from reimpl.inference import mean_sd, t_quantile
from reimpl.judging import judge, judge_in_looks
from reimpl.paper import Seeds
from reimpl.planning import Request, plan
from reimpl.reading import load_claims
from reimpl.reproduction import reproduce
from reimpl.verdict import Verdict

CODE = '''"""Guesses the class that is more common among the rows to learn from."""

import torch

from reimpl.paper import Data, Paper

ROWS = 100


def data(variant, sources, seeds):
    rows, held = seeds.held_out(ROWS)
    labels = (torch.arange(ROWS) % 3 == 0).long()
    return Data(train=(rows, labels[rows]), test=(held, labels[held]))


def fit(variant, context):
    context.progress(1, 10)
    guess = context.data.train[1].mode().values
    right = (context.data.test[1] == guess).double().mean()
    return {"test/accuracy": 100.0 * float(right) + variant["bonus"]}


PAPER = Paper(slug="SLUG", data=data, fit=fit)
'''

CLAIMS = """[paper]
title = "The more common class"
authors = ["A. Tiny"]
year = 2026
url = "https://example.org/folds"

[metric."test/accuracy"]
unit = "%"
better = "higher"
definition = "held-out rows whose class is guessed"

[setting.bonus]
says = "points on top"
source = "sec. 1"

[[variant]]
id = "common"
says = "the more common class"
source = "sec. 1"
folds = 5
seeds = 3
bonus = 0.0

[[claim]]
id = "accuracy"
kind = "value"
says = "two in three"
source = "Table 1"
metric = "test/accuracy"
variant = "common"
published = "66.0"
margin = 1.0
margin_reason = "the last digit but one"
cost = "instant"
"""

OTHER = """
[[claim]]
id = "beats"
kind = "order"
says = "better than the plain one"
source = "Table 2"
metric = "test/accuracy"
variants = ["common", "plain2026_common:common"]
cost = "instant"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for slug, claims in {
        "plain2026_common": CLAIMS,
        "better2026_common": CLAIMS.replace("bonus = 0.0", "bonus = 2.0") + OTHER,
    }.items():
        (tmp_path / slug).mkdir()
        (tmp_path / slug / "__init__.py").write_text(CODE.replace("SLUG", slug))
        (tmp_path / slug / "claims.toml").write_text(claims)
    return tmp_path


def asked(folder: Path, paper: str = "plain2026", **more: Any) -> Request:
    return Request(
        paper=paper,
        papers=(folder,),
        runs=folder / "runs",
        wandb="disabled",
        engine="inprocess",
        **more,
    )


ACCURACY = Metric(
    name="test/accuracy", unit="%", better="higher", definition="right ones", split="test"
)
TOLD: dict[str, Any] = {
    "id": "c",
    "says": "it works",
    "source": "Table 1",
    "metric": "test/accuracy",
    "cost": "instant",
}


def see(claim: Exact | Value | Order | Property, folds: int, **values: list[float]) -> Verdict:
    measured = {name: dict(enumerate(given)) for name, given in values.items()}
    return judge(claim, ACCURACY, measured, folds=dict.fromkeys(values, folds))


def figure(published: str = "80.0", margin: float = 1.0) -> Value:
    return Value(
        **TOLD, variant="a", published=Printed(published), margin=margin, margin_reason="told"
    )


def test_the_folds_of_a_seed_share_out_the_rows() -> None:
    parts = [Seeds(3, fold, 10).held_out(107) for fold in range(10)]
    assert torch.cat([held for _, held in parts]).sort().values.tolist() == list(range(107))
    assert {len(held) for _, held in parts} == {10, 11}
    assert all(sorted([*kept.tolist(), *held.tolist()]) == list(range(107)) for kept, held in parts)


def test_folds_differ_in_all_streams_but_the_split() -> None:
    first, second = Seeds(3, 0, 10), Seeds(3, 1, 10)
    same = {
        axis: first.integer(axis) == second.integer(axis)
        for axis in ("init", "order", "noise", "split")
    }
    assert same == {"init": False, "order": False, "noise": False, "split": True}


def test_without_folds_the_streams_are_what_they_always_were() -> None:
    assert Seeds.of_run(7, 1) == Seeds(7)
    assert Seeds(7).integer("init") == 1693125408465869867
    assert Seeds(7).integer("order", 3) == 4901673970096119456


def test_a_figure_counts_whole_repeats_by_their_means() -> None:
    folds = [70.0, 90.0, 75.0, 85.0, 79.0, 82.0, 60.0]  # three repeats of two, and half of one
    verdict = see(figure(), 2, a=folds)
    assert (verdict.n, verdict.mean) == (3, pytest.approx((80.0 + 80.0 + 80.5) / 3))


def test_a_cross_validation_that_is_not_complete_decides_nothing() -> None:
    verdict = see(figure(), 10, a=[80.0] * 9)
    assert verdict.lane == "inconclusive"
    assert "no cross-validation of 'a' is complete" in verdict.note


def test_a_count_is_not_a_mean_over_folds() -> None:
    claim = Exact(**TOLD, variant="a", published=Printed("7"))
    assert see(claim, 10, a=[7.0]).lane == "reproduced"


def test_an_order_over_folds_has_the_corrected_interval() -> None:
    gains = [1.0, 1.4, 0.8, 1.1, 0.9, 1.3, 1.2, 0.7, 1.0, 1.1]
    verdict = see(Order(**TOLD, variants=("a", "b")), 10, a=[80 + g for g in gains], b=[80.0] * 10)
    mean, sd = mean_sd([(80 + g) - 80.0 for g in gains])
    reach = t_quantile(0.05, 9) * sd * (1 / 10 + 1 / 9) ** 0.5
    assert verdict.lane == "reproduced"
    assert verdict.interval == pytest.approx((mean - reach, mean + reach))
    assert "of 10 folds" in verdict.note


def test_more_repeats_cannot_make_an_order_surer_than_the_data_are() -> None:
    gains = [1.0, -0.6, 2.0, -0.4, 1.5, 0.2, -0.8, 1.1, 0.5, 0.6]
    claim = Order(**TOLD, variants=("a", "b"))
    many = see(claim, 10, a=[80 + g for g in gains * 40], b=[80.0] * 400)
    assert many.lane == "inconclusive"
    assert see(claim, 1, a=[80 + g for g in gains * 40], b=[80.0] * 400).p < 0.001  # type: ignore[operator]


def trend_of(steps: list[list[float]], folds: int) -> Verdict:
    claim = Trend(**TOLD, setting="width", variants=("a", "b", "c"), direction="rises")
    measured = {name: dict(enumerate(given)) for name, given in zip("abc", steps, strict=True)}
    return judge(
        claim,
        ACCURACY,
        measured,
        folds=dict.fromkeys("abc", folds),
        settings={"a": 1.0, "b": 2.0, "c": 3.0},
    )


def test_a_trend_over_folds_has_the_corrected_interval() -> None:
    slopes = [1.0, 1.4, 0.8, 1.1, 0.9, 1.3, 1.2, 0.7, 1.0, 1.1]
    verdict = trend_of([[80 + k * s for s in slopes] for k in range(3)], 10)
    mean, sd = mean_sd(slopes)
    reach = t_quantile(0.05, 9) * sd * (1 / 10 + 1 / 9) ** 0.5
    assert (verdict.lane, verdict.n) == ("reproduced", 10)
    assert verdict.interval == pytest.approx((mean - reach, mean + reach))
    assert trend_of([[80 - k * s for s in slopes] for k in range(3)], 10).lane == "below"


def test_more_repeats_cannot_make_a_trend_surer_than_the_data_are() -> None:
    slopes = [0.8, -0.8, 1.8, -0.6, 1.3, 0.0, -1.0, 0.9, 0.3, 0.4] * 40
    steps = [[80 + k * s for s in slopes] for k in range(3)]
    assert trend_of(steps, 10).lane == "inconclusive"
    assert trend_of(steps, 1).lane == "reproduced"


@pytest.mark.parametrize(
    ("claim", "folds"),
    [
        (Order(**TOLD, variants=("a", "b")), {"a": 10, "b": 5}),
        (Order(**TOLD, variants=("a", "b")), {"a": 10}),
        (Ratio(**TOLD, variants=("a", "b"), published=Printed("1.1")), {"a": 10, "b": 10}),
    ],
)
def test_folds_that_cannot_be_paired_decide_nothing_and_say_why(
    claim: Order | Ratio, folds: dict[str, int]
) -> None:
    measured = {"a": dict.fromkeys(range(100), 90.0), "b": dict.fromkeys(range(100), 80.0)}
    verdict = judge(claim, ACCURACY, measured, folds=folds)
    assert verdict.lane == "inconclusive"
    assert "fold by fold" in verdict.note


def test_folds_that_are_equal_by_chance_take_more_of_them() -> None:
    claim = Order(**TOLD, variants=("a", "b"))
    tied = see(claim, 10, a=[80.0] * 10, b=[80.0] * 10)
    assert (tied.lane, tied.p) == ("inconclusive", 1.0)
    few, many = (see(claim, 10, a=[81.0] * n, b=[80.0] * n) for n in (10, 20))
    assert (few.lane, few.seeds_needed) == ("inconclusive", 2)
    assert "10 folds are equal" in few.note
    assert (many.lane, many.p) == ("reproduced", pytest.approx(0.8**20))


def test_a_property_holds_in_a_cross_validation_when_it_does_in_every_fold() -> None:
    claim = Property(**TOLD, variant="a", test="holds", share=0.5, margin_reason="half")
    assert see(claim, 10, a=[1.0, *[0.0] * 9] * 5).mean == 0.0
    assert see(claim, 10, a=[1.0] * 50).mean == 1.0


def test_some_folds_of_a_look_do_not_decide_it(folder: Path) -> None:
    claims = registry.find("better2026", (folder,)).claims
    other, seen = "plain2026_common:common", np.random.default_rng(1).normal(0, 0.1, 15)
    for runs, lane in ((7, "inconclusive"), (15, "reproduced")):
        measured = {
            "common": dict(enumerate((90 + seen[:runs]).tolist())),
            other: dict.fromkeys(range(runs), 80.0),
        }
        verdicts = judge_in_looks(
            claims, {"test/accuracy": measured}, others={other: claims.variants["common"]}
        )
        beats = next(v for v in verdicts if v.id == "beats")
        assert (beats.lane, beats.look) == (lane, 3)
        assert ("is not complete" in beats.note) is (runs == 7)


def test_metrics_that_differ_between_papers_are_not_compared(folder: Path) -> None:
    reproduce(asked(folder))
    path = folder / "better2026_common" / "claims.toml"
    path.write_text(path.read_text().replace('unit = "%"', 'unit = "share"'))
    with pytest.raises(ClaimsError, match="'unit' of metric 'test/accuracy' is 'share' here and"):
        judged(registry.find("better2026", (folder,)), folder / "runs")


def test_a_claim_across_papers_says_where_the_others_runs_are_and_whether_they_are_old(
    folder: Path,
) -> None:
    plain = folder / "plain2026_common"
    reproduce(asked(folder))
    (plain / "README.md").write_text("<!-- table -->\n<!-- /table -->\n")
    promote(registry.find("plain2026", (folder,)), folder / "runs")
    code = plain / "__init__.py"
    code.write_text(code.read_text().replace("% 3 == 0", "% 3 == 1"))
    better = judged(registry.find("better2026", (folder,)), folder / "elsewhere")
    assert better.evidence.rests_on == {"plain2026_common:common": "committed"}
    assert better.evidence.stale == ("plain2026_common:common",)


def test_a_run_of_a_cross_validated_paper_is_one_fold(folder: Path) -> None:
    result = reproduce(asked(folder))
    assert [record.seed for record in result.fresh] == list(range(15))
    (verdict,) = result.verdicts
    assert (verdict.n, verdict.mean, verdict.sd) == (3, pytest.approx(66.0), 0.0)
    assert verdict.lane == "inconclusive"  # three equal repeats do not tell what others would be
    assert plan(asked(folder), estimate=False).jobs == []


def test_a_claim_across_papers_is_judged_on_the_same_folds(folder: Path) -> None:
    reproduce(asked(folder))
    result = reproduce(asked(folder, "better2026"))
    beats = next(v for v in result.verdicts if v.id == "beats")
    assert (beats.lane, beats.n, beats.mean) == ("reproduced", 15, pytest.approx(2.0))


def test_a_claim_across_papers_says_what_it_waits_for(folder: Path) -> None:
    result = reproduce(asked(folder, "better2026"))
    beats = next(v for v in result.verdicts if v.id == "beats")
    assert beats.lane == "not run"
    assert "`make reproduce PAPER=plain2026_common` makes it" in beats.note


def test_the_other_paper_may_be_gone(folder: Path) -> None:
    (folder / "plain2026_common" / "claims.toml").unlink()
    result = judged(registry.find("better2026", (folder,)), folder / "runs")
    assert [v.lane for v in result.verdicts] == ["not run", "not run"]


def test_only_an_order_may_name_another_papers_variant(folder: Path) -> None:
    path = folder / "plain2026_common" / "claims.toml"
    path.write_text(CLAIMS.replace('variant = "common"', 'variant = "better2026:common"'))
    with pytest.raises(ClaimsError, match="unknown variant 'better2026:common'"):
        load_claims(path)


def test_a_missing_package_is_one_line_with_its_install_command(folder: Path) -> None:
    path = folder / "plain2026_common" / "claims.toml"
    needs = 'requires = { no_such_package_here = "reimpl[graph]" }\n'
    path.write_text(CLAIMS.replace("year = 2026\n", "year = 2026\n" + needs))
    with pytest.raises(
        PaperError, match=r"needs no_such_package_here.*pip install 'reimpl\[graph\]'"
    ):
        plan(asked(folder), estimate=False)
    assert registry.find("plain2026", (folder,)).broken is None


def test_a_fit_is_probed_by_its_own_reports_of_progress(folder: Path) -> None:
    code = folder / "plain2026_common" / "__init__.py"
    slow = (
        "import time\n    for done in range(1000):\n        time.sleep(0.01)\n"
        "        context.progress(done + 1, 1000)\n"
    )
    code.write_text(code.read_text().replace("context.progress(1, 10)\n", slow))
    made = plan(asked(folder))
    assert [p.basis for p in made.planned] == ["a short probe here"]
    assert 10 * 15 < (made.planned[0].seconds or 0) < 30 * 15
    assert made.planned[0].flops is None
    assert json.loads((folder / "runs" / "probes.json").read_text())


def test_what_a_fit_prepares_once_is_not_counted_for_every_run(folder: Path) -> None:
    code = folder / "plain2026_common" / "__init__.py"
    prepares = (
        "import time\n    time.sleep(0.0 if READY else 2.0)\n    READY.append(True)\n"
        "    for done in range(10):\n        time.sleep(0.001)\n"
        "        context.progress(done + 1, 10)\n"
    )
    text = code.read_text().replace("context.progress(1, 10)\n", prepares)
    code.write_text(text.replace("def fit(", "READY = []\n\n\ndef fit(", 1))
    made = plan(asked(folder))
    assert 0 < (made.planned[0].seconds or 0) < 15


def test_the_operations_of_a_fit_are_counted_in_its_probe(folder: Path) -> None:
    code = folder / "plain2026_common" / "__init__.py"
    multiplies = (
        "import torch\n    for done in range(100_000):\n"
        "        torch.ones(10, 20) @ torch.ones(20, 30)\n"
        "        context.progress(done + 1, 100_000)\n"
    )
    code.write_text(code.read_text().replace("context.progress(1, 10)\n", multiplies))
    made = plan(asked(folder))
    assert made.planned[0].flops == pytest.approx(15 * 100_000 * 2 * 10 * 20 * 30)


def test_only_the_data_that_a_variant_reads_are_fetched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "plain2026_common" / "claims.toml"
    block = '[data.far]\nhub = "org/far"\nrevision = "abc"\nsplits = { train = 6 }\n\n'
    monkeypatch.setenv("REIMPL_DATA_MIRROR", str(folder))
    path.write_text(block + CLAIMS.replace("folds = 5\n", "folds = 5\nsources = []\n"))
    assert len(reproduce(asked(folder)).fresh) == 15
    path.write_text(block + CLAIMS)
    with pytest.raises(DataError, match="org/far"):
        reproduce(asked(folder, force=True))


def test_a_variant_reads_only_data_that_are_declared(folder: Path) -> None:
    path = folder / "plain2026_common" / "claims.toml"
    path.write_text(CLAIMS.replace("folds = 5\n", 'folds = 5\nsources = ["far"]\n'))
    with pytest.raises(ClaimsError, match="variant 'common': unknown data 'far'"):
        load_claims(path)
