import json
import math
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats

from reimpl.claims import (
    Better,
    Citation,
    Claim,
    Claims,
    Exact,
    Metric,
    Order,
    Printed,
    Property,
    Ratio,
    Setting,
    Speed,
    Spread,
    Trend,
    Value,
    Variant,
)
from reimpl.errors import ClaimsError
from reimpl.inference import cv_star
from reimpl.judging import LEVELS, default_margin, judge, judge_all, level_at
from reimpl.report.text import plain
from reimpl.verdict import LOOKS, Verdict

TOLD: dict[str, Any] = {
    "id": "c",
    "says": "the method works",
    "source": "Table 1",
    "metric": "test/score",
    "cost": "instant",
}
inf = math.inf


def metric(better: Better = "higher", **more: Any) -> Metric:
    told: dict[str, Any] = {"name": "test/score", "unit": "points", "definition": "a score"}
    return Metric(**{**told, "split": "test", "better": better, **more})


def value(published: str = "10.0", margin: float | None = 1.0, **more: Any) -> Value:
    return Value(**TOLD, variant="a", published=Printed(published), margin=margin, **more)


def exact(published: str) -> Exact:
    return Exact(**TOLD, variant="a", published=Printed(published))


def order(*variants: str, **more: Any) -> Order:
    return Order(**TOLD, variants=variants or ("a", "b"), **more)


def ratio(published: str = "2.0", **more: Any) -> Ratio:
    return Ratio(**TOLD, variants=("a", "b"), published=Printed(published), **more)


def speed(published: str = "1425", **more: Any) -> Speed:
    return Speed(**TOLD, variant="a", published=Printed(published), target="all right", **more)


def trend(direction: Any = "rises") -> Trend:
    return Trend(**TOLD, setting="width", variants=("a", "b", "c"), direction=direction)


def proportion(test: str = "holds", share: float = 0.9) -> Property:
    return Property(**TOLD, variant="a", test=test, share=share, margin_reason="nearly all")


def runs(**values: Any) -> dict[str, dict[int, Any]]:
    return {name: dict(enumerate(given)) for name, given in values.items()}


def see(claim: Claim, better: Better = "higher", /, **values: Any) -> Verdict:
    return judge(claim, metric(better), runs(**values), settings={"a": 1, "b": 2, "c": 4})


ONES = [10.0, 10.1, 9.9, 10.2, 9.8]
"""Mean 10, standard deviation 0.158."""

# Margins


def test_a_claims_own_margin_is_used_with_its_reason() -> None:
    claim = value("0.95", 0.19, margin_reason="what 10,000 digits resolve")
    assert default_margin(claim, metric()) == (0.19, "what 10,000 digits resolve")


def test_an_own_margin_is_never_smaller_than_half_a_printed_digit() -> None:
    margin, reason = default_margin(value("0.95", 0.001, margin_reason="strict"), metric())
    assert margin == 0.005
    assert reason is not None
    assert "half of the last printed digit" in reason


def test_the_default_margin_is_five_per_cent_without_spread_and_items() -> None:
    assert default_margin(value("40.0", None), metric())[0] == pytest.approx(2.0)


def test_five_per_cent_gives_way_to_half_a_digit_of_a_coarse_figure() -> None:
    margin, reason = default_margin(value("4", None), metric())
    assert (margin, reason) == (0.5, "half of the last printed digit")


def test_the_default_margin_is_twice_the_published_sd_when_there_is_one() -> None:
    claim = value("40.0", None, spread=Spread(sd=0.3, n=10))
    assert default_margin(claim, metric())[0] == pytest.approx(0.6)


def test_the_default_margin_is_what_the_test_items_resolve() -> None:
    percent = default_margin(value("0.95", None), metric("lower", unit="%", items=10_000))
    share = default_margin(value("0.0095", None), metric("lower", unit="share", items=10_000))
    assert percent[0] == pytest.approx(0.194, abs=5e-4)
    assert share[0] == pytest.approx(0.00194, abs=5e-6)
    assert percent[1] == "2·sqrt(p(1-p)/N) on the paper's 10,000 items"


def test_the_largest_of_spread_and_items_is_the_default_margin() -> None:
    claim = value("0.95", None, spread=Spread(sd=0.2, n=5))
    assert default_margin(claim, metric(unit="%", items=10_000))[0] == pytest.approx(0.4)


def test_ratios_and_times_default_to_a_factor_of_one_and_a_quarter() -> None:
    assert default_margin(ratio("2.00"), metric())[0] == pytest.approx(math.log(1.25))
    assert default_margin(speed(), metric())[0] == pytest.approx(math.log(1.25))


def test_the_margin_of_a_ratio_is_at_least_half_a_printed_digit_on_the_log_scale() -> None:
    claim = ratio("2", margin=0.01, margin_reason="strict")
    assert default_margin(claim, metric())[0] == pytest.approx(math.log(2 / 1.5))


@pytest.mark.parametrize("claim", [order(), trend(), proportion()])
def test_orders_trends_and_properties_have_no_default_margin(claim: Claim) -> None:
    assert default_margin(claim, metric())[0] is None


# Lanes that are no result


def test_without_runs_a_claim_is_not_run() -> None:
    verdict = see(value())
    assert (verdict.lane, verdict.n, verdict.mean) == ("not run", 0, None)


def test_a_claim_not_run_says_what_it_needs() -> None:
    assert "an 8-GPU node" in see(value(needs="an 8-GPU node")).note


def test_one_variant_without_runs_leaves_the_whole_claim_not_run() -> None:
    assert see(order(), a=ONES).lane == "not run"


def test_a_variant_all_of_whose_runs_failed_is_an_error() -> None:
    verdict = judge(order(), metric(), runs(a=ONES), broken={"b": {0}})
    assert (verdict.lane, verdict.note) == ("error", "every run of 'b' failed")


