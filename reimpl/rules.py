"""The seven rules, one for each kind of claim, and the sentences that say why.

Every rule asks for evidence before it speaks. `reproduced` is the outcome of an equivalence test
(the interval lies inside the margin), never of a difference test that failed to find a difference.
With fewer than three seeds there is a hint (`consistent`, `off`) and no verdict. The `level` is
one-sided, so the intervals cover 1 − 2·level: 90 %.

The intervals and tests themselves are in `reimpl.inference`. Values go there sorted, so that the
order of the runs plays no role.
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise, repeat
from typing import Any

import numpy as np

from reimpl.claims import (
    Better,
    Claim,
    Exact,
    Order,
    Property,
    Ratio,
    Speed,
    Trend,
    Value,
)
from reimpl.errors import ClaimsError
from reimpl.inference import (
    DIGITS,
    MOST,
    Precision,
    above_p,
    best_of,
    best_pivot,
    cv_star,
    differences,
    equal_p,
    equal_seeds,
    majority_p,
    mean_sd,
    median,
    median_gap,
    median_interval,
    median_seeds,
    pairwise_slopes,
    pivot_interval,
    pivot_p,
    resampled_median_gaps,
    resampled_medians,
    share_p,
    share_seeds,
    sign_flip_p,
    sign_seeds,
    signed_ranks,
    slope_seeds,
    t_quantile,
    tost_p,
    unpaired,
    widened,
    widened_p,
    wilson,
)
from reimpl.verdict import Lane, Verdict

LEAST = 3
"""Seeds below which there is a hint and no verdict."""
LEAST_PAIRS = 5
"""Seeds below which no rule that leans on signs alone gets under 5 %: 1/16 with four."""
WINS = 0.75
"""Share of pairs that the first variant must win (Bouthillier et al. 2021)."""


class Fewest(int):
    """Seeds that can decide at all, where those at hand do not tell how many will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The runs of one claim and what a rule needs besides the claim."""

    blank: Verdict
    better: Better
    runs: Mapping[str, Mapping[int, float]]
    fixed: frozenset[str]
    """Variants in which no seed plays a role."""
    folds: int
    """Above 1, the runs are folds of a cross-validation."""
    level: float

    def precision(self, sd: float) -> Precision:
        """Of the mean difference of pairs."""
        overlap = 1 / (self.folds - 1) if self.folds > 1 else 0.0
        return Precision(sd=sd, level=self.level, overlap=overlap)

    def repeats(self, runs: int | None) -> int | None:
        """Seeds that so many runs take."""
        return None if runs is None else -(-runs // self.folds)

    @property
    def margin(self) -> float:
        """Of a kind that has a figure."""
        assert self.blank.margin is not None  # `default_margin` gives each of them one
        return self.blank.margin

    @property
    def covers(self) -> str:
        """Share of the time that an interval holds the truth, in words."""
        return _percent(1 - 2 * self.level)

    def values(self, variant: str) -> list[float]:
        """Of all its runs; of one where no seed plays a role."""
        values = list(self.runs[variant].values())
        return values[:1] if variant in self.fixed else values

    def rows(self, variants: Sequence[str]) -> list[tuple[float, ...]]:
        """The variants' values seed by seed; a deterministic variant goes with every seed."""
        chance = [self.runs[v] for v in variants if v not in self.fixed]
        seeds = set.intersection(*map(set, chance)) if chance else {0}
        columns = (
            repeat(self.values(v)[0], len(seeds))
            if v in self.fixed
            else map(self.runs[v].__getitem__, seeds)
            for v in variants
        )
        return sorted(zip(*columns, strict=True))

    @property
    def fewest(self) -> int:
        """Runs that take it: of fewer, all lie on one side by chance more often than α."""
        return math.floor(-math.log2(self.level)) + 1

    def settled(self, variants: Iterable[str]) -> bool:
        """Whether one run is all there is to know."""
        return self.fixed.issuperset(variants)

    def verdict(self, lane: Lane, **found: Any) -> Verdict:
        """In that lane, with what was found."""
        return replace(self.blank, lane=lane, **found)

    def side(self, *, larger: bool) -> Lane:
        """The lane beyond the margin: below is worse, a weaker effect, or smaller."""
        return "above" if larger != (self.better == "lower") else "below"

    def place(self, low: float, high: float, *, slack: float = 0.0) -> Lane:
        """The lane of an interval of the difference from the published figure."""
        slack += 1e-9 * self.margin
        if -self.margin - slack <= low and high <= self.margin + slack:
            return "reproduced"
        if high < -self.margin:
            return self.side(larger=False)
        if low > self.margin:
            return self.side(larger=True)
        return "inconclusive"

    def why(self, lane: Lane, what: str, more: str) -> str:
        """The sentence for a lane of `place`; `what` is the quantity, `more` what would decide."""
        if lane == "reproduced":
            return f"the {self.covers} interval of {what} lies within the margin"
        if lane == "inconclusive":
            return joined(f"the {self.covers} interval of {what} crosses the margin", more)
        words = {"below": "worse", "above": "better"}
        if self.blank.kind == "ratio":
            words = {"below": "a weaker effect", "above": "a stronger effect"}
        elif self.better == "neither":
            words = {"below": "smaller", "above": "larger"}
        check = "check that the protocol is the paper's" if lane == "above" else ""
        return joined(f"{what} is {words[lane]} than published by more than the margin", check)

    def hint(self, near: bool, needed: int, **found: Any) -> Verdict:
        """Too few seeds: never a verdict."""
        return self.verdict(
            "consistent" if near else "off",
            seeds_needed=needed,
            note=f"{_seeds(found['n'])}: a hint, no verdict; a verdict needs {needed:,} or more",
            **{**found, "interval": None},
        )

    def once_spread_is_known(self, sd: float, verdict: Verdict) -> Verdict:
        """The verdict of an interval that rests on s; one of no width takes runs enough to be sure.

        Runs that can only have a few values, such as shares of four cases, are soon all equal by
        chance. Their s of zero says that the next one would be, too.
        """
        n = verdict.n
        if sd > 0 or verdict.lane == "inconclusive":
            return verdict
        if equal_p(n) < self.level:
            return replace(verdict, p=max(verdict.p or 0.0, equal_p(n)))
        needed = equal_seeds(self.level)
        runs = f"{n:,} folds" if self.folds > 1 else _seeds(n)
        note = f"{runs} are equal, so that their spread is not known; {needed} would be enough"
        hint = "say `deterministic` where no seed plays a role"
        return replace(
            verdict,
            lane="inconclusive",
            interval=None,
            p=None,
            seeds_needed=self.repeats(needed),
            detectably_different=False,
            note=joined(note, hint),
        )

    def direct(self, lane: Lane, **found: Any) -> Verdict:
        """No seed plays a role, so that one comparison decides."""
        return self.verdict(lane, n=1, note="no seed plays a role: one run decides", **found)


