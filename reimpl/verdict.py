"""What the records say about a claim: pure statistics, with no torch, no clock and no files.

Every rule asks for evidence before it speaks. `reproduced` is the outcome of an equivalence test
(the interval lies inside the margin), never of a difference test that failed to find a difference.
With fewer than three seeds there is a hint (`consistent`, `off`) and no verdict. The `level` is
one-sided, so the intervals cover 1 − 2·level: 90 %.

Holm stands beside the lane and does not decide it: five pairs reach p = 1/32 at best, so that with
two orders in one paper a corrected lane could never say `reproduced` at five seeds. The lane is
about one claim; `survives_holm` says whether it still stands when the paper's claims are read as
one family.

Whatever resamples does so with a fixed seed from sorted values, so that the order of the runs plays
no role.
"""

import math
import operator
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from reimpl.claims import (
    Better,
    Claim,
    Claims,
    Cost,
    Exact,
    Metric,
    Order,
    Property,
    Ratio,
    Speed,
    Trend,
    Value,
    kind_of,
    variants_of,
)
from reimpl.errors import ClaimsError

Measured = Mapping[str, Mapping[int, float | bool | None]]
"""Variant → seed → value of the claim's metric; `None` where it is not defined, `inf` where a
target was missed."""
Lane = Literal[
    "reproduced", "below", "above", "inconclusive", "consistent", "off", "not run", "error"
]

LOOKS = (3, 5, 8, 12, 20)
"""Numbers of seeds at which the sequential mode looks."""
LEVELS = (0.0001, 0.002, 0.009, 0.02, 0.035)
"""What each look may spend, so that the false "reproduced" at the margin stays under 5 % over all
looks."""
LEAST = 3
"""Seeds below which there is a hint and no verdict."""
LEAST_PAIRS = 5
"""Seeds below which no rule that leans on signs alone gets under 5 %: 1/16 with four."""
MOST = 1000
"""Seeds beyond which `seeds_needed` gives up."""
POWER = 0.8
"""What "would probably be decided" means."""
WINS = 0.75
"""Share of pairs that the first variant must win (Bouthillier et al. 2021)."""
LOG_MARGIN = math.log(1.25)
"""Default margin of ratios and times."""
RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the records say about one claim."""

    id: str
    kind: str
    lane: Lane
    n: int = 0
    """Runs that count; pairs of runs for `order`, `ratio` and `trend`."""
    mean: float | None = None
    """What stands beside the published figure: the count, of several the furthest (`exact`), the
    mean (`value`), the expected best of k (`value` with `best_of`), the first minus the second
    (`order`, the weakest pair of a chain), the ratio of geometric means or of medians (`ratio`),
    the geometric mean or the median when a run missed (`speed`), the slope (`trend`), the share
    (`property`)."""
    sd: float | None = None
    """Standard deviation of the runs (`value`) or of the differences (`order`)."""
    interval: tuple[float, float] | None = None
    """Interval of `mean` that the rule used."""
    published: str | None = None
    """The figure as printed."""
    margin: float | None = None
    """In the metric's unit; a natural logarithm for `ratio` and `speed`."""
    margin_reason: str | None = None
    seeds_needed: int | None = None
    """Seeds in all with which the claim would probably be decided, if further runs are like
    these."""
    p: float | None = None
    """p-value of the test behind `reproduced`."""
    p_holm: float | None = None
    survives_holm: bool | None = None
    cv_star: float | None = None
    """QRA's small-sample coefficient of variation of the published figure and ours, in per cent."""
    detectably_different: bool | None = None
    """`value`: reproduced, and yet the 95 % interval excludes the published figure."""
    percentile: float | None = None
    """`speed`: share of our runs at or below the published figure."""
    note: str = ""
    """One sentence on why this lane."""
    says: str
    source: str
    metric: str
    unit: str
    cost: Cost
    proxy: bool = False
    needs: str | None = None
    variants: tuple[str, ...] = ()