@pytest.mark.parametrize(
    ("failed", "lane", "note"),
    [
        ({}, "reproduced", "the 90 % interval of our mean lies within the margin"),
        ({"b": {7}}, "reproduced", "the 90 % interval of our mean lies within the margin"),
        ({"a": {5}}, "reproduced", "within the margin; 1 run failed"),
        ({"a": {0, 5}}, "reproduced", "within the margin; 1 run failed"),  # 0 went well later
        ({"a": {5, 6}}, "inconclusive", "2 runs failed, and the others alone do not stand for"),
    ],
)
def test_failed_runs_are_told_and_many_of_them_reproduce_nothing(
    failed: dict[str, set[int]], lane: str, note: str
) -> None:
    verdict = judge(value(), metric(), runs(a=ONES), broken=failed)
    assert verdict.lane == lane
    assert note in verdict.note
    assert verdict.failures == len(failed.get("a", set()) - {0})


def test_what_is_worse_stays_so_however_many_runs_failed() -> None:
    verdict = judge(value("20.0"), metric(), runs(a=ONES), broken={"a": {5, 6, 7}})
    assert (verdict.lane, verdict.failures) == ("below", 3)


def test_a_count_holds_whatever_becomes_of_the_training() -> None:
    verdict = judge(exact("7"), metric(), runs(a=[7]), broken={"a": {1, 2, 3}})
    assert (verdict.lane, verdict.failures) == ("reproduced", 0)


@pytest.mark.parametrize(
    ("claim", "values"),
    [
        (value("10.3"), {"a": [10.3, math.nextafter(10.3, 11), 10.3]}),
        (ratio("3.0"), {"a": [0.3, 3.0, 0.6], "b": [0.1, 1.0, 0.2]}),
        (
            order(no_worse=True, margin=1.0),
            {"a": [1.1, 2.2, 3.3], "b": [1.0, 2.1, 3.2]},
        ),
        (order(), {"a": [0.1 + 0.2, 0.7, 1.1] * 2, "b": [0.3, 0.1 + 0.6, 1.1] * 2}),
    ],
)
def test_what_rounding_leaves_is_no_spread_and_no_difference(
    claim: Claim, values: dict[str, list[float]]
) -> None:
    verdict = see(claim, **values)
    assert verdict.lane == "inconclusive"
    assert verdict.p is None or verdict.p >= 0.5


def test_runs_in_which_the_metric_is_not_defined_do_not_count() -> None:
    assert see(value(), a=[*ONES, None, None]).n == 5


def test_a_metric_defined_in_no_run_is_inconclusive_and_says_so() -> None:
    verdict = see(value(), a=[None] * 5)
    assert (verdict.lane, verdict.n) == ("inconclusive", 0)
    assert "defined in no run of 'a'" in verdict.note


def test_nan_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="NaN"):
        see(value(), a=[*ONES, math.nan])


@pytest.mark.parametrize(
    ("claim", "near", "far"),
    [
        (value(), {"a": [10, 10.1]}, {"a": [5, 5.1]}),
        (value(best_of=2), {"a": [8, 10.1]}, {"a": [5, 5.1]}),
        (value(), {"a": [10]}, {"a": [inf, inf]}),
        (order(), {"a": [2, 2], "b": [1, 1]}, {"a": [1, 1], "b": [2, 2]}),
        (
            order(margin=1.0, no_worse=True),
            {"a": [1, 1], "b": [1.5, 1]},
            {"a": [1, 1], "b": [9, 9]},
        ),
        (ratio(), {"a": [2, 2], "b": [1, 1]}, {"a": [1, 1], "b": [1, 1]}),
        (ratio(), {"a": [2, 2], "b": [1, 1]}, {"a": [inf, 1], "b": [1, 1]}),
        (speed(), {"a": [1425, 1500]}, {"a": [14250, 1425]}),
        (speed(), {"a": [1425]}, {"a": [inf]}),
        (
            trend(),
            {"a": [1, 1], "b": [2, 2], "c": [3, 3]},
            {"a": [3, 3], "b": [2, 2], "c": [1, 1]},
        ),
        (proportion(), {"a": [True, True]}, {"a": [True, False]}),
    ],
)
def test_fewer_than_three_seeds_are_a_hint_with_the_seeds_needed(
    claim: Claim, near: dict[str, Any], far: dict[str, Any]
) -> None:
    verdicts = [see(claim, "higher", **near), see(claim, "higher", **far)]
    assert [v.lane for v in verdicts] == ["consistent", "off"]
    assert all(v.seeds_needed is not None and v.seeds_needed >= 3 for v in verdicts)
    assert [(v.p, v.interval) for v in verdicts] == [(None, None)] * 2


# exact


@pytest.mark.parametrize(
    ("measured", "better", "lane"),
    [
        (60_000, "neither", "reproduced"),
        (60_001, "neither", "above"),
        (59_999, "neither", "below"),
        (60_001, "lower", "below"),
        (59_999, "lower", "above"),
    ],
)
def test_a_count_holds_or_it_does_not(measured: int, better: Better, lane: str) -> None:
    verdict = see(exact("60,000"), better, a=[measured])
    assert (verdict.lane, verdict.n, verdict.mean) == (lane, 1, measured)


def test_an_exact_figure_is_compared_after_rounding_to_its_digits() -> None:
    lanes = [see(exact("3.4"), "neither", a=[x]).lane for x in (3.35, 3.449, 3.46)]
    assert lanes == ["reproduced", "reproduced", "above"]


def test_a_count_that_varies_between_runs_is_not_reproduced() -> None:
    verdict = see(exact("60,000"), "neither", a=[60_000, 60_000, 60_001])
    assert verdict.lane == "above"
    assert "must not vary" in verdict.note


@pytest.mark.parametrize(
    ("published", "measured", "told"),
    [("340,908", 345_678, "+4,770"), ("60,000", 59_999, "-1"), ("3.4", 4.13456, "+0.735")],
)
def test_the_note_of_a_count_tells_a_whole_difference_in_full(
    published: str, measured: float, told: str
) -> None:
    verdict = see(exact(published), "neither", a=[measured])
    assert verdict.note == f"differs by {told}"


# value


def test_a_mean_whose_interval_lies_inside_the_margin_is_reproduced() -> None:
    verdict = see(value(), a=ONES)
    low, high = stats.t.interval(0.9, 4, loc=10, scale=np.std(ONES, ddof=1) / math.sqrt(5))
    assert verdict.lane == "reproduced"
    assert verdict.interval == pytest.approx((low, high))
    assert (verdict.mean, verdict.published, verdict.margin) == (pytest.approx(10), "10.0", 1.0)


