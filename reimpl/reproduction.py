"""The one orchestrator: plan → engine → records → verdicts."""

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from itertools import pairwise

from reimpl import registry
from reimpl.claims import Claim, Claims, Exact, own_variants_of
from reimpl.engines import Event, Run
from reimpl.errors import DataError, RequestError
from reimpl.evidence import Evidence, Result, gather, judged, spent_on
from reimpl.jobs import failed
from reimpl.keys import changed
from reimpl.logger import RunLogger
from reimpl.planning import (
    PROBES,
    Plan,
    Probes,
    Request,
    engine,
    metrics_of,
    open_data,
    plan,
    wanted,
)
from reimpl.records import RUN, Record, Store
from reimpl.verdict import DECIDED, LOOKS, Verdict

Watch = Callable[[Event], None]
"""Is shown every `Event`."""
Say = Callable[[str], None]
"""Is told a line."""


def plans(
    request: Request,
    *,
    estimate: bool = True,
    probes: Probes = PROBES,
    say: Say = lambda _line: None,
) -> Iterator[Plan]:
    """The plan; with `auto` seeds one for each look, made from the records there are by then.

    Args:
        request: what is wanted.
        estimate: as for `plan`.
        probes: as for `plan`.
        say: as for `looks`.
    """
    if request.seeds != "auto":
        yield plan(request, estimate=estimate, probes=probes)
        return
    until = _deadline(request)
    for look in looks(request, say=say):
        left = None if request.budget_s is None else until - time.monotonic()
        if left is not None and left <= 0:
            return
        yield plan(replace(look, budget_s=left), estimate=estimate, probes=probes)


def _deadline(request: Request) -> float:
    return math.inf if request.budget_s is None else time.monotonic() + request.budget_s


def reproduce(
    request: Request,
    *,
    watch: Watch = lambda _event: None,
    planned: Iterable[Plan] | None = None,
    run: Run | None = None,
    say: Say = lambda _line: None,
) -> Result:
    """Run what is not yet recorded, then judge.

    Args:
        request: what is wanted.
        watch: is shown every event, for progress.
        planned: the plans, when the caller wants to see each before it is run.
        run: runs the jobs, where it is at hand (`engine`).
        say: is told what goes wrong with tracking, when the budget is spent, and what looks leave
            out.

    Raises:
        ReimplError: the user's mistake; runs that fail are records, not exceptions.
    """
    from reimpl.tracking import Tracker, check_mode

    mode, until = check_mode(request.wandb), _deadline(request)
    kept: list[Record] = []
    fresh: list[Record] = []
    with (
        _leading(request),
        Tracker(request.root, mode, say=say) as tracker,
        nullcontext(run) if run else engine(request) as run_jobs,
    ):
        logger: RunLogger | None = None
        made: Plan | None = None
        probes = Probes(run=run_jobs)
        for made in planned or plans(request, estimate=False, probes=probes, say=say):
            if made.missing:
                raise DataError(made.missing)
            kept += [record for p in made.planned for record in p.cached]
            if jobs := made.jobs:
                logger = RunLogger(tracker, made.entry, root=request.root, cost=request.cost)
                open_data(made.entry.claims, jobs)
                with closing(run_jobs(jobs, made.room, until=until)) as events:
                    done = list(_recorded(events, request, watchers=(logger.see, watch)))
                fresh += [record for records in done for record in records]
                if len(done) < len(jobs):
                    left = sum(len(job.seeds) for job in jobs) - sum(map(len, done))
                    say(f"the budget is spent; {goes_on(request)}, {left:,} left to run")
                    break
        if request.altered:
            result = _altered(request, [*kept, *fresh], fresh)
        else:
            result = result_of(request, made=made, fresh=fresh)
        if logger is not None:
            logger.verdict(result)
    return result


def goes_on(request: Request) -> str:
    """How what was cut off is taken up again."""
    return f"{'without --force, ' if request.force else ''}the same command goes on"


def _leading(request: Request) -> AbstractContextManager[None]:
    if request.num_nodes == 1:
        return nullcontext()
    from reimpl.sharing import leading  # late: torch

    return leading(request.num_nodes)


def _recorded(
    events: Iterable[Event], request: Request, *, watchers: Sequence[Watch]
) -> Iterator[list[Record]]:
    """The records of each job as it ends."""
    for event in events:
        if event.kind == "refused":
            raise event.contents["error"]
        if event.kind == "lost":
            records = failed(event.job, event.contents["why"])
            Store(request.root).write_many(records)
            event = replace(event, contents={"result": records})
        for see in watchers:
            see(event)
        if event.kind in ("done", "lost"):
            yield event.contents["result"]


