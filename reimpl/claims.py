"""A paper as data: `claims.toml`, read strictly into frozen types.

An unknown key, a missing source or a wrong type is a `ClaimsError` of one line that names the file, the block and
the near key. Numbers stay as the paper prints them (`Printed`), because the printed digits are part of the evidence.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from reimpl.errors import ClaimsError, RequestError, near

T = TypeVar("T")
Cost = Literal["instant", "minutes", "hours", "gpu"]
Better = Literal["lower", "higher", "neither"]
Score = Literal["error", "accuracy"]
Optimiser = Literal["sgd", "adam", "adamw", "rmsprop"]
Scalar = bool | int | float | str
COSTS: tuple[Cost, ...] = get_args(Cost)


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
        assert isinstance(exponent, int)  # only NaN and infinity have a letter, and `_decimal` is checked on reading
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A `[data.NAME]` block: where a dataset lies and what the paper says it holds."""

    name: str
    hub: str
    """Name on the hub, `org/name`; the mirror has a folder of that name."""
    revision: str
    """The commit on the hub."""
    config: str | None = None
    splits: Mapping[str, int]
    """Rows of each split, as the paper counts them."""
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
    """Test items of a proportion; the default margin needs them. The unit is then `%` or `share`."""
    task: str | None = None
    """Papers and baselines with the same task meet on one leaderboard."""
    score: Score | None = None
    """How a baseline's predictions are scored: share of wrong or of right ones, in per cent."""
    reaches: Reaches | None = None
    """Derived: the epochs until a curve reaches its target, infinite when it never does."""
    among: str | None = None
    """The runs in which it is defined, when not in all ("solved starts"); the others measure `None`."""


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
    """Phases `{from = epoch, lr = …, momentum = …}`: from that epoch on (0 is the first), these values."""
    evaluate: int = 1
    """Epochs between evaluations; the first and the last are always evaluated."""


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
    vectorised: bool = False
    """Many seeds train as one batch through `torch.func`."""
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
    """A scaled-down setting of ours: its figure comes from our own records and is never printed as the paper's."""
    margin: float | None = None
    """In the metric's unit; a natural logarithm for `ratio` and `speed`. Declared before any run."""
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
    """Each variant beats the next on a metric; with `no_worse`, is no worse than the next by more than the margin."""

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
    """The variants a claim speaks of."""
    if isinstance(claim, Order | Ratio | Trend):
        return claim.variants
    return (claim.variant,)


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

    def _pick(self, table: Mapping[str, T], name: str, what: str) -> T:
        if name not in table:
            raise RequestError(f"{self.path.parent.name}: unknown {what} '{name}'. {near(name, table)}")
        return table[name]


# Reading. One small strict reader: the dataclasses above are the schema.

BLOCKS = ("paper", "data", "metric", "setting", "variant", "claim", "deviation", "gap")
_RECIPE_KEYS = tuple(f.name for f in fields(Recipe))
_VARIANT_KEYS = ("id", "says", "source", "seeds", "deterministic", "vectorised")
_COMPARISONS = ("holds", ">=", "<=", ">", "<")


def load_claims(path: Path) -> Claims:
    """Read a `claims.toml`.

    Raises:
        ClaimsError: the file is missing or is not TOML, a key is unknown or misspelt, a source is missing, a type is
            wrong, or a claim speaks of a metric, variant or setting that is not there.
    """
    reader = _Reader(path)
    tables = reader.parse()
    settings = reader.named(Setting, tables.get("setting", {}), "setting")
    claims = Claims(
        path=path,
        paper=reader.read(Citation, tables.get("paper", {}), "[paper]"),
        sources=reader.named(Source, tables.get("data", {}), "data"),
        metrics=reader.named(Metric, _with_split(tables.get("metric", {})), "metric"),
        settings=settings,
        variants=reader.variants(tables.get("variant", []), settings),
        claims=reader.unique((reader.claim(table) for table in tables.get("claim", [])), "claim"),
        deviations=tuple(
            reader.read(Deviation, t, f"deviation '{t.get('id', '?')}'") for t in tables.get("deviation", [])
        ),
        gaps=tuple(reader.read(Gap, t, f"gap '{t.get('id', '?')}'") for t in tables.get("gap", [])),
    )
    _check_references(claims, reader)
    return claims


def apply_overrides(claims: Claims, variant: Variant, overrides: Mapping[str, Scalar]) -> Variant:
    """A variant with some of its keys replaced, as `--set key=value` asks.

    Raises:
        RequestError: the key is neither a recipe key nor a setting of this variant, or its value has a wrong type.
    """
    recipe = {k: v for k, v in overrides.items() if k in _RECIPE_KEYS}
    settings = {k: v for k, v in overrides.items() if k not in _RECIPE_KEYS}
    known = [*variant.settings, *(_RECIPE_KEYS if variant.recipe else ())]
    for key in overrides:
        if key not in known:
            raise RequestError(f"--set: variant '{variant.id}' has no key '{key}'. {near(key, known)}")
    where = f"--set on variant '{variant.id}'"
    try:
        reader = _Reader(claims.path)
        values = {f.name: getattr(variant, f.name) for f in fields(Variant)}
        if recipe and variant.recipe is not None:
            now = {name: _plain(getattr(variant.recipe, name)) for name in _RECIPE_KEYS}
            values["recipe"] = reader.read(Recipe, {k: v for k, v in (now | recipe).items() if v is not None}, where)
        values["settings"] = MappingProxyType({**variant.settings, **settings})
    except ClaimsError as error:
        raise RequestError(str(error).partition(": ")[2]) from None
    return Variant(**values)