@pytest.mark.parametrize(
    ("shift", "better", "lane"),
    [
        (-3, "higher", "below"),
        (3, "higher", "above"),
        (-3, "lower", "above"),
        (3, "lower", "below"),
        (-3, "neither", "below"),
        (3, "neither", "above"),
        (1, "higher", "inconclusive"),
        (-1, "lower", "inconclusive"),
    ],
)
def test_the_metric_says_which_side_is_below(shift: float, better: Better, lane: str) -> None:
    assert see(value(), better, a=[x + shift for x in ONES]).lane == lane


def test_equal_values_are_judged_without_a_spread_once_they_are_enough() -> None:
    figures = (10.9, 11.0, 11.1, 8.9)
    lanes = [see(value(), a=[x] * 14).lane for x in figures]
    assert lanes == ["reproduced", "reproduced", "above", "below"]
    assert see(value(), a=[10.9] * 14).p == pytest.approx(0.8**14)
    for x in figures:
        few = see(value(), a=[x] * 13)
        assert (few.lane, few.seeds_needed, few.p) == ("inconclusive", 14, None)
        assert "13 seeds are equal, so that their spread is not known" in few.note


def test_a_spread_of_zero_is_no_evidence_in_other_rules_either() -> None:
    ones, twos = [1.0] * 5, [2.0] * 5
    no_worse = order(no_worse=True, margin=0.5, margin_reason="half")
    for claim, few in (
        (no_worse, {"a": twos, "b": twos}),
        (ratio(), {"a": twos, "b": ones}),
        (speed("100"), {"a": [100.0] * 5}),
        (value(best_of=3), {"a": [10.0] * 5}),
    ):
        verdict = see(claim, **few)
        assert (verdict.lane, verdict.seeds_needed) == ("inconclusive", 14), claim
        assert see(claim, **{name: x[:1] * 14 for name, x in few.items()}).lane == "reproduced"


def test_the_p_value_is_that_of_two_one_sided_tests() -> None:
    x = [10.3, 9.4, 10.9, 10.2]
    lower: Any = stats.ttest_1samp(x, 9.0, alternative="greater")
    upper: Any = stats.ttest_1samp(x, 11.0, alternative="less")
    assert see(value(), a=x).p == pytest.approx(max(lower.pvalue, upper.pvalue))


def test_a_published_spread_gives_welchs_interval() -> None:
    x = [10.3, 9.4, 10.9, 10.2]
    y = [-1.0, -0.5, 0.0, 0.0, 0.5, 1.0]
    published = 10 + 0.4 * np.array(y) / np.std(y, ddof=1)
    welch: Any = stats.ttest_ind(x, published, equal_var=False)
    low, high = welch.confidence_interval(0.9)
    verdict = see(value(spread=Spread(sd=0.4, n=6)), a=x)
    assert verdict.interval == pytest.approx((10 + low, 10 + high))


def test_a_spread_over_one_published_run_adds_nothing_to_the_interval() -> None:
    alone = see(value(), a=ONES)
    assert see(value(spread=Spread(sd=0.4, n=1)), a=ONES).interval == alone.interval


def test_a_difference_inside_the_margin_that_is_detectable_is_named() -> None:
    verdict = see(value(), a=[x + 0.4 for x in ONES])
    assert (verdict.lane, verdict.detectably_different) == ("reproduced", True)
    assert see(value(), a=ONES).detectably_different is False


@pytest.mark.parametrize(
    ("margin", "seeds"), [(0.5, 36), (0.75, 17), (1.0, 11), (1.5, 6), (2.0, 4), (3.0, 3)]
)
def test_the_seeds_needed_have_a_power_of_four_fifths(margin: float, seeds: int) -> None:
    one = math.sqrt(0.5)  # 10 ± this has standard deviation 1
    claim = value("10.00", margin, margin_reason="in units of the standard deviation")
    assert see(claim, a=[10 - one, 10 + one]).seeds_needed == seeds


def test_a_mean_on_the_edge_of_the_margin_is_not_to_be_decided() -> None:
    verdict = see(value(), a=[x + 1 for x in ONES])
    assert (verdict.lane, verdict.seeds_needed) == ("inconclusive", None)
    assert "up to 1,000 seeds" in verdict.note


def test_four_split_pairs_ask_for_the_fewest_that_can_decide_and_promise_nothing() -> None:
    verdict = see(order(), "higher", a=[1.0, 2.0, 3.0, 4.0], b=[2.0, 3.0, 2.0, 3.0])
    assert (verdict.lane, verdict.seeds_needed) == ("inconclusive", 5)
    assert verdict.note.endswith("5 seeds in all are the least that can decide")


def test_seeds_needed_also_when_more_of_them_would_show_that_it_fails() -> None:
    verdict = see(value(), a=[11.0, 13.0, 12.0])
    assert verdict.lane == "inconclusive"
    assert verdict.seeds_needed is not None
    assert 4 <= verdict.seeds_needed <= 20


def test_a_deterministic_variant_needs_one_run() -> None:
    lanes = [
        judge(value(), metric(), runs(a=[x]), deterministic=frozenset({"a"})).lane
        for x in (10.5, 11.0, 11.2, 8.9)
    ]
    assert lanes == ["reproduced", "reproduced", "above", "below"]


def test_a_variant_called_deterministic_whose_runs_differ_is_judged_as_random() -> None:
    verdict = judge(value(), metric(), runs(a=[10.0, 10.1]), deterministic=frozenset({"a"}))
    assert (verdict.lane, verdict.n) == ("consistent", 2)


def test_a_missed_target_makes_a_mean_infinite_and_the_claim_inconclusive() -> None:
    verdict = see(value(), "lower", a=[*ONES, inf])
    assert (verdict.lane, verdict.mean) == ("inconclusive", inf)
    assert "16.7 % of 6 runs never reach the target" in verdict.note


def test_when_every_run_misses_the_value_is_below() -> None:
    assert see(value(), "lower", a=[inf] * 5).lane == "below"
    assert see(value(), "lower", a=[inf] * 3).lane == "inconclusive"