def to_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as strict JSON takes it: infinities are the strings "inf" and "-inf"."""
    return {f.name: _strict(getattr(verdict, f.name)) for f in fields(Verdict)}


def judge(
    claim: Claim,
    metric: Metric,
    measured: Measured,
    *,
    deterministic: frozenset[str] = frozenset(),
    failed: frozenset[str] = frozenset(),
    settings: Mapping[str, float] = MappingProxyType({}),
    level: float = 0.05,
) -> Verdict:
    """What the runs say about a claim.

    Args:
        claim: any of the seven kinds.
        metric: the claim's metric; its better side decides what is below and what is above.
        measured: variant → seed → value; `None` does not count, `inf` is a missed target.
        deterministic: variants in which no seed plays a role, so that one run is all there is to
            know.
        failed: variants all of whose runs failed.
        settings: for a trend, each variant's value of the setting.
        level: one-sided; `level_at(n)` in the sequential mode.

    >>> from reimpl.claims import Metric, Printed, Value
    >>> error = Metric(name="test/error", unit="%", better="lower", definition="wrong digits",
    ...                split="test", items=10_000)
    >>> claim = Value(id="lenet5", says="0.95 % of the test digits are wrong", source="Fig. 9",
    ...               metric="test/error", cost="minutes", variant="lenet5",
    ...               published=Printed("0.95"))
    >>> verdict = judge(claim, error, {"lenet5": {0: 0.93, 1: 0.99, 2: 0.97, 3: 0.90, 4: 0.96}})
    >>> verdict.lane, verdict.n, round(verdict.margin, 3)
    ('reproduced', 5, 0.194)
    >>> [round(end, 3) for end in verdict.interval]
    [0.916, 0.984]
    >>> judge(claim, error, {"lenet5": {0: 0.93}}).lane
    'consistent'
    >>> judge(claim, error, {"lenet5": {0: 1.43, 1: 1.49, 2: 1.47}}).lane
    'below'
    """
    blank = _blank(claim, metric)
    missing = [name for name in variants_of(claim) if not measured.get(name)]
    if missing:
        return _without_runs(blank, missing, failed)
    runs = {name: _counted(measured[name]) for name in variants_of(claim)}
    empty = [name for name, values in runs.items() if not values]
    if empty:
        note = f"the metric is defined in no run of {_listed(empty)}"
        return replace(blank, lane="inconclusive", note=note)
    same = frozenset(v for v in deterministic & runs.keys() if len(set(runs[v].values())) == 1)
    case = _Case(blank=blank, better=metric.better, runs=runs, fixed=same, level=level)
    return _decide(claim, case, settings)


def judge_all(
    claims: Claims,
    measured: Mapping[str, Measured],
    *,
    failed: frozenset[str] = frozenset(),
    level: float = 0.05,
) -> list[Verdict]:
    """A verdict for every claim, in the file's order, with Holm's correction beside each.

    Args:
        claims: the paper.
        measured: metric → variant → seed → value.
        failed: variants all of whose runs failed.
        level: one-sided; `level_at(n)` in the sequential mode.

    Raises:
        ClaimsError: a trend over a setting that is not a number, or a property whose test cannot be
            read.
    """
    deterministic = frozenset(v.id for v in claims.variants.values() if v.deterministic)
    verdicts = [
        judge(
            claim,
            claims.metrics[claim.metric],
            measured.get(claim.metric, {}),
            deterministic=deterministic,
            failed=failed,
            settings=_settings(claim, claims),
            level=level,
        )
        for claim in claims.claims.values()
    ]
    return _with_holm(verdicts, level)


def default_margin(claim: Claim, metric: Metric) -> tuple[float | None, str | None]:
    """The margin that is used and its reason; `None` where the rule of the kind has none.

    A claim's own margin comes first. Without one: the largest of half a printed digit, twice the
    published sd and what the paper's own test items resolve; 5 % of the figure where the paper
    gives neither spread nor items. Never less than half a printed digit, because rounding alone
    hides that much.

    >>> from reimpl.claims import Metric, Printed, Value
    >>> error = Metric(name="test/error", unit="%", better="lower", definition="wrong digits",
    ...                split="test", items=10_000)
    >>> claim = Value(id="lenet5", says="0.95 % of the test digits are wrong", source="Fig. 9",
    ...               metric="test/error", cost="minutes", variant="lenet5",
    ...               published=Printed("0.95"))
    >>> default_margin(claim, error)
    (0.19400773180468864, "2·sqrt(p(1-p)/N) on the paper's 10,000 items")
    """
    if isinstance(claim, Order | Trend | Property):
        return claim.margin, claim.margin_reason
    floor = _floor(claim)
    if claim.margin is not None:
        if claim.margin >= floor:
            return claim.margin, claim.margin_reason
        return floor, "half of the last printed digit, more than the claim's own margin"
    options = [*_default_margins(claim, metric), (floor, "half of the last printed digit")]
    return max(options, key=lambda option: option[0])


def cv_star(values: Sequence[float]) -> float:
    """Small-sample coefficient of variation, in per cent (Belz, Popović & Mille 2022).

    A degree of reproducibility and not a verdict. It needs a scale that starts at 0.

    Raises:
        ValueError: fewer than two values, or one that is not positive and finite.

    >>> round(cv_star([84.51, 84.50, 87.46, 85.60, 84.20, 86.61, 86.20]), 3)
    1.562
    """
    n = len(values)
    if n < 2 or not all(0 < value < math.inf for value in values):
        raise ValueError(f"CV* needs at least two positive finite values, got {list(values)}")
    mean, sd = _mean_sd(values)
    c4 = math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))
    return (1 + 1 / (4 * n)) * 100 * sd / c4 / mean


def level_at(n: int) -> float:
    """The sequential mode's one-sided level with n seeds: that of the last look at or before n.

    >>> level_at(3), level_at(5), level_at(20)
    (0.0001, 0.002, 0.035)
    """
    return LEVELS[max(sum(look <= n for look in LOOKS), 1) - 1]


# Around the rules.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """The runs of one claim and what a rule needs besides the claim."""

    blank: Verdict
    better: Better
    runs: Mapping[str, Mapping[int, float]]
    fixed: frozenset[str]
    """Variants in which no seed plays a role."""
    level: float

    @property
    def margin(self) -> float:
        assert self.blank.margin is not None  # every kind that has a figure has a margin
        return self.blank.margin

    @property
    def covers(self) -> str:
        return f"{100 * (1 - 2 * self.level):.4g} %"

    def values(self, variant: str) -> list[float]:
        values = list(self.runs[variant].values())
        return values[:1] if variant in self.fixed else values

    def rows(self, variants: Sequence[str]) -> list[tuple[float, ...]]:
        """The variants' values seed by seed; a deterministic variant goes with every seed."""
        chance = [self.runs[v] for v in variants if v not in self.fixed]
        seeds = set.intersection(*map(set, chance)) if chance else {0}
        return sorted(
            tuple(self.values(v)[0] if v in self.fixed else self.runs[v][s] for v in variants)
            for s in seeds
        )

    def settled(self, variants: Iterable[str]) -> bool:
        """Whether one run is all there is to know."""
        return self.fixed.issuperset(variants)

    def verdict(self, lane: Lane, **found: Any) -> Verdict:
        return replace(self.blank, lane=lane, **found)

    def side(self, *, larger: bool) -> Lane:
        """The lane beyond the margin: below is worse, or smaller where neither is better."""
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

    def why(self, lane: Lane, what: str, needed: int | None) -> str:
        """The sentence for a lane of `place`; `what` is the quantity."""
        if lane == "reproduced":
            return f"the {self.covers} interval of {what} lies within the margin"
        if lane == "inconclusive":
            return _joined(
                f"the {self.covers} interval of {what} crosses the margin", _more(needed)
            )
        words = {"below": "worse", "above": "better"}
        if self.better == "neither":
            words = {"below": "smaller", "above": "larger"}
        check = "check that the protocol is the paper's" if lane == "above" else ""
        return _joined(f"{what} is {words[lane]} than published by more than the margin", check)

    def hint(self, near: bool, needed: int, **found: Any) -> Verdict:
        """Too few seeds: never a verdict."""
        return self.verdict(
            "consistent" if near else "off",
            seeds_needed=needed,
            note=f"{_seeds(found['n'])}: a hint, no verdict; a verdict needs {needed} or more",
            **{**found, "interval": None},
        )

    def direct(self, lane: Lane, **found: Any) -> Verdict:
        """No seed plays a role, so that one comparison decides."""
        return self.verdict(lane, n=1, note="no seed plays a role: one run decides", **found)