def decide(claim: Claim, case: Case, settings: Mapping[str, float]) -> Verdict:
    """By the rule of the claim's kind; `settings` are a trend's, by variant."""
    match claim:
        case Exact():
            return _judge_exact(claim, case)
        case Value():
            return _judge_value(claim, case)
        case Order():
            return _judge_order(claim, case)
        case Ratio():
            return _judge_ratio(claim, case)
        case Speed():
            return _judge_speed(claim, case)
        case Trend():
            return _judge_trend(claim, case, settings)
        case Property():
            return _judge_property(claim, case)


def _judge_exact(claim: Exact, case: Case) -> Verdict:
    """Equal after rounding to the printed digits."""
    counts = sorted(set(case.values(claim.variant)))
    offset, count = max(((x - claim.published.value, x) for x in counts), key=lambda o: abs(o[0]))
    found: dict[str, Any] = {"n": len(counts), "mean": count}
    if abs(offset) <= case.margin + 1e-12 * abs(claim.published.value) + 1e-9 * case.margin:
        note = "equal to the printed digits"
        if abs(offset) > claim.published.half_digit:
            note = f"differs by {_signed(offset)}, within the margin"
        return case.verdict("reproduced", note=note, **found)
    note = "" if len(counts) == 1 else f"{len(counts):,} different ones, and a count must not vary"
    note = joined(f"differs by {_signed(offset)}", note)
    return case.verdict(case.side(larger=offset > 0), note=note, **found)


def _judge_value(claim: Value, case: Case) -> Verdict:
    """TOST of the mean; of the expected best of k where the paper reports a best."""
    values = case.values(claim.variant)
    figure = claim.published.value
    if case.settled([claim.variant]):
        offset = values[0] - figure
        lane = case.place(offset, offset, slack=1e-12 * abs(figure))
        return case.direct(lane, mean=values[0], cv_star=_degree(figure, values))
    if not all(map(math.isfinite, values)):
        return _judge_infinite_value(values, case)
    if claim.best_of is not None and claim.best_of > 1:
        return _judge_best(claim, case, claim.best_of)
    return _judge_mean(claim, case, values)