@pytest.mark.parametrize(
    ("values", "cv"),
    [
        ([84.51, 84.50, 87.46, 85.60, 84.20, 86.61, 86.20], 1.562),
        ([30.65, 30.65, 29.13, 30.65, 29.96], 2.487),
        ([87.50, 80.75, 89.36, 88.10, 89.64, 88.80], 4.176),
        ([31.11, 30.28, 31.11, 29.12], 3.572),
    ],
)
def test_cv_star_of_the_published_examples(values: list[float], cv: float) -> None:
    assert cv_star(values) == pytest.approx(cv, abs=5e-4)
    published, *ours = values
    assert see(value(str(published)), a=ours).cv_star == pytest.approx(cv, abs=5e-4)


@pytest.mark.parametrize("values", [[1.0], [1.0, 0.0], [1.0, -2.0], [1.0, inf]])
def test_cv_star_needs_a_scale_that_starts_at_zero(values: list[float]) -> None:
    with pytest.raises(ValueError, match="CV"):
        cv_star(values)


def test_a_value_that_is_not_positive_has_no_cv_star() -> None:
    assert see(value(), a=[-1.0, 10.0, 10.0]).cv_star is None


# value, best of k


def test_the_best_of_k_is_the_mean_over_all_subsets() -> None:
    # Subsets of two of (1, 2, 4): bests 2, 4, 4.
    assert see(value(best_of=2), a=[1.0, 2.0, 4.0]).mean == pytest.approx(10 / 3)
    assert see(value(best_of=2), "lower", a=[1.0, 2.0, 4.0]).mean == pytest.approx(4 / 3)


def test_a_best_of_k_is_judged_against_our_best_and_not_our_mean() -> None:
    rng = np.random.default_rng(0)
    x = list(rng.normal(8.46, 1.0, 60))  # the best of ten lies 1.54 standard deviations higher
    assert see(value(best_of=10), a=x).lane == "reproduced"
    assert see(value(), a=x).lane == "below"


def test_the_sides_of_a_best_of_k_follow_the_metric() -> None:
    lanes = [
        see(value(best_of=3), better, a=[x + shift for x in ONES]).lane
        for better in cast("tuple[Better, ...]", ("higher", "lower"))
        for shift in (-4, 4)
    ]
    assert lanes == ["below", "above", "above", "below"]


def test_the_interval_of_a_best_of_k_is_ordered_and_holds_the_estimate() -> None:
    verdict = see(value(best_of=3), "lower", a=ONES)
    assert verdict.interval is not None
    assert verdict.mean is not None
    assert verdict.interval[0] < verdict.mean < verdict.interval[1]


def test_fewer_seeds_than_the_best_was_taken_of_are_inconclusive() -> None:
    verdict = see(value(best_of=10), a=ONES)
    assert (verdict.lane, verdict.seeds_needed) == ("inconclusive", 10)


def test_a_best_of_equal_values_is_that_value() -> None:
    assert see(value(best_of=3), a=[10.5] * 14).lane == "reproduced"
    assert see(value(best_of=3), a=[12.5] * 14).lane == "above"


# order


def test_five_pairs_won_are_enough() -> None:
    verdict = see(order(), a=[2, 3, 4, 5, 6], b=[1, 2, 3, 4, 5])
    assert (verdict.lane, verdict.n, verdict.p) == ("reproduced", 5, 1 / 32)


def test_an_order_the_other_way_round_is_below() -> None:
    assert see(order(), "lower", a=[2, 3, 4, 5, 6], b=[1, 2, 3, 4, 5]).lane == "below"


def test_four_pairs_cannot_decide_an_order_and_five_are_asked_for() -> None:
    verdict = see(order(), a=[9, 9, 9, 9], b=[1, 2, 3, 4])
    assert (verdict.lane, verdict.seeds_needed) == ("inconclusive", 5)
    assert "5 seeds" in verdict.note


def test_a_large_mean_difference_from_few_wins_is_no_order() -> None:
    verdict = see(order(), a=[9.0] * 7 + [0.0] * 4, b=[1.0] * 7 + [0.1] * 4)
    assert verdict.p is not None
    assert verdict.p < 0.05
    assert (verdict.lane, verdict.seeds_needed) == ("inconclusive", None)
    assert "wins 63.6 % of 11 pairs" in verdict.note
    assert see(order(), "lower", a=[9.0] * 7 + [0.0] * 4, b=[1.0] * 7 + [0.1] * 4).lane == (
        "inconclusive"
    )


@pytest.mark.parametrize("n", [5, 8, 11])
def test_the_sign_flip_p_value_is_that_of_full_enumeration(n: int) -> None:
    d = np.random.default_rng(n).normal(0.5, 1, n).round(1)  # rounded, so that sums tie
    signs = np.array(list(product([-1, 1], repeat=n)))
    expected = ((signs * d).sum(1) >= d.sum() - 1e-9).mean()
    assert see(order(), a=d, b=np.zeros(n)).p == pytest.approx(expected)


def test_many_pairs_are_tested_by_sampling_close_to_the_t_test() -> None:
    d = np.random.default_rng(1).normal(0.3, 1, 60)
    expected: Any = stats.ttest_1samp(d, 0, alternative="greater")
    assert see(order(), a=d, b=np.zeros(60)).p == pytest.approx(expected.pvalue, abs=0.01)


def test_the_paired_t_interval_of_the_difference_stands_beside_an_order() -> None:
    a, b = [2.0, 3.5, 4, 5, 6], [1.0, 2, 3, 4, 5.5]
    expected = stats.ttest_rel(a, b).confidence_interval(0.9)
    assert see(order(), a=a, b=b).interval == pytest.approx((expected.low, expected.high))


def test_runs_are_paired_by_seed_and_the_others_are_left_out() -> None:
    measured = {"a": {1: 5.0, 2: 5.0, 9: 0.0}, "b": {2: 1.0, 1: 1.0, 7: 99.0}}
    assert judge(order(), metric(), measured).n == 2


def test_variants_that_share_no_seed_cannot_be_paired() -> None:
    verdict = judge(order(), metric(), {"a": {0: 1.0}, "b": {1: 0.0}})
    assert (verdict.lane, verdict.n, verdict.seeds_needed) == ("inconclusive", 0, 5)