def _blank(claim: Claim, metric: Metric) -> Verdict:
    margin, reason = default_margin(claim, metric)
    published = getattr(claim, "published", None)
    return Verdict(
        id=claim.id,
        kind=kind_of(claim),
        lane="not run",
        published=None if published is None else published.text,
        margin=margin,
        margin_reason=reason,
        says=claim.says,
        source=claim.source,
        metric=claim.metric,
        unit=metric.unit,
        cost=claim.cost,
        proxy=claim.proxy,
        needs=claim.needs,
        variants=variants_of(claim),
    )


def _without_runs(blank: Verdict, missing: Sequence[str], failed: frozenset[str]) -> Verdict:
    broken = [name for name in missing if name in failed]
    if broken:
        return replace(blank, lane="error", note=f"every run of {_listed(broken)} failed")
    note = f"needs {blank.needs}" if blank.needs else f"no run of {_listed(missing)}"
    return replace(blank, lane="not run", note=note)


def _counted(values: Mapping[int, float | bool | None]) -> dict[int, float]:
    """The values that count, by seed."""
    counted = {seed: float(value) for seed, value in values.items() if value is not None}
    if any(math.isnan(value) for value in counted.values()):
        raise ValueError("NaN among the measurements: a run that gives one is an error")
    return counted


def _settings(claim: Claim, claims: Claims) -> Mapping[str, float]:
    if not isinstance(claim, Trend):
        return MappingProxyType({})
    values = {name: claims.variants[name].settings[claim.setting] for name in claim.variants}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ClaimsError(
                f"claim '{claim.id}': a trend needs numbers, but variant '{name}' has "
                f"{claim.setting} = {value!r}"
            )
    return values


def _with_holm(verdicts: Sequence[Verdict], level: float) -> list[Verdict]:
    """Holm's step-down over the claims that were tested; a proxy is not the paper's."""
    tested = [(v.p, i) for i, v in enumerate(verdicts) if v.p is not None and not v.proxy]
    corrected = list(verdicts)
    worst = 0.0
    for rank, (p, i) in enumerate(sorted(tested)):
        worst = max(worst, min(1.0, p * (len(tested) - rank)))
        survives = verdicts[i].lane == "reproduced" and worst < level
        corrected[i] = replace(verdicts[i], p_holm=worst, survives_holm=survives)
    return corrected


def _floor(claim: Exact | Value | Ratio | Speed) -> float:
    """Half a printed digit, on the scale of the margin."""
    half, figure = claim.published.half_digit, abs(claim.published.value)
    if isinstance(claim, Exact | Value):
        return half
    return -math.log1p(-half / figure) if half < figure else LOG_MARGIN


def _default_margins(
    claim: Exact | Value | Ratio | Speed, metric: Metric
) -> list[tuple[float, str]]:
    if isinstance(claim, Exact):
        return []
    if isinstance(claim, Ratio | Speed):
        return [(LOG_MARGIN, "a factor of 1.25 either way")]
    found = []
    if claim.spread is not None:
        found.append((2 * claim.spread.sd, "2 times the published standard deviation"))
    whole = {"%": 100.0, "share": 1.0}.get(metric.unit)
    if metric.items and whole:
        share = min(max(claim.published.value / whole, 0.0), 1.0)
        noise = 2 * whole * math.sqrt(share * (1 - share) / metric.items)
        found.append((noise, f"2·sqrt(p(1-p)/N) on the paper's {metric.items:,} items"))
    return found or [(0.05 * abs(claim.published.value), "5 % of the published figure")]


# The seven rules.


def _decide(claim: Claim, case: _Case, settings: Mapping[str, float]) -> Verdict:
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


def _judge_exact(claim: Exact, case: _Case) -> Verdict:
    """Equal after rounding to the printed digits."""
    counts = sorted(set(case.values(claim.variant)))
    offset, count = max(((x - claim.published.value, x) for x in counts), key=lambda o: abs(o[0]))
    found: dict[str, Any] = {"n": len(counts), "mean": count}
    if abs(offset) <= case.margin + 1e-12 * abs(claim.published.value) + 1e-9 * case.margin:
        return case.verdict("reproduced", note="equal to the printed digits", **found)
    note = "" if len(counts) == 1 else f"{len(counts)} different ones, and a count must not vary"
    note = _joined(f"differs by {offset:+.6g}", note)
    return case.verdict(case.side(larger=offset > 0), note=note, **found)


def _judge_value(claim: Value, case: _Case) -> Verdict:
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


def _judge_mean(claim: Value, case: _Case, values: Sequence[float]) -> Verdict:
    n, figure = len(values), claim.published.value
    mean, sd = _mean_sd(values)
    offset = mean - figure
    slack = 1e-12 * abs(figure)
    plan = _Plan.of_mean(sd, case.level, claim)
    found: dict[str, Any] = {"n": n, "mean": mean, "sd": sd if n > 1 else None}
    found["cv_star"] = _degree(figure, values)
    if n < LEAST:
        needed = plan.seeds(offset, case.margin, LEAST) if n > 1 else LEAST
        near = case.place(offset, offset, slack=slack) == "reproduced"
        return case.hint(near, needed or LEAST, **found)
    reach = plan.reach(n)
    low, high = offset - reach, offset + reach
    lane = case.place(low, high, slack=slack)
    needed = plan.seeds(offset, case.margin, n + 1) if lane == "inconclusive" else None
    excluded = abs(offset) > _t(0.025, plan.df(n)) * plan.se(n) + slack
    differs = lane == "reproduced" and excluded
    note = case.why(lane, "our mean", needed)
    return case.verdict(
        lane,
        interval=(figure + low, figure + high),
        p=_tost_p(offset, case.margin, plan.se(n), plan.df(n)),
        seeds_needed=needed,
        detectably_different=differs,
        note=_joined(note, "a difference is detectable all the same" if differs else ""),
        **found,
    )