def _judge_mean(claim: Value, case: Case, values: Sequence[float]) -> Verdict:
    n, figure = len(values), claim.published.value
    mean, sd = mean_sd(values)
    offset = mean - figure
    slack = 1e-12 * abs(figure)
    precision = _precision(claim, sd, case.level)
    found: dict[str, Any] = {"n": n, "mean": mean, "sd": sd if n > 1 else None}
    found["cv_star"] = _degree(figure, values)
    if n < LEAST:
        needed = precision.seeds(offset, case.margin, least=LEAST) if n > 1 else LEAST
        near = case.place(offset, offset, slack=slack) == "reproduced"
        return case.hint(near, needed or LEAST, **found)
    reach = precision.reach(n)
    low, high = offset - reach, offset + reach
    lane = case.place(low, high, slack=slack)
    needed = precision.seeds(offset, case.margin, least=n + 1) if lane == "inconclusive" else None
    excluded = abs(offset) > t_quantile(0.025, precision.df(n)) * precision.se(n) + slack
    differs = lane == "reproduced" and excluded
    note = case.why(lane, "our mean", _more(needed))
    verdict = case.verdict(
        lane,
        interval=(figure + low, figure + high),
        p=tost_p(offset, case.margin, se=precision.se(n), df=precision.df(n)),
        seeds_needed=needed,
        detectably_different=differs,
        note=joined(note, "a difference is detectable all the same" if differs else ""),
        **found,
    )
    return case.once_spread_is_known(sd, verdict)


def _judge_infinite_value(values: Sequence[float], case: Case) -> Verdict:
    """A mean with a missed target in it is infinite, and a t-interval has no meaning."""
    n = len(values)
    note = joined(_missed(values), "a mean says nothing then, a `speed` claim would")
    if n < LEAST:
        return case.hint(False, LEAST_PAIRS, n=n, mean=math.inf)
    settled = n >= LEAST_PAIRS and all(map(math.isinf, values))
    needed = LEAST_PAIRS if n < LEAST_PAIRS else None
    lane: Lane = "below" if settled else "inconclusive"
    return case.verdict(lane, n=n, mean=math.inf, seeds_needed=needed, note=note)


def _judge_best(claim: Value, case: Case, k: int) -> Verdict:
    """TOST of the expected best of k of our runs, over all subsets of size k.

    The interval inverts a pivot that is simulated under a normal law, once for each n and k.
    """
    sign = -1.0 if case.better == "lower" else 1.0
    values = sorted(sign * value for value in case.values(claim.variant))
    n, figure = len(values), sign * claim.published.value
    _, sd = mean_sd(values)
    best = values[-1] if n < k else best_of(values, k)
    offset, what = best - figure, f"our expected best of {k}"
    least = max(k, LEAST)
    found: dict[str, Any] = {"n": n, "mean": sign * best, "sd": sd if n > 1 else None}
    if n < LEAST:
        return case.hint(abs(offset) <= case.margin, least, **found)
    if n < k:
        note = f"the paper reports the best of {k}, we have {_seeds(n)}"
        return case.verdict("inconclusive", seeds_needed=least, note=note, **found)
    pivot = best_pivot(n, k)
    low, high = pivot_interval(pivot, offset, sd=sd, level=case.level)
    ends = (sign * (figure + low), sign * (figure + high))
    toward = (low, high) if sign > 0 else (-high, -low)
    lane = case.place(*toward, slack=1e-12 * abs(figure))
    precision = Precision(sd=sd * float(pivot.std()) * math.sqrt(n), level=case.level)
    needed = precision.seeds(offset, case.margin, least=n + 1) if lane == "inconclusive" else None
    verdict = case.verdict(
        lane,
        interval=(min(ends), max(ends)),
        p=pivot_p(pivot, offset, case.margin, sd=sd),
        seeds_needed=needed,
        note=case.why(lane, what, _more(needed)),
        **found,
    )
    return case.once_spread_is_known(sd, verdict)


