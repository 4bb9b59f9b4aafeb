"""Verdicts as a table and as JSON."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reimpl.claims import Claims, Property, Trend
from reimpl.report.text import (
    Page,
    Table,
    decimals,
    figure,
    number,
    plain,
    slug,
    some,
    spread_decimals,
    title,
)

if TYPE_CHECKING:
    from reimpl.claims import Claim
    from reimpl.evidence import BestBaseline, Evidence, Result, Spent
    from reimpl.records import Record
    from reimpl.verdict import Measured, Verdict

_FRAME = re.compile(r'^ *File "(.+)", line (\d+)', re.MULTILINE)
LANES = (
    "reproduced",
    "below",
    "above",
    "inconclusive",
    "consistent",
    "off",
    "error",
    "not run",
)
"""In the order in which they are counted."""


def unfavourable(verdict: Verdict) -> bool:
    """Whether `--strict` ends with status 1; no count is better than the paper's."""
    lane = verdict.lane
    return lane in ("below", "off", "error") or (lane == "above" and verdict.kind == "exact")


# Cells


def _measured(verdict: Verdict) -> str:
    """What we measured, with the spread where there is one."""
    mean, sd = verdict.mean, verdict.sd
    if mean is None:
        return "-"
    if verdict.kind == "property":
        return figure(100 * mean, 1)
    if verdict.kind == "exact" and mean.is_integer():
        return figure(mean)
    places = spread_decimals(sd) if verdict.published is None else decimals(verdict.published)
    sign = "+" if verdict.kind in ("order", "trend") and mean > 0 else ""
    spread = "" if sd is None else f" ± {figure(sd, places)}"
    return f"{sign}{figure(mean, places)}{spread}"


def _unit(verdict: Verdict) -> str:
    return {"property": "% of runs", "ratio": "ratio"}.get(verdict.kind, verdict.unit)


def _published(claim: Claim, verdict: Verdict) -> str:
    """The paper's figure; a proxy has none."""
    if isinstance(claim, Trend):
        return claim.direction
    return "-" if verdict.proxy else verdict.published or "-"


def _margin(claim: Claim, verdict: Verdict) -> str:
    if isinstance(claim, Property):
        return f"≥ {figure(100 * claim.share)}"
    if verdict.margin is None or (verdict.kind == "exact" and claim.margin is None):
        return "-"
    if verdict.kind in ("ratio", "speed"):
        return f"× {figure(math.exp(verdict.margin), 2)}"
    return f"± {verdict.margin:,.0f}" if verdict.margin >= 1000 else f"± {verdict.margin:.3g}"


def _runs(verdict: Verdict, values: Mapping[int, float | bool | None]) -> str:
    """How many runs count, and how many of them reached a target."""
    missed = 0
    if verdict.kind == "speed":
        known = [value for _, value in sorted(values.items()) if value is not None]
        missed = sum(map(math.isinf, known[: verdict.n]))
    if missed:
        return f"{verdict.n - missed} of {verdict.n}"
    return str(verdict.n) if verdict.n else "-"


def _note(verdict: Verdict, stale: Collection[str]) -> str:
    parts = [verdict.note]
    if verdict.proxy:
        expected = f", expected {verdict.published}" if verdict.published else ""
        parts.insert(0, f"our own setting{expected}")
    if verdict.lane == "not run" and verdict.needs is None and verdict.cost in ("hours", "gpu"):
        parts.append(f"ask for it with --cost {verdict.cost}")
    if verdict.lane == "reproduced" and verdict.survives_holm is False:
        parts.append("not after Holm's correction")
    if is_stale(verdict, stale):
        parts.insert(0, "of older code")
    return "; ".join(part for part in parts if part)


def is_stale(verdict: Verdict, stale: Collection[str]) -> bool:
    """Whether it rests on runs of older code."""
    return not set(verdict.variants).isdisjoint(stale)


def _name(verdict: Verdict) -> str:
    return f"{verdict.id} (proxy)" if verdict.proxy else verdict.id


# Verdicts