def _judge_infinite_value(values: Sequence[float], case: _Case) -> Verdict:
    """A mean with a missed target in it is infinite, and a t-interval has no meaning."""
    n = len(values)
    note = _joined(_missed(values), "a mean says nothing then, a `speed` claim would")
    if n < LEAST:
        return case.hint(False, LEAST_PAIRS, n=n, mean=math.inf)
    settled = n >= LEAST_PAIRS and all(map(math.isinf, values))
    needed = LEAST_PAIRS if n < LEAST_PAIRS else None
    lane: Lane = "below" if settled else "inconclusive"
    return case.verdict(lane, n=n, mean=math.inf, seeds_needed=needed, note=note)


def _judge_best(claim: Value, case: _Case, k: int) -> Verdict:
    """TOST of the expected best of k of our runs, over all subsets of size k.

    The interval inverts the pivot (estimate − truth) / sd, whose distribution under a normal law is
    simulated once for each n and k: as exact as the t-interval of a mean, and under the same
    assumption.
    """
    sign = -1.0 if case.better == "lower" else 1.0
    values = sorted(sign * value for value in case.values(claim.variant))
    n, figure = len(values), sign * claim.published.value
    _, sd = _mean_sd(values)
    best = values[-1] if n < k else math.fsum(map(operator.mul, _best_weights(n, k), values))
    offset, what = best - figure, f"our expected best of {k}"
    least = max(k, LEAST)
    found: dict[str, Any] = {"n": n, "mean": sign * best, "sd": sd if n > 1 else None}
    if n < LEAST:
        return case.hint(abs(offset) <= case.margin, least, **found)
    if n < k:
        note = f"the paper reports the best of {k}, we have {_seeds(n)}"
        return case.verdict("inconclusive", seeds_needed=least, note=note, **found)
    pivot = _best_pivot(n, k)
    lowest, highest = _tails(pivot, case.level)
    low, high = offset - sd * highest, offset - sd * lowest
    ends = (sign * (figure + low), sign * (figure + high))
    toward = (low, high) if sign > 0 else (-high, -low)
    lane = case.place(*toward, slack=1e-12 * abs(figure))
    plan = _Plan(sd=sd * float(pivot.std()) * math.sqrt(n), level=case.level)
    needed = plan.seeds(offset, case.margin, n + 1) if lane == "inconclusive" else None
    return case.verdict(
        lane,
        interval=(min(ends), max(ends)),
        p=_pivot_p(pivot, offset, case.margin, sd),
        seeds_needed=needed,
        note=case.why(lane, what, needed),
        **found,
    )


def _judge_order(claim: Order, case: _Case) -> Verdict:
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
        n=min(v.n for v in verdicts),
        p=None if None in tests else max(p for p in tests if p is not None),
        seeds_needed=None if weakest.lane == "below" else _all_of(undecided),
        note=weakest.note if len(pairs) == 1 else f"{' over '.join(pairs[i])}: {weakest.note}",
    )


def _judge_pair(case: _Case, pair: tuple[str, str]) -> Verdict:
    """Exact sign-flip test of the mean difference, and three quarters of the pairs."""
    rows = case.rows(pair)
    gains = sorted(_gain(case.better, first, second) for first, second in rows)
    n = len(rows)
    found = _difference(case, rows)
    if n == 0:
        return _no_pairs(case, pair, LEAST_PAIRS)
    if case.settled(pair):
        return case.direct("reproduced" if gains[0] > 0 else "below", mean=found["mean"])
    signs = _signed_ranks(gains) if any(map(math.isinf, gains)) else gains
    if n < LEAST:
        return case.hint(math.fsum(signs) > 0, LEAST_PAIRS, **found)
    share = sum(1.0 if gain > 0 else 0.5 if gain == 0 else 0.0 for gain in gains) / n
    p, p_reversed = _sign_flip_p(signs)
    lane: Lane = "inconclusive"
    if p < case.level and share >= WINS:
        lane = "reproduced"
    elif p_reversed < case.level and share <= 1 - WINS:
        lane = "below"
    needed = _pairs_needed(signs, share, case.level) if lane == "inconclusive" else None
    note = f"{pair[0]} wins {100 * share:.4g} % of {n} pairs"
    if lane == "inconclusive":
        note = _joined(note, _more(needed))
    return case.verdict(lane, p=p, seeds_needed=needed, note=note, **found)


def _judge_no_worse(case: _Case, pair: tuple[str, str]) -> Verdict:
    """Non-inferiority: the paired interval of the loss stays below the margin."""
    rows = case.rows(pair)
    gains = sorted(_gain(case.better, first, second) for first, second in rows)
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
    mean, sd = _mean_sd(gains)
    plan = _Plan(sd=sd, level=case.level)
    if n < LEAST:
        return case.hint(mean >= -case.margin - slack, LEAST, **found)
    lane: Lane = "inconclusive"
    if mean - plan.reach(n) >= -case.margin - slack:
        lane = "reproduced"
    elif mean + plan.reach(n) < -case.margin:
        lane = "below"
    needed = plan.seeds(mean + case.margin, 0.0, n + 1) if lane == "inconclusive" else None
    return case.verdict(
        lane,
        p=_above_p(mean + case.margin, plan.se(n), plan.df(n)),
        seeds_needed=needed,
        note=_no_worse_note(case, lane, needed),
        **found,
    )


def _no_worse_with_misses(case: _Case, gains: Sequence[float], found: Mapping[str, Any]) -> Verdict:
    """The same on the median difference, which a missed target does not make infinite."""
    n = len(gains)
    if n < LEAST:
        return case.hint(_median(gains) >= -case.margin, LEAST_PAIRS, **found)
    low, high = _median_interval(gains, case.level)
    lane: Lane = "inconclusive"
    if low >= -case.margin:
        lane = "reproduced"
    elif high < -case.margin:
        lane = "below"
    needed = LEAST_PAIRS if n < LEAST_PAIRS else None
    p = _at_least_p(sum(gain > -case.margin for gain in gains), n)
    note = _no_worse_note(case, lane, needed)
    return case.verdict(lane, p=p, seeds_needed=needed, note=note, **found)