def _judge_order(claim: Order, case: Case) -> Verdict:
    """Every adjacent pair must hold; what is shown is the weakest of them."""
    pairs = list(pairwise(claim.variants))
    verdicts = [
        _judge_no_worse(case, pair) if claim.no_worse else _judge_pair(case, pair) for pair in pairs
    ]
    weakest_first = ("below", "inconclusive", "off", "consistent", "reproduced")
    ranked = [(weakest_first.index(v.lane), -(v.p or 0.0), i) for i, v in enumerate(verdicts)]
    weakest = verdicts[i := min(ranked)[-1]]
    undecided = [v.seeds_needed for v in verdicts if v.lane not in ("reproduced", "below")]
    tests = [v.p for v in verdicts]
    return replace(
        weakest,
        p=None if None in tests else max(p for p in tests if p is not None),
        seeds_needed=None if weakest.lane == "below" else _all_of(undecided),
        note=weakest.note if len(pairs) == 1 else f"{' over '.join(pairs[i])}: {weakest.note}",
    )


def _judge_pair(case: Case, pair: tuple[str, str]) -> Verdict:
    """Exact sign-flip test of the mean difference, and three quarters of the pairs."""
    rows = case.rows(pair)
    gains = _gains(case.better, rows)
    n = len(rows)
    found = _difference(case, rows)
    if n == 0:
        return _no_pairs(case, pair, LEAST_PAIRS)
    if case.settled(pair):
        return case.direct("reproduced" if gains[0] > 0 else "below", mean=found["mean"])
    signs = signed_ranks(gains) if any(map(math.isinf, gains)) else gains
    if n < LEAST:
        return case.hint(math.fsum(signs) > 0, LEAST_PAIRS, **found)
    share = sum(1.0 if gain > 0 else 0.5 if gain == 0 else 0.0 for gain in gains) / n
    p, p_reversed = _fold_p(case, signs) if case.folds > 1 else sign_flip_p(signs)
    lane: Lane = "inconclusive"
    if p < case.level and share >= WINS:
        lane = "reproduced"
    elif p_reversed < case.level and share <= 1 - WINS:
        lane = "below"
    needed = _pairs_needed(signs, share, case) if lane == "inconclusive" else None
    note = f"{pair[0]} wins {_percent(share)} of {n:,} {'folds' if case.folds > 1 else 'pairs'}"
    if lane == "inconclusive":
        note = joined(note, _more(needed))
    verdict = case.verdict(lane, p=p, seeds_needed=needed, note=note, **found)
    return case.once_spread_is_known(mean_sd(signs)[1], verdict) if case.folds > 1 else verdict


def _fold_p(case: Case, gains: Sequence[float]) -> tuple[float, float]:
    """One-sided p-values of the corrected t-test, for "positive" and for "negative"."""
    mean, sd = mean_sd(gains)
    precision, n = case.precision(sd), len(gains)
    se, df = precision.se(n), precision.df(n)
    if mean == 0:
        return 1.0, 1.0
    return above_p(mean, se=se, df=df), above_p(-mean, se=se, df=df)


def _judge_no_worse(case: Case, pair: tuple[str, str]) -> Verdict:
    """Non-inferiority: the paired interval of the loss stays below the margin."""
    rows = case.rows(pair)
    gains = _gains(case.better, rows)
    n = len(rows)
    found = _difference(case, rows)
    if n == 0:
        return _no_pairs(case, pair, LEAST)
    slack = 1e-9 * case.margin
    if case.settled(pair):
        held = gains[0] >= -case.margin - slack
        return case.direct("reproduced" if held else "below", mean=found["mean"])
    if not all(map(math.isfinite, gains)):
        return _no_worse_with_misses(case, gains, found)
    mean, sd = mean_sd(gains)
    precision = case.precision(sd)
    if n < LEAST:
        return case.hint(mean >= -case.margin - slack, LEAST, **found)
    lane: Lane = "inconclusive"
    if mean - precision.reach(n) >= -case.margin - slack:
        lane = "reproduced"
    elif mean + precision.reach(n) < -case.margin:
        lane = "below"
    needed = None
    if lane == "inconclusive":
        needed = case.repeats(precision.seeds(mean + case.margin, 0.0, least=n + 1))
    verdict = case.verdict(
        lane,
        p=above_p(mean + case.margin, se=precision.se(n), df=precision.df(n)),
        seeds_needed=needed,
        note=_no_worse_note(case, lane, _more(needed)),
        **found,
    )
    return case.once_spread_is_known(sd, verdict)


