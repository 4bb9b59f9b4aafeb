"""The sequential mode: seeds are added until a claim is decided."""

from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reimpl import registry
from reimpl.claims import Claims
from reimpl.errors import RequestError
from reimpl.evidence import current_keys
from reimpl.judging import judge_in_looks
from reimpl.planning import Request, plan
from reimpl.records import Store
from reimpl.reproduction import looks, reproduce, result_of
from reimpl.verdict import DECIDED, LOOKS


@pytest.fixture
def claims(tiny_paper: Path) -> Claims:
    return registry.find("tiny", (tiny_paper,)).claims


def asked(tiny_paper: Path, **more: Any) -> Request:
    runs = tiny_paper.parent.parent / "runs"
    return Request(
        paper="tiny",
        papers=(tiny_paper,),
        runs=runs,
        wandb="disabled",
        engine="inprocess",
        seeds="auto",
        **more,
    )


def errors(values: list[float]) -> dict[str, dict[str, dict[int, float | bool | None]]]:
    return {"test/error": {"two-inputs": dict(enumerate(values)), "one-input": {}}}


def of(claims: Claims, values: list[float]) -> Any:
    return next(v for v in judge_in_looks(claims, errors(values)) if v.id == "test-error")


def test_a_clear_claim_is_decided_at_an_early_look_and_stays_decided(claims: Claims) -> None:
    clear = [15.9, 15.91, 15.89]
    early = of(claims, clear)
    assert (early.lane, early.look) == ("reproduced", 3)
    assert of(claims, [*clear, *[90.0] * 15]) == early


def test_a_look_needs_all_of_its_seeds(claims: Claims) -> None:
    values = [15.0, 16.8, 15.9, 15.2, 16.7, 15.5, 16.4]
    verdict = of(claims, values)
    assert (verdict.look, verdict.n) == (5, 5)
    assert verdict.lane not in DECIDED


def test_what_is_never_decided_rests_on_the_last_look(claims: Claims) -> None:
    values = [15.9 + 1.5 + 0.5 * (-1) ** i for i in range(30)]  # on the margin
    verdict = of(claims, values)
    assert (verdict.lane, verdict.look, verdict.n) == ("inconclusive", LOOKS[-1], LOOKS[-1])


def test_at_the_margin_few_papers_are_called_reproduced_and_true_ones_need_few_seeds(
    claims: Claims,
) -> None:
    wide = replace(claims, claims={"test-error": claims.claims["test-error"]})
    draw = np.random.default_rng(20261121)

    def papers(mean: float, count: int) -> list[Any]:
        drawn = draw.normal(mean, 0.75, (count, LOOKS[-1]))  # the margin is two sd
        return [judge_in_looks(wide, errors(row))[0] for row in drawn.tolist()]

    false = sum(v.lane == "reproduced" for v in papers(15.9 + 1.5, 1500)) / 1500
    true = papers(15.9, 300)
    assert false <= 0.05 + 3 * (0.05 * 0.95 / 1500) ** 0.5
    spent = sum(v.look for v in true) / len(true)
    assert all(v.lane == "reproduced" for v in true)
    assert spent <= 0.5 * LOOKS[-1]


def test_each_step_asks_only_for_what_is_not_decided(tiny_paper: Path) -> None:
    steps = []
    for step in looks(asked(tiny_paper)):
        steps.append((step.seeds, step.claims))
        reproduce(step)
    assert steps[0] == (3, ("parameters", "test-error", "two-beat-one"))
    assert [seeds for seeds, _ in steps] == list(LOOKS[: len(steps)])
    assert all("parameters" not in names for _, names in steps[1:])
    assert all(set(late) <= set(early) for (_, early), (_, late) in pairwise(steps))
    result = result_of(asked(tiny_paper))
    assert {v.id: v.lane for v in result.verdicts} == dict.fromkeys(steps[0][1], "reproduced")
    assert result.spent is not None
    assert 0 < result.spent.runs < result.spent.most == 40


def test_what_was_decided_is_not_run_again(tiny_paper: Path) -> None:
    first = reproduce(asked(tiny_paper))
    again = reproduce(asked(tiny_paper))
    assert len(first.fresh) > 0
    assert again.fresh == ()
    assert again.spent == first.spent


def test_a_look_does_not_wait_for_a_run_that_fails(tiny_paper: Path) -> None:
    code = tiny_paper / "__init__.py"
    text = code.read_text(encoding="utf-8")
    start = "def data(variant, sources, seeds):\n"
    assert start in text
    check = '    if seeds.seed == 1:\n        raise ValueError("no such luck")\n'
    code.write_text(text.replace(start, start + check), encoding="utf-8")
    result = reproduce(asked(tiny_paper))
    verdict = next(v for v in result.verdicts if v.id == "test-error")
    assert verdict.lane in DECIDED
    assert verdict.look is not None
    assert verdict.n == verdict.look - 1
    assert max(record.seed for record in result.fresh) < LOOKS[-1] - 1
    made = [(r.part, r.variant, r.seed) for r in result.fresh]
    assert len(made) == len(set(made))
    again = [
        (r.part, r.variant, r.seed)
        for r in reproduce(asked(tiny_paper, claims=("test-error",), force=True)).fresh
    ]
    assert len(again) == len(set(again))


