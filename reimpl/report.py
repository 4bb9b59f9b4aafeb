"""What people look at: tables of text, the README's table and JSON. Nothing here prints.

A page is a list of lines and tables, in order; `render` turns it into text.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reimpl.claims import Claims, Order, Printed, Property, Trend, kind_of
from reimpl.errors import PaperError

if TYPE_CHECKING:
    from reimpl.claims import Claim
    from reimpl.data import SplitFacts
    from reimpl.records import Record
    from reimpl.registry import Entry
    from reimpl.reproduction import BestBaseline, Evidence, Plan, Planned, Result
    from reimpl.verdict import Verdict  # it imports numpy, which `reimpl list` does without

OPEN, CLOSE = "<!-- table -->", "<!-- /table -->"
"""Between these lines of a README stands the table that is made from the committed records."""
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
UNFAVOURABLE = frozenset({"below", "off"})
"""Lanes with which `--strict` ends with status 1."""
COLOURS: Mapping[str, str] = {
    "reproduced": "32",
    "consistent": "32",
    "ok": "32",
    "below": "31",
    "off": "31",
    "error": "31",
    "fails": "31",
    "above": "35",
    "inconclusive": "33",
    "warn": "33",
    "not run": "2",
}
LEAST_LAST = 28
"""Characters that the last column needs to stand beside the others."""


# Pages


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Text under headings; a column that is empty in every row is left out."""

    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: frozenset[str] = frozenset()
    """Headings of the columns that are set to the right: numbers."""


Page = list[str | Table]


def render(page: Page, *, width: int = 0, colour: bool = False) -> str:
    """The page as text.

    Args:
        page: lines and tables.
        width: characters in a line; 0 for no limit.
        colour: paint the lanes, for a terminal.
    """
    lines: list[str] = []
    for part in page:
        lines += [part] if isinstance(part, str) else _lines(part, width=width, colour=colour)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _lines(table: Table, *, width: int, colour: bool) -> list[str]:
    columns = [
        (head, [row[i] for row in table.rows])
        for i, head in enumerate(table.heads)
        if any(row[i] for row in table.rows)
    ]
    if not columns:
        return []
    padded = [
        _padded(head, cells, right=head in table.right, colour=colour)
        for head, cells in columns[:-1]
    ]
    taken = 2 + sum(len(cells[0]) + 2 for cells in padded)
    last = _padded(*columns[-1], right=columns[-1][0] in table.right, colour=colour)
    room = width - taken if width else max(map(len, last))
    lines = []
    for i, text in enumerate(last):
        start = "  " + "".join(cells[i] + "  " for cells in padded)
        lines += _beside(start, text, room=room, taken=taken, width=width)
    return lines


def _padded(head: str, cells: Sequence[str], *, right: bool, colour: bool) -> list[str]:
    """The heading and the cells at one width."""
    size = max(map(len, (head, *cells)))
    aligned = [cell.rjust(size) if right else cell.ljust(size) for cell in (head, *cells)]
    if not colour:
        return aligned
    return [_painted(text) if i else text for i, text in enumerate(aligned)]


def _painted(text: str) -> str:
    code = COLOURS.get(text.strip())
    return f"\x1b[{code}m{text}\x1b[0m" if code else text


def _beside(start: str, text: str, *, room: int, taken: int, width: int) -> list[str]:
    """The last column beside the others, wrapped; below them where there is too little room."""
    text = text.rstrip()
    if len(text) <= room:
        return [start + text]
    if room >= LEAST_LAST:
        first, *rest = textwrap.wrap(text, room)
        return [start + first, *(" " * taken + line for line in rest)]
    indent = " " * 6
    return [
        start,
        *textwrap.wrap(
            text, max(LEAST_LAST, width), initial_indent=indent, subsequent_indent=indent
        ),
    ]


# Figures