def _no_worse_with_misses(case: Case, gains: Sequence[float], found: Mapping[str, Any]) -> Verdict:
    """The same on the median difference, which a missed target does not make infinite."""
    n = len(gains)
    if n < LEAST:
        return case.hint(median(gains) >= -case.margin, LEAST_PAIRS, **found)
    low, high = median_interval(gains, case.level)
    lane: Lane = "inconclusive"
    if low >= -case.margin:
        lane = "reproduced"
    elif high < -case.margin:
        lane = "below"
    needed = LEAST_PAIRS if n < LEAST_PAIRS else None
    p = majority_p(sum(gain > -case.margin for gain in gains), n)
    note = _no_worse_note(case, lane, _more(needed) if needed else "")
    return case.verdict(lane, p=p, seeds_needed=needed, note=note, **found)


def _judge_ratio(claim: Ratio, case: Case) -> Verdict:
    """TOST of the mean log ratio: paired by seed where seeds are shared, Welch otherwise."""
    rows = case.rows(claim.variants)
    first, second = (sorted(case.values(v)) for v in claim.variants)
    n = len(rows) or min(len(first), len(second))
    if min(claim.published.value, *first, *second) <= 0:
        note = "a ratio needs positive values: it is judged on the log scale"
        return case.verdict("inconclusive", n=n, note=note)
    figure = math.log(claim.published.value)
    case = replace(case, better="higher" if figure >= 0 else "lower")  # below: a weaker effect
    if case.settled(claim.variants):
        gap = math.log(first[0]) - math.log(second[0])  # NaN when both missed their target
        mean = None if math.isnan(gap) else _exp(gap)
        return case.direct(case.place(gap - figure, gap - figure), mean=mean)
    if not all(map(math.isfinite, (*first, *second))):
        return _judge_ratio_of_medians(claim, case, figure)
    if rows:
        mean, sd = mean_sd([round(math.log(a) - math.log(b), DIGITS) for a, b in rows])
        precision = Precision(sd=sd, level=case.level)
    else:
        mean, precision = unpaired(
            [math.log(a) for a in first], [math.log(b) for b in second], case.level
        )
    return _on_log_scale(
        case, precision, n=n, offset=mean - figure, figure=figure, what="our ratio"
    )


def _judge_ratio_of_medians(claim: Ratio, case: Case, figure: float) -> Verdict:
    """Bootstrap of the ratio of the medians, where runs missed their target."""
    rows = case.rows(claim.variants)
    columns = list(zip(*rows, strict=True)) or [sorted(case.values(v)) for v in claim.variants]
    first, second = (np.log(np.array(column)) for column in columns)
    n = min(len(first), len(second))
    draws = resampled_median_gaps(first, second, paired=bool(rows)) - figure
    offset = median_gap(first, second) - figure
    found: dict[str, Any] = {"n": n, "mean": None if math.isnan(offset) else _exp(offset + figure)}
    note = _missed([value for column in columns for value in column])
    if n < LEAST:
        return case.hint(abs(offset) <= case.margin, LEAST_PAIRS, **found)
    if n < case.fewest:
        note = joined(note, f"{case.fewest} seeds at least are needed")
        return case.verdict("inconclusive", seeds_needed=case.fewest, note=note, **found)
    low, high = widened(draws, n, case.level)
    lane = case.place(low, high)
    inside = [widened_p(draws > -case.margin, n), widened_p(draws < case.margin, n)]
    return case.verdict(
        lane,
        interval=(_exp(low + figure), _exp(high + figure)),
        p=max(inside),
        note=joined(note, case.why(lane, "the ratio of the medians", "")),
        **found,
    )


def _judge_speed(claim: Speed, case: Case) -> Verdict:
    """TOST of the mean logarithm; of the median where a run missed its target."""
    values = sorted(case.values(claim.variant))
    n, figure = len(values), claim.published.value
    share = sum(value <= figure for value in values) / n
    case = replace(case, better="lower") if case.better == "neither" else case  # it is a time
    if min(figure, *values) < 0 or figure == 0:
        note = "a time must be positive: it is judged on the log scale"
        return case.verdict("inconclusive", n=n, percentile=share, note=note)
    logs = [math.log(value) if value > 0 else -math.inf for value in values]
    offsets = [value - math.log(figure) for value in logs]
    if case.settled([claim.variant]):
        lane = case.place(offsets[0], offsets[0])
        return case.direct(lane, mean=values[0], percentile=share)
    judge_logs = _judge_mean_log if all(map(math.isfinite, offsets)) else _judge_median_log
    verdict = judge_logs(case, offsets, math.log(figure))
    note = verdict.note if n < LEAST else joined(verdict.note, _standing(share))
    return replace(verdict, percentile=share, note=note)