def _judge_ratio(claim: Ratio, case: _Case) -> Verdict:
    """TOST of the mean log ratio: paired by seed where seeds are shared, Welch otherwise."""
    rows = case.rows(claim.variants)
    first, second = (sorted(case.values(v)) for v in claim.variants)
    n = len(rows) or min(len(first), len(second))
    if min(claim.published.value, *first, *second) <= 0:
        note = "a ratio needs positive values: it is judged on the log scale"
        return case.verdict("inconclusive", n=n, note=note)
    figure = math.log(claim.published.value)
    if case.settled(claim.variants):
        gap = math.log(first[0]) - math.log(second[0])  # NaN when both missed their target
        mean = None if math.isnan(gap) else _exp(gap)
        return case.direct(case.place(gap - figure, gap - figure), mean=mean)
    if not all(map(math.isfinite, (*first, *second))):
        return _judge_ratio_of_medians(claim, case, figure)
    if rows:
        mean, sd = _mean_sd([math.log(a / b) for a, b in rows])
        plan = _Plan(sd=sd, level=case.level)
    else:
        mean, plan = _unpaired(
            [math.log(a) for a in first], [math.log(b) for b in second], case.level
        )
    return _on_log_scale(case, plan, n=n, offset=mean - figure, figure=figure, what="our ratio")


def _judge_ratio_of_medians(claim: Ratio, case: _Case, figure: float) -> Verdict:
    """Bootstrap of the ratio of the medians, where runs missed their target."""
    rows = case.rows(claim.variants)
    columns = list(zip(*rows, strict=True)) or [sorted(case.values(v)) for v in claim.variants]
    first, second = (np.log(np.array(column)) for column in columns)
    n = min(len(first), len(second))
    picks = _resamples(len(first), 0), _resamples(len(second), 0 if rows else 1)
    draws = _median_gap(first[picks[0]], second[picks[1]]) - figure
    offset = float(_median_gap(first[None], second[None])[0]) - figure
    found: dict[str, Any] = {"n": n, "mean": None if math.isnan(offset) else _exp(offset + figure)}
    note = _missed([value for column in columns for value in column])
    if n < LEAST:
        return case.hint(abs(offset) <= case.margin, LEAST_PAIRS, **found)
    if n < LEAST_PAIRS:
        note = _joined(note, f"{LEAST_PAIRS} seeds at least are needed")
        return case.verdict("inconclusive", seeds_needed=LEAST_PAIRS, note=note, **found)
    low, high = _widened(draws, n, case.level)
    lane = case.place(low, high)
    inside = [_widened_p(draws > -case.margin, n), _widened_p(draws < case.margin, n)]
    return case.verdict(
        lane,
        interval=(_exp(low + figure), _exp(high + figure)),
        p=max(inside),
        note=_joined(note, case.why(lane, "the ratio of the medians", None)),
        **found,
    )


def _judge_speed(claim: Speed, case: _Case) -> Verdict:
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
    if not all(map(math.isfinite, offsets)):
        return _judge_median_speed(case, offsets, math.log(figure), share)
    mean, sd = _mean_sd(offsets)
    found = {"offset": mean, "figure": math.log(figure), "what": "our geometric mean"}
    verdict = _on_log_scale(case, _Plan(sd=sd, level=case.level), n=n, **found)
    return replace(verdict, percentile=share)


def _judge_median_speed(
    case: _Case, offsets: Sequence[float], figure: float, share: float
) -> Verdict:
    """The exact order-statistic interval of the median; `offsets` are logarithms, sorted."""
    n = len(offsets)
    middle = _median(offsets)
    found: dict[str, Any] = {"n": n, "mean": _exp(middle + figure), "percentile": share}
    if n < LEAST:
        return case.hint(abs(middle) <= case.margin, LEAST_PAIRS, **found)
    low, high = _median_interval(offsets, case.level)
    lane = case.place(low, high)
    needed = _median_needed(offsets, case) if lane == "inconclusive" else None
    above = sum(offset > -case.margin for offset in offsets)
    below = sum(offset < case.margin for offset in offsets)
    return case.verdict(
        lane,
        interval=(_exp(low + figure), _exp(high + figure)),
        p=max(_at_least_p(above, n), _at_least_p(below, n)),
        seeds_needed=needed,
        note=_joined(_missed(offsets), case.why(lane, "our median", needed)),
        **found,
    )


def _judge_trend(claim: Trend, case: _Case, settings: Mapping[str, float]) -> Verdict:
    """Theil–Sen slope, from differences within a seed, with a bootstrap interval over the seeds."""
    rows = case.rows(claim.variants)
    if not rows:
        return _no_pairs(case, claim.variants, LEAST_PAIRS)
    slopes = _slopes(rows, [float(settings[v]) for v in claim.variants])
    if not slopes.size:
        note = f"all variants have the same {claim.setting}"
        return case.verdict("inconclusive", n=len(rows), note=note)
    sign = 1.0 if claim.direction == "rises" else -1.0
    n, slope = len(slopes), float(np.median(slopes))
    if case.settled(claim.variants):
        return case.direct("reproduced" if sign * slope > 0 else "below", mean=slope)
    if n < LEAST:
        return case.hint(sign * slope > 0, LEAST_PAIRS, n=n, mean=slope)
    draws = _resampled_medians(slopes)
    ends = _widened(draws, n, case.level)
    low, high = sorted(sign * end for end in ends)
    lane: Lane = "inconclusive"
    if n >= LEAST_PAIRS and (low > 0 or high < 0):
        lane = "reproduced" if low > 0 else "below"
    needed = _slope_needed(slopes, case.level) if lane == "inconclusive" else None
    return case.verdict(
        lane,
        n=n,
        mean=slope,
        interval=ends,
        p=_widened_p(sign * draws > 0, n) if n >= LEAST_PAIRS else None,
        seeds_needed=needed,
        note=_trend_note(claim, case, lane, needed),
    )


