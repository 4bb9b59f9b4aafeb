"""Which records verdicts rest on, and what they come to; nothing is run here."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import Literal

from reimpl import kept, registry
from reimpl.claims import (
    RIVALS,
    Claims,
    Scalar,
    Value,
    Variant,
    foreign_variants,
    own_variants_of,
    variants_of,
)
from reimpl.collecting import no_collecting
from reimpl.errors import ClaimsError, ReimplError, RequestError
from reimpl.jobs import BASELINE_SECONDS, JobPart
from reimpl.keys import Keys, declared, key_parts
from reimpl.reading import apply_overrides
from reimpl.records import (
    RUN,
    Record,
    Records,
    Store,
    count_measured,
    read_measured,
    write_measured,
)
from reimpl.registry import Entry
from reimpl.verdict import DECIDED, LOOKS, Measured, Verdict, first_broken, first_seeds

Where = Literal["local", "committed"]

_PLACE = attrgetter("part", "variant")


WITH_CURVES = 20
"""Runs of a variant whose curves are committed; of more, the measurements say enough."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The records that verdicts rest on."""

    records: tuple[Record, ...]
    errors: tuple[Record, ...] = ()
    unreadable: tuple[Path, ...] = ()
    where: Mapping[tuple[str, str], Where] = field(default_factory=dict)
    """Part and variant → whether the records are this machine's or the committed ones."""
    unused: Mapping[str, int] = field(default_factory=dict)
    """Variant → committed runs of the current code that fewer runs here stand for."""
    stale: tuple[str, ...] = ()
    """Variants whose committed records were made by other code than there is now."""

    @property
    def rests_on(self) -> Mapping[str, Where]:
        """Variant → where its runs are; what only counts parameters says nothing of others."""
        places: dict[str, Where] = {}
        for wanted in ("counts", "train"):
            places |= {v: where for (part, v), where in self.where.items() if part == wanted}
        return places

    def beside(self, other: "Evidence", variant: str, name: str) -> "Evidence":
        """With where that variant of another paper has its runs, under its name here."""
        there = {(part, name): where for (part, v), where in other.where.items() if v == variant}
        stale = (name,) if variant in other.stale else ()
        return replace(self, where={**self.where, **there}, stale=(*self.stale, *stale))

    @cached_property
    def broken(self) -> Mapping[str, set[int]]:
        """Variant → seeds whose run failed."""
        seeds: dict[str, set[int]] = {}
        for record in self.errors:
            seeds.setdefault(record.variant, set()).add(record.seed)
        return seeds

    @cached_property
    def measured(self) -> Mapping[str, Measured]:
        """Metric → variant → seed → value, without baselines."""
        table: dict[str, dict[str, dict[int, float | bool | None]]] = {}
        for (part, variant), group in groupby(self.records, _PLACE):
            if part == "baseline":
                continue
            runs = [(record.seed, record.measurements) for record in group]
            for metric in dict.fromkeys(chain.from_iterable(found for _, found in runs)):
                values = {seed: found[metric] for seed, found in runs if metric in found}
                table.setdefault(metric, {}).setdefault(variant, {}).update(values)
        return table


@dataclass(frozen=True, slots=True, kw_only=True)
class BestBaseline:
    """The plain method that does best on a claim's data and metric."""

    name: str
    value: float
    """Mean over its runs."""
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the sequential mode took, against as many seeds as it might have taken."""

    runs: int
    """Runs that its looks rest on."""
    seeds: int
    """Seeds of the last look."""
    most: int
    """Runs that it would rest on."""
    looks: Mapping[int, tuple[str, ...]]
    """Seeds → claims that were decided with them; 0 for those that are not decided."""
    over: bool
    """Whether every claim is decided or has had its last look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came out."""

    entry: Entry
    verdicts: tuple[Verdict, ...]
    """Empty when the runs were altered by `--set` or `--model`."""
    evidence: Evidence
    baselines: Mapping[str, BestBaseline] = field(default_factory=dict)
    """By claim."""
    unaltered: Mapping[str, Measured] = field(default_factory=dict)
    """Of altered runs: what the paper's own setting measured, metric → variant → seed."""
    fresh: tuple[Record, ...] = ()
    """Records made now."""
    spent: Spent | None = None
    """Of the sequential mode."""
    more_seeds: Mapping[str, int] = field(default_factory=dict)
    """Variant → seeds that count, where they are more than `claims.toml` asks for; not in the
    sequential mode."""

    @property
    def errors(self) -> list[Record]:
        """Runs made now that failed."""
        return [record for record in self.fresh if record.status == "error"]