def _judge_mean_log(case: Case, offsets: Sequence[float], figure: float) -> Verdict:
    mean, sd = mean_sd(offsets)
    precision = Precision(sd=sd, level=case.level)
    n, what = len(offsets), "our geometric mean"
    return _on_log_scale(case, precision, n=n, offset=mean, figure=figure, what=what)


def _judge_median_log(case: Case, offsets: Sequence[float], figure: float) -> Verdict:
    """The exact order-statistic interval of the median; `offsets` are logarithms, sorted."""
    n = len(offsets)
    middle = median(offsets)
    found: dict[str, Any] = {"n": n, "mean": _exp(middle + figure)}
    if n < LEAST:
        return case.hint(abs(middle) <= case.margin, LEAST_PAIRS, **found)
    low, high = median_interval(offsets, case.level)
    lane = case.place(low, high)
    needed = _median_needed(offsets, case) if lane == "inconclusive" else None
    above = sum(offset > -case.margin for offset in offsets)
    below = sum(offset < case.margin for offset in offsets)
    return case.verdict(
        lane,
        interval=(_exp(low + figure), _exp(high + figure)),
        p=max(majority_p(above, n), majority_p(below, n)),
        seeds_needed=needed,
        note=joined(_missed(offsets), case.why(lane, "our median", _more(needed))),
        **found,
    )


def _judge_trend(claim: Trend, case: Case, settings: Mapping[str, float]) -> Verdict:
    """Theil–Sen slope, from differences within a seed, with a bootstrap interval over the seeds."""
    rows = case.rows(claim.variants)
    if not rows:
        return _no_pairs(case, claim.variants, LEAST_PAIRS)
    slopes = pairwise_slopes(rows, [float(settings[v]) for v in claim.variants])
    if not slopes.size:
        note = f"all variants have the same {claim.setting}"
        return case.verdict("inconclusive", n=len(rows), note=note)
    sign = 1.0 if claim.direction == "rises" else -1.0
    n, slope = len(slopes), float(np.median(slopes))
    if case.settled(claim.variants):
        return case.direct("reproduced" if sign * slope > 0 else "below", mean=slope)
    if n < LEAST:
        return case.hint(sign * slope > 0, LEAST_PAIRS, n=n, mean=slope)
    if case.folds > 1:
        return _judge_trend_of_folds(claim, case, [float(s) for s in np.median(slopes, axis=1)])
    draws = resampled_medians(slopes)
    ends = widened(draws, n, case.level)
    low, high = sorted(sign * end for end in ends)
    lane: Lane = "inconclusive"
    if n >= case.fewest and (low > 0 or high < 0):
        lane = "reproduced" if low > 0 else "below"
    needed = _slope_needed(slopes, case.level) if lane == "inconclusive" else None
    return case.verdict(
        lane,
        n=n,
        mean=slope,
        interval=ends,
        p=widened_p(sign * draws > 0, n) if n >= case.fewest else None,
        seeds_needed=needed,
        note=_trend_note(claim, case, lane, needed),
    )


def _judge_trend_of_folds(claim: Trend, case: Case, slopes: Sequence[float]) -> Verdict:
    """Corrected t-test of the folds' median slopes, which are not independent of each other."""
    n, sign = len(slopes), 1.0 if claim.direction == "rises" else -1.0
    if not all(map(math.isfinite, slopes)):
        note = "a fold without a figure has no slope"
        return case.verdict("inconclusive", n=n, note=note)
    mean, sd = mean_sd(slopes)
    precision = case.precision(sd)
    p, p_reversed = _fold_p(case, [sign * slope for slope in slopes])
    lane: Lane = "inconclusive"
    if min(p, p_reversed) < case.level:
        lane = "reproduced" if p < p_reversed else "below"
    needed = None
    if lane == "inconclusive":
        needed = case.repeats(precision.seeds(mean, 0.0, least=n + 1))
    verdict = case.verdict(
        lane,
        n=n,
        mean=mean,
        interval=(mean - precision.reach(n), mean + precision.reach(n)),
        p=p,
        seeds_needed=needed,
        note=_trend_note(claim, case, lane, needed),
    )
    return case.once_spread_is_known(sd, verdict)