def verdict_table(
    claims: Claims,
    verdicts: Iterable[Verdict],
    *,
    measured: Mapping[str, Measured] | None = None,
    baselines: Mapping[str, BestBaseline] | None = None,
    stale: Collection[str] = (),
) -> Table:
    """Published, measured and verdict, claim by claim.

    Args:
        claims: the paper's.
        verdicts: in the order of the table.
        measured: metric → variant → seed → value, so that runs which missed a target are counted.
        baselines: claim → the best plain method on its data.
        stale: variants whose records are of older code.
    """
    return Table(
        heads=(
            "claim",
            "kind",
            "published",
            "measured",
            "unit",
            "runs",
            "margin",
            "best baseline",
            "verdict",
            "note",
        ),
        right=frozenset({"published", "measured", "runs", "margin", "best baseline"}),
        spare=("kind", "best baseline", "unit", "margin", "runs"),
        rows=[
            (
                _name(verdict),
                verdict.kind,
                *cells(claims.claims[verdict.id], verdict, measured or {}),
                baseline_cell(verdict, (baselines or {}).get(verdict.id)),
                verdict.lane,
                _note(verdict, stale),
            )
            for verdict in verdicts
        ],
    )


def cells(
    claim: Claim,
    verdict: Verdict,
    measured: Mapping[str, Measured],
) -> tuple[str, ...]:
    """Published, measured, unit, runs, margin."""
    values = measured.get(verdict.metric, {}).get(verdict.variants[0] if verdict.variants else "")
    return (
        _published(claim, verdict),
        _measured(verdict),
        _unit(verdict),
        _runs(verdict, values or {}),
        _margin(claim, verdict),
    )


def baseline_cell(verdict: Verdict, best: BestBaseline | None) -> str:
    """The best plain method on the data of a claim, and its value."""
    return "" if best is None else f"{best.name} {figure(best.value, decimals(verdict.published))}"


def counting(verdicts: Sequence[Verdict]) -> str:
    """The line below the table; proxies are not the paper's claims and are counted apart."""
    own = [verdict for verdict in verdicts if not verdict.proxy]
    proxies = [verdict for verdict in verdicts if verdict.proxy]
    parts = [_counted(own, "claim")] if own else []
    if proxies:
        parts.append(_counted(proxies, "proxy of ours" if len(proxies) == 1 else "proxies of ours"))
    tested = [v for v in own if v.lane == "reproduced" and v.survives_holm is not None]
    if tested:
        lost = sum(v.survives_holm is False for v in tested)
        held, hold = len(tested) - lost, "holds" if len(tested) - lost == 1 else "hold"
        whole = "tested" if len(tested) < counts(own)["reproduced"] else ""
        of = f"{held} of the {len(tested)} {whole}".rstrip()
        parts.append(f"{of} also {hold} after Holm's correction")
    return "; ".join(parts)


def _counted(verdicts: Sequence[Verdict], noun: str) -> str:
    found = counts(verdicts)
    total = len(verdicts)
    plural = "s" if noun == "claim" and total != 1 else ""
    rest = [f"{found[lane]} {lane}" for lane in LANES[1:] if lane in found]
    return ", ".join([f"{found.get('reproduced', 0)} of {total} {noun}{plural} reproduced", *rest])