def _judge_property(claim: Property, case: _Case) -> Verdict:
    """Wilson interval of the share of runs in which the test holds."""
    holds = _test(claim)
    passed = [holds(value) for value in case.values(claim.variant)]
    n, share = len(passed), sum(passed) / len(passed)
    if case.settled([claim.variant]):
        return case.direct("reproduced" if passed[0] else "below", mean=share)
    if n < LEAST:
        needed = _share_needed(share, claim.share, n, case.level) or LEAST
        return case.hint(share >= claim.share, max(needed, LEAST), n=n, mean=share)
    low, high = _wilson(share, n, case.level)
    lane: Lane = "inconclusive"
    if low >= claim.share:
        lane = "reproduced"
    elif high < claim.share:
        lane = "below"
    needed = _share_needed(share, claim.share, n, case.level) if lane == "inconclusive" else None
    note = f"it holds in {100 * share:.4g} % of {n} runs; {100 * claim.share:.4g} % is asked"
    if lane == "inconclusive":
        every = claim.share == share == 1
        note = _joined(note, "no number of runs shows that all do" if every else _more(needed))
    return case.verdict(
        lane,
        n=n,
        mean=share,
        interval=(low, high),
        p=_share_p(share, claim.share, n),
        seeds_needed=needed,
        note=note,
    )


# Shared by several rules.


def _on_log_scale(
    case: _Case, plan: "_Plan", *, n: int, offset: float, figure: float, what: str
) -> Verdict:
    """TOST of a mean logarithm; shown as a factor."""
    found: dict[str, Any] = {"n": n, "mean": _exp(offset + figure)}
    if n < LEAST:
        near = case.place(offset, offset) == "reproduced"
        return case.hint(near, LEAST, **found)
    reach = plan.reach(n)
    lane = case.place(offset - reach, offset + reach)
    needed = plan.seeds(offset, case.margin, n + 1) if lane == "inconclusive" else None
    return case.verdict(
        lane,
        interval=(_exp(offset - reach + figure), _exp(offset + reach + figure)),
        p=_tost_p(offset, case.margin, plan.se(n), plan.df(n)),
        seeds_needed=needed,
        note=case.why(lane, what, needed),
        **found,
    )


def _no_pairs(case: _Case, variants: Sequence[str], least: int) -> Verdict:
    note = f"no seed was run with all of {_listed(variants)}; a verdict needs {least} or more"
    return case.verdict("inconclusive", seeds_needed=least, note=note)


def _difference(case: _Case, rows: Sequence[tuple[float, ...]]) -> dict[str, Any]:
    """First minus second in the metric's unit, with the paired t-interval."""
    n = len(rows)
    if not all(math.isfinite(value) for row in rows for value in row) or not rows:
        return {"n": n, "mean": None}
    mean, sd = _mean_sd([first - second for first, second in rows])
    if n < 2:
        return {"n": n, "mean": mean}
    reach = _Plan(sd=sd, level=case.level).reach(n)
    return {"n": n, "mean": mean, "sd": sd, "interval": (mean - reach, mean + reach)}


def _gain(better: Better, first: float, second: float) -> float:
    """By how much the first is better; a miss loses to any figure and ties with a miss."""
    sign = -1.0 if better == "lower" else 1.0
    scores = [-math.inf if math.isinf(value) else sign * value for value in (first, second)]
    return 0.0 if scores[0] == scores[1] else scores[0] - scores[1]


def _signed_ranks(gains: Sequence[float]) -> list[float]:
    """Ranks of the sizes with the signs of the gains: an infinite gain is only the largest."""
    sizes = np.sort(np.abs(gains))
    ranks = np.searchsorted(sizes, np.abs(gains), "left") + np.searchsorted(
        sizes, np.abs(gains), "right"
    )
    return [float(r) for r in np.sign(gains) * (ranks + 1) / 2]


def _test(claim: Property) -> Callable[[float], bool]:
    """The claim's test of one run."""
    if claim.test == "holds":
        return bool
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


def _slopes(rows: Sequence[Sequence[float]], settings: Sequence[float]) -> np.ndarray:
    """Slopes between every two settings, for each seed: (seeds, pairs)."""
    values, x = np.array(rows), np.array(settings)
    i, j = np.triu_indices(len(x), 1)
    i, j = i[x[i] != x[j]], j[x[i] != x[j]]
    if not len(i):
        return np.empty((0, 0))
    with np.errstate(invalid="ignore"):  # a missed target less another one is a tie
        return np.nan_to_num(
            (values[:, j] - values[:, i]) / (x[j] - x[i]), posinf=np.inf, neginf=-np.inf
        )


def _degree(figure: float, values: Sequence[float]) -> float | None:
    together = [figure, *values]
    return cv_star(together) if all(0 < value < math.inf for value in together) else None


# Sentences.


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _seeds(n: int) -> str:
    return f"{n} seed" if n == 1 else f"{n} seeds"


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _more(needed: int | None) -> str:
    if needed is None:
        return f"up to {MOST} seeds like these would not decide"
    return f"{needed} seeds in all would probably decide"


def _missed(values: Sequence[float]) -> str:
    share = sum(math.isinf(value) for value in values) / len(values)
    return f"{100 * share:.3g} % of {len(values)} runs never reach the target" if share else ""


def _no_worse_note(case: _Case, lane: Lane, needed: int | None) -> str:
    if lane == "reproduced":
        return f"the {case.covers} interval of the loss stays below the margin"
    if lane == "below":
        return "the loss is more than the margin"
    return _joined(f"the {case.covers} interval of the loss crosses the margin", _more(needed))


def _trend_note(claim: Trend, case: _Case, lane: Lane, needed: int | None) -> str:
    if lane == "inconclusive":
        return _joined(f"the {case.covers} interval of the slope is not clear of 0", _more(needed))
    way = (
        claim.direction
        if lane == "reproduced"
        else {"rises": "falls", "falls": "rises"}[claim.direction]
    )
    return f"the metric {way} with {claim.setting}"


