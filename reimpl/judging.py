"""What the records say about a paper's claims: pure functions, with no torch, clock or files.

Holm stands beside the lane and does not decide it: five pairs reach p = 1/32 at best, so that with
two orders in one paper a corrected lane could never say `reproduced` at five seeds. The lane is
about one claim; `survives_holm` says whether it still stands when the paper's claims are read as
one family.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from reimpl.claims import (
    WHOLES,
    Claim,
    Claims,
    Exact,
    Metric,
    Order,
    Property,
    Ratio,
    Speed,
    Trend,
    Value,
    Variant,
    kind_of,
    variants_of,
)
from reimpl.errors import ClaimsError
from reimpl.rules import Case, decide, joined, listed
from reimpl.verdict import (
    DECIDED,
    LOOKS,
    Broken,
    Measured,
    Verdict,
    first_broken,
    first_seeds,
    has_seeds,
)

LEVELS = (0.0001, 0.002, 0.009, 0.02, 0.034)
"""What each look may spend, so that the false "reproduced" at the margin stays under 5 % over all
looks."""
LOST = 0.2
"""Share of the runs that may fail: when more do, those that are left may be the better part."""
LOG_MARGIN = math.log(1.25)
"""Default margin of ratios and times."""


def judge(
    claim: Claim,
    metric: Metric,
    measured: Measured,
    *,
    deterministic: frozenset[str] = frozenset(),
    folds: Mapping[str, int] = MappingProxyType({}),
    broken: Broken = MappingProxyType({}),
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
        folds: variants whose runs are the folds of a cross-validation: run r is fold r mod k. A
            figure is the mean over all folds, so whole repeats are what counts; an order and a
            trend are judged on the differences fold by fold, with the correction of Nadeau &
            Bengio (2003), a ratio is not.
        broken: variant → seeds whose run failed. When too many did, the others do not reproduce a
            claim, nor are they above it.
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
        return _without_runs(blank, missing, broken)
    runs = {name: _counted(measured[name]) for name in variants_of(claim)}
    empty = [name for name, values in runs.items() if not values]
    if empty:
        note = f"the metric is defined in no run of {listed(empty)}"
        return replace(blank, lane="inconclusive", note=note)
    same = frozenset(v for v in deterministic & runs.keys() if len(set(runs[v].values())) == 1)
    split = {folds.get(name, 1) for name in runs}
    if len(split) > 1 or (isinstance(claim, Ratio) and split != {1}):
        note = "runs that share training rows are compared fold by fold, and here they cannot be"
        return replace(blank, lane="inconclusive", note=note)
    paired = split.pop() if isinstance(claim, Order | Trend) else 1
    if paired == 1 and not isinstance(claim, Exact):  # a count is no mean over folds
        runs = {name: _repeats(values, folds.get(name, 1)) for name, values in runs.items()}
    cut = [name for name, values in runs.items() if not values]
    if cut:
        note = f"no cross-validation of {listed(cut)} is complete"
        return replace(blank, lane="inconclusive", note=note)
    case = Case(blank=blank, better=metric.better, runs=runs, fixed=same, folds=paired, level=level)
    verdict = decide(claim, case, settings)
    if isinstance(claim, Exact):  # what is counted needs no training
        return verdict
    lost = {name: len({*broken.get(name, ())} - measured[name].keys()) for name in runs}
    most = max(n / (n + len(measured[name])) for name, n in lost.items())
    return _with_failures(verdict, sum(lost.values()), most)


def judge_all(
    claims: Claims,
    measured: Mapping[str, Measured],
    *,
    broken: Broken = MappingProxyType({}),
    others: Mapping[str, Variant] = MappingProxyType({}),
    level: float = 0.05,
) -> list[Verdict]:
    """A verdict for every claim, in the file's order, with Holm's correction beside each.

    Args:
        claims: the paper.
        measured: metric → variant → seed → value.
        broken: variant → seeds whose run failed.
        others: variants of other papers that claims speak of, as `slug:variant`.
        level: one-sided; `level_at(n)` in the sequential mode.

    Raises:
        ClaimsError: a trend over a setting that is not a number, or a property whose test cannot be
            read.
    """
    variants = {**claims.variants, **others}
    deterministic = frozenset(name for name, v in variants.items() if v.deterministic)
    folds = {name: v.folds for name, v in variants.items() if v.folds > 1}
    verdicts = [
        judge(
            claim,
            claims.metrics[claim.metric],
            measured.get(claim.metric, {}),
            deterministic=deterministic,
            folds=folds,
            broken=broken,
            settings=_settings(claim, claims),
            level=level,
        )
        for claim in claims.claims.values()
    ]
    counted = {claim.metric for claim in claims.claims.values() if isinstance(claim, Exact)}
    trained = {name for m, table in measured.items() if m not in counted for name in table}
    said = [_not_measured(v, trained - measured.get(v.metric, {}).keys()) for v in verdicts]
    return _with_holm(said, level)


def judge_in_looks(
    claims: Claims,
    measured: Mapping[str, Measured],
    *,
    broken: Broken = MappingProxyType({}),
    others: Mapping[str, Variant] = MappingProxyType({}),
) -> list[Verdict]:
    """A verdict for every claim as the sequential mode reaches it.

    Each look takes the first 3, 5, 8, 12, 20 seeds at its own level, and the first that decides
    stands: further seeds change nothing, so that it does not matter who ran them or why. Holm's
    correction, which is for one look, is left out.

    Args:
        claims: the paper.
        measured: metric → variant → seed → value; seeds beyond a look are not looked at.
        broken: variant → seeds whose run failed; a look does not wait for them.
        others: variants of other papers that claims speak of, as `slug:variant`.
    """
    variants = {**claims.variants, **others}
    found: dict[str, Verdict] = {}
    for look, level in zip(LOOKS, LEVELS, strict=True):
        cut = {m: first_seeds(table, variants, look) for m, table in measured.items()}
        lost = first_broken(broken, variants, look)
        for verdict in judge_all(claims, cut, broken=lost, others=others, level=level):
            held = found.get(verdict.id)
            table = cut.get(verdict.metric, {})
            whole = verdict.kind == "exact" or all(
                has_seeds({*table.get(name, ()), *lost.get(name, ())}, variants[name], look)
                for name in verdict.variants
                if name in variants
            )
            if held is None and not whole and verdict.lane in DECIDED:
                note = f"the first look, of {look} seeds, is not complete"
                verdict = replace(verdict, lane="inconclusive", note=note)
            if held is None or (held.lane not in DECIDED and whole):
                found[verdict.id] = replace(verdict, look=look, p_holm=None, survives_holm=None)
    return list(found.values())


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


def level_at(n: int) -> float:
    """The sequential mode's one-sided level with n seeds: that of the last look at or before n.

    >>> level_at(3), level_at(5), level_at(20)
    (0.0001, 0.002, 0.034)
    """
    return LEVELS[max(sum(look <= n for look in LOOKS), 1) - 1]


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


def _without_runs(blank: Verdict, missing: Sequence[str], broken: Broken) -> Verdict:
    failed = [name for name in missing if broken.get(name)]
    if failed:
        return replace(blank, lane="error", note=f"every run of {listed(failed)} failed")
    note = f"needs {blank.needs}" if blank.needs else f"no run of {listed(missing)}"
    other = next((name.partition(":")[0] for name in missing if ":" in name), None)
    if other and not blank.needs:
        note = joined(note, f"`make reproduce PAPER={other}` makes it")
    return replace(blank, lane="not run", note=note)


def _not_measured(verdict: Verdict, others: Collection[str]) -> Verdict:
    """Runs that are there and say nothing of the metric are no missing runs."""
    silent = [name for name in verdict.variants if name in others]
    if verdict.lane != "not run" or verdict.kind == "exact" or not silent:
        return verdict
    return replace(verdict, note=f"no run of {listed(silent)} measured {verdict.metric}")


def _with_failures(verdict: Verdict, failures: int, share: float) -> Verdict:
    """Failed runs stand in the note; too large a share of a variant's leaves nothing to praise."""
    if not failures:
        return verdict
    verdict = replace(verdict, failures=failures)
    said = f"{failures:,} {'run' if failures == 1 else 'runs'} failed"
    if share <= LOST or verdict.lane not in ("reproduced", "above"):
        return replace(verdict, note=joined(verdict.note, said))
    note = f"{said}, and the others alone do not stand for the method"
    return replace(verdict, lane="inconclusive", seeds_needed=None, note=note)


def _counted(values: Mapping[int, float | bool | None]) -> dict[int, float]:
    """The values that count, by seed."""
    counted = {seed: float(value) for seed, value in values.items() if value is not None}
    if any(map(math.isnan, counted.values())):
        raise ValueError("NaN among the measurements: a run that gives one is an error")
    return counted


def _repeats(values: Mapping[int, float], folds: int) -> dict[int, float]:
    """The mean over the folds of every repeat that is complete, by seed."""
    if folds == 1:
        return dict(values)
    parts: dict[int, list[float]] = {}
    for run in sorted(values):
        parts.setdefault(run // folds, []).append(values[run])
    return {seed: math.fsum(p) / folds for seed, p in parts.items() if len(p) == folds}


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
    whole = WHOLES.get(metric.unit)
    if metric.items and whole:
        share = min(max(claim.published.value / whole, 0.0), 1.0)
        noise = 2 * whole * math.sqrt(share * (1 - share) / metric.items)
        found.append((noise, f"2·sqrt(p(1-p)/N) on the paper's {metric.items:,} items"))
    return found or [(0.05 * abs(claim.published.value), "5 % of the published figure")]
