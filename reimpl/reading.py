"""`claims.toml` read strictly; the dataclasses of `claims` are the schema.

An unknown key, a missing source or a wrong type is a `ClaimsError` of one line that names the file,
the block and the near key.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import rtoml

from reimpl.claims import (
    KINDS,
    LARGEST,
    RIVALS,
    WHOLES,
    Better,
    Citation,
    Claim,
    Claims,
    Deviation,
    Gap,
    Metric,
    Order,
    Printed,
    Property,
    Ratio,
    Recipe,
    Scalar,
    Setting,
    Source,
    Speed,
    Trend,
    Value,
    Variant,
    kind_of,
    own_variants_of,
    variants_of,
)
from reimpl.collecting import no_collecting
from reimpl.errors import ClaimsError, RequestError, near

T = TypeVar("T")
Blocks = dict[str, Any]
"""What a `claims.toml` holds, by block, as TOML gives it."""

BLOCKS = ("paper", "data", "metric", "setting", "variant", "claim", "deviation", "gap")
_NAMED = ("data", "metric", "setting")
_LISTED = ("variant", "claim", "deviation", "gap")
_RECIPE_KEYS = tuple(f.name for f in fields(Recipe))
_VARIANT_KEYS = (
    *("id", "says", "source", "seeds", "deterministic", "folds", "vectorised"),
    *("rival", "dataset", "sources", "cpus", "gpus", "memory_mb"),
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


@no_collecting()
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
            found = rtoml.loads(self.path.read_text(encoding="utf-8"))
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
        return cls(**self.values(cls, table, where))

    def values(self, cls: type, table: Mapping[str, Any], where: str) -> dict[str, Any]:
        """What a table says of the fields of a dataclass."""
        hints, needed = _schema(cls)
        self.check_keys(table, hints, where)
        for name in needed:
            if name not in table:
                raise self.error(where, f"missing key '{name}'")
        values = {}
        for key, value in table.items():
            hint = hints[key]
            is_text = hint[0] is str is type(value) and value.strip()  # most are, and in order
            values[key] = value if is_text else self.entry(key, hint, value, where)
        return values

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
        for option in options:
            with suppress(ClaimsError):
                return self.value(option, value, where)
        known = (o for kind, of in options for o in (of if kind is Literal else (_SCALARS[kind],)))
        raise self.error(where, f"is {value!r}. {near(str(value), map(str, known))}")

    def scalar(self, hint: type, value: Any, where: str) -> Any:
        if hint is float and type(value) is int and abs(value) < 2**53:
            return float(value)
        if type(value) is not hint:
            raise self.error(where, f"must be {_SCALARS[hint]}, is {value!r}")
        if isinstance(value, float) and not abs(value) <= LARGEST:
            raise self.error(where, f"must be a finite number of at most {LARGEST:g}, is {value}")
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
        if abs((figure := Printed(text)).value) > LARGEST:
            raise self.error(where, f"must be a number of at most {LARGEST:g}")
        return figure

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
        if claim.margin is not None and isinstance(claim, Trend | Property):
            raise self.error(where, f"a {kind_of(claim)} has no margin")
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
        known = dict.fromkeys((*_VARIANT_KEYS, *_RECIPE_KEYS, *settings, "extends"))
        for key in table:
            if key not in known:
                hint = f"A setting of this paper is declared as [setting.{key}] first."
                raise self.error(where, f"unknown key '{key}'. {hint} {near(key, known)}")
        values = {key: value for key, value in table.items() if key in _VARIANT_KEYS}
        recipe = {key: value for key, value in table.items() if key in _RECIPE_KEYS}
        if recipe:
            values["recipe"] = recipe
        own = {key: value for key, value in table.items() if key in settings}
        values = self.values(Variant, values, where)
        if "rival" in values:
            self.check_rival(values["rival"], where)
        if recipe:
            self.check_recipe(values["recipe"], where)
        hints, _ = _schema(Variant)
        return Variant(**values, settings=self.value(hints["settings"], own, where))

    def check_rival(self, name: str, where: str) -> None:
        found = [path.stem for path in (self.path.parent / RIVALS).glob("*.py")]
        if name not in found:
            hint = near(name, found)
            raise self.error(where, f"'rival' is '{name}', no module of {RIVALS}/. {hint}")

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
    return {f.name: _hint(f.type) for f in fields(cls)}, tuple(f.name for f in needed)


def _hint(hint: Any) -> _Hint:
    """Taken apart once; None is left out, for TOML has none."""
    kind, options = get_origin(hint), get_args(hint)
    if kind is None or kind is Literal:
        return kind or hint, options
    parts = tuple(_hint(option) for option in options if option not in (NoneType, ...))
    if kind not in (Union, UnionType):
        return kind, parts
    return parts[0] if len(parts) == 1 else (Union, parts)


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
        _check_metric(metric, claims, reader, f"[metric.{metric.name}]")
    for deviation in claims.deviations:
        if deviation.switch is not None:
            where = f"deviation '{deviation.id}'"
            reader.check_known(deviation.switch, claims.variants, "variant", where)


def _check_metric(metric: Metric, claims: Claims, reader: _Reader, where: str) -> None:
    if metric.items and metric.unit not in WHOLES:
        units = " or ".join(map(repr, WHOLES))
        raise reader.error(where, f"'items' needs the unit {units}, is {metric.unit!r}")
    if metric.reaches:
        reader.check_known(metric.reaches.curve, claims.metrics, "curve", where)


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
    _check_side(claim, claims.metrics[claim.metric].better, reader, where)
    if isinstance(claim, Trend):
        _check_trend(claim, claims, reader, where)


def _check_side(claim: Claim, better: Better, reader: _Reader, where: str) -> None:
    """A time is better when it is lower, and a best needs a better side."""
    if isinstance(claim, Speed) and better == "higher":
        hint = "a `speed` is a time to a target; lower is better, or neither"
        raise reader.error(where, f"metric '{claim.metric}' says that higher is better: {hint}")
    if isinstance(claim, Value) and claim.best_of is not None and better == "neither":
        raise reader.error(where, "'best_of' needs a metric that says which way is better")


def _check_trend(claim: Trend, claims: Claims, reader: _Reader, where: str) -> None:
    for name in claim.variants:
        value = claims.variants[name].settings.get(claim.setting)
        if value is None:
            what = f"variant '{name}' does not fix the setting '{claim.setting}'"
            raise reader.error(where, f"{what}. {near(claim.setting, claims.settings)}")
        if _kind_of_value(value) is not float:
            what = f"setting '{claim.setting}' of variant '{name}'"
            raise reader.error(where, f"{what} must be a number for a trend, is {value!r}")
