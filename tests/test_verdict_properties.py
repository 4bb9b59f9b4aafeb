import json
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reimpl.claims import (
    Claim,
    Exact,
    Metric,
    Order,
    Printed,
    Property,
    Ratio,
    Speed,
    Spread,
    Trend,
    Value,
)
from reimpl.judging import default_margin, judge
from reimpl.report.text import plain
from reimpl.verdict import Verdict

TOLD: dict[str, Any] = {
    "id": "c",
    "says": "the method works",
    "source": "Table 1",
    "metric": "test/score",
    "cost": "instant",
}
WIDTHS = {"a": 1.0, "b": 2.0, "c": 4.0}
PRINTED = ("0.95", "10", "10.0", "1425", "60,000", "0.5", "3e2")

examples = settings(max_examples=60, deadline=None)  # a table of the best-of rule is built once
better = st.sampled_from(["lower", "higher"])
finite = st.floats(0.01, 1e4) | st.integers(-2, 100).map(float)
time = finite | st.just(math.inf)
margins = st.none() | st.floats(0.01, 3.0)


def metric(side: Any, items: int | None = None) -> Metric:
    return Metric(
        name="test/score", unit="%", better=side, definition="a score", split="test", items=items
    )


@st.composite
def claims(draw: st.DrawFn) -> Claim:
    published = Printed(draw(st.sampled_from(PRINTED)))
    margin = draw(margins)
    told = {**TOLD, "margin": margin, "margin_reason": "declared"}
    spread = draw(st.none() | st.builds(Spread, sd=st.floats(0.01, 2), n=st.integers(1, 10)))
    best_of = draw(st.none() | st.integers(2, 4))
    no_worse = margin is not None and draw(st.booleans())
    every = ("a", "b", "c")
    return draw(
        st.sampled_from(
            [
                Exact(**TOLD, variant="a", published=published),
                Value(**told, variant="a", published=published, spread=spread, best_of=best_of),
                Order(**{**told, "margin": margin if no_worse else None},
                      variants=every, no_worse=no_worse),
                Ratio(**told, variants=("a", "b"), published=published),
                Speed(**told, variant="a", published=published, target="all right"),
                Trend(**TOLD, setting="width", variants=every, direction="rises"),
                Property(**TOLD, variant="a", test=">= 10", share=0.9),
            ]
        )
    )  # fmt: skip


@st.composite
def measurements(draw: st.DrawFn, values: Any = time) -> dict[str, dict[int, float | None]]:
    n = draw(st.integers(1, 9))
    column = st.lists(values | st.none(), min_size=n, max_size=n)
    return {name: dict(enumerate(draw(column))) for name in WIDTHS}


def see(claim: Claim, side: Any, measured: Mapping[str, Mapping[int, Any]], **more: Any) -> Verdict:
    return judge(claim, metric(side), measured, settings=WIDTHS, **more)


def scaled(claim: Claim, power: int) -> Claim:
    """The claim in a unit that is 10^power smaller."""
    changes: dict[str, Any] = {}
    if not isinstance(claim, Order | Trend | Property | Ratio):
        changes["published"] = Printed(f"{claim.published.text.replace(',', '')}e{power}")
        if "e" in claim.published.text:
            changes["published"] = Printed(f"3e{2 + power}")
    if claim.margin is not None and isinstance(claim, Value | Order):
        changes["margin"] = claim.margin * 10.0**power
    if isinstance(claim, Value) and claim.spread is not None:
        changes["spread"] = Spread(sd=claim.spread.sd * 10.0**power, n=claim.spread.n)
    if isinstance(claim, Property):
        changes["test"] = f">= 10e{power}"
    return replace(claim, **changes)


@examples
@given(claims(), better, measurements(), st.randoms(use_true_random=False))
def test_a_verdict_never_depends_on_the_order_of_runs(
    claim: Claim, side: Any, measured: dict[str, dict[int, Any]], random: Any
) -> None:
    seeds = list(measured["a"])
    numbers = random.sample(range(1000), len(seeds))  # new seeds, the same for every variant
    shuffled = random.sample(seeds, len(seeds))
    other = {
        name: {numbers[seed]: values[seed] for seed in shuffled}
        for name, values in reversed(measured.items())
    }
    assert see(claim, side, measured) == see(claim, side, other)


