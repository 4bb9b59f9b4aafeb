"""Papers, plans, data and checks as tables and as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reimpl.claims import RIVALS, Claims, Order, Variant, kind_of
from reimpl.report.text import Page, Table, duration, figure, gigabytes, number, plain, some, title

if TYPE_CHECKING:
    from reimpl.data import SplitFacts
    from reimpl.estimates import Planned
    from reimpl.planning import Plan
    from reimpl.registry import Entry


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
        (
            *(v.id, _runs(v), v.dataset),
            f"{v.says} ({v.source})" + (f"; {RIVALS}/{v.rival}.py" if v.rival else ""),
        )
        for v in claims.variants.values()
    ]
    heads = ("variant", "runs", "dataset", "what it is")
    return Table(heads=heads, rows=rows, right=frozenset({"runs"}))


def _runs(variant: Variant) -> str:
    seeds = "1" if variant.deterministic else str(variant.seeds)
    return f"{seeds} x {variant.folds} folds" if variant.folds > 1 else seeds


def _sources_table(claims: Claims) -> Table:
    rows = [
        (
            s.name,
            s.hub,
            s.revision[:12],
            ", ".join(f"{k} {n:,}" for k, n in s.splits.items()) or number(len(s.files), "file"),
        )
        for s in claims.sources.values()
    ]
    return Table(heads=("data", "hub", "revision", "rows"), rows=rows)


def claim_page(claims: Claims, name: str) -> Page:
    """One claim in full, with its margin and the reason for it."""
    table = claim_json(claims, name)
    del table["id"]  # it is the heading
    rows = [(key, _worded(value)) for key, value in table.items() if value not in (None, False, [])]
    return [Table(heads=("claim", name), rows=rows)]


def _worded(value: Any) -> str:
    if isinstance(value, float):
        return figure(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def claim_json(claims: Claims, name: str) -> dict[str, Any]:
    """One claim in full; the margin is the one that is used."""
    from reimpl.judging import default_margin

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


def plan_page(plan: Plan) -> Page:
    """What would run, what is kept already, and what it takes here."""
    rows = [
        (
            some(planned.variant.split(", ")),
            planned.part,
            figure(len(planned.seeds)),
            figure(len(planned.cached)),
            figure(_to_run(planned)),
            _clock(planned),
            *_needs(planned),
            planned.basis,
        )
        for planned in plan.planned
    ]
    heads = (
        *("variant", "part", "seeds", "cached", "to run", "time h:mm:ss"),
        *("threads", "memory", "FLOPs", "estimated from"),
    )
    table = Table(heads=heads, rows=rows, right=frozenset(heads[2:9]))
    page: Page = (
        [title(plan.entry.claims), "", table, ""] if rows else [title(plan.entry.claims), ""]
    )
    if plan.left_out:
        page += [*left_out(plan), ""]
    return [*page, plan_line(plan)]


def left_out(plan: Plan) -> list[str]:
    """The claims that are not settled, a line for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, why in plan.left_out.items():
        reasons.setdefault(why, []).append(name)
    return [f"left out: {some(names)}: {why}" for why, names in reasons.items()]


def _to_run(planned: Planned) -> int:
    return sum(len(job.seeds) for job in planned.jobs)


def _clock(planned: Planned) -> str:
    """Hours, minutes and seconds one after another; a question mark where nothing is known."""
    if not planned.jobs:
        return "-"
    if planned.seconds is None:
        return "?"
    seconds = math.ceil(planned.seconds)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _needs(planned: Planned) -> tuple[str, str, str]:
    """Threads and memory of a job, and the operations of all."""
    if not planned.jobs or planned.part == "counts":
        return "-", "-", "-"
    job = planned.jobs[0]
    threads = f"{job.threads}, compiled" if job.compiled else str(job.threads)
    return threads, gigabytes(job.memory_mb), _flops(planned.flops)


def _flops(count: float | None) -> str:
    return "?" if count is None else f"{count:.1e}"


def plan_line(plan: Plan) -> str:
    """The plan in one line."""
    variants = {planned.variant for planned in plan.planned if planned.part != "counts"}
    runs = sum(map(_to_run, plan.planned))
    cached = sum(len(planned.cached) for planned in plan.planned)
    what = f"{number(len(variants), 'variant')}, {number(runs, 'run')} to make, {cached:,} cached"
    later = f"; {_beyond(plan)}" if plan.beyond_s else ""
    if not runs:
        return f"{what}; nothing to run{later}"
    return f"{what}; {_time(plan)}, {_size(plan)}{later}"


def _time(plan: Plan) -> str:
    from reimpl.engines import at_once
    from reimpl.estimates import wall_seconds

    left = [planned for planned in plan.planned if planned.jobs]
    unknown = sum(planned.seconds is None for planned in left)
    workers = len(at_once(plan.jobs, plan.room))
    on = number(workers, "worker")
    if unknown == len(left):
        return f"the time on {on} is not known before the first run"
    seconds = wall_seconds(left, plan.room)
    about = f"{'about ' if seconds >= 1 else ''}{duration(seconds)} on {on}{_by(left)}"
    return f"{about}, and {unknown} of unknown time" if unknown else about


def _by(left: Sequence[Planned]) -> str:
    """What the time rests on, where that is not this machine."""
    from reimpl.estimates import ELSEWHERE

    known = [p.basis.startswith(ELSEWHERE) for p in left if p.seconds and p.part != "counts"]
    if not any(known):
        return ""
    return f" ({'' if all(known) else 'in part '}by {ELSEWHERE})"


def _size(plan: Plan) -> str:
    from reimpl.estimates import peak_memory_mb

    memory = f"{gigabytes(peak_memory_mb(plan.planned, plan.room))} of memory"
    known = [planned.flops for planned in plan.planned if planned.flops]
    return f"{memory}, {_flops(sum(known))} FLOPs" if known else memory


def _beyond(plan: Plan) -> str:
    """What the budget leaves for another time."""
    return f"about {duration(plan.beyond_s)} of work beyond the budget"


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as strict JSON takes it."""
    from reimpl.engines import at_once
    from reimpl.estimates import peak_memory_mb, wall_seconds

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
                "threads": planned.jobs[0].threads if planned.jobs else None,
                "compiled": planned.jobs[0].compiled if planned.jobs else None,
                "memory_mb": planned.jobs[0].memory_mb if planned.jobs else None,
                "flops": planned.flops,
                "basis": planned.basis,
            }
            for planned in plan.planned
        ],
        "left_out": dict(plan.left_out),
        "workers": len(at_once(plan.jobs, plan.room)),
        "seconds": wall_seconds(plan.planned, plan.room),
        "memory_mb": peak_memory_mb(plan.planned, plan.room),
        "beyond_budget_s": plan.beyond_s,
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