def test_a_claim_whose_runs_all_fail_is_given_up_after_a_look(tiny_paper: Path) -> None:
    code = tiny_paper / "__init__.py"
    text = code.read_text(encoding="utf-8")
    start = "def data(variant, sources, seeds):\n"
    check = '    if variant.id == "one-input":\n        raise ValueError("no such luck")\n'
    code.write_text(text.replace(start, start + check), encoding="utf-8")
    request = asked(tiny_paper, claims=("two-beat-one",))
    for _ in range(2):  # a later command tries again
        result = reproduce(request)
        assert [r.seed for r in result.errors] == [0, 1, 2]
        assert result.verdicts[0].lane == "error"


def test_forced_looks_make_each_run_once(tiny_paper: Path) -> None:
    first = reproduce(asked(tiny_paper))
    again = reproduce(asked(tiny_paper, force=True))
    made = [(r.part, r.variant, r.seed) for r in again.fresh]
    assert len(made) == len(set(made))
    assert {place for place in made if place[0] == "train"} <= {
        (r.part, r.variant, r.seed) for r in first.fresh
    }
    assert {seed for part, _, seed in made if part == "train"} >= {0, 1, 2}


def test_forced_looks_are_judged_by_what_they_made_themselves(tiny_paper: Path) -> None:
    request = asked(tiny_paper, claims=("test-error",))
    entry = registry.find("tiny", (tiny_paper,))
    keys = current_keys(entry, entry.claims.variants["two-inputs"], "train")
    (made,) = reproduce(replace(request, seeds=1)).fresh
    values = [15.0, 16.8, 15.9, *[15.9] * 17]  # three of them decide nothing, twenty do
    for seed, value in enumerate(values):
        measured = {"test/error": value}
        record = replace(made, seed=seed, key=keys.key(seed), measurements=measured)
        Store(request.root).write(record)
    assert list(looks(request)) == []
    assert [step.seeds for step in islice(looks(replace(request, force=True)), 2)] == [3, 5]


def test_looks_do_not_wait_for_variants_that_nobody_asked_for(tiny_paper: Path) -> None:
    result = reproduce(asked(tiny_paper, variants=("two-inputs",)))
    steps = {record.seed for record in result.fresh if record.part == "train"}
    verdict = next(v for v in result.verdicts if v.id == "test-error")
    assert verdict.lane in DECIDED
    assert (len(steps), verdict.look) != (LOOKS[-1], LOOKS[-1])
    assert len(steps) == verdict.look


def test_a_variant_that_nobody_asked_for_needs_one_run_where_chance_plays_no_role(
    tiny_paper: Path,
) -> None:
    claims = tiny_paper / "claims.toml"
    text = claims.read_text(encoding="utf-8")
    once = text.replace('id = "one-input"\n', 'id = "one-input"\ndeterministic = true\n')
    claims.write_text(once, encoding="utf-8")
    request = asked(tiny_paper, claims=("two-beat-one",), variants=("two-inputs",))
    said: list[str] = []
    assert reproduce(request, say=said.append).fresh == ()
    why = "one-input, which is not asked for, has 0 of 1 runs"
    assert said == [f"left out: two-beat-one: {why}"]
    reproduce(replace(request, seeds=1, variants=("one-input",)))
    result = reproduce(request, say=said.append)
    assert {(r.variant, r.seed) for r in result.fresh} >= {("two-inputs", s) for s in range(3)}
    assert len(said) == 1


def test_one_cross_validation_is_one_seed_of_a_variant_that_nobody_asked_for(
    tiny_paper: Path,
) -> None:
    claims = tiny_paper / "claims.toml"
    text = claims.read_text(encoding="utf-8")
    claims.write_text(text.replace("seeds = 5\n", "seeds = 5\nfolds = 5\n"), encoding="utf-8")
    request = asked(tiny_paper, claims=("two-beat-one",), variants=("two-inputs",))
    reproduce(replace(request, seeds=1, variants=("one-input",)))
    said: list[str] = []
    assert list(looks(request, say=said.append)) == []
    why = "one-input, which is not asked for, has 5 of 15 runs"
    assert said == [f"left out: two-beat-one: {why}"]


def test_plain_methods_are_fitted_where_every_claim_is_decided(tiny_paper: Path) -> None:
    reproduce(asked(tiny_paper))
    again = list(looks(asked(tiny_paper, baselines=True)))
    assert [(step.seeds, step.baselines) for step in again] == [(3, True)]
    made = plan(again[0], estimate=False)
    assert {job.part for job in made.jobs} == {"baseline"}


def test_altered_runs_are_not_judged_in_looks(tiny_paper: Path) -> None:
    with pytest.raises(RequestError, match="altered runs are never judged"):
        reproduce(asked(tiny_paper, overrides={"lr": 0.1}))