def counts(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many verdicts there are in each lane."""
    found = Counter(verdict.lane for verdict in verdicts)
    return {lane: found[lane] for lane in LANES if found[lane]}


def judged_page(claims: Claims, verdicts: Sequence[Verdict]) -> Page:
    """Verdicts on numbers that came from somewhere else."""
    return [title(claims), "", verdict_table(claims, verdicts), "", counting(verdicts)]


def result_page(result: Result, *, altered: str = "") -> Page:
    """All that came out of a paper's runs; `altered` says how, where they are not the paper's."""
    claims = result.entry.claims
    heading = title(claims)
    if not result.verdicts:
        why = f"altered runs ({altered}): not judged as the paper's"
        why = why if altered else "no claim is stated, so there is nothing to judge"
        return [heading, "", why, "", measured_table(result), *_with_blank(_failures(result))]
    table = verdict_table(
        claims,
        result.verdicts,
        measured=result.evidence.measured,
        baselines=result.baselines,
        stale=result.evidence.stale,
    )
    lines = [
        *_evidence(result.evidence),
        *_seeds_to_explain(result),
        *_failures(result),
        *_look_further(result),
        *(spent_lines(result.spent) if result.spent else ()),
    ]
    return [heading, "", table, *_with_blank(lines), "", counting_all(result)]


def counting_all(result: Result) -> str:
    """The same, with how many verdicts rest on runs of older code."""
    old = sum(is_stale(verdict, result.evidence.stale) for verdict in result.verdicts)
    rest = f"; {old} {'rests' if old == 1 else 'rest'} on runs of older code" if old else ""
    return counting(result.verdicts) + rest


def spent_lines(spent: Spent) -> list[str]:
    """What the sequential mode took, and where it decided."""
    lines = [
        f"decided with {seeds} seeds: {some(names)}"
        for seeds, names in spent.looks.items()
        if seeds
    ]
    if 0 in spent.looks:
        lines.append(f"not decided: {some(spent.looks[0])}")
    most = f"{spent.seeds} seeds for each variant are {spent.most:,}"
    saved = f", so {spent.most - spent.runs:,} were saved" if spent.over else ""
    so_far = "" if spent.over else " so far"
    return [*lines, f"spent {number(spent.runs, 'run')}{so_far}; {most}{saved}"]


def _with_blank(lines: list[str]) -> list[str]:
    return ["", *lines] if lines else []


def measured_table(result: Result) -> Table:
    """What runs measured, without any verdict, beside what the paper's setting did."""
    rows = []
    for name, table in result.evidence.measured.items():
        for variant, values in table.items():
            own = result.unaltered.get(name, {}).get(variant)
            beside = _summary(own) if own else ("-", "-") if result.unaltered else ("", "")
            unit = _metric_unit(result.entry.claims, name)
            rows.append((variant, name, *_summary(values), *beside, unit))
    return Table(
        heads=("variant", "metric", "measured", "runs", "the paper's setting", "its runs", "unit"),
        right=frozenset({"measured", "runs", "the paper's setting", "its runs"}),
        rows=sorted(rows),
    )


def _metric_unit(claims: Claims, name: str) -> str:
    return claims.metrics[name].unit if name in claims.metrics else "-"


def _summary(values: Mapping[int, float | bool | None]) -> tuple[str, str]:
    """Mean and spread of what is finite; how many runs that is."""
    counted = [float(value) for value in values.values() if value is not None]
    finite = [value for value in counted if math.isfinite(value)]
    runs = f"{len(finite)} of {len(values)}" if len(finite) < len(values) else str(len(values))
    if not finite:
        return ("never" if counted else "-"), runs
    mean = math.fsum(finite) / len(finite)
    if len(finite) == 1:
        return figure(mean), runs
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / (len(finite) - 1))
    places = spread_decimals(sd)
    return f"{figure(mean, places)} ± {figure(sd, places)}", runs


def _evidence(evidence: Evidence) -> list[str]:
    """What the verdicts rest on."""
    local = [name for name, where in evidence.rests_on.items() if where == "local"]
    committed = [name for name, where in evidence.rests_on.items() if where == "committed"]
    lines = []
    if committed:
        of = number(len(committed), "variant")
        also = f"; {len(local)} from runs here" if local else "; nothing was run here"
        lines.append(f"evidence: committed records of {of}{also}")
    elif local:
        runs = number(len(evidence.records), "record")
        lines.append(f"evidence: {runs} kept here")
    if evidence.unused:
        runs = number(sum(evidence.unused.values()), "committed run")
        names = some(tuple(evidence.unused))
        lines.append(
            f"not counted: {runs} of {names}, for which fewer here stand; `reimpl restore` adds "
            "them"
        )
    if evidence.stale:
        names = some(evidence.stale)
        lines.append(f"stale: the code has changed since the committed records of {names}")
    if evidence.unreadable:
        count = number(len(evidence.unreadable), "record")
        first = evidence.unreadable[0]
        lines.append(f"set aside: {count} that cannot be read, such as {first}")
    return lines


