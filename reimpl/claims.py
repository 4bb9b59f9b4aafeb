"""A paper as data: `claims.toml`, read strictly into frozen types.

An unknown key, a missing source or a wrong type is a `ClaimsError` of one line that names the file,
the block and the near key. Numbers stay as the paper prints them (`Printed`), because the printed
digits are part of the evidence.
"""

import copyreg
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from decimal import Decimal
from functools import cache
from math import isfinite
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli

from reimpl.errors import ClaimsError, RequestError, near

T = TypeVar("T")
Blocks = dict[str, Any]
"""What a `claims.toml` holds, by block, as TOML gives it."""
Cost = Literal["instant", "minutes", "hours", "gpu"]
Better = Literal["lower", "higher", "neither"]
Score = Literal["error", "accuracy"]
Optimiser = Literal["sgd", "adam", "adamw", "rmsprop"]
Precision = Literal["32", "bf16-mixed", "16-mixed", "bf16-true"]
Scalar = bool | int | float | str
COSTS: tuple[Cost, ...] = get_args(Cost)


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
    """The `[paper]` block."""

    title: str
    authors: tuple[str, ...]
    year: int
    url: str
    memory_mb: int = 500
    """Peak memory of one run, so that the packing knows how many fit on a machine."""
    requires: Mapping[str, str] = field(default_factory=dict)
    """Packages beyond the harness's own: name to import → what `pip install` takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A `[data.NAME]` block: where a dataset lies and what the paper says it holds."""

    name: str
    hub: str
    """Name on the hub, `org/name`; the mirror has a folder of that name."""
    revision: str
    """The commit on the hub."""
    config: str | None = None
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
    unit: str
    better: Better
    definition: str
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
    says: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a variant is trained when the harness trains it."""

    epochs: int
    """Passes over the training data; with the full batch, one pass is one step."""
    batch_size: int | Literal["full"]
    optimiser: Optimiser = "sgd"
    lr: float
    momentum: float = 0.0
    betas: tuple[float, ...] = (0.9, 0.999)
    weight_decay: float = 0.0
    """The optimiser's own weight decay."""
    shrink: float = 0.0
    """After each step, w ← (1 − shrink)·w."""
    clip: float | None = None
    """Largest gradient norm."""
    schedule: tuple[Mapping[str, float], ...] = ()
    """Phases `{from = epoch, lr = …, momentum = …}`: from that epoch on, 0 being the first."""
    evaluate: int = 1
    """Epochs between evaluations; the first and the last are always evaluated."""
    precision: Precision = "32"
    """Bits of the numbers: mixed keeps weights and sums in 32, true keeps nothing in more."""
    channels_last: bool = False
    """Images (N, C, H, W) lie in memory with C innermost, as convolutions of few bits like them."""
    compiled: bool = False
    """Steps go through `torch.compile`; evaluations do not."""


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
    says: str
    source: str
    seeds: int = 5
    """Runs that `reproduce` makes when not told otherwise."""
    deterministic: bool = False
    """No seed plays a role: one run is all there is to know."""
    folds: int = 1
    """Cross-validation of so many folds: a run is one fold, and `seeds` counts its repeats."""
    vectorised: bool = False
    """Many seeds train as one batch through `torch.func`."""
    dataset: str = "main"
    """Variants of one dataset share their data; baselines are fitted once for each."""
    sources: tuple[str, ...] | None = None
    """The `[data.NAME]` blocks that it reads, all of them unless told; nothing else is fetched."""
    cpus: int = 1
    """Processors that a cluster sets aside for one run; torch itself keeps to one thread."""
    gpus: float = 1.0
    """GPUs that it sets aside with `--device cuda`; at 0.5 two runs share one."""
    memory_mb: int | None = None
    """Peak memory of one run, where it is not the paper's."""
    recipe: Recipe | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

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
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """What every claim says."""

    id: str
    says: str
    source: str
    metric: str
    cost: Cost
    proxy: bool = False
    """A scaled-down setting of ours: its figure comes from our own records, not from the paper."""
    margin: float | None = None
    """In the metric's unit, a natural logarithm for `ratio` and `speed`; set before any run."""
    margin_reason: str | None = None
    needs: str | None = None
    """What is missing here (data, hardware), when the claim cannot be settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact(_Claim):
    """A count that holds or does not; no training."""

    variant: str
    published: Printed


@dataclass(frozen=True, slots=True, kw_only=True)
class Value(_Claim):
    """A metric of a variant equals a figure."""

    variant: str
    published: Printed
    spread: Spread | None = None
    best_of: int | None = None
    """The paper reports the best of this many runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(_Claim):
    """Each variant beats the next; with `no_worse`, is at most the margin worse than the next."""

    variants: tuple[str, ...]
    no_worse: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio(_Claim):
    """The first variant's metric is `published` times the second's."""

    variants: tuple[str, ...]
    published: Printed


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed(_Claim):
    """Steps, epochs or seconds until a target is reached; a miss is infinite."""

    variant: str
    published: Printed
    target: str
    """The target in words, with its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend(_Claim):
    """A metric rises or falls with a setting, over the variants that differ in it."""

    setting: str
    variants: tuple[str, ...]
    direction: Literal["rises", "falls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Property(_Claim):
    """A fact holds in at least a share of the runs."""

    variant: str
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
    if isinstance(claim, Order | Ratio | Trend):
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
    paper_says: str
    we_do: str
    because: str
    source: str | None = None
    switch: str | None = None
    """The variant that does without it, so that its effect is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """What the paper does not say, and our choice."""

    id: str
    we_do: str
    because: str
    alternatives: tuple[str, ...]


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