def looks(request: Request, *, say: Say = lambda _line: None) -> Iterator[Request]:
    """The steps of the sequential mode: each asks for the claims that are not decided yet.

    The next one is made when it is asked for, from the records that are there by then. Where plain
    methods are to be fitted, the first asks for the decided claims, too, whose runs are there.

    Args:
        request: with `auto` seeds.
        say: is told which claims are left out and why, once.

    Raises:
        RequestError: runs that are altered by `--set` or `--model` are never judged.
    """
    if request.altered:
        raise RequestError("--seeds auto judges as it goes, and altered runs are never judged")
    entry, chosen = wanted(request)
    said = set[str]()
    for before, look in pairwise((0, *LOOKS)):
        here = judged(
            entry,
            request.root,
            first=before if request.force and before else None,  # those that were made now
            in_looks=True,
            committed=False,
        )
        lacking = {
            claim.id: _lacking(claim, entry.claims, request, here.evidence, look)
            for claim in _open(chosen, request, here.verdicts, before)
        }
        for name, why in lacking.items():
            if why and name not in said:
                say(f"left out: {name}: {why}")
                said.add(name)
        left = [claim for claim in chosen if lacking.get(claim.id) == ""]
        if left:
            names = tuple(claim.id for claim in left)
            needed = {name for claim in left for name in own_variants_of(claim)}
            yield replace(
                request,
                seeds=look,
                claims=names,
                variants=tuple(name for name in request.variants if name in needed),
                baselines=request.baselines and not before,
                tried=before,
            )


def _open(
    chosen: Sequence[Claim], request: Request, verdicts: Iterable[Verdict], before: int
) -> Sequence[Claim]:
    """The claims that a look asks for; the first asks for all, where more than runs are wanted."""
    if not before and (request.force or request.baselines):
        return chosen
    ended = {*DECIDED, "error"} if before else DECIDED  # a failed run may be tried once more
    over = {verdict.id for verdict in verdicts if verdict.lane in ended}
    left = [claim for claim in chosen if claim.id not in over]
    if before:
        left = [claim for claim in left if not isinstance(claim, Exact)]  # counted once
    return left


def _lacking(claim: Claim, claims: Claims, request: Request, evidence: Evidence, look: int) -> str:
    """Which variant of a claim is not asked for and has not the runs that a look takes."""
    others = set(own_variants_of(claim)) - set(request.variants) if request.variants else set()
    measured = evidence.measured.get(claim.metric, {})
    for name in sorted(others):
        variant = claims.variants[name]
        needed = set(range(variant.folds * (1 if variant.deterministic else look)))
        broken = {record.seed for record in evidence.errors if record.variant == name}
        made = needed & {*measured.get(name, ()), *broken}
        if made != needed:
            return f"{name}, which is not asked for, has {len(made)} of {len(needed)} runs"
    return ""


def _altered(request: Request, made: Sequence[Record], fresh: Sequence[Record]) -> Result:
    """Runs that are not the paper's, without verdicts, and those of its setting beside them."""
    entry = registry.find(request.paper, request.papers)
    ok = tuple(record for record in made if record.status == "ok")
    return Result(
        entry=entry,
        verdicts=(),
        evidence=Evidence(records=ok),
        unaltered=gather(entry, request.root).measured,
        fresh=tuple(fresh),
    )


def _asked(request: Request, verdict: Verdict) -> bool:
    """Whether the request names the claim or a variant of it; naming none means all."""
    if request.claims:
        return verdict.id in request.claims
    return not request.variants or bool(set(request.variants) & set(verdict.variants))


def result_of(
    request: Request,
    *,
    made: Plan | None = None,
    fresh: Sequence[Record] = (),
    first: int | None = None,
    committed: bool = True,
) -> Result:
    """Verdicts on what the request asks for, from the records there are.

    Args:
        request: with `auto` seeds they are those of the sequential mode, with what it took.
        made: the last plan, when there was one: what it read need not be read again.
        fresh: records made now.
        first: as for `judged`.
        committed: as for `judged`.
    """
    entry = made.entry if made else registry.find(request.paper, request.papers)
    auto = request.seeds == "auto"
    found = made.found if made and not fresh else None
    result = judged(
        entry, request.root, first=first, in_looks=auto, committed=committed, found=found
    )
    asked = tuple(verdict for verdict in result.verdicts if _asked(request, verdict))
    spent = spent_on(entry.claims, asked) if auto else None
    return replace(result, verdicts=asked, fresh=tuple(fresh), spent=spent)


def why_rerun(request: Request) -> dict[str, list[str]]:
    """Run (variant and seed) → in words, why `reproduce` would make it again."""
    made = plan(request, estimate=False)
    entry, chosen = wanted(request)
    same = {RUN(record): record for record in made.found.ok}
    before: dict[tuple[str, str, int], Record] = {}
    for record in sorted(made.found.ok, key=lambda record: record.started):
        before[record.part, record.variant, record.seed] = record
    reasons: dict[str, list[str]] = {}
    for job in made.jobs:
        metrics = metrics_of(chosen, entry.claims.variants[job.variant], job.part)
        for seed, key, parts in zip(job.seeds, job.keys, job.key_parts, strict=True):
            run = job.part, job.recorded_as, seed
            old = same.get((*run, key)) or before.get(run)
            why = ["not run here yet"] if old is None else _why(old, parts, metrics)
            reasons[f"{job.recorded_as}, seed {seed}"] = why
    return reasons


def _why(old: Record, parts: Mapping[str, str], metrics: Collection[str]) -> list[str]:
    """In words, why a recorded run would be made again."""
    lacking = sorted(set(metrics) - old.measurements.keys())
    before = [f"recorded before the metric '{name}' was defined" for name in lacking]
    return changed(old.key_parts, parts) or before or ["--force was given"]