@no_collecting()
def judged(
    entry: Entry,
    root: Path,
    *,
    first: int | None = None,
    in_looks: bool = False,
    committed: bool = True,
    found: Records | None = None,
) -> Result:
    """Verdicts from the records there are, without running anything.

    Args:
        entry: the paper.
        root: folder of the records.
        first: only the first so many seeds of each variant count.
        in_looks: judge as the sequential mode does.
        committed: rest on committed records where this machine has none.
        found: this machine's records, when they were read already.
    """
    evidence = gather(entry, root, committed=committed, found=found)
    broken: dict[str, Collection[int]] = dict(evidence.broken)
    measured = {metric: dict(values) for metric, values in evidence.measured.items()}
    others: dict[str, Variant] = {}
    for name in foreign_variants(entry.claims):
        elsewhere = _elsewhere(name, entry, root)
        if elsewhere is not None:
            others[name], there = elsewhere
            own = others[name].id
            for metric, table in there.measured.items():
                if own in table:
                    measured.setdefault(metric, {})[name] = table[own]
            broken[name] = there.broken.get(own, set())
            evidence = evidence.beside(there, own, name)
    if first is not None:
        variants = {**entry.claims.variants, **others}
        measured = {m: first_seeds(table, variants, first) for m, table in measured.items()}
        broken = dict(first_broken(broken, variants, first))

    def judge() -> list[Verdict]:
        from reimpl.judging import judge_all, judge_in_looks  # late: scipy

        judge = judge_in_looks if in_looks else judge_all
        return judge(entry.claims, measured, broken=broken, others=others)

    place = Store(root).folder(entry.slug) / (".verdicts-in-looks" if in_looks else ".verdicts")
    seeds = [(variant, sorted(runs)) for variant, runs in sorted(broken.items())]
    given = entry.claims, kept.digest(measured), seeds, others, in_looks
    return Result(
        entry=entry,
        verdicts=tuple(kept.verdicts(place, given, judge)),
        evidence=evidence,
        baselines=best_baselines(entry.claims, evidence.records),
        more_seeds={} if in_looks else _more_seeds(measured, entry.claims.variants),
    )