def test_ties_are_half_a_win_and_all_ties_decide_nothing() -> None:
    verdict = see(order(), a=[1] * 6, b=[1] * 6)
    assert (verdict.lane, verdict.p) == ("inconclusive", 1.0)
    assert "wins 50 %" in verdict.note


def test_a_chain_holds_when_every_link_holds() -> None:
    verdict = see(order("a", "b", "c"), a=[3] * 6, b=[2] * 6, c=[1] * 6)
    assert (verdict.lane, verdict.p) == ("reproduced", 1 / 64)


def test_a_chain_with_an_undecided_link_shows_that_link() -> None:
    verdict = see(order("a", "b", "c"), a=[3] * 6, b=[2] * 6, c=[1, 3, 1, 3, 1, 3])
    assert verdict.lane == "inconclusive"
    assert verdict.note.startswith("b over c")


def test_a_chain_with_a_reversed_link_is_below() -> None:
    verdict = see(order("a", "b", "c"), a=[3] * 6, b=[1] * 6, c=[2] * 6)
    assert (verdict.lane, verdict.seeds_needed) == ("below", None)


def test_a_chain_with_a_reversed_and_an_undecided_link_is_below() -> None:
    verdict = see(order("a", "b", "c"), a=[1, 3, 1, 3, 1, 3], b=[2] * 6, c=[3] * 6)
    assert (verdict.lane, verdict.seeds_needed) == ("below", None)


def test_a_run_that_misses_its_target_loses_to_one_that_does_not() -> None:
    finite, missed = [10, 20, 30, 40, 50], [inf] * 5
    assert see(order(), "lower", a=finite, b=missed).lane == "reproduced"
    assert see(order(), "lower", a=missed, b=finite).lane == "below"


def test_two_missed_targets_tie() -> None:
    verdict = see(order(), "lower", a=[inf] * 6, b=[inf] * 6)
    assert (verdict.lane, verdict.p, verdict.interval) == ("inconclusive", 1.0, None)


def test_a_deterministic_variant_is_paired_with_every_seed_of_the_other() -> None:
    measured = runs(a=[5.0], b=[1, 2, 3, 2, 1])
    verdict = judge(order(), metric(), measured, deterministic=frozenset({"a"}))
    assert (verdict.lane, verdict.n) == ("reproduced", 5)


def test_two_deterministic_variants_are_compared_once() -> None:
    fixed = frozenset({"a", "b"})
    lanes = [
        judge(order(), metric(), runs(a=[x], b=[2]), deterministic=fixed).lane for x in (3, 2, 1)
    ]
    assert lanes == ["reproduced", "below", "below"]


def test_no_worse_asks_only_that_the_loss_stays_below_the_margin() -> None:
    claim = order(margin=1.0, no_worse=True)
    small, wide = [0.1, 0.2, 0.1, 0.2, 0.1], [-3.0, 3.0, 2.0, -2.0, 0.0]
    lanes = [
        see(claim, a=a, b=b).lane
        for a, b in [([0.0] * 5, small), ([0.0] * 5, wide), ([-3.0] * 5, small)]
    ]
    assert lanes == ["reproduced", "inconclusive", "below"]


def test_no_worse_between_deterministic_variants_compares_once() -> None:
    claim, fixed = order(margin=1.0, no_worse=True), frozenset({"a", "b"})
    lanes = [
        judge(claim, metric(), runs(a=[x], b=[2.0]), deterministic=fixed).lane for x in (1.0, 0.9)
    ]
    assert lanes == ["reproduced", "below"]


def test_no_worse_with_missed_targets_is_judged_on_the_median() -> None:
    claim = order(margin=1.0, no_worse=True)
    one, all_but_one = [inf] + [1.0] * 9, [1.0] + [inf] * 9
    lanes = [see(claim, "lower", a=a, b=[1.0] * 10).lane for a in (one, all_but_one)]
    assert lanes == ["reproduced", "below"]


# ratio


@pytest.mark.parametrize(
    ("factor", "better", "lane"),
    [
        (2.0, "lower", "reproduced"),
        (3.0, "lower", "above"),
        (1.3, "lower", "below"),
        (3.0, "higher", "above"),
        (1.3, "neither", "below"),
        (2.5, "lower", "inconclusive"),
    ],
)
def test_a_ratio_is_judged_on_the_log_scale(factor: float, better: Better, lane: str) -> None:
    noise = np.exp(np.random.default_rng(3).normal(0, 0.02, 6))
    noise /= np.exp(np.log(noise).mean())
    b = np.array([1.0, 5.0, 2.0, 8.0, 3.0, 1.0])
    verdict = see(ratio(), better, a=factor * b * noise, b=b)
    assert (verdict.lane, verdict.mean) == (lane, pytest.approx(factor))


@pytest.mark.parametrize(
    ("published", "factor", "lane", "effect"),
    [
        ("2.0", 3.0, "above", "stronger"),
        ("2.0", 1.3, "below", "weaker"),
        ("0.5", 0.3, "above", "stronger"),
        ("0.5", 0.8, "below", "weaker"),
    ],
)
def test_a_ratio_nearer_to_one_is_a_weaker_effect(
    published: str, factor: float, lane: str, effect: str
) -> None:
    for better in ("lower", "higher"):
        verdict = see(ratio(published), better, a=[factor, 1.02 * factor, factor], b=[1.0] * 3)
        assert verdict.lane == lane
        assert f"our ratio is a {effect} effect than published" in verdict.note


def test_a_ratio_of_any_two_numbers_has_a_logarithm() -> None:
    assert see(ratio(), a=[1e-140, 1e-141, 1e-140], b=[1e149, 1e149, 1e148]).lane == "below"


def test_the_interval_of_a_ratio_is_a_factor() -> None:
    a, b = [2.0, 2.2, 1.9, 2.1], [1.0, 1.0, 1.0, 1.0]
    low, high = stats.t.interval(0.9, 3, np.mean(np.log(a)), stats.sem(np.log(a)))
    assert see(ratio(), a=a, b=b).interval == pytest.approx((math.exp(low), math.exp(high)))