# Reading. One small strict reader: the dataclasses above are the schema.

BLOCKS = ("paper", "data", "metric", "setting", "variant", "claim", "deviation", "gap")
_NAMED = ("data", "metric", "setting")
_LISTED = ("variant", "claim", "deviation", "gap")
_RECIPE_KEYS = tuple(f.name for f in fields(Recipe))
_VARIANT_KEYS = (
    *("id", "says", "source", "seeds", "deterministic", "folds", "vectorised"),
    *("dataset", "sources", "cpus", "gpus", "memory_mb"),
)
_PHASE_KEYS = ("from", "lr", "momentum", "weight_decay", "shrink")
_SCALARS: Mapping[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}
_LEAST: Mapping[str, int] = {
    **dict.fromkeys(("memory_mb", "classes", "items", "seeds", "folds", "best_of"), 1),
    **dict.fromkeys(("epochs", "batch_size", "evaluate", "cpus"), 1),
    **dict.fromkeys(("lr", "momentum", "weight_decay", "shrink", "clip", "sd", "gpus"), 0),
    "n": 2,  # a spread over one run is none
}
_FOREIGN = re.compile(r"[^:\s]+:[^:\s]+")
_TEST = re.compile(r"holds|(>=|<=|>|<) *-?\d*\.?\d+([eE][+-]?\d+)?")
_DIGITS = re.compile(r"[+-]?(\d{1,3}([,_]\d{3})+|\d+)?(\.\d*)?([eE][+-]?\d{1,2})?")


def load_claims(path: Path) -> Claims:
    """Read a `claims.toml`.

    Raises:
        ClaimsError: the file is missing or is not TOML, a key is unknown or misspelt, a source is
            missing, a type is wrong, or a claim speaks of a metric, variant or setting that is not
            there.
    """
    reader = _Reader(path)
    blocks = reader.parse()
    settings = reader.named(Setting, blocks["setting"], "setting")
    claims = Claims(
        path=path,
        paper=reader.read(Citation, blocks["paper"], "[paper]"),
        sources=reader.sources(blocks["data"]),
        metrics=reader.named(Metric, _with_split(blocks["metric"]), "metric"),
        settings=settings,
        variants=reader.variants(blocks["variant"], settings),
        claims=reader.unique(map(reader.claim, blocks["claim"]), "claim"),
        deviations=tuple(reader.listed(Deviation, blocks["deviation"], "deviation").values()),
        gaps=tuple(reader.listed(Gap, blocks["gap"], "gap").values()),
    )
    _check_references(claims, reader)
    return claims