class _Reader:
    """Reads tables into dataclasses; every error names the file and the block."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def error(self, where: str, what: str) -> ClaimsError:
        name = f"{self.path.parent.name}/{self.path.name}" if self.path.name == "claims.toml" else self.path.name
        return ClaimsError(f"{name}: {where}: {what}")

    def parse(self) -> dict[str, Any]:
        try:
            tables = tomllib.loads(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ClaimsError(f"{self.path}: cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ClaimsError(f"{self.path}: not valid TOML: {error}") from None
        for block in tables:
            if block not in BLOCKS:
                raise self.error("top level", f"unknown block '{block}'. {near(block, BLOCKS)}")
        return tables

    def read(self, cls: type[T], table: Mapping[str, Any], where: str) -> T:
        """One table as one frozen object."""
        hints = get_type_hints(cls)
        known = {f.name: f for f in fields(cls)}  # pyright: ignore[reportArgumentType]  (every `cls` is a dataclass)
        for key in table:
            if key not in known:
                raise self.error(where, f"unknown key '{key}'. {near(key, known)}")
        for name, f in known.items():
            if name not in table and f.default is MISSING and f.default_factory is MISSING:
                raise self.error(where, f"missing key '{name}'")
        return cls(**{key: self.value(hints[key], value, f"{where}: '{key}'") for key, value in table.items()})

    def value(self, hint: Any, value: Any, where: str) -> Any:
        """A TOML value checked against a type hint."""
        origin, options = get_origin(hint), get_args(hint)
        if hint is Any:
            return value
        if hint is Printed:
            return self.printed(value, where)
        if origin is Literal:
            if value not in options:
                raise self.error(where, f"is {value!r}. {near(str(value), map(str, options))}")
            return value
        if origin in (Union, UnionType):
            return self.union(options, value, where)
        if origin is tuple:
            if not isinstance(value, list | tuple):
                raise self.error(where, f"must be a list, is {value!r}")
            return tuple(self.value(options[0], item, where) for item in value)
        if origin is Mapping:
            if not isinstance(value, Mapping):
                raise self.error(where, f"must be a table, is {value!r}")
            return MappingProxyType({str(k): self.value(options[1], v, f"{where}: '{k}'") for k, v in value.items()})
        if isinstance(value, Mapping):
            return self.read(hint, value, where)
        return self.scalar(hint, value, where)

    def union(self, options: tuple[Any, ...], value: Any, where: str) -> Any:
        problem = self.error(where, f"is {value!r}")
        for option in options:
            if option is NoneType:
                continue
            try:
                return self.value(option, value, where)
            except ClaimsError as error:
                problem = error
        raise problem

    def scalar(self, hint: type, value: Any, where: str) -> Any:
        wanted = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if type(value) is not hint:
            raise self.error(where, f"must be {wanted.get(hint, 'a table')}, is {value!r}")
        if hint is str and not value.strip():
            raise self.error(where, "is empty")
        return value

    def printed(self, value: Any, where: str) -> Printed:
        if isinstance(value, float):
            raise self.error(where, f'write "{value}" in quotes, digit for digit as printed: the digits are evidence')
        try:
            number = Printed(str(value))
            finite = Decimal(number.text.replace(",", "").replace("_", "")).is_finite()
        except InvalidOperation:
            finite = False
        if not finite or isinstance(value, bool):
            raise self.error(where, f"must be a printed number, is {value!r}")
        return number

    def named(self, cls: type[T], tables: Mapping[str, Any], block: str) -> Mapping[str, T]:
        """Tables like `[metric.NAME]`, by name."""
        read: dict[str, T] = {}
        for name, table in tables.items():
            if not isinstance(table, Mapping):
                raise self.error(f"[{block}]", f"must be written [{block}.NAME], but '{name}' is {table!r}")
            read[name] = self.read(cls, {"name": name, **table}, f"[{block}.{name}]")
        return MappingProxyType(read)

    def unique(self, items: Any, block: str) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for item in items:
            if item.id in found:
                raise self.error(f"{block} '{item.id}'", "appears twice")
            found[item.id] = item
        return MappingProxyType(found)

    def claim(self, table: Mapping[str, Any]) -> Claim:
        where = f"claim '{table.get('id', '?')}'"
        if "kind" not in table:
            raise self.error(where, "missing key 'kind'")
        kind = table["kind"]
        if kind not in KINDS:
            raise self.error(where, f"unknown kind '{kind}'. {near(str(kind), KINDS)}")
        rest = {key: value for key, value in table.items() if key != "kind"}
        if "source" not in rest:
            raise self.error(where, "missing key 'source': say which table, figure, section or page states it")
        claim = self.read(KINDS[kind], rest, where)
        self.check_claim(claim, where)
        return claim

    def check_claim(self, claim: Claim, where: str) -> None:
        if claim.margin is not None and claim.margin <= 0:
            raise self.error(where, f"margin must be positive, is {claim.margin}")
        if claim.margin is not None and claim.margin_reason is None:
            raise self.error(where, "a margin needs a 'margin_reason', declared before any run")
        if isinstance(claim, Order) and (claim.no_worse != (claim.margin is not None)):
            raise self.error(where, "'no_worse = true' and 'margin' go together")
        wants = {Order: (2, None), Ratio: (2, 2), Trend: (3, None)}.get(type(claim))
        if wants is not None and isinstance(claim, Order | Ratio | Trend):
            least, most = wants
            if len(claim.variants) < least or (most is not None and len(claim.variants) > most):
                raise self.error(where, f"'variants' needs {'exactly' if most else 'at least'} {least}")
        if isinstance(claim, Property):
            if not claim.test.startswith(_COMPARISONS):
                raise self.error(where, f"test must be 'holds' or a comparison such as '>= 0.99', is {claim.test!r}")
            if not 0 < claim.share <= 1:
                raise self.error(where, f"share must lie in (0, 1], is {claim.share}")
            if claim.margin_reason is None:
                raise self.error(where, "a share needs a 'margin_reason': why this share counts as \"it holds\"")

    def variants(self, tables: list[Mapping[str, Any]], settings: Mapping[str, Setting]) -> Mapping[str, Variant]:
        """Variants in order; `extends` takes over all keys of an earlier one."""
        full: dict[str, dict[str, Any]] = {}
        read: dict[str, Variant] = {}
        for table in tables:
            where = f"variant '{table.get('id', '?')}'"
            merged = dict(table)
            parent = merged.pop("extends", None)
            if parent is not None:
                if parent not in full:
                    raise self.error(where, f"extends unknown variant '{parent}'. {near(str(parent), full)}")
                merged = {**{k: v for k, v in full[parent].items() if k not in ("id", "says")}, **merged}
            variant = self.variant(merged, settings, where)
            if variant.id in read:
                raise self.error(where, "appears twice")
            full[variant.id], read[variant.id] = merged, variant
        return MappingProxyType(read)

    def variant(self, table: Mapping[str, Any], settings: Mapping[str, Setting], where: str) -> Variant:
        known = [*_VARIANT_KEYS, *_RECIPE_KEYS, *settings, "extends"]
        for key in table:
            if key not in known:
                hint = f"A setting of this paper is declared as [setting.{key}] first. {near(key, known)}"
                raise self.error(where, f"unknown key '{key}'. {hint}")
        recipe = {key: value for key, value in table.items() if key in _RECIPE_KEYS}
        own = {key: value for key, value in table.items() if key in settings}
        values = {key: value for key, value in table.items() if key in _VARIANT_KEYS}
        if recipe:
            self.check_schedule(recipe, where)
            values["recipe"] = recipe
        return self.read(Variant, {**values, "settings": own}, where)

    def check_schedule(self, recipe: Mapping[str, Any], where: str) -> None:
        last = -1.0
        for phase in recipe.get("schedule", []):
            known = ("from", "lr", "momentum", "weight_decay", "shrink")
            for key in phase:
                if key not in known:
                    raise self.error(where, f"schedule: unknown key '{key}'. {near(key, known)}")
            if phase.get("from", -1) <= last:
                raise self.error(where, "schedule: each phase needs 'from', an epoch later than the phase before")
            last = phase["from"]


def _with_split(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """The split of `test/error` is `test` unless the block says otherwise."""
    return {
        name: {"split": name.split("/")[0] if "/" in name else "none", **table} if isinstance(table, Mapping) else table
        for name, table in metrics.items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _check_references(claims: Claims, reader: _Reader) -> None:
    """Every metric, variant and setting that is spoken of exists."""
    for claim in claims.claims.values():
        where = f"claim '{claim.id}'"
        if claim.metric not in claims.metrics:
            raise reader.error(where, f"unknown metric '{claim.metric}'. {near(claim.metric, claims.metrics)}")
        for name in variants_of(claim):
            if name not in claims.variants:
                raise reader.error(where, f"unknown variant '{name}'. {near(name, claims.variants)}")
        if isinstance(claim, Trend):
            for name in claim.variants:
                if claim.setting not in claims.variants[name].settings:
                    raise reader.error(where, f"variant '{name}' does not fix the setting '{claim.setting}'")
        if claims.metrics[claim.metric].better == "neither" and isinstance(claim, Order):
            raise reader.error(where, f"metric '{claim.metric}' says that neither way is better")
    for metric in claims.metrics.values():
        if metric.reaches and metric.reaches.curve not in claims.metrics:
            raise reader.error(f"[metric.{metric.name}]", f"reaches unknown curve '{metric.reaches.curve}'")
    for deviation in claims.deviations:
        if deviation.switch is not None and deviation.switch not in claims.variants:
            raise reader.error(f"deviation '{deviation.id}'", f"switch is no variant: '{deviation.switch}'")