def _strict(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


# Statistics. Sums are `fsum`, which is exact and so does not see the order.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """The standard error of a mean as a function of the number of seeds."""

    sd: float
    level: float
    others: float = 0.0
    """Variance of the figure that the mean is compared with."""
    others_df: float = 1.0

    @classmethod
    def of_mean(cls, sd: float, level: float, claim: Value) -> "_Plan":
        """With the standard error of the published mean where the paper gives one."""
        spread = claim.spread
        if spread is None or spread.n < 2:
            return cls(sd=sd, level=level)
        return cls(sd=sd, level=level, others=spread.sd**2 / spread.n, others_df=spread.n - 1.0)

    def se(self, n: int) -> float:
        return math.sqrt(self.sd**2 / n + self.others)

    def df(self, n: int) -> float:
        """Welch's degrees of freedom; n − 1 when the figure has no spread."""
        ours = self.sd**2 / n
        if not self.others:
            return n - 1.0
        return (ours + self.others) ** 2 / (ours**2 / (n - 1) + self.others**2 / self.others_df)

    def reach(self, n: int) -> float:
        """Half the interval."""
        return _t(self.level, self.df(n)) * self.se(n)

    def seeds(self, offset: float, margin: float, least: int) -> int | None:
        """Seeds that decide, either way and with probability `POWER`, if all stays like this."""
        gap, far = abs(abs(offset) - margin), abs(offset) + margin

        def decided(n: int) -> bool:
            se = self.se(n)
            if se == 0:
                return gap > 0
            critical = _t(self.level, self.df(n))
            power = _cdf(gap / se - critical, self.df(n))
            if abs(offset) <= margin:
                power += _cdf(far / se - critical, self.df(n)) - 1
            return power >= POWER

        return _first(decided, least)


def _first(decided: Callable[[int], bool], least: int) -> int | None:
    """The smallest number of seeds that decides, up to `MOST`."""
    if least > MOST or not decided(MOST):
        return None
    return least + bisect_left(range(least, MOST), True, key=decided)


def _mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n − 1); exactly 0 where all are equal."""
    n = len(values)
    if min(values) == max(values):
        return values[0], 0.0
    mean = math.fsum(values) / n
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))


def _unpaired(first: Sequence[float], second: Sequence[float], level: float) -> tuple[float, _Plan]:
    """Difference of two means, with min(n) − 1 degrees of freedom: Welch's are never fewer."""
    (mean, sd), (other_mean, other_sd) = _mean_sd(first), _mean_sd(second)
    n = min(len(first), len(second))
    variance = sd**2 / len(first) + other_sd**2 / len(second)
    return mean - other_mean, _Plan(sd=math.sqrt(n * variance), level=level)


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


@lru_cache(maxsize=4096)
def _t(level: float, df: float) -> float:
    """Upper quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 1 - level))


def _cdf(x: float, df: float) -> float:
    """Distribution function of Student's t."""
    from scipy.special import stdtr

    return float(stdtr(df, x))


def _z(level: float) -> float:
    """Upper quantile of the normal law."""
    from scipy.special import ndtri

    return -float(ndtri(level))


def _above_p(gap: float, se: float, df: float) -> float:
    """p-value of "the mean lies above a bound", `gap` being by how much ours does."""
    if se == 0:
        return 0.0 if gap >= 0 else 1.0
    return _cdf(-gap / se, df)


def _tost_p(offset: float, margin: float, se: float, df: float) -> float:
    return max(_above_p(offset + margin, se, df), _above_p(margin - offset, se, df))


def _all_of(needed: Sequence[int | None]) -> int | None:
    """Seeds that settle every one; None where one cannot be settled."""
    numbers = [n for n in needed if n is not None]
    return max(numbers) if numbers and len(numbers) == len(needed) else None


def _sign_flip_p(gains: Sequence[float]) -> tuple[float, float]:
    """One-sided p-values of the sign-flip test of the sum, for "positive" and for "negative".

    Exact up to 24 pairs, by meeting in the middle: the sums of either half are enumerated and
    matched.
    """
    sums = math.fsum(gains)
    slack = 1e-9 * math.fsum(map(abs, gains))  # equal sums differ by rounding
    if len(gains) > 24:
        sampled = _signs(len(gains)) @ np.array(sorted(gains))
        as_high, as_low = (sampled >= sums - slack).sum(), (sampled <= sums + slack).sum()
        return float(as_high + 1) / (len(sampled) + 1), float(as_low + 1) / (len(sampled) + 1)
    middle = len(gains) // 2
    left, right = _all_sums(gains[:middle]), np.sort(_all_sums(gains[middle:]))
    total = 2 ** len(gains)
    under = np.searchsorted(right, sums - slack - left, "left").sum()
    up_to = np.searchsorted(right, sums + slack - left, "right").sum()
    return float(total - under) / total, float(up_to) / total