def test_variants_without_shared_seeds_give_an_unpaired_ratio() -> None:
    measured = {
        "a": {i: 2.0 + 0.02 * i for i in range(5)},
        "b": {i + 100: 1.0 + 0.01 * i for i in range(8)},
    }
    verdict = judge(ratio(), metric(), measured)
    assert (verdict.lane, verdict.n) == ("reproduced", 5)


def test_a_ratio_with_missed_targets_compares_the_medians() -> None:
    b = [1.0, 1.02, 0.98, 1.01, 0.99, 1.0, 1.0, 1.0, 1.0, 1.0]
    verdict = see(ratio(), "lower", a=[2.0] * 9 + [inf], b=b)
    assert (verdict.lane, verdict.mean) == ("reproduced", pytest.approx(2.0))
    assert verdict.note.startswith("5 % of 20 runs never reach the target")
    assert see(ratio(), "lower", a=[inf] * 10, b=b).lane == "above"
    open_yet = see(ratio(), "lower", a=[1.5, 2.5, 3.0, inf] * 2, b=b[:8])
    assert open_yet.lane == "inconclusive"
    assert "would not decide" not in open_yet.note  # nobody has computed it


def test_unpaired_runs_with_missed_targets_also_compare_the_medians() -> None:
    measured = {
        "a": dict(enumerate([2.0] * 9 + [inf])),
        "b": {100 + i: 1.0 for i in range(7)},
    }
    assert judge(ratio(), metric("lower"), measured).lane == "reproduced"


def test_two_medians_that_are_infinite_have_no_ratio() -> None:
    verdict = see(ratio(), "lower", a=[inf] * 6, b=[inf] * 6)
    assert (verdict.lane, verdict.mean) == ("inconclusive", None)


def test_a_ratio_of_missed_targets_needs_five_seeds() -> None:
    verdict = see(ratio(), "lower", a=[2.0, 2.0, inf], b=[1.0] * 3)
    assert (verdict.lane, verdict.seeds_needed) == ("inconclusive", 5)


def test_a_ratio_with_zero_is_inconclusive_and_says_why() -> None:
    verdict = see(ratio(), a=[1.0, 0.0, 1.0], b=[1.0] * 3)
    assert verdict.lane == "inconclusive"
    assert "positive" in verdict.note


def test_two_deterministic_variants_have_one_ratio() -> None:
    fixed = frozenset({"a", "b"})
    lanes = [
        judge(ratio(), metric("lower"), runs(a=[x], b=[1.0]), deterministic=fixed).lane
        for x in (2.1, 3.0, inf)
    ]
    assert lanes == ["reproduced", "above", "above"]


# speed


@pytest.mark.parametrize(
    ("factor", "lane"),
    [(1.0, "reproduced"), (1.5, "below"), (0.6, "above"), (1.25, "inconclusive")],
)
def test_a_time_is_judged_by_its_geometric_mean(factor: float, lane: str) -> None:
    x = [factor * 1425 * f for f in (0.95, 1 / 0.95, 1.05, 1 / 1.05, 1.0)]
    verdict = see(speed(), "lower", a=x)
    assert (verdict.lane, verdict.mean) == (lane, pytest.approx(factor * 1425))


def test_fewer_steps_are_better_even_if_the_metric_takes_no_side() -> None:
    assert see(speed(), "neither", a=[4000, 4100, 3900]).lane == "below"


def test_with_missed_targets_the_median_is_judged_by_its_exact_interval() -> None:
    x = [1400.0 + i for i in range(70)] + [inf] * 30
    verdict = see(speed(), "lower", a=x)
    assert (verdict.lane, verdict.mean) == ("reproduced", pytest.approx(1449.5))
    # With 100 values, the 42nd and the 59th: P(Binomial(100, ½) <= 41) = 4.4 %.
    assert verdict.interval == pytest.approx((1441, 1458))
    assert verdict.note.startswith("30 % of 100 runs never reach the target")


def test_when_most_runs_miss_the_target_the_median_is_infinite_and_below() -> None:
    verdict = see(speed(), "lower", a=[1425.0] * 20 + [inf] * 60)
    assert (verdict.lane, verdict.mean, verdict.interval) == ("below", inf, (inf, inf))


def test_a_bare_majority_of_misses_is_not_yet_evidence() -> None:
    verdict = see(speed(), "lower", a=[1425.0, 1425.0, inf, inf, inf])
    assert (verdict.lane, verdict.mean) == ("inconclusive", inf)


def test_three_runs_say_nothing_about_a_median() -> None:
    verdict = see(speed(), "lower", a=[1425.0, 1425.0, inf])
    assert (verdict.lane, verdict.interval) == ("inconclusive", (0.0, inf))


def test_the_seeds_for_a_median_follow_from_the_share_of_misses() -> None:
    # Three in ten miss: the upper end of the interval is finite from some seventeen runs on.
    verdict = see(speed(), "lower", a=[1425.0] * 7 + [inf] * 3)
    assert verdict.lane == "inconclusive"
    assert verdict.seeds_needed is not None
    assert 11 <= verdict.seeds_needed <= 25


def test_the_percentile_is_the_share_of_runs_at_or_below_the_published_figure() -> None:
    assert see(speed(), "lower", a=[1000.0, 1425.0, 2000.0, inf]).percentile == 0.5


@pytest.mark.parametrize(
    ("times", "where"),
    [
        ([1300, 1400, 1425, 1500, 1600, inf], "the published run is faster than 50 % of ours"),
        ([1300, 1500, 1600], "the published run is faster than 66.7 % of ours"),
        ([1426, 1500, inf], "the published run is faster than all of ours"),
        ([1300, 1400, 1425], "every run of ours is at least as fast as the published one"),
    ],
)
def test_the_note_of_a_time_says_where_the_published_one_lies_among_ours(
    times: list[float], where: str
) -> None:
    assert see(speed(), "lower", a=times).note.endswith(f"; {where}")


def test_two_times_are_too_few_to_say_where_the_published_one_lies() -> None:
    assert "published" not in see(speed(), "lower", a=[1300, 1500]).note