def more_seeds(result: Result) -> dict[str, int]:
    """Variants of these verdicts of which more seeds count than `claims.toml` asks for."""
    judged = {name for verdict in result.verdicts for name in verdict.variants}
    return {name: seeds for name, seeds in result.more_seeds.items() if name in judged}


def _seeds_to_explain(result: Result) -> list[str]:
    """What the reader must know of seeds that somebody may have added to decide a claim."""
    more = more_seeds(result)
    if not more:
        return []
    names, most = some(tuple(more)), max(more.values())
    return [
        f"more seeds than claims.toml asks for: up to {most:,}, of {names}; if they were added "
        f"because a claim was open, judge by `reimpl verdict {result.entry.slug} --seeds auto`"
    ]


def _failures(result: Result) -> list[str]:
    records = result.evidence.errors or tuple(result.errors)
    if not records:
        return []
    first = records[0]
    what = f"the first {first.variant}, seed {first.seed}: {last_line(first)}"
    return [f"failed: {number(len(records), 'run')}, {what}"]


def last_line(record: Record) -> str:
    """The line of a failed run's error that says what it was, and where the paper's code was."""
    lines = (record.error or "").strip().splitlines()
    if not lines:
        return "no reason was recorded"
    frames = [(Path(file), line) for file, line in _FRAME.findall(record.error or "")]
    own = [frame for frame in frames if record.paper in frame[0].parts] or frames
    return f"{lines[-1]} ({own[-1][0].name}:{own[-1][1]})" if own else lines[-1]


def _look_further(result: Result) -> list[str]:
    claims = result.entry.claims
    parts = []
    if claims.deviations:
        parts.append(number(len(claims.deviations), "deviation"))
    if claims.gaps:
        parts.append(number(len(claims.gaps), "gap"))
    if not parts:
        return []
    return [
        f"we differ: {' and '.join(parts)}, each with its reason: reimpl show {result.entry.slug}"
    ]


def to_json(result: Result, *, altered: str = "") -> dict[str, Any]:
    """The result as strict JSON takes it; `altered` says how runs are not the paper's."""
    evidence = result.evidence
    table = {
        "paper": result.entry.slug,
        "claims": verdicts_json(result.verdicts, result.baselines, stale=evidence.stale),
        **_counts_json(result.verdicts),
        "altered": altered or None,
        "evidence": dict(evidence.rests_on),
        "stale": list(evidence.stale),
        "more_seeds": more_seeds(result),
        "unreadable": [str(path) for path in evidence.unreadable],
        "errors": [
            {"variant": r.variant, "seed": r.seed, "error": last_line(r)}
            for r in evidence.errors or result.errors
        ],
    }
    if not result.verdicts:
        table["measured"] = plain(evidence.measured)
        table["unaltered"] = plain(result.unaltered)
    return table


def verdicts_json(
    verdicts: Iterable[Verdict],
    baselines: Mapping[str, BestBaseline] | None = None,
    *,
    stale: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Verdicts as strict JSON takes them, each with the best baseline of its claim.

    Args:
        verdicts: of one paper.
        baselines: claim → the best plain method on its data.
        stale: variants whose records are of older code.
    """
    best = baselines or {}
    return [
        {
            **plain(v),
            "unit": "share of runs" if v.kind == "property" else _unit(v),
            "margin_is": "a natural logarithm" if v.kind in ("ratio", "speed") else "in the unit",
            "best_baseline": asdict(best[v.id]) if v.id in best else None,
            "stale": is_stale(v, stale),
        }
        for v in verdicts
    ]


def _counts_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    own, proxies = [[v for v in verdicts if v.proxy is proxy] for proxy in (False, True)]
    return {"counts": counts(own), "proxies": counts(proxies)}


def judged_json(claims: Claims, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Verdicts on numbers that came from somewhere else, as strict JSON takes them."""
    return {
        "paper": slug(claims),
        "claims": verdicts_json(verdicts),
        **_counts_json(verdicts),
    }
