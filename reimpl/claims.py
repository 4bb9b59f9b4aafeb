"""A paper as data: the words of `claims.toml` as frozen types, which `reading` fills.

Numbers stay as the paper prints them (`Printed`), because the printed digits are part of the
evidence.
"""

import copyreg
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

from reimpl.errors import RequestError, near

T = TypeVar("T")
Cost = Literal["instant", "minutes", "hours", "gpu"]
Better = Literal["lower", "higher", "neither"]
Score = Literal["error", "accuracy"]
Optimiser = Literal["sgd", "adam", "adamw", "rmsprop"]
Precision = Literal["32", "bf16-mixed", "16-mixed", "bf16-true"]
Scalar = bool | int | float | str
COSTS: tuple[Cost, ...] = get_args(Cost)
RIVALS = "rivals"
"""The folder of a paper with networks of ours, which the paper does not have."""
WHOLES: Mapping[str, float] = MappingProxyType({"%": 100.0, "share": 1.0})
"""Units of a share of items, and what all of them come to."""
LARGEST = 1e150
"""The largest number that is judged: the square of a larger one may be none."""


def _frozen(table: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(table)


# Variants travel to workers, and Python cannot pickle a read-only mapping by itself.
copyreg.pickle(MappingProxyType, lambda table: (_frozen, (dict(table),)))


@dataclass(frozen=True, slots=True)
class Printed:
    """A number as the paper prints it.

    >>> Printed("0.95").value, Printed("0.95").half_digit
    (0.95, 0.005)
    >>> Printed("60,000").value, Printed("60,000").half_digit
    (60000.0, 0.5)
    """

    text: str
    """The digits, thousands separators allowed."""

    @property
    def value(self) -> float:
        """The number."""
        return float(self._decimal)

    @property
    def half_digit(self) -> float:
        """Half a unit of the last printed digit: what rounding alone may hide."""
        exponent = self._decimal.as_tuple().exponent
        assert isinstance(exponent, int)  # NaN and infinity have a letter; neither can be printed
        return float(Decimal(5).scaleb(exponent - 1))

    @property
    def _decimal(self) -> Decimal:
        return Decimal(self.text.replace(",", "").replace("_", ""))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """The `[paper]` block: what is reproduced."""

    title: str
    """As printed."""
    authors: tuple[str, ...]
    """In the paper's order."""
    year: int
    """Of publication."""
    url: str
    """Where it can be read."""
    memory_mb: int = 500
    """Peak memory of one run, so that the packing knows how many fit on a machine."""
    requires: Mapping[str, str] = field(default_factory=dict)
    """Packages beyond the harness's own: name to import → what `pip install` takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A `[data.NAME]` block: where a dataset lies and what the paper says it holds."""

    name: str
    """What the paper's `data` asks for it by."""
    hub: str
    """Name on the hub, `org/name`; the mirror has a folder of that name."""
    revision: str
    """The commit on the hub."""
    config: str | None = None
    """The configuration of a dataset that has several."""
    splits: Mapping[str, int] = field(default_factory=dict)
    """Rows of each split, as the paper counts them."""
    files: Mapping[str, str] = field(default_factory=dict)
    """In place of `splits`, for data that the paper reads itself: path → SHA-256 of the file."""
    url: str | None = None
    """Where `files` come from without a mirror; `{revision}` and `{file}` are filled in."""
    label: str | None = None
    """The column whose distinct values are counted."""
    classes: int | None = None
    """Distinct values of `label`."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Checksum of each split's decoded arrays, as `reimpl.data.fingerprint` takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaches:
    """How a steps-to-target metric follows from a curve."""

    curve: str
    """The metric that is watched."""
    target: float
    """The value at which it counts as reached, on the watched metric's better side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A `[metric."split/name"]` block: what is measured, in which unit, on what."""

    name: str
    """As the paper's `metrics` and claims call it."""
    unit: str
    """As it stands beside a figure: `%`, `epochs`, `parameters`."""
    better: Better
    """Which way is better, for orders, margins and leaderboards."""
    definition: str
    """What exactly is counted, so that others can measure the same."""
    split: str
    """The data it is computed on: `train`, `test`, `none` for counts, …"""
    items: int | None = None
    """Test items of a proportion, which the default margin needs; the unit is `%` or `share`."""
    task: str | None = None
    """Papers and baselines with the same task meet on one leaderboard."""
    score: Score | None = None
    """How a baseline's predictions are scored: share of wrong or of right ones, in per cent."""
    reaches: Reaches | None = None
    """Derived: the epochs until a curve reaches its target, infinite when it never does."""
    among: str | None = None
    """The runs in which it is defined ("solved starts"); the others measure `None`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A `[setting.NAME]` block: something a variant fixes that is this paper's own."""

    name: str
    """The key that variants fix, and that the code reads as `variant["name"]`."""
    says: str
    """What it is, in words."""
    source: str
    """Where the paper introduces it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a variant is trained when the harness trains it."""

    epochs: int
    """Passes over the training data; with the full batch, one pass is one step."""
    batch_size: int | Literal["full"]
    """Rows of a step; full takes all at once."""
    optimiser: Optimiser = "sgd"
    """One of torch's."""
    lr: float
    """Learning rate of the first epoch, and of all when no `schedule` says otherwise."""
    momentum: float = 0.0
    """Of `sgd` and `rmsprop`."""
    betas: tuple[float, ...] = (0.9, 0.999)
    """Of `adam` and `adamw`."""
    weight_decay: float = 0.0
    """The optimiser's own weight decay."""
    shrink: float = 0.0
    """After each step, w ← (1 − shrink)·w."""
    clip: float | None = None
    """Largest gradient norm."""
    schedule: tuple[Mapping[str, float], ...] = ()
    """Phases `{from = epoch, lr = …, momentum = …}`, from that epoch on, 0 being the first; with
    `weight_decay` and `shrink`, too."""
    evaluate: int = 1
    """Epochs between evaluations; the first and the last are always evaluated."""
    precision: Precision = "32"
    """Bits of the numbers: mixed keeps weights and sums in 32, true keeps nothing in more."""
    channels_last: bool = False
    """Images (N, C, H, W) lie in memory with C innermost, as convolutions of few bits like them."""
    compiled: bool | Literal["auto"] = False
    """Steps go through `torch.compile`, evaluations do not; auto, where a short probe says that
    it pays."""


USUAL_NUMBERS: Mapping[str, Any] = {
    f.name: f.default
    for f in fields(Recipe)
    if f.name in ("precision", "channels_last", "compiled")
}
"""How numbers are computed unless told otherwise; a run's key names only what is not so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A `[[variant]]` block: one configuration that the paper compares."""

    id: str
    """What claims, commands and records call it."""
    says: str
    """What it is, in words."""
    source: str
    """Where the paper describes it."""
    seeds: int = 5
    """Runs that `reproduce` makes when not told otherwise."""
    deterministic: bool = False
    """No seed plays a role: one run is all there is to know."""
    folds: int = 1
    """Cross-validation of so many folds: a run is one fold, and `seeds` counts its repeats."""
    vectorised: bool = False
    """Many seeds train as one batch through `torch.func`."""
    rival: str | None = None
    """The module in `rivals/` that makes the network, a baseline of ours that the paper does not
    have. Its code is in the keys of this variant's runs alone."""
    dataset: str = "main"
    """Variants of one dataset share their data; baselines are fitted once for each."""
    sources: tuple[str, ...] | None = None
    """The `[data.NAME]` blocks that it reads, all of them unless told; nothing else is fetched."""
    cpus: int = 1
    """Processors that a cluster sets aside for one run, at least."""
    gpus: float = 1.0
    """GPUs that it sets aside with `--device cuda`; at 0.5 two runs share one."""
    memory_mb: int | None = None
    """Peak memory of one run, where it is not the paper's."""
    recipe: Recipe | None = None
    """How it is trained, when not by a `fit` of the paper's; its keys stand in the block itself."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The paper's own, each declared as `[setting.NAME]`; they stand in the block itself, too."""

    def __getitem__(self, name: str) -> Any:
        """The value of one of the paper's own settings."""
        try:
            return self.settings[name]
        except KeyError:
            known = near(name, self.settings)
            raise RequestError(f"variant '{self.id}' has no setting '{name}'. {known}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The paper's own spread: standard deviation over n runs."""

    sd: float
    """In the metric's unit."""
    n: int
    """Runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """What every claim says."""

    id: str
    """What commands and records call it."""
    says: str
    """The statement in one sentence."""
    source: str
    """Its address in the paper: table, figure, section or page."""
    metric: str
    """What it is about."""
    cost: Cost
    """How long it takes to settle on a usual machine; `reproduce --cost` goes by it."""
    proxy: bool = False
    """A scaled-down setting of ours: its figure comes from our own records, not from the paper."""
    margin: float | None = None
    """In the metric's unit, a natural logarithm for `ratio` and `speed`; set before any run.
    Without one: the largest of half a printed digit, twice the published sd and what the paper's
    test items resolve, or 5 % of the figure; a factor of 1.25 for `ratio` and `speed`."""
    margin_reason: str | None = None
    """Why so much and no more."""
    needs: str | None = None
    """What is missing here (data, hardware), when the claim cannot be settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact(_Claim):
    """A count that holds or does not; no training."""

    variant: str
    """Whose network or data are counted."""
    published: Printed
    """In quotes, digit for digit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value(_Claim):
    """A metric of a variant equals a figure."""

    variant: str
    """Whose runs are compared with the figure."""
    published: Printed
    """In quotes, digit for digit, for the digits are evidence."""
    spread: Spread | None = None
    """The paper's own, where it gives one."""
    best_of: int | None = None
    """The paper reports the best of this many runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(_Claim):
    """Each variant beats the next; with `no_worse`, is at most the margin worse than the next."""

    variants: tuple[str, ...]
    """The best first; those of another paper as `slug:variant`."""
    no_worse: bool = False
    """The first is not shown to be better but at most `margin` worse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio(_Claim):
    """The first variant's metric is `published` times the second's."""

    variants: tuple[str, ...]
    """Numerator and denominator."""
    published: Printed
    """The factor, in quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed(_Claim):
    """Steps, epochs or seconds until a target is reached; a miss is infinite."""

    variant: str
    """Whose runs are timed."""
    published: Printed
    """Steps, epochs or seconds, in quotes."""
    target: str
    """The target in words, with its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend(_Claim):
    """A metric rises or falls with a setting, over the variants that differ in it."""

    setting: str
    """The number that differs between them."""
    variants: tuple[str, ...]
    """Three or more, in any order."""
    direction: Literal["rises", "falls"]
    """Which way the metric goes as the setting grows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Property(_Claim):
    """A fact holds in at least a share of the runs."""

    variant: str
    """Whose runs are tested."""
    test: str
    """`holds` for a metric that is 0 or 1, or a comparison such as `>= 0.99`."""
    share: float
    """The share that counts as "it holds", with its reason in `margin_reason`."""


Claim = Exact | Value | Order | Ratio | Speed | Trend | Property
KINDS: Mapping[str, type[Claim]] = MappingProxyType(
    {kind.__name__.lower(): kind for kind in (Exact, Value, Order, Ratio, Speed, Trend, Property)}
)


def kind_of(claim: Claim) -> str:
    """The claim's kind as `claims.toml` spells it."""
    return type(claim).__name__.lower()


def variants_of(claim: Claim) -> tuple[str, ...]:
    """The variants a claim speaks of; those of other papers as `slug:variant`."""
    if isinstance(claim, (Order, Ratio, Trend)):
        return claim.variants
    return (claim.variant,)


def own_variants_of(claim: Claim) -> tuple[str, ...]:
    """Those of the claim's own paper."""
    return tuple(name for name in variants_of(claim) if ":" not in name)


def foreign_variants(claims: "Claims") -> tuple[str, ...]:
    """All variants of other papers that claims speak of, as `slug:variant`."""
    named = (name for claim in claims.claims.values() for name in variants_of(claim))
    return tuple(dict.fromkeys(name for name in named if ":" in name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """What we do differently from the paper on purpose."""

    id: str
    """A short name."""
    paper_says: str
    """What the paper does."""
    we_do: str
    """What is done here."""
    because: str
    """The reason, with what it is thought or measured to change."""
    source: str | None = None
    """Where the paper says so."""
    switch: str | None = None
    """The variant that does without it, so that its effect is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """What the paper does not say, and our choice."""

    id: str
    """A short name."""
    we_do: str
    """What is done here."""
    because: str
    """Why this choice."""
    alternatives: tuple[str, ...]
    """What else could be meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The whole of a `claims.toml`."""

    path: Path
    paper: Citation
    sources: Mapping[str, Source]
    metrics: Mapping[str, Metric]
    settings: Mapping[str, Setting]
    variants: Mapping[str, Variant]
    claims: Mapping[str, Claim]
    deviations: tuple[Deviation, ...]
    gaps: tuple[Gap, ...]

    def variant(self, name: str) -> Variant:
        """The variant of that id.

        Raises:
            RequestError: no such variant; names the near ones.
        """
        return self._pick(self.variants, name, "variant")

    def claim(self, name: str) -> Claim:
        """The claim of that id.

        Raises:
            RequestError: no such claim; names the near ones.
        """
        return self._pick(self.claims, name, "claim")

    def sources_of(self, variant: Variant) -> tuple[str, ...]:
        """The names of the datasets that a variant reads."""
        return tuple(self.sources) if variant.sources is None else variant.sources

    def _pick(self, table: Mapping[str, T], name: str, what: str) -> T:
        if name not in table:
            known = near(name, table)
            raise RequestError(f"{self.path.parent.name}: unknown {what} '{name}'. {known}")
        return table[name]