def test_a_deterministic_run_that_misses_is_below() -> None:
    lanes = [
        judge(speed(), metric("lower"), runs(a=[x]), deterministic=frozenset({"a"})).lane
        for x in (1500.0, inf)
    ]
    assert lanes == ["reproduced", "below"]


def test_a_target_reached_at_the_start_is_a_time_of_zero() -> None:
    verdict = see(speed(), "lower", a=[0.0] * 8)
    assert verdict.lane == "above"
    assert "never reach" not in verdict.note


def test_a_negative_time_is_inconclusive_and_says_why() -> None:
    assert "positive" in see(speed(), "lower", a=[-1.0, 1.0, 2.0]).note


# trend


def test_a_slope_clear_of_zero_on_the_claimed_side_is_reproduced() -> None:
    noise = np.random.default_rng(5).normal(0, 0.1, (3, 6))
    given = {"a": 1 + noise[0], "b": 2 + noise[1], "c": 4 + noise[2]}
    verdicts = [see(trend("rises"), **given), see(trend("falls"), **given)]
    assert [v.lane for v in verdicts] == ["reproduced", "below"]
    assert [v.mean for v in verdicts] == [pytest.approx(1.0, abs=0.1)] * 2


def test_a_slope_that_could_be_zero_is_inconclusive() -> None:
    noise = np.random.default_rng(6).normal(0, 1, (3, 6))
    verdict = see(trend(), a=noise[0], b=noise[1], c=noise[2])
    assert verdict.lane == "inconclusive"
    assert verdict.interval is not None
    assert verdict.interval[0] < 0 < verdict.interval[1]


def test_four_seeds_cannot_show_a_trend() -> None:
    verdict = see(trend(), a=[1] * 4, b=[2] * 4, c=[3] * 4)
    assert (verdict.lane, verdict.seeds_needed) == ("inconclusive", 5)


def test_the_slope_is_the_median_of_the_slopes_within_each_seed() -> None:
    # Settings 1, 2, 4: slopes 1, 2 and 5/3 in every seed.
    assert see(trend(), a=[0] * 5, b=[1] * 5, c=[5] * 5).mean == pytest.approx(5 / 3)


def test_deterministic_variants_show_their_trend_at_once() -> None:
    fixed, settings = frozenset({"a", "b", "c"}), {"a": 1, "b": 2, "c": 4}
    lanes = [
        judge(
            trend(), metric(), runs(a=[1], b=[x], c=[x]), deterministic=fixed, settings=settings
        ).lane
        for x in (2, 1, 0)
    ]
    assert lanes == ["reproduced", "below", "below"]


def test_a_trend_into_missed_targets_rises() -> None:
    verdict = see(trend(), "lower", a=[10.0] * 6, b=[20.0] * 6, c=[inf] * 6)
    assert (verdict.lane, verdict.mean) == ("reproduced", inf)


def test_variants_with_one_setting_have_no_slope() -> None:
    same = {"a": 1.0, "b": 1.0, "c": 1.0}
    verdict = judge(trend(), metric(), runs(a=ONES, b=ONES, c=ONES), settings=same)
    assert "the same width" in verdict.note


def test_a_trend_over_variants_that_share_no_seed_is_inconclusive() -> None:
    measured = {"a": {0: 1.0}, "b": {1: 1.0}, "c": {2: 1.0}}
    verdict = judge(trend(), metric(), measured, settings={"a": 1, "b": 2, "c": 3})
    assert (verdict.lane, verdict.n) == ("inconclusive", 0)


# property


@pytest.mark.parametrize(
    ("held", "n", "lane"),
    [(29, 29, "reproduced"), (28, 28, "inconclusive"), (5, 10, "below"), (9, 10, "inconclusive")],
)
def test_a_property_is_judged_by_the_exact_test(held: int, n: int, lane: str) -> None:
    verdict = see(proportion(), a=[True] * held + [False] * (n - held))
    assert (verdict.lane, verdict.mean) == (lane, held / n)


def test_wilsons_interval_is_the_textbook_one() -> None:
    expected = stats.binomtest(17, 20).proportion_ci(0.9, method="wilson")
    verdict = see(proportion(), a=[1.0] * 17 + [0.0] * 3)
    assert verdict.interval == pytest.approx((expected.low, expected.high))


def test_runs_that_all_pass_need_twenty_nine_to_show_nine_in_ten() -> None:
    assert see(proportion(), a=[True] * 10).seeds_needed == 29


def test_the_p_value_of_a_share_is_that_of_the_binomial_test() -> None:
    verdict = see(proportion(share=0.5), a=[True] * 17 + [False] * 3)
    assert verdict.p == pytest.approx(stats.binomtest(17, 20, 0.5, alternative="greater").pvalue)


def test_a_share_of_one_cannot_be_shown_but_can_be_refuted() -> None:
    held = see(proportion(share=1.0), a=[True] * 200)
    assert (held.lane, held.seeds_needed) == ("inconclusive", None)
    assert "no number of runs" in held.note
    assert see(proportion(share=1.0), a=[True] * 5 + [False]).lane == "below"


@pytest.mark.parametrize(
    ("held", "n", "told"),
    [(8, 9, "88.9 % of 9 runs"), (9_999, 10_000, "99.99 % of 10,000 runs"), (5, 5, "100 % of 5")],
)
def test_a_share_has_three_digits_and_nearly_all_is_not_all(held: int, n: int, told: str) -> None:
    assert told in see(proportion(), a=[True] * held + [False] * (n - held)).note


@pytest.mark.parametrize(
    ("test", "passes"),
    [(">= 0.99", 3), ("> 0.99", 2), ("<=0.99", 2), ("< 0.99", 1), ("holds", 1)],
)
def test_a_property_compares_each_run(test: str, passes: int) -> None:
    verdict = see(proportion(test), a=[0.5, 0.99, 1.0, inf])
    assert verdict.mean == passes / 4


def test_a_property_whose_test_cannot_be_read_names_its_claim() -> None:
    with pytest.raises(ClaimsError, match="claim 'c': test must be"):
        see(proportion(">= much"), a=[1.0])


def test_a_deterministic_property_holds_or_does_not() -> None:
    lanes = [
        judge(proportion(), metric(), runs(a=[x]), deterministic=frozenset({"a"})).lane
        for x in (True, False)
    ]
    assert lanes == ["reproduced", "below"]