def apply_overrides(claims: Claims, variant: Variant, overrides: Mapping[str, Scalar]) -> Variant:
    """A variant with some of its keys replaced, as `--set key=value` asks.

    Raises:
        RequestError: the key is neither a recipe key nor a setting of this variant, or its value
            has a wrong type.
    """
    known = [*variant.settings, *(_RECIPE_KEYS if variant.recipe else ())]
    for key in overrides:
        if key not in known:
            hint = near(key, known)
            raise RequestError(f"--set: variant '{variant.id}' has no key '{key}'. {hint}")
    where = f"--set on variant '{variant.id}'"
    reader = _Reader(claims.path)
    values = {f.name: getattr(variant, f.name) for f in fields(Variant)}
    try:
        if variant.recipe is not None:
            values["recipe"] = reader.changed_recipe(variant.recipe, overrides, where)
        values["settings"] = reader.changed_settings(variant.settings, overrides, where)
    except ClaimsError as error:
        raise RequestError(str(error).removeprefix(f"{reader.name}: ")) from None
    return Variant(**values)


_Hint = tuple[Any, tuple[Any, ...]]
"""A type hint's kind and its options, hints themselves but for those of a `Literal`."""


class _Reader:
    """Reads tables into dataclasses; every error names the file and the block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        usual = path.name == "claims.toml"
        self.name = f"{path.parent.name}/{path.name}" if usual else path.name

    def error(self, where: str, what: str) -> ClaimsError:
        return ClaimsError(f"{self.name}: {where}: {what}")

    def parse(self) -> Blocks:
        """All blocks, empty where the file has none; each a table or a list of tables."""
        try:
            found = tomli.loads(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ClaimsError(f"{self.path}: cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise ClaimsError(f"{self.path}: not valid TOML: {error}") from None
        for block, value in found.items():
            self.check_block(block, value)
        return {block: found.get(block, [] if block in _LISTED else {}) for block in BLOCKS}

    def check_block(self, block: str, value: Any) -> None:
        if block not in BLOCKS:
            raise self.error("top level", f"unknown block '{block}'. {near(block, BLOCKS)}")
        if block in _LISTED:
            good, form = _is_tables(value), f"[[{block}]], once for each"
        elif block in _NAMED:
            good = isinstance(value, Mapping) and _is_tables(list(value.values()))
            form = f"[{block}.NAME]"
        else:
            good, form = isinstance(value, Mapping), f"[{block}]"
        if not good:
            raise self.error(f"[{block}]", f"must be written {form}")

    # Tables

    def read(self, cls: type[T], table: Mapping[str, Any], where: str) -> T:
        """One table as one frozen object."""
        hints, needed = _schema(cls)
        self.check_keys(table, hints, where)
        for name in needed:
            if name not in table:
                raise self.error(where, f"missing key '{name}'")
        return cls(**{k: self.entry(k, hints[k], v, where) for k, v in table.items()})

    def check_keys(self, table: Mapping[str, Any], known: Collection[str], where: str) -> None:
        for key in table:
            if key not in known:
                raise self.error(where, f"unknown key '{key}'. {near(key, known)}")

    def check_known(self, name: str, table: Mapping[str, Any], what: str, where: str) -> None:
        if name not in table:
            raise self.error(where, f"unknown {what} '{name}'. {near(name, table)}")

    def entry(self, key: str, hint: _Hint, value: Any, where: str) -> Any:
        read = self.value(hint, value, f"{where}: '{key}'")
        least = _LEAST.get(key)
        if least is not None and isinstance(read, int | float) and read < least:
            raise self.error(where, f"'{key}' must be at least {least}, is {value}")
        return read

    def named(self, cls: type[T], tables: Mapping[str, Any], block: str) -> Mapping[str, T]:
        """Tables like `[metric.NAME]`, by name."""
        read: dict[str, T] = {}
        for name, table in tables.items():
            where = f"[{block}.{name}]"
            if "name" in table:
                raise self.error(where, f"unknown key 'name'. The name is '{name}' already.")
            read[name] = self.read(cls, {"name": name, **table}, where)
        return MappingProxyType(read)

    def sources(self, tables: Mapping[str, Any]) -> Mapping[str, Source]:
        """The datasets: each has splits of rows, or files that the paper reads itself."""
        read = self.named(Source, tables, "data")
        for name, source in read.items():
            if bool(source.splits) == bool(source.files):
                raise self.error(f"[data.{name}]", "needs either 'splits' or 'files'")
            if source.url and not source.files:
                raise self.error(f"[data.{name}]", "'url' goes with 'files'")
        return read

    def listed(self, cls: type[T], tables: list[Any], block: str) -> Mapping[str, T]:
        """Tables like `[[gap]]`, by id."""
        read = (self.read(cls, t, f"{block} '{t.get('id', '?')}'") for t in tables)
        return self.unique(read, block)

    def unique(self, items: Iterable[Any], block: str) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for item in items:
            if item.id in found:
                raise self.error(f"{block} '{item.id}'", "appears twice")
            found[item.id] = item
        return MappingProxyType(found)

    # Values

    def value(self, hint: _Hint, value: Any, where: str) -> Any:
        """A TOML value checked against a type hint."""
        kind, options = hint
        if kind in _SCALARS:
            return self.scalar(kind, value, where)
        if kind is Literal:
            return self.choice(options, value, where)
        if kind is Union:
            return self.union(options, value, where)
        if kind is Printed:
            return self.printed(value, where)
        if kind is Any:
            return self.free(value, where)
        return self.compound(kind, options, value, where)

    def compound(self, kind: Any, options: tuple[_Hint, ...], value: Any, where: str) -> Any:
        """A list, a table of values alike, or a dataclass's table."""
        if kind is tuple:
            if not isinstance(value, list | tuple):
                raise self.error(where, f"must be a list, is {value!r}")
            return tuple(self.value(options[0], item, where) for item in value)
        if kind is Mapping:
            table = self.table(value, where)
            read = {k: self.value(options[1], v, f"{where}: '{k}'") for k, v in table.items()}
            return MappingProxyType(read)
        return self.read(kind, self.table(value, where), where)

    def table(self, value: Any, where: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self.error(where, f"must be a table, is {value!r}")
        return value

    def choice(self, options: tuple[Any, ...], value: Any, where: str) -> Any:
        if value not in options:
            raise self.error(where, f"is {value!r}. {near(str(value), map(str, options))}")
        return value

    def union(self, options: tuple[_Hint, ...], value: Any, where: str) -> Any:
        problems: list[ClaimsError] = []
        for option in options:
            try:
                return self.value(option, value, where)
            except ClaimsError as error:
                problems.append(error)
        raise problems[-1]

    def scalar(self, hint: type, value: Any, where: str) -> Any:
        if hint is float and type(value) is int and abs(value) < 2**53:
            return float(value)
        if type(value) is not hint:
            raise self.error(where, f"must be {_SCALARS[hint]}, is {value!r}")
        if isinstance(value, float) and not isfinite(value):
            raise self.error(where, f"must be a finite number, is {value}")
        if isinstance(value, str) and not value.strip():
            raise self.error(where, "is empty")
        return value

    def free(self, value: Any, where: str) -> Any:
        """A paper's own setting: text, number, truth value, or lists and tables of these."""
        if isinstance(value, list | Mapping):
            for item in value.values() if isinstance(value, Mapping) else value:
                self.free(item, where)
            return value
        if type(value) not in _SCALARS:
            raise self.error(where, f"must be text, a number or true or false, is {value!r}")
        return self.scalar(type(value), value, where)

    def printed(self, value: Any, where: str) -> Printed:
        if isinstance(value, float):
            hint = "digit for digit as printed: the digits are evidence"
            raise self.error(where, f'write "{value}" in quotes, {hint}')
        text = str(value)
        if not (_DIGITS.fullmatch(text) and re.match(r"[+-]?\.?\d", text)):
            raise self.error(where, f'must be a printed number such as "1,425", is {value!r}')
        return Printed(text)

    # Claims

    def claim(self, table: Mapping[str, Any]) -> Claim:
        where = f"claim '{table.get('id', '?')}'"
        if "kind" not in table:
            raise self.error(where, f"missing key 'kind'. {near('', KINDS)}")
        kind = table["kind"]
        if not isinstance(kind, str) or kind not in KINDS:
            raise self.error(where, f"unknown kind '{kind}'. {near(str(kind), KINDS)}")
        rest = {key: value for key, value in table.items() if key != "kind"}
        if "source" not in rest:
            hint = "say which table, figure, section or page states it"
            raise self.error(where, f"missing key 'source': {hint}")
        claim = self.read(KINDS[kind], rest, where)
        self.check_margin(claim, where)
        self.check_variants(claim, where)
        if isinstance(claim, Property):
            self.check_property(claim, where)
        return claim

    def check_margin(self, claim: Claim, where: str) -> None:
        if claim.margin is not None and claim.margin <= 0:
            raise self.error(where, f"margin must be positive, is {claim.margin}")
        if claim.margin is not None and claim.margin_reason is None:
            raise self.error(where, "a margin needs a 'margin_reason', declared before any run")
        if isinstance(claim, Order) and (claim.no_worse != (claim.margin is not None)):
            raise self.error(where, "'no_worse = true' and 'margin' go together")

    def check_variants(self, claim: Claim, where: str) -> None:
        names = variants_of(claim)
        least, most = {Order: (2, None), Ratio: (2, 2), Trend: (3, None)}.get(type(claim), (1, 1))
        if len(names) < least or (most is not None and len(names) > most):
            raise self.error(where, f"'variants' needs {'exactly' if most else 'at least'} {least}")
        if len(set(names)) < len(names):
            raise self.error(where, "'variants' names one twice")

    def check_property(self, claim: Property, where: str) -> None:
        if not _TEST.fullmatch(claim.test):
            wanted = "'holds' or a comparison such as '>= 0.99'"
            raise self.error(where, f"test must be {wanted}, is {claim.test!r}")
        if not 0 < claim.share <= 1:
            raise self.error(where, f"share must lie in (0, 1], is {claim.share}")
        if claim.margin_reason is None:
            hint = 'why this share counts as "it holds"'
            raise self.error(where, f"a share needs a 'margin_reason': {hint}")

    # Variants

    def variants(
        self, tables: list[Mapping[str, Any]], settings: Mapping[str, Setting]
    ) -> Mapping[str, Variant]:
        """Variants in order; `extends` takes over all keys of an earlier one."""
        full: dict[str, Mapping[str, Any]] = {}
        read: list[Variant] = []
        for table in tables:
            where = f"variant '{table.get('id', '?')}'"
            merged = self.extended(table, full, where)
            variant = self.variant(merged, settings, where)
            read.append(variant)
            full.setdefault(variant.id, merged)
        return self.unique(read, "variant")

    def extended(
        self, table: Mapping[str, Any], earlier: Mapping[str, Mapping[str, Any]], where: str
    ) -> Mapping[str, Any]:
        if "extends" not in table:
            return table
        parent = str(table["extends"])
        if parent not in earlier:
            hint = near(parent, earlier)
            raise self.error(where, f"extends '{parent}', which is no variant above it. {hint}")
        inherited = {k: v for k, v in earlier[parent].items() if k not in ("id", "says")}
        return {**inherited, **{k: v for k, v in table.items() if k != "extends"}}

    def variant(
        self, table: Mapping[str, Any], settings: Mapping[str, Setting], where: str
    ) -> Variant:
        known = [*_VARIANT_KEYS, *_RECIPE_KEYS, *settings, "extends"]
        for key in table:
            if key not in known:
                hint = f"A setting of this paper is declared as [setting.{key}] first."
                raise self.error(where, f"unknown key '{key}'. {hint} {near(key, known)}")
        values = {key: value for key, value in table.items() if key in _VARIANT_KEYS}
        recipe = {key: value for key, value in table.items() if key in _RECIPE_KEYS}
        if recipe:
            values["recipe"] = recipe
        own = {key: value for key, value in table.items() if key in settings}
        variant = self.read(Variant, values, where)
        if variant.recipe is not None:
            self.check_recipe(variant.recipe, where)
        hints, _ = _schema(Variant)
        return replace(variant, settings=self.value(hints["settings"], own, where))

    def check_recipe(self, recipe: Recipe, where: str) -> None:
        if len(recipe.betas) != 2 or not all(0 <= beta < 1 for beta in recipe.betas):
            raise self.error(where, f"'betas' must be two numbers in [0, 1), is {recipe.betas}")
        last = -1.0
        for phase in recipe.schedule:
            self.check_keys(phase, _PHASE_KEYS, f"{where}: schedule")
            if phase.get("from", -1) <= last:
                hint = "each phase needs 'from', an epoch later than the phase before"
                raise self.error(where, f"schedule: {hint}")
            if min(phase.values()) < 0:
                raise self.error(where, f"schedule: no value may be negative, as in {dict(phase)}")
            last = phase["from"]

    def changed_recipe(self, recipe: Recipe, overrides: Mapping[str, Scalar], where: str) -> Recipe:
        now = {f.name: getattr(recipe, f.name) for f in fields(Recipe)}
        new = {key: value for key, value in overrides.items() if key in now}
        table = {key: value for key, value in (now | new).items() if value is not None}
        changed = self.read(Recipe, table, where)
        self.check_recipe(changed, where)
        return changed

    def changed_settings(
        self, settings: Mapping[str, Any], overrides: Mapping[str, Scalar], where: str
    ) -> Mapping[str, Any]:
        """Settings take a value of the type they have; a whole number may become a fraction."""
        new = {key: value for key, value in overrides.items() if key in settings}
        for key, value in new.items():
            was = settings[key]
            if _kind_of_value(was) is not _kind_of_value(value):
                raise self.error(where, f"'{key}' is {was!r} and cannot become {value!r}")
            self.free(value, f"{where}: '{key}'")
        return MappingProxyType({**settings, **new})


@cache
def _schema(cls: type) -> tuple[Mapping[str, _Hint], tuple[str, ...]]:
    """The type hints of a dataclass, and the names of the fields that have no default."""
    assert is_dataclass(cls)
    needed = [f for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    hints = {name: _hint(hint) for name, hint in get_type_hints(cls).items()}
    return hints, tuple(f.name for f in needed)


def _hint(hint: Any) -> _Hint:
    """Taken apart once; None is left out, for TOML has none."""
    kind, options = get_origin(hint), get_args(hint)
    if kind is None or kind is Literal:
        return kind or hint, options
    parts = tuple(_hint(option) for option in options if option not in (NoneType, ...))
    return (Union if kind is UnionType else kind), parts


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _kind_of_value(value: Any) -> type:
    return float if type(value) is int else type(value)


def _with_split(metrics: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """The split of `test/error` is `test` unless the block says otherwise."""
    return {
        name: {"split": name.split("/")[0] if "/" in name else "none", **table}
        for name, table in metrics.items()
    }


def _check_references(claims: Claims, reader: _Reader) -> None:
    """Every metric, variant and setting that is spoken of exists."""
    for claim in claims.claims.values():
        _check_claim_references(claim, claims, reader)
    for variant in claims.variants.values():
        for name in variant.sources or ():
            reader.check_known(name, claims.sources, "data", f"variant '{variant.id}'")
    for metric in claims.metrics.values():
        if metric.reaches:
            where = f"[metric.{metric.name}]"
            reader.check_known(metric.reaches.curve, claims.metrics, "curve", where)
    for deviation in claims.deviations:
        if deviation.switch is not None:
            where = f"deviation '{deviation.id}'"
            reader.check_known(deviation.switch, claims.variants, "variant", where)


def _check_claim_references(claim: Claim, claims: Claims, reader: _Reader) -> None:
    where = f"claim '{claim.id}'"
    reader.check_known(claim.metric, claims.metrics, "metric", where)
    for name in variants_of(claim):
        if not (isinstance(claim, Order) and _FOREIGN.fullmatch(name)):
            reader.check_known(name, claims.variants, "variant", where)
    if not own_variants_of(claim):
        raise reader.error(where, "names no variant of this paper")
    if isinstance(claim, Order) and claims.metrics[claim.metric].better == "neither":
        raise reader.error(where, f"metric '{claim.metric}' says that neither way is better")
    if isinstance(claim, Trend):
        _check_trend(claim, claims, reader, where)


def _check_trend(claim: Trend, claims: Claims, reader: _Reader, where: str) -> None:
    for name in claim.variants:
        value = claims.variants[name].settings.get(claim.setting)
        if value is None:
            what = f"variant '{name}' does not fix the setting '{claim.setting}'"
            raise reader.error(where, f"{what}. {near(claim.setting, claims.settings)}")
        if _kind_of_value(value) is not float:
            what = f"setting '{claim.setting}' of variant '{name}'"
            raise reader.error(where, f"{what} must be a number for a trend, is {value!r}")