def _judge_property(claim: Property, case: Case) -> Verdict:
    """Exact binomial test of the share of runs in which the test holds, by Wilson's interval."""
    holds = _test(claim)
    passed = [holds(value) for value in case.values(claim.variant)]
    n, share = len(passed), sum(passed) / len(passed)
    if case.settled([claim.variant]):
        return case.direct("reproduced" if passed[0] else "below", mean=share)
    if n < LEAST:
        needed = _share_needed(share, claim.share, n, case.level) or LEAST
        return case.hint(share >= claim.share, max(needed, LEAST), n=n, mean=share)
    more, less = share_p(sum(passed), n, claim.share)
    lane: Lane = "inconclusive"
    if more < case.level:
        lane = "reproduced"
    elif less < case.level:
        lane = "below"
    needed = _share_needed(share, claim.share, n, case.level) if lane == "inconclusive" else None
    note = f"it holds in {_percent(share)} of {n:,} runs; {_percent(claim.share)} is asked"
    if lane == "inconclusive":
        every = claim.share == share == 1
        note = joined(note, "no number of runs shows that all do" if every else _more(needed))
    return case.verdict(
        lane,
        n=n,
        mean=share,
        interval=wilson(share, n, case.level),
        p=more,
        seeds_needed=needed,
        note=note,
    )


# Shared by several rules.


def _on_log_scale(
    case: Case, precision: Precision, *, n: int, offset: float, figure: float, what: str
) -> Verdict:
    """TOST of a mean logarithm; shown as a factor."""
    found: dict[str, Any] = {"n": n, "mean": _exp(offset + figure)}
    if n < LEAST:
        near = case.place(offset, offset) == "reproduced"
        return case.hint(near, LEAST, **found)
    reach = precision.reach(n)
    lane = case.place(offset - reach, offset + reach)
    needed = precision.seeds(offset, case.margin, least=n + 1) if lane == "inconclusive" else None
    verdict = case.verdict(
        lane,
        interval=(_exp(offset - reach + figure), _exp(offset + reach + figure)),
        p=tost_p(offset, case.margin, se=precision.se(n), df=precision.df(n)),
        seeds_needed=needed,
        note=case.why(lane, what, _more(needed)),
        **found,
    )
    return case.once_spread_is_known(precision.sd, verdict)


def _no_pairs(case: Case, variants: Sequence[str], least: int) -> Verdict:
    note = f"no seed was run with all of {listed(variants)}; a verdict needs {least} or more"
    return case.verdict("inconclusive", seeds_needed=least, note=note)


def _difference(case: Case, rows: Sequence[tuple[float, ...]]) -> dict[str, Any]:
    """First minus second in the metric's unit, with the paired t-interval."""
    n = len(rows)
    if not all(map(math.isfinite, chain.from_iterable(rows))) or not rows:
        return {"n": n, "mean": None}
    mean, sd = mean_sd(differences(rows))
    if n < 2:
        return {"n": n, "mean": mean}
    reach = case.precision(sd).reach(n)
    return {"n": n, "mean": mean, "sd": sd, "interval": (mean - reach, mean + reach)}


def _gains(better: Better, rows: Sequence[tuple[float, ...]]) -> list[float]:
    """By how much the firsts are better, sorted; a miss loses to figures and ties with a miss."""
    figures = [row for row in rows if all(map(math.isfinite, row))]
    sign = -1.0 if better == "lower" else 1.0
    gains = [sign * gap + 0.0 for gap in differences(figures)] if figures else []
    for first, second in rows:
        if math.isinf(first) or math.isinf(second):
            both = math.isinf(first) and math.isinf(second)
            gains.append(0.0 if both else -math.inf if math.isinf(first) else math.inf)
    return sorted(gains)


def _test(claim: Property) -> Callable[[float], bool]:
    """The claim's test of one run."""
    if claim.test == "holds":
        return lambda value: value == 1  # in every fold, where it is a mean over folds
    symbol = claim.test[: 2 if claim.test[1:2] == "=" else 1]
    compare = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}[symbol]
    try:
        bound = float(claim.test.removeprefix(symbol))
    except ValueError:
        raise ClaimsError(
            f"claim '{claim.id}': test must be 'holds' or a comparison such as '>= 0.99', "
            f"is {claim.test!r}"
        ) from None
    return lambda value: bool(compare(value, bound))