# A whole paper


def paper(*claims: Claim, **settings: Any) -> Claims:
    variants = {
        name: Variant(
            id=name,
            says="a variant",
            source="Table 1",
            deterministic=name == "fixed",
            settings={"width": settings.get(name, 1)},
        )
        for name in ("a", "b", "c", "fixed")
    }
    return Claims(
        path=Path("papers/x/claims.toml"),
        paper=Citation(title="t", authors=("a",), year=2000, url="https://example.org"),
        sources={},
        metrics={"test/score": metric()},
        settings={"width": Setting(name="width", says="units", source="Table 1")},
        variants=variants,
        claims={claim.id: claim for claim in claims},
        deviations=(),
        gaps=(),
    )


def named(claim: Claim, name: str, **more: Any) -> Any:
    taken = {f: getattr(claim, f) for f in claim.__dataclass_fields__}
    return type(claim)(**{**taken, "id": name, **more})


def test_verdicts_come_in_the_files_order() -> None:
    claims = paper(named(trend(), "z"), named(value(), "a"), named(order(), "m"), a=1, b=2, c=3)
    verdicts = judge_all(claims, {"test/score": runs(a=ONES, b=ONES, c=ONES)})
    assert [(v.id, v.kind) for v in verdicts] == [("z", "trend"), ("a", "value"), ("m", "order")]


def test_a_metric_that_was_not_measured_leaves_its_claims_not_run() -> None:
    assert [v.lane for v in judge_all(paper(value()), {})] == ["not run"]


def test_runs_that_say_nothing_of_the_metric_are_told_from_missing_ones() -> None:
    claims = paper(value(), named(order("a", "b"), "order"))
    figure, pair = judge_all(claims, {"test/scroe": runs(a=ONES)})
    assert (figure.lane, figure.note) == ("not run", "no run of 'a' measured test/score")
    assert (pair.lane, pair.note) == ("not run", "no run of 'a' measured test/score")
    assert judge_all(claims, {})[0].note == "no run of 'a'"


def test_deterministic_variants_and_settings_come_from_the_claims() -> None:
    claims = paper(named(value(), "v", variant="fixed"), named(trend(), "t"), a=1, b=2, c=4)
    measured = runs(fixed=[10.0], a=[1.0] * 5, b=[2.0] * 5, c=[4.0] * 5)
    assert [v.lane for v in judge_all(claims, {"test/score": measured})] == ["reproduced"] * 2


def test_failed_variants_are_errors_and_the_others_are_judged() -> None:
    claims = paper(named(value(), "v"), named(value(), "w", variant="b"))
    verdicts = judge_all(claims, {"test/score": runs(a=ONES)}, broken={"b": {0}})
    assert [v.lane for v in verdicts] == ["reproduced", "error"]


def test_a_trend_over_words_names_claim_variant_and_setting() -> None:
    with pytest.raises(ClaimsError, match=r"claim 'c'.*variant 'b'.*width = 'wide'"):
        judge_all(paper(trend(), a=1, b="wide", c=3), {})


def test_holm_multiplies_the_smallest_p_value_by_the_number_of_tests() -> None:
    claims = paper(
        named(order(), "weak"),
        named(order("a", "c"), "strong"),
        named(value(), "proxy", proxy=True),
        named(exact("10"), "count", variant="fixed"),
    )
    measured = runs(a=[2.0] * 8, b=[1] * 5, c=[1] * 8, fixed=[10])
    weak, strong, proxy, count = judge_all(claims, {"test/score": measured})
    assert (weak.p, strong.p) == (1 / 32, 1 / 256)
    assert (weak.p_holm, strong.p_holm) == (1 / 32, 2 / 256)
    assert (weak.survives_holm, strong.survives_holm) == (True, True)
    assert [proxy.p_holm, count.p_holm, count.survives_holm] == [None, None, None]


def test_two_orders_at_five_seeds_are_reproduced_each_and_do_not_survive_holm() -> None:
    claims = paper(named(order(), "one"), named(order("a", "c"), "two"))
    verdicts = judge_all(claims, {"test/score": runs(a=[2] * 5, b=[1] * 5, c=[1] * 5)})
    assert [v.lane for v in verdicts] == ["reproduced", "reproduced"]
    assert [v.p_holm for v in verdicts] == [2 / 32, 2 / 32]
    assert [v.survives_holm for v in verdicts] == [False, False]


# The sequential mode


def test_each_look_has_its_level() -> None:
    assert [level_at(n) for n in LOOKS] == list(LEVELS)
    assert [level_at(n) for n in (1, 4, 19, 200)] == [0.0001, 0.0001, 0.02, 0.034]


def test_a_stricter_level_widens_the_interval_and_asks_for_more() -> None:
    x = [10.0, 10.5, 9.5]
    usual = see(value(margin_reason="r"), a=x)
    strict = judge(value(), metric(), runs(a=x), level=level_at(3))
    assert (usual.lane, strict.lane) == ("reproduced", "inconclusive")
    assert usual.interval is not None
    assert strict.interval is not None
    assert strict.interval[1] - strict.interval[0] > usual.interval[1] - usual.interval[0]
    assert "99.98 %" in strict.note


# Out


def test_json_is_strict_and_writes_infinity_as_a_word() -> None:
    verdict = see(speed(), "lower", a=[1425.0, inf, inf])
    read = json.loads(json.dumps(plain(verdict), allow_nan=False))
    assert (read["mean"], read["interval"], read["published"]) == ("inf", [0.0, "inf"], "1425")
    wanted = ("id", "kind", "lane", "n", "mean", "interval", "published", "margin", "seeds_needed")
    assert [key for key in wanted if key not in read] == []


def test_a_verdict_carries_what_a_report_says_about_its_claim() -> None:
    verdict = see(order())
    assert (verdict.says, verdict.source, verdict.metric) == (
        "the method works",
        "Table 1",
        "test/score",
    )
    assert (verdict.unit, verdict.cost, verdict.variants) == ("points", "instant", ("a", "b"))


def test_importing_the_module_loads_neither_torch_nor_scipy() -> None:
    code = "import sys, reimpl.judging; print([m for m in ('torch', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
