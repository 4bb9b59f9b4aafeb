"""What is found about a claim, in the words of every report."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from reimpl.claims import Cost, Variant

Broken = Mapping[str, Collection[int]]
"""Variant → seeds whose run failed."""
Measured = Mapping[str, Mapping[int, float | bool | None]]
"""Variant → seed → value of a metric; `None` where it is not defined, `inf` where a target was
missed."""
Lane = Literal[
    "reproduced", "below", "above", "inconclusive", "consistent", "off", "not run", "error"
]
DECIDED: frozenset[Lane] = frozenset({"reproduced", "below", "above"})
"""Lanes that end the looking."""
LOOKS = (3, 5, 8, 12, 20)
"""Numbers of seeds at which the sequential mode looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the records say about one claim."""

    id: str
    kind: str
    lane: Lane
    n: int = 0
    """Runs that count; pairs of runs for `order`, `ratio` and `trend`. Of a cross-validation, its
    repeats; the pairs of an `order` and the slopes of a `trend` are folds then."""
    failures: int = 0
    """Runs of its variants that failed, and so do not count."""
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
    look: int | None = None
    """Seeds of the look that it rests on, in the sequential mode."""
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


def first_seeds(table: Measured, variants: Mapping[str, Variant], seeds: int) -> Measured:
    """The runs of each variant's first seeds; each fold of a cross-validation is one."""
    return {
        name: {run: value for run, value in runs.items() if run < seeds * variants[name].folds}
        for name, runs in table.items()
        if name in variants
    }


def first_broken(broken: Broken, variants: Mapping[str, Variant], seeds: int) -> Broken:
    """The failed runs among each variant's first seeds."""
    return {
        name: {run for run in runs if run < seeds * variants[name].folds}
        for name, runs in broken.items()
        if name in variants
    }


def has_seeds(runs: Collection[int], variant: Variant, seeds: int) -> bool:
    """Whether it has been run so often, where chance plays a role in it."""
    return variant.deterministic or {*runs} >= {*range(seeds * variant.folds)}