@lru_cache(maxsize=4)
def _signs(n: int) -> np.ndarray:
    """Sampled choices of signs: (samples, n), 16 MB at most."""
    samples = min(9999, 2_000_000 // n)
    return 2.0 * np.random.default_rng(n).integers(0, 2, (samples, n)) - 1.0


def _all_sums(gains: Sequence[float]) -> np.ndarray:
    """The sum under each choice of signs."""
    sums = np.zeros(1)
    for gain in gains:
        sums = np.concatenate([sums + gain, sums - gain])
    return sums


def _pairs_needed(signs: Sequence[float], share: float, level: float) -> int | None:
    n = len(signs)
    needed = None
    if not 1 - WINS < share < WINS:
        mean, sd = _mean_sd(signs)
        needed = _Plan(sd=sd, level=level).seeds(mean, 0.0, max(n + 1, LEAST_PAIRS))
    return LEAST_PAIRS if needed is None and n < LEAST_PAIRS else needed


def _slope_needed(slopes: np.ndarray, level: float) -> int | None:
    n = len(slopes)
    each = [float(slope) for slope in np.median(slopes, axis=1)]
    needed = None
    if all(map(math.isfinite, each)):
        mean, sd = _mean_sd(each)
        needed = _Plan(sd=sd, level=level).seeds(mean, 0.0, max(n + 1, LEAST_PAIRS))
    return LEAST_PAIRS if needed is None and n < LEAST_PAIRS else needed


def _median(values: Sequence[float]) -> float:
    """Of sorted values; infinite when a middle one is."""
    n = len(values)
    low, high = values[(n - 1) // 2], values[n // 2]
    return high if math.isinf(high) else (low + high) / 2


@lru_cache(maxsize=4096)
def _median_rank(n: int, level: float) -> int:
    """The order statistic that bounds the median from below; 0 where there is none."""
    from scipy.special import bdtr

    return int((bdtr(np.arange(n // 2), n, 0.5) <= level).sum())


def _median_interval(values: Sequence[float], level: float) -> tuple[float, float]:
    """Exact, whatever the law; of sorted values, some of which may be infinite."""
    rank = _median_rank(len(values), level)
    return (values[rank - 1], values[-rank]) if rank else (-math.inf, math.inf)


def _median_needed(offsets: Sequence[float], case: _Case) -> int | None:
    """Seeds with which the median would be decided, if the quantiles stay as they are."""
    n = len(offsets)

    def decided(k: int) -> bool:
        rank = _median_rank(k, case.level)
        i = int((rank - 0.5) / k * n)
        return rank > 0 and case.place(offsets[i], offsets[-1 - i]) != "inconclusive"

    needed = _first(decided, max(n + 1, LEAST_PAIRS))
    return LEAST_PAIRS if needed is None and n < LEAST_PAIRS else needed


def _at_least_p(count: int, n: int) -> float:
    """Sign test: the chance that at least `count` of n lie on one side of the median."""
    from scipy.special import bdtrc

    return float(bdtrc(count - 1, n, 0.5)) if count > 0 else 1.0


def _wilson(share: float, n: int, level: float) -> tuple[float, float]:
    z = _z(level)
    centre = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    whole = 1 + z * z / n
    low = (
        (centre - reach) / whole if share > 0 else 0.0
    )  # exactly, so that rounding decides nothing
    return low, (centre + reach) / whole if share < 1 else 1.0


def _share_p(share: float, asked: float, n: int) -> float:
    """p-value of "the share is more than asked"; the score test that Wilson's interval inverts."""
    from scipy.special import ndtr

    if asked == 1:
        return 1.0
    return float(ndtr((asked - share) / math.sqrt(asked * (1 - asked) / n)))


def _share_needed(share: float, asked: float, n: int, level: float) -> int | None:
    """Runs with which the share would be decided, if it stays as it is."""

    def decided(k: int) -> bool:
        low, high = _wilson(share, k, level)
        return low >= asked or high < asked

    return _first(decided, max(n + 1, LEAST))


@lru_cache(maxsize=16)
def _resamples(n: int, stream: int) -> np.ndarray:
    """Which runs each resample takes: (RESAMPLES, n)."""
    return np.random.default_rng((n, stream)).integers(0, n, (RESAMPLES, n))


@lru_cache(maxsize=16)
def _times_taken(n: int) -> np.ndarray:
    """How often each resample takes each run: (RESAMPLES, n)."""
    picks = _resamples(n, 0) + n * np.arange(RESAMPLES)[:, None]
    return np.bincount(picks.ravel(), minlength=n * RESAMPLES).reshape(RESAMPLES, n)


def _resampled_medians(rows: np.ndarray) -> np.ndarray:
    """The median of all entries of each resample of the rows, from one sorting."""
    n, width = rows.shape
    order = np.argsort(rows, axis=None, kind="stable")
    upto = _times_taken(n)[:, order // width].cumsum(axis=1)  # (RESAMPLES, n·width)
    entries = rows.ravel()[order]
    low = entries[(upto < (n * width + 1) // 2).sum(axis=1)]
    high = entries[(upto < n * width // 2 + 1).sum(axis=1)]
    with np.errstate(invalid="ignore"):  # between -inf and inf
        return (low + high) / 2


def _median_gap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Difference of the medians of each row; NaN where both are infinite."""
    with np.errstate(invalid="ignore"):
        return np.median(first, axis=1) - np.median(second, axis=1)


def _tails(draws: np.ndarray, tail: float) -> tuple[float, float]:
    """The draws that leave `tail` outside on either side, rounded outwards; NaN is anything."""
    last = len(draws) - 1
    low = np.sort(np.where(np.isnan(draws), -np.inf, draws))[math.floor(tail * last)]
    high = np.sort(np.where(np.isnan(draws), np.inf, draws))[math.ceil((1 - tail) * last)]
    return float(low), float(high)


def _widened(draws: np.ndarray, n: int, level: float) -> tuple[float, float]:
    """Percentile interval, wider for n runs as t is wider than normal (Hesterberg 2015)."""
    from scipy.special import ndtr

    return _tails(draws, float(ndtr(-math.sqrt(n / (n - 1)) * _t(level, n - 1))))


def _widened_p(inside: np.ndarray, n: int) -> float:
    """The p-value that goes with `_widened`, from which resamples lie inside."""
    outside = (len(inside) - int(inside.sum()) + 0.5) / (len(inside) + 1)
    return _cdf(-_z(outside) * math.sqrt((n - 1) / n), n - 1)


@lru_cache(maxsize=256)
def _best_weights(n: int, k: int) -> tuple[float, ...]:
    """Weight of each order statistic in the mean, over all subsets of size k, of the largest."""
    return tuple(math.comb(i, k - 1) / math.comb(n, k) for i in range(n))


@lru_cache(maxsize=64)
def _best_pivot(n: int, k: int) -> np.ndarray:
    """(estimate − truth) / sd of the expected best of k, for n standard normal runs; sorted."""
    draws = max(2000, min(20_000, 1_000_000 // n))
    runs = np.sort(np.random.default_rng((n, k)).standard_normal((draws, n)), axis=1)
    best = runs @ np.array(_best_weights(n, k))
    return np.sort((best - best.mean()) / runs.std(axis=1, ddof=1))


def _pivot_p(pivot: np.ndarray, offset: float, margin: float, sd: float) -> float:
    if sd == 0:
        return _tost_p(offset, margin, 0.0, 1.0)
    too_low = (pivot >= (offset + margin) / sd).sum()
    too_high = (pivot <= (offset - margin) / sd).sum()
    return float(max(too_low, too_high) + 1) / (len(pivot) + 1)