def _degree(figure: float, values: Sequence[float]) -> float | None:
    together = [figure, *values]
    return cv_star(together) if all(0 < value < math.inf for value in together) else None


def _precision(claim: Value, sd: float, level: float) -> Precision:
    """With the standard error of the published mean where the paper gives one."""
    spread = claim.spread
    if spread is None or spread.n < 2:
        return Precision(sd=sd, level=level)
    others = spread.sd**2 / spread.n
    return Precision(sd=sd, level=level, others=others, others_df=spread.n - 1.0)


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


# Seeds needed.


def _all_of(needed: Sequence[int | None]) -> int | None:
    """Seeds that settle every one; None where one cannot be settled."""
    numbers = [n for n in needed if n is not None]
    return max(numbers) if numbers and len(numbers) == len(needed) else None


def _pairs_needed(signs: Sequence[float], share: float, case: Case) -> int | None:
    """None where neither variant wins three quarters, which more pairs do not change."""
    n = len(signs)
    if 1 - WINS < share < WINS:
        return _or_least(None, n)
    least = max(n + 1, LEAST_PAIRS)
    if case.folds > 1:
        mean, sd = mean_sd(signs)
        return case.repeats(case.precision(sd).seeds(mean, 0.0, least=least))
    return _or_least(sign_seeds(signs, case.level, least=least), n)


def _slope_needed(slopes: np.ndarray, level: float) -> int | None:
    n = len(slopes)
    return _or_least(slope_seeds(slopes, level, least=max(n + 1, LEAST_PAIRS)), n)


def _median_needed(offsets: Sequence[float], case: Case) -> int | None:
    n = len(offsets)

    def decided(low: float, high: float) -> bool:
        return case.place(low, high) != "inconclusive"

    least = max(n + 1, LEAST_PAIRS)
    return _or_least(median_seeds(offsets, case.level, decided=decided, least=least), n)


def _or_least(needed: int | None, n: int) -> int | None:
    return Fewest(LEAST_PAIRS) if needed is None and n < LEAST_PAIRS else needed


def _share_needed(share: float, asked: float, n: int, level: float) -> int | None:
    return share_seeds(share, asked, level, least=max(n + 1, LEAST))


# Sentences.


def listed(names: Sequence[str]) -> str:
    """In quotes, with commas."""
    return ", ".join(f"'{name}'" for name in names)


def _seeds(n: int) -> str:
    return f"{n:,} seed" if n == 1 else f"{n:,} seeds"


def _percent(share: float) -> str:
    """At most three digits, except that nearly all is not all: 99.98 %."""
    text = f"{100 * share:.3g}"
    if text == "100" and share < 1:
        text = f"{100 - float(f'{100 * (1 - share):.1g}'):g}"
    return f"{text} %"


def _signed(offset: float) -> str:
    """At most three digits; a count is whole."""
    return f"{offset:+,.0f}" if abs(offset) >= 100 else f"{offset:+.3g}"


def joined(*parts: str) -> str:
    """Parts of a note; an empty one is left out."""
    return "; ".join(part for part in parts if part)


def _more(needed: int | None) -> str:
    if needed is None:
        return f"up to {MOST:,} seeds like these would not decide"
    chance = "are the least that can" if isinstance(needed, Fewest) else "would probably"
    return f"{needed:,} seeds in all {chance} decide"


def _missed(values: Sequence[float]) -> str:
    share = sum(value == math.inf for value in values) / len(values)
    return f"{_percent(share)} of {len(values):,} runs never reach the target" if share else ""


def _standing(share: float) -> str:
    """Where a published time lies, `share` of our runs being as fast or faster."""
    if share == 1:
        return "every run of ours is at least as fast as the published one"
    return f"the published run is faster than {_percent(1 - share) if share else 'all'} of ours"


def _no_worse_note(case: Case, lane: Lane, more: str) -> str:
    if lane == "reproduced":
        return f"the {case.covers} interval of the loss stays below the margin"
    if lane == "below":
        return "the loss is more than the margin"
    return joined(f"the {case.covers} interval of the loss crosses the margin", more)


def _trend_note(claim: Trend, case: Case, lane: Lane, needed: int | None) -> str:
    if lane == "inconclusive":
        return joined(f"the {case.covers} interval of the slope is not clear of 0", _more(needed))
    way = (
        claim.direction
        if lane == "reproduced"
        else {"rises": "falls", "falls": "rises"}[claim.direction]
    )
    return f"the metric {way} with {claim.setting}"