def figure(value: float | None, decimals: int | None = None) -> str:
    """A number for people, with thousands separators.

    >>> figure(0.9612, 3), figure(1459.0, 1), figure(60000.0), figure(0.0123456), figure(None)
    ('0.961', '1,459.0', '60,000', '0.01235', '-')
    >>> figure(float("inf"))
    'never'
    """
    if value is None:
        return "-"
    if math.isinf(value):
        return "never" if value > 0 else "-never"
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def decimals(published: str | None) -> int | None:
    """Decimals of our figure beside a published one: one more than it prints.

    >>> decimals("0.95"), decimals("1,425"), decimals(None)
    (3, 1, None)
    """
    if published is None:
        return None
    half = Printed(published).half_digit
    return max(0, -math.floor(math.log10(half))) if half < 1 else 1


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(0.4), duration(40), duration(250), duration(9000)
    ('under a second', '40 s', '4 minutes', '2.5 hours')
    """
    if seconds < 1:
        return "under a second"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"


def number(count: int, noun: str) -> str:
    """A count with its noun.

    >>> number(1, "run"), number(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _measured(verdict: Verdict) -> str:
    """What we measured, with the spread where there is one."""
    places = decimals(verdict.published)
    mean = verdict.mean
    if mean is None:
        return "-"
    if verdict.kind == "property":
        return figure(100 * mean, 1)
    if verdict.kind == "exact" and mean.is_integer():
        return figure(mean)
    sign = "+" if verdict.kind in ("order", "trend") and mean > 0 else ""
    spread = "" if verdict.sd is None else f" ± {figure(verdict.sd, places)}"
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
    if verdict.margin is None or verdict.kind == "exact":
        return "-"
    if verdict.kind in ("ratio", "speed"):
        return f"× {figure(math.exp(verdict.margin), 2)}"
    return f"± {verdict.margin:.3g}"


def _runs(verdict: Verdict, values: Mapping[int, float | bool | None]) -> str:
    """How many runs count, and how many of them reached a target."""
    missed = sum(value is not None and math.isinf(value) for value in values.values())
    if verdict.kind != "speed" or not missed:
        return str(verdict.n) if verdict.n else "-"
    return f"{verdict.n - missed} of {verdict.n}"


def _note(verdict: Verdict) -> str:
    parts = [verdict.note]
    if verdict.proxy:
        parts.insert(0, f"our own setting; our records give {verdict.published or 'no figure'}")
    if verdict.lane == "not run" and verdict.needs is None and verdict.cost in ("hours", "gpu"):
        parts.append(f"ask for it with --cost {verdict.cost}")
    if verdict.lane == "reproduced" and verdict.survives_holm is False:
        parts.append("not after Holm's correction")
    return "; ".join(part for part in parts if part)


def _name(verdict: Verdict) -> str:
    return f"{verdict.id} (proxy)" if verdict.proxy else verdict.id


# Verdicts


def verdict_table(
    claims: Claims,
    verdicts: Iterable[Verdict],
    *,
    measured: Mapping[str, Mapping[str, Mapping[int, float | bool | None]]] | None = None,
    baselines: Mapping[str, BestBaseline] | None = None,
) -> Table:
    """Published, measured and verdict, claim by claim.

    Args:
        claims: the paper's.
        verdicts: in the order of the table.
        measured: metric → variant → seed → value, so that runs which missed a target are counted.
        baselines: claim → the best plain method on its data.
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
        rows=[
            (
                _name(verdict),
                verdict.kind,
                *_cells(claims.claims[verdict.id], verdict, measured or {}),
                _baseline(verdict, (baselines or {}).get(verdict.id)),
                verdict.lane,
                _note(verdict),
            )
            for verdict in verdicts
        ],
    )


def _cells(
    claim: Claim,
    verdict: Verdict,
    measured: Mapping[str, Mapping[str, Mapping[int, float | bool | None]]],
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


def _baseline(verdict: Verdict, best: BestBaseline | None) -> str:
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
        done = counts(own)["reproduced"]
        parts.append(f"{done - lost} of the {done} also hold after Holm's correction")
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
    return [_title(claims), "", verdict_table(claims, verdicts), "", counting(verdicts)]


def _title(claims: Claims) -> str:
    return f"{claims.path.parent.name}  {claims.paper.title}"


def result_page(result: Result, *, request: str = "") -> Page:
    """All that came out of a paper's runs; `request` says how altered runs were altered."""
    claims = result.entry.claims
    title = f"{result.entry.slug}  {claims.paper.title}"
    if not result.verdicts:
        heading = f"altered runs{f' ({request})' if request else ''}: not judged as the paper's"
        return [title, "", heading, "", measured_table(result), *_with_blank(_failures(result))]
    table = verdict_table(
        claims,
        result.verdicts,
        measured=result.evidence.measured(),
        baselines=result.baselines,
    )
    lines = [*_evidence(result.evidence), *_failures(result), *_look_further(result)]
    return [title, "", table, *_with_blank(lines), "", counting(result.verdicts)]


def _with_blank(lines: list[str]) -> list[str]:
    return ["", *lines] if lines else []


def measured_table(result: Result) -> Table:
    """What runs measured, without any verdict."""
    rows = [
        (variant, name, *_summary(values), _metric_unit(result.entry.claims, name))
        for name, table in result.evidence.measured().items()
        for variant, values in table.items()
    ]
    return Table(
        heads=("variant", "metric", "measured", "runs", "unit"),
        right=frozenset({"measured", "runs"}),
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
    return f"{figure(mean)} ± {figure(sd)}", runs


def _evidence(evidence: Evidence) -> list[str]:
    """What the verdicts rest on."""
    local = [name for name, where in evidence.where.items() if where == "local"]
    committed = [name for name, where in evidence.where.items() if where == "committed"]
    lines = []
    if committed:
        of = number(len(committed), "variant")
        also = f"; {len(local)} from runs here" if local else "; nothing was run here"
        lines.append(f"evidence: committed records of {of}{also}")
    elif local:
        runs = number(len(evidence.records), "record")
        lines.append(f"evidence: {runs} of this machine")
    if evidence.stale:
        names = _some(evidence.stale)
        lines.append(f"stale: the code has changed since the committed records of {names}")
    if evidence.unreadable:
        count = number(len(evidence.unreadable), "record")
        first = evidence.unreadable[0]
        lines.append(f"set aside: {count} that cannot be read, such as {first}")
    return lines


def _some(names: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _failures(result: Result) -> list[str]:
    records = result.evidence.errors or tuple(result.errors)
    if not records:
        return []
    first = records[0]
    what = f"the first {first.variant}, seed {first.seed}: {last_line(first)}"
    return [f"failed: {number(len(records), 'run')}, {what}"]


def last_line(record: Record) -> str:
    """The line of a failed run's error that says what it was."""
    lines = (record.error or "").strip().splitlines()
    return lines[-1] if lines else "no reason was recorded"


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


def to_json(result: Result) -> dict[str, Any]:
    """The result as strict JSON takes it."""
    evidence = result.evidence
    table = {
        "paper": result.entry.slug,
        "claims": verdicts_json(result.verdicts, result.baselines),
        "counts": counts(result.verdicts),
        "evidence": dict(evidence.where),
        "stale": list(evidence.stale),
        "unreadable": [str(path) for path in evidence.unreadable],
        "errors": [
            {"variant": r.variant, "seed": r.seed, "error": last_line(r)}
            for r in evidence.errors or result.errors
        ],
    }
    if not result.verdicts:
        table["measured"] = plain(evidence.measured())
    return table


def verdicts_json(
    verdicts: Iterable[Verdict], baselines: Mapping[str, BestBaseline] | None = None
) -> list[dict[str, Any]]:
    """Verdicts as strict JSON takes them, each with the best baseline of its claim."""
    from reimpl.verdict import to_json as one

    best = baselines or {}
    return [
        {**one(v), "best_baseline": asdict(best[v.id]) if v.id in best else None} for v in verdicts
    ]


def judged_json(claims: Claims, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Verdicts on numbers that came from somewhere else, as strict JSON takes them."""
    return {
        "paper": claims.path.parent.name,
        "claims": verdicts_json(verdicts),
        "counts": counts(verdicts),
    }


def plain(value: Any) -> Any:
    """Dataclasses, mappings and sequences as JSON knows them; infinities are words."""
    if isinstance(value, Printed | Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


# The README


def committed_result(entry: Entry) -> Result:
    """Verdicts from the committed records only."""
    from tempfile import TemporaryDirectory

    from reimpl.reproduction import judged

    with TemporaryDirectory() as nothing:
        return judged(entry, Path(nothing))


def markdown_table(result: Result) -> str:
    """The table of a README: what was published, what we measured, the verdict."""
    claims, measured = result.entry.claims, result.evidence.measured()
    heads = ["claim", "published", "ours", "unit", "runs", "margin"]
    heads += ["best baseline"] if result.baselines else []
    rows = []
    for verdict in result.verdicts:
        cells = _cells(claims.claims[verdict.id], verdict, measured)
        best = [_baseline(verdict, result.baselines.get(verdict.id)) or "-"]
        proxy = " (proxy)" if verdict.proxy else ""
        what = f"`{verdict.id}`{proxy}: {verdict.says} ({verdict.source})"
        rows.append([what, *cells, *(best if result.baselines else []), f"**{verdict.lane}**"])
    align = ["---", "---:", "---:", "---", "---:", "---:", *(["---:"] * bool(result.baselines))]
    lines = [[*heads, "verdict"], [*align, "---"], *rows]
    return "\n".join("| " + " | ".join(map(_escaped, cells)) + " |" for cells in lines)


def _escaped(cell: str) -> str:
    return " ".join(cell.replace("|", "\\|").split())


def rebuild_readme(entry: Entry, result: Result | None = None) -> str:
    """The README's text with its table made anew from the committed records.

    Raises:
        PaperError: there is no README, or it has no place for the table.
    """
    before, after = _around_table(entry)
    found = result or committed_result(entry)
    count = sum(record.part == "train" for record in found.evidence.records)
    made = f"{counting(found.verdicts)}. {number(count, 'committed run')}."
    return f"{before}{OPEN}\n{markdown_table(found)}\n\n{made}\n{CLOSE}{after}"


def _around_table(entry: Entry) -> tuple[str, str]:
    path = entry.folder / "README.md"
    where = f"{entry.slug}/README.md"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PaperError(f"{where}: cannot be read: {error.strerror}") from None
    before, first, rest = text.partition(OPEN)
    _, second, after = rest.partition(CLOSE)
    if not first or not second:
        raise PaperError(f"{where}: no place for the table; write the lines {OPEN} and {CLOSE}")
    return before, after


# Papers


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A paper in a list."""

    slug: str
    title: str
    year: int | None = None
    claims: int | None = None
    variants: int | None = None
    records: int | None = None
    """Committed ones."""
    broken: str | None = None


def listed(entries: Iterable[Entry]) -> list[Listed]:
    """What the list shows of each paper; a broken one does not take the others down."""
    return [_listed(entry) for entry in entries]


def _listed(entry: Entry) -> Listed:
    if entry.broken is not None:
        return Listed(slug=entry.slug, title="", broken=entry.broken)
    claims = entry.claims
    return Listed(
        slug=entry.slug,
        title=claims.paper.title,
        year=claims.paper.year,
        claims=len(claims.claims),
        variants=len(claims.variants),
        records=_line_count(entry.folder / "measured.jsonl"),
    )


def _line_count(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0


def list_page(papers: Sequence[Listed]) -> Page:
    """The papers that were found."""
    if not papers:
        return ["no papers; --papers DIR adds a folder of them"]
    rows = [
        (
            paper.slug,
            *(figure(n) if n is not None else "-" for n in (paper.claims, paper.variants)),
            "-" if paper.records is None else figure(paper.records),
            f"{paper.title} ({paper.year})" if paper.broken is None else f"broken: {paper.broken}",
        )
        for paper in papers
    ]
    heads = ("paper", "claims", "variants", "records", "title")
    broken = sum(paper.broken is not None for paper in papers)
    last = number(len(papers), "paper") + (f", {broken} broken" if broken else "")
    return [Table(heads=heads, rows=rows, right=frozenset(heads[1:4])), "", last]


def show_page(entry: Entry) -> Page:
    """What a paper is about, and what we do with it."""
    claims = entry.claims
    paper = claims.paper
    page: Page = [
        f"{entry.slug}  {paper.title}",
        f"  {', '.join(paper.authors)} ({paper.year}). {paper.url}",
        f"  {entry.folder}",
        "",
        _claims_table(claims),
        "",
        _variants_table(claims),
    ]
    if claims.sources:
        page += ["", _sources_table(claims)]
    if claims.deviations:
        rows = [
            (d.id, f"{d.we_do}; the paper: {d.paper_says}; because {d.because}")
            for d in claims.deviations
        ]
        page += ["", Table(heads=("deviation", "what we do otherwise"), rows=rows)]
    if claims.gaps:
        rows = [
            (g.id, f"{g.we_do}; because {g.because}; or: {', '.join(g.alternatives)}")
            for g in claims.gaps
        ]
        page += ["", Table(heads=("gap", "what we chose where the paper is silent"), rows=rows)]
    sizes = number(len(claims.claims), "claim"), number(len(claims.variants), "variant")
    more = number(len(claims.deviations), "deviation"), number(len(claims.gaps), "gap")
    return [*page, "", ", ".join((*sizes, *more))]


def _claims_table(claims: Claims) -> Table:
    rows = [
        (
            f"{c.id} (proxy)" if c.proxy else c.id,
            kind_of(c),
            "-" if c.proxy else str(getattr(c, "published", "-")),
            claims.metrics[c.metric].unit,
            c.cost,
            f"{c.says} ({c.source})" + (f"; needs {c.needs}" if c.needs else ""),
        )
        for c in claims.claims.values()
    ]
    heads = ("claim", "kind", "published", "unit", "cost", "what the paper says")
    return Table(heads=heads, rows=rows, right=frozenset({"published"}))


def _variants_table(claims: Claims) -> Table:
    rows = [
        (v.id, "1" if v.deterministic else str(v.seeds), v.task, f"{v.says} ({v.source})")
        for v in claims.variants.values()
    ]
    heads = ("variant", "runs", "task", "what it is")
    return Table(heads=heads, rows=rows, right=frozenset({"runs"}))


def _sources_table(claims: Claims) -> Table:
    rows = [
        (s.name, s.hub, s.revision[:12], ", ".join(f"{k} {n:,}" for k, n in s.splits.items()))
        for s in claims.sources.values()
    ]
    return Table(heads=("data", "hub", "revision", "rows"), rows=rows)


def claim_page(claims: Claims, name: str) -> Page:
    """One claim in full, with its margin and the reason for it."""
    table = claim_json(claims, name)
    rows = [(key, _worded(value)) for key, value in table.items() if value not in (None, False, [])]
    return [Table(heads=("claim", name), rows=rows)]


def _worded(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def claim_json(claims: Claims, name: str) -> dict[str, Any]:
    """One claim in full; the margin is the one that is used."""
    from reimpl.verdict import default_margin

    claim = claims.claim(name)
    metric = claims.metrics[claim.metric]
    margin, reason = default_margin(claim, metric)
    own = {"kind": kind_of(claim), **plain(claim)}
    used = {"margin": margin, "margin_reason": reason or claim.margin_reason}
    if isinstance(claim, Order) and margin is None:
        used["margin_reason"] = "none: a sign-flip test of the paired differences decides"
    definition = {"unit": metric.unit, "better": metric.better, "definition": metric.definition}
    return {**own, **used, **definition}


def show_json(entry: Entry) -> dict[str, Any]:
    """A paper as data, with the margins that are used."""
    claims = entry.claims
    return {
        "paper": entry.slug,
        "folder": str(entry.folder),
        "citation": plain(claims.paper),
        "claims": [claim_json(claims, name) for name in claims.claims],
        "variants": plain(tuple(claims.variants.values())),
        "metrics": plain(tuple(claims.metrics.values())),
        "data": plain(tuple(claims.sources.values())),
        "deviations": plain(claims.deviations),
        "gaps": plain(claims.gaps),
    }


# Plans


def plan_page(plan: Plan, workers: int) -> Page:
    """What would run, what is kept already, and how long it takes here."""
    rows = [
        (
            planned.variant,
            planned.part,
            figure(len(planned.seeds)),
            figure(len(planned.cached)),
            figure(_to_run(planned)),
            _clock(planned),
            planned.basis,
        )
        for planned in plan.planned
    ]
    heads = ("variant", "part", "seeds", "cached", "to run", "time h:mm:ss", "estimated from")
    table = Table(heads=heads, rows=rows, right=frozenset(heads[2:6]))
    page: Page = (
        [_title(plan.entry.claims), "", table, ""] if rows else [_title(plan.entry.claims), ""]
    )
    if plan.left_out:
        page += [f"left out: {name}, {why}" for name, why in plan.left_out.items()] + [""]
    return [*page, plan_line(plan, workers)]


def _to_run(planned: Planned) -> int:
    return sum(len(job.seeds) for job in planned.jobs)


def _clock(planned: Planned) -> str:
    """Hours, minutes and seconds on one core; a question mark where nothing is known."""
    if not planned.jobs:
        return "-"
    if planned.seconds is None:
        return "?"
    seconds = math.ceil(planned.seconds)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def plan_line(plan: Plan, workers: int) -> str:
    """The plan in one line."""
    variants = {planned.variant for planned in plan.planned if planned.part != "counts"}
    runs = sum(map(_to_run, plan.planned))
    cached = sum(len(planned.cached) for planned in plan.planned)
    what = f"{number(len(variants), 'variant')}, {number(runs, 'run')} to make, {cached:,} cached"
    if not runs:
        return f"{what}; nothing to run"
    return f"{what}; {_time(plan, workers)}"


def _time(plan: Plan, workers: int) -> str:
    left = [planned for planned in plan.planned if planned.jobs]
    unknown = sum(planned.seconds is None for planned in left)
    on = number(workers, "worker")
    if unknown == len(left):
        return f"the time on {on} is not known before the first run"
    about = f"about {duration(plan.seconds(workers))} on {on}"
    return f"{about}, and {unknown} of unknown time" if unknown else about


def plan_json(plan: Plan, workers: int) -> dict[str, Any]:
    """The plan as strict JSON takes it."""
    return {
        "paper": plan.entry.slug,
        "planned": [
            {
                "variant": planned.variant,
                "part": planned.part,
                "seeds": list(planned.seeds),
                "cached": sorted(record.seed for record in planned.cached),
                "to_run": sorted(seed for job in planned.jobs for seed in job.seeds),
                "seconds": planned.seconds,
                "basis": planned.basis,
            }
            for planned in plan.planned
        ],
        "left_out": dict(plan.left_out),
        "workers": workers,
        "seconds": plan.seconds(workers),
    }


def why_page(reasons: Mapping[str, Sequence[str]]) -> Page:
    """Why runs would be made again, those of one variant and reason together."""
    if not reasons:
        return ["nothing would run again: every record is of the code and claims as they are"]
    together: dict[tuple[str, str], list[int]] = {}
    for run, why in reasons.items():
        variant, _, seed = run.rpartition(", seed ")
        together.setdefault((variant, "; ".join(why)), []).append(int(seed))
    rows = [(variant, _spans(seeds), why) for (variant, why), seeds in together.items()]
    table = Table(heads=("variant", "seeds", "why"), rows=rows, right=frozenset({"seeds"}))
    return [table, "", f"{number(len(reasons), 'run')} to make"]


def _spans(seeds: Sequence[int]) -> str:
    """Seeds in short: 0, 1, 2, 5 is `0-2, 5`."""
    spans: list[list[int]] = []
    for seed in sorted(seeds):
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


# Data, checks


def data_page(facts: Sequence[SplitFacts]) -> Page:
    """Datasets that were fetched and verified."""
    if not facts:
        return ["this paper names no data: it makes its own"]
    rows = [
        (
            f.name,
            f.split,
            figure(f.rows),
            f"{f.bytes / 1e6:,.1f}",
            "as claims.toml says" if f.declared else "not declared",
            f.sha256,
        )
        for f in facts
    ]
    heads = ("data", "split", "rows", "MB", "checksum", "sha256")
    total = sum(f.bytes for f in facts) / 1e6
    return [
        Table(heads=heads, rows=rows, right=frozenset({"rows", "MB"})),
        "",
        f"{number(len(facts), 'split')}, {total:,.1f} MB decoded",
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A line of `doctor` or `check`."""

    what: str
    state: str
    """`ok`, `warn` or `fails`."""
    detail: str = field(default="")


def checks_page(checks: Sequence[Check]) -> Page:
    """What was looked at, and how it is."""
    rows = [(check.what, check.state, check.detail) for check in checks]
    found = Counter(check.state for check in checks)
    line = ", ".join(f"{found[state]} {state}" for state in ("ok", "warn", "fails") if found[state])
    return [Table(heads=("what", "state", "detail"), rows=rows), "", line]