def _more_seeds(
    measured: Mapping[str, Measured], variants: Mapping[str, Variant]
) -> dict[str, int]:
    """Variant → seeds, where they are more than it asks for."""
    found: dict[str, int] = {}
    for table in measured.values():
        for name, runs in table.items():
            variant = variants.get(name)
            if variant and not variant.deterministic:
                found[name] = max(found.get(name, 0), len(runs) // variant.folds)
    return {name: seeds for name, seeds in found.items() if seeds > variants[name].seeds}


def _elsewhere(name: str, entry: Entry, root: Path) -> tuple[Variant, Evidence] | None:
    """A variant of another paper, and that paper's records; None when there is none here.

    Raises:
        ClaimsError: a metric of a claim means something else there.
    """
    slug, _, own = name.partition(":")
    beside = entry.folder.parent / slug
    try:
        other = registry.find(slug, (beside,) if (beside / "claims.toml").exists() else ())
        found = other.claims.variant(own), gather(other, root)
    except ReimplError:
        return None
    _check_alike(name, entry.claims, other.claims)
    return found


def _check_alike(name: str, claims: Claims, others: Claims) -> None:
    for claim in claims.claims.values():
        here, there = claims.metrics[claim.metric], others.metrics.get(claim.metric)
        if name not in variants_of(claim) or there is None:
            continue
        for what in ("unit", "better"):
            ours, theirs = getattr(here, what), getattr(there, what)
            if ours != theirs:
                raise ClaimsError(
                    f"claim '{claim.id}': '{what}' of metric '{claim.metric}' is '{ours}' here and "
                    f"'{theirs}' in the paper of '{name}'; only what is alike can be compared"
                )


def gather(
    entry: Entry, root: Path, *, committed: bool = True, found: Records | None = None
) -> Evidence:
    """This machine's records of the current code; committed ones for variants not run here.

    Args:
        entry: the paper.
        root: folder of the records.
        committed: take the committed ones, too.
        found: this machine's, when they were read already.
    """
    found = found or Store(root).read(entry.slug)
    current = _Current(entry)
    mine = current.of(found.ok)
    local = set(map(_PLACE, mine))
    path = entry.folder / "measured.jsonl"
    there = Counter[tuple[str, str]]()
    promoted = read_measured(path, without=local, passed=there) if committed else []
    others = [record for record in promoted if record.status == "ok"]
    failed = [r for r in promoted if r.status == "error" and _PLACE(r) not in local]
    stale = {r.variant for r in others if r.part != "baseline" and not current.same_code(r)}
    where: dict[tuple[str, str], Where] = dict.fromkeys(map(_PLACE, others), "committed")
    where |= dict.fromkeys(local, "local")
    fewer = [place for place, n in Counter(map(_PLACE, mine)).items() if n < there[place]]
    unused = _not_here(path, fewer, mine, current) if fewer else []
    return Evidence(
        records=(*mine, *others),
        unused=Counter(record.variant for record in unused),
        errors=(*current.of(found.errors), *failed),
        unreadable=tuple(found.unreadable),
        where=where,
        stale=tuple(sorted(stale)),
    )


def _not_here(
    path: Path, places: Collection[tuple[str, str]], mine: Sequence[Record], current: "_Current"
) -> list[Record]:
    """Committed runs of the current code, of these parts and variants, that are not here."""
    others = count_measured(path).keys() - places
    kept = set(map(RUN, mine))
    return [r for r in current.of(read_measured(path, without=others)) if RUN(r) not in kept]


class _Current:
    """Knows the keys that the code and claims give as they are now."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.keys: dict[tuple[str, str, str], Keys | None] = {}

    def _keys(self, record: Record) -> Keys | None:
        baseline = record.key_parts.get("baseline", "") if record.part == "baseline" else ""
        place = (record.part, record.variant, baseline)
        if place not in self.keys:
            name = record.variant.rpartition(" on ")[2] if baseline else record.variant
            variant = self.entry.claims.variants.get(name)
            self.keys[place] = variant and current_keys(
                self.entry, variant, record.part, baseline=baseline or None
            )
        return self.keys[place]

    def of(self, records: Iterable[Record]) -> list[Record]:
        """Those that would be found cached if they were run again now."""
        found: list[Record] = []
        for (part, _), group in groupby(records, _PLACE):
            runs = list(group)
            for alike in ([run] for run in runs) if part == "baseline" else (runs,):
                if keys := self._keys(alike[0]):
                    key = keys.key
                    found += [record for record in alike if key(record.seed) == record.key]
        return found

    def same_code(self, record: Record) -> bool:
        """Whether the paper's side of the key is the same; versions of libraries may differ."""
        keys = self._keys(record)
        if keys is None:
            return False
        now = keys(record.seed)[1]
        return all(
            now.get(name) == record.key_parts.get(name)
            for name in ("paper_code", "variant", "metrics", "data", "schema")
        )


def best_baselines(claims: Claims, records: Iterable[Record]) -> dict[str, BestBaseline]:
    """Claim of a figure → the baseline with the best mean on its task and metric."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for record in records:
        if record.part == "baseline":
            name, _, variant = record.variant.rpartition(" on ")
            task = claims.variants[variant].dataset if variant in claims.variants else ""
            for metric, value in record.measurements.items():
                if value is not None:
                    values.setdefault((task, metric, name), []).append(float(value))
    best: dict[str, BestBaseline] = {}
    for claim in claims.claims.values():
        metric = claims.metrics[claim.metric]
        task = claims.variants[own_variants_of(claim)[0]].dataset
        found = [
            BestBaseline(name=name, value=sum(v) / len(v), n=len(v))
            for (t, m, name), v in values.items()
            if (t, m) == (task, metric.name)
        ]
        if found and metric.score and isinstance(claim, Value):  # others are in units of their own
            pick = max if metric.better == "higher" else min
            best[claim.id] = pick(found, key=lambda b: b.value)
    return best


def promote(entry: Entry, root: Path) -> Evidence:
    """Write this machine's current records to the paper's `measured.jsonl`; others there stay.

    Raises:
        RequestError: neither here nor there is a record, one was made by code that is not
            committed, or others would be lost.
    """
    evidence = gather(entry, root)
    if not evidence.where:
        raise RequestError(
            f"{entry.slug}: no records here of the current code; run `reimpl reproduce` first"
        )
    made = [*evidence.records, *evidence.errors]
    dirty = [r for r in made if r.environment.get("git_dirty")]
    if dirty:
        first = dirty[0]
        raise RequestError(
            f"{entry.slug}: {len(dirty)} records ({first.variant}, seed {first.seed}, …) were made "
            "by code that was not committed; commit it and run `reimpl reproduce --force`"
        )
    path = entry.folder / "measured.jsonl"
    local = [place for place, where in evidence.where.items() if where == "local"]
    if not local:
        return evidence  # what is there stays
    if lost := _not_here(path, local, evidence.records, _Current(entry)):
        raise RequestError(
            f"{entry.slug}: {len(lost):,} committed records of the same code ({lost[0].variant}, "
            f"seed {lost[0].seed}, …) are not here and would be lost; run `reimpl restore` first"
        )
    runs = Counter(record.variant for record in evidence.records)
    many = {variant for variant, count in runs.items() if count > WITH_CURVES}
    failed = [replace(r, error=_last_line(r.error)) for r in evidence.errors]  # no paths from here
    write_measured(path, [*evidence.records, *failed], without_curves=many)
    return evidence


def _last_line(error: str | None) -> str:
    return (error or "").strip().rpartition("\n")[2]


def restore(entry: Entry, root: Path) -> tuple[int, int]:
    """Keep the paper's committed records here, so that a reproduction goes on from them.

    Returns:
        How many were not here yet, and how many were left because other code made them.

    Raises:
        RequestError: the paper has no committed records.
    """
    promoted = read_measured(entry.folder / "measured.jsonl")
    if not promoted:
        raise RequestError(f"{entry.slug}: no measured.jsonl to restore from")
    store, current = Store(root), _Current(entry)
    here = set(map(RUN, store.read(entry.slug).ok))
    fitting = current.of([record for record in promoted if record.status == "ok"])
    new = [r for r in fitting if RUN(r) not in here]
    store.write_many(new)
    return len(new), len(promoted) - len(fitting)


def spent_on(claims: Claims, verdicts: Iterable[Verdict]) -> Spent:
    """What the looks of these verdicts took, by the variants that chance plays a role in."""
    looks: dict[int, list[str]] = {}
    took: dict[str, int] = {}
    over = True
    for verdict in verdicts:
        own = (claims.variants[name] for name in verdict.variants if name in claims.variants)
        chance = [variant.id for variant in own if not variant.deterministic]
        if chance and verdict.look and verdict.kind != "exact" and verdict.n:
            decided = verdict.lane in DECIDED
            over = over and (decided or verdict.look == LOOKS[-1])
            looks.setdefault(verdict.look if decided else 0, []).append(verdict.id)
            took |= {name: max(took.get(name, 0), verdict.look) for name in chance}
    return Spent(
        runs=sum(seeds * claims.variants[name].folds for name, seeds in took.items()),
        seeds=LOOKS[-1],
        most=sum(LOOKS[-1] * claims.variants[name].folds for name in took),
        looks={look: tuple(names) for look, names in sorted(looks.items())},
        over=over,
    )


def current_keys(
    entry: Entry,
    variant: Variant,
    part: JobPart,
    *,
    overrides: Mapping[str, Scalar] | None = None,
    model: str | None = None,
    baseline: str | None = None,
) -> Keys:
    """The keys of a variant's runs, for the code and claims as they are now."""
    assert part != "probe"
    chosen = dict(overrides or {})
    parts = key_parts(
        claims=entry.claims,
        variant=apply_overrides(entry.claims, variant, chosen),
        seed=0,
        part=part,
        overrides=chosen,
        code=entry.code,
        model_file=_baselines_folder() if baseline else _model_file(entry, variant, model),
        data=declared(entry.claims.sources) if entry.claims.sources else "",
    )
    if model:
        parts["model"] += " " + model.partition(":")[2]
    if baseline:
        parts["baseline"] = baseline
        parts["budget"] = f"{BASELINE_SECONDS:g} s"

    return Keys(parts)


def _model_file(entry: Entry, variant: Variant, model: str | None) -> Path | None:
    """The file that the network comes from, when it is not the paper's own."""
    if model:
        return Path(model.partition(":")[0])
    return entry.folder / RIVALS / f"{variant.rival}.py" if variant.rival else None


def _baselines_folder() -> Path:
    import baselines

    assert baselines.__file__ is not None
    return Path(baselines.__file__).parent