@examples
@given(claims(), better, measurements(), st.integers(-3, 3))
def test_a_verdict_never_depends_on_the_scale_of_the_unit(
    claim: Claim, side: Any, measured: dict[str, dict[int, Any]], power: int
) -> None:
    other = {
        name: {s: None if v is None else v * 10.0**power for s, v in values.items()}
        for name, values in measured.items()
    }
    before, after = see(claim, side, measured), see(scaled(claim, power), side, other)
    assert (before.lane, before.n) == (after.lane, after.n)
    assert before.p is None or before.p == pytest.approx(after.p, rel=1e-6, abs=1e-9)
    if before.mean is not None and not isinstance(claim, Ratio | Property):
        assert after.mean == pytest.approx(before.mean * 10.0**power, rel=1e-9, abs=1e-9)


@examples
@given(claims(), better, measurements())
def test_turning_the_metric_over_turns_the_lane_of_a_figure_over(
    claim: Claim, side: Any, measured: dict[str, dict[int, Any]]
) -> None:
    if not isinstance(claim, Exact | Ratio) or any(None in v.values() for v in measured.values()):
        return
    other = {"lower": "higher", "higher": "lower"}[side]
    turned = {"below": "above", "above": "below"}
    lane = see(claim, side, measured).lane
    assert see(claim, other, measured).lane == turned.get(lane, lane)


@examples
@given(claims(), better, measurements())
def test_every_verdict_is_whole(
    claim: Claim, side: Any, measured: dict[str, dict[int, Any]]
) -> None:
    verdict = see(claim, side, measured)
    numbers = [verdict.mean, verdict.sd, verdict.p, verdict.margin, *(verdict.interval or ())]
    assert not any(math.isnan(x) for x in numbers if x is not None)
    assert verdict.p is None or 0 <= verdict.p <= 1
    assert verdict.interval is None or verdict.interval[0] <= verdict.interval[1]
    assert verdict.note
    assert json.loads(json.dumps(plain(verdict), allow_nan=False)).keys() == {
        f.name for f in fields(Verdict)
    }


@examples
@given(claims(), better, measurements())
def test_few_seeds_never_make_a_verdict(
    claim: Claim, side: Any, measured: dict[str, dict[int, Any]]
) -> None:
    if isinstance(claim, Exact):
        return
    few = {name: dict(list(values.items())[:2]) for name, values in measured.items()}
    assert see(claim, side, few).lane in ("consistent", "off", "inconclusive")


@examples
@given(claims(), better, measurements())
def test_only_an_undecided_claim_needs_more_seeds_and_more_than_it_has(
    claim: Claim, side: Any, measured: dict[str, dict[int, Any]]
) -> None:
    verdict = see(claim, side, measured)
    if verdict.lane in ("reproduced", "below", "above"):
        assert verdict.seeds_needed is None
    elif verdict.seeds_needed is not None:
        assert verdict.n < verdict.seeds_needed <= 1000


@examples
@given(claims(), better, measurements())
def test_a_reproduced_claim_has_a_p_value_under_the_level(
    claim: Claim, side: Any, measured: dict[str, dict[int, Any]]
) -> None:
    verdict = see(claim, side, measured)
    if verdict.lane == "reproduced" and not isinstance(claim, Exact):
        assert verdict.p is not None
        assert verdict.p <= 0.05 + 1e-3  # resampled tails have a grain of a thousandth


@examples
@given(claims(), better, measurements())
def test_a_stricter_level_never_decides_what_a_looser_one_leaves_open(
    claim: Claim, side: Any, measured: dict[str, dict[int, Any]]
) -> None:
    loose, strict = (see(claim, side, measured, level=level).lane for level in (0.05, 0.009))
    assert strict in (loose, "inconclusive")


@examples
@given(st.sampled_from(PRINTED), margins, st.none() | st.integers(100, 10_000))
def test_no_margin_is_smaller_than_half_a_printed_digit(
    text: str, margin: float | None, items: int | None
) -> None:
    published = Printed(text)
    told = {**TOLD, "margin": margin, "margin_reason": "declared"}
    found, reason = default_margin(
        Value(**told, variant="a", published=published), metric("lower", items)
    )
    assert found is not None
    assert found >= published.half_digit
    assert reason


@examples
@given(st.lists(finite, min_size=3, max_size=9), st.floats(1.1, 3.0))
def test_a_wider_margin_never_loses_what_was_reproduced(x: list[float], factor: float) -> None:
    claim = Value(
        **TOLD, variant="a", published=Printed("10.0"), margin=2.0, margin_reason="declared"
    )
    wider = replace(claim, margin=2.0 * factor)
    measured = {"a": dict(enumerate(x))}
    if see(claim, "lower", measured).lane == "reproduced":
        assert see(wider, "lower", measured).lane == "reproduced"
