"""What a request comes to: which runs, which of them are recorded, what the rest takes."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

from reimpl import registry
from reimpl.claims import (
    COSTS,
    Claim,
    Claims,
    Cost,
    Exact,
    Metric,
    Scalar,
    Variant,
    own_variants_of,
)
from reimpl.collecting import no_collecting
from reimpl.engines import Event, Room, Run, check_ray, room
from reimpl.errors import RequestError
from reimpl.estimates import Estimator, Planned, Probing, Tell, Want, within
from reimpl.evidence import current_keys, judged
from reimpl.jobs import Job, JobPart, check_shared, sources_read
from reimpl.keys import Keys
from reimpl.records import RUN, Record, Records, Store, read_measured
from reimpl.registry import Entry
from reimpl.verdict import DECIDED, LOOKS

BASELINE_SEEDS = 5
"""Runs of a baseline where a split is small; with a thousand test items one run says enough."""
SMALL_SPLIT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody wants reproduced."""

    paper: str
    papers: tuple[Path, ...] = ()
    """Folders of papers that are not installed."""
    variants: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    seeds: int | Literal["auto"] | None = None
    """Runs of each variant instead of the variant's own number; `auto` looks at 3, 5, 8, 12 and 20
    seeds and stops each claim as soon as it is decided."""
    cost: Cost = "minutes"
    """Claims that take more than this are left out."""
    budget_s: float | None = None
    """Seconds that the whole may take: what fits is run, the cheapest undecided claims first."""
    workers: int | None = None
    device: str = "cpu"
    devices: int = 1
    """Processes on each node, each with a device, that share every training."""
    num_nodes: int = 1
    """Machines on which they are; MASTER_ADDR, MASTER_PORT and NODE_RANK say which is which."""
    wandb: str = "auto"
    overrides: Mapping[str, Scalar] = field(default_factory=dict)
    model: str | None = None
    force: bool = False
    tried: int = 0
    """Seeds below it are not made again, by `force` or because they failed: an earlier look of the
    same command made them."""
    baselines: bool = False
    engine: Literal["processes", "inprocess", "ray"] = "processes"
    address: str | None = None
    """`HOST:PORT` of a Ray cluster; `RAY_ADDRESS`, or one that is started here."""
    runs: Path | None = None
    """Folder of the records; `REIMPL_RUNS`, or `runs` here."""

    @property
    def root(self) -> Path:
        """The folder of the records."""
        return (self.runs or Path(os.environ.get("REIMPL_RUNS", "runs"))).absolute()

    @property
    def cluster(self) -> str | None:
        """Where the Ray cluster answers, when one is not to be started here."""
        if self.engine != "ray":
            return None
        return self.address or os.environ.get("RAY_ADDRESS") or None

    @property
    def altered(self) -> bool:
        """Its runs are not the paper's and are never judged as such."""
        return bool(self.overrides) or self.model is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that `reproduce` would do."""

    request: Request
    entry: Entry
    planned: tuple[Planned, ...]
    room: Room
    """What its jobs may take at once."""
    left_out: Mapping[str, str]
    """Claim → why it is not settled here."""
    beyond_s: float = 0.0
    """Seconds of the work that the budget leaves out, as far as they are known."""
    missing: str | None = None
    """Why there are no data to try anything on, when there are none."""
    unanswered: str | None = None
    """Why the room is that of this machine, where a cluster should have answered."""
    found: Records
    """What was recorded here when it was made."""

    @property
    def jobs(self) -> list[Job]:
        """In the order of work: what is quick to count first, then long before short.

        Within a budget it is that of the claims that share it out.
        """
        order = self.planned
        if self.request.budget_s is None:
            order = sorted(order, key=lambda p: (p.part != "counts", -(p.seconds or 0.0)))
        return [job for planned in order for job in planned.jobs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """The short probes by which a plan says how long it takes."""

    of: Probing = "here"
    """What is probed; what is not goes by the records of another machine, where there are any."""
    run: Run | None = None
    """Makes them, where it is at hand (`engine`)."""
    tell: Tell = lambda _made, _of: None
    """Is told how many are made."""


PROBES = Probes()


def plan(request: Request, *, estimate: bool = True, probes: Probes = PROBES) -> Plan:
    """What `reproduce` would do.

    Args:
        request: what is wanted.
        estimate: say how long it takes.
        probes: what is tried for a moment to that end.

    Raises:
        ReimplError: an unknown paper, variant, claim or key; data that are not at hand.
    """
    return _Planner(request, probes).plan(estimate=estimate)


def wanted(request: Request) -> tuple[Entry, list[Claim]]:
    """The paper, and its claims that are asked for and can be settled at this cost."""
    planner = _Planner(request)
    return planner.entry, planner.chosen[0]


def metrics_of(claims: Iterable[Claim], variant: Variant, part: JobPart) -> frozenset[str]:
    """The metrics of claims that runs of a variant lack when they came before the metric.

    The harness keeps what `claims.toml` names, whose names are in no key; a way to train of a
    paper's own says itself what it measures, and its code is in the key.
    """
    if part == "baseline" or (part == "train" and variant.recipe is None):
        return frozenset()
    return frozenset(
        claim.metric
        for claim in claims
        if isinstance(claim, Exact) == (part == "counts") and variant.id in own_variants_of(claim)
    )


class _Planner:
    def __init__(self, request: Request, probes: Probes = PROBES) -> None:
        self.request, self.probes = request, probes
        self.missing: str | None = None
        self.unanswered: str | None = None
        self.entry = registry.find(request.paper, request.papers)
        self.entry.check_packages()
        self.claims = self.entry.claims
        if request.engine == "ray":
            check_ray(request.device, request.devices * request.num_nodes)
        else:
            _check_device(request)
        if request.model:
            from reimpl.jobs import own_model

            own_model(request.model)  # a mistake shows now, not in a worker

    @cached_property
    def room(self) -> Room:
        """Of the cluster where one answers; one that does not is told of when runs are made."""
        asked = self.request
        if asked.cluster:
            from reimpl.engines import cluster

            try:
                return cluster.room_at(asked.cluster, most=asked.workers, device=asked.device)
            except RequestError as error:
                self.unanswered = str(error)
        return room(
            asked.workers, device=asked.device, devices=asked.devices, nodes=asked.num_nodes
        )

    def plan(self, *, estimate: bool) -> Plan:
        chosen, left_out = self.chosen
        planned = [
            p for p in (self.counts(chosen), *self.trainings(chosen), *self.baselines(chosen)) if p
        ]
        if estimate or self.request.budget_s is not None:
            planned = self.estimated(planned)
        fitting, beyond = self.within_budget(planned, chosen)
        work = sum(p.seconds or 0.0 for p in planned) - sum(p.seconds or 0.0 for p in fitting)
        return Plan(
            request=self.request,
            entry=self.entry,
            planned=tuple(fitting),
            room=self.room,
            left_out={**left_out, **beyond},
            beyond_s=work,
            missing=self.missing,
            unanswered=self.unanswered,
            found=self.found,
        )

    def within_budget(
        self, planned: Sequence[Planned], chosen: Sequence[Claim]
    ) -> tuple[Sequence[Planned], Mapping[str, str]]:
        """What fits: counts, then undecided claims, then decided ones, then what no claim needs."""
        if self.request.budget_s is None:
            return planned, {}
        here = judged(self.entry, self.request.root, committed=False).verdicts
        decided = {verdict.id for verdict in here if verdict.lane in DECIDED}
        wants = [
            Want(
                name=claim.id,
                variants=frozenset(own_variants_of(claim)),
                rank=1 + (claim.id in decided),
            )
            for claim in chosen
            if not isinstance(claim, Exact)
        ]
        claimed = {variant for want in wants for variant in want.variants}
        wants += [
            Want(name=p.label, variants=frozenset({p.label}), rank=3 * (p.part != "counts"))
            for p in planned
            if p.label not in claimed
        ]
        return within(planned, wants, seconds=self.request.budget_s, room=self.room)

    @cached_property
    def chosen(self) -> tuple[list[Claim], dict[str, str]]:
        """The claims asked for that can be settled at this cost, and why the others are not."""
        variants = {self.claims.variant(name).id for name in self.request.variants}
        if self.request.claims:
            return [self.asked_for(name, variants) for name in self.request.claims], {}
        limit = COSTS.index(self.request.cost)
        chosen: list[Claim] = []
        left_out: dict[str, str] = {}
        for claim in self.claims.claims.values():
            if variants and not variants & set(own_variants_of(claim)):
                continue
            if claim.needs:
                left_out[claim.id] = f"needs {claim.needs}"
            elif COSTS.index(claim.cost) > limit:
                left_out[claim.id] = f"costs {claim.cost}: ask for it with --cost {claim.cost}"
            else:
                chosen.append(claim)
        return chosen, left_out

    def asked_for(self, name: str, variants: AbstractSet[str]) -> Claim:
        """A claim that is asked for by name, whatever it costs.

        Raises:
            RequestError: it cannot be settled, or not by these variants.
        """
        claim = self.claims.claim(name)
        uses = own_variants_of(claim)
        if claim.needs:
            raise RequestError(f"claim '{claim.id}' needs {claim.needs}")
        if variants and variants.isdisjoint(uses):
            other = ", ".join(sorted(variants))
            raise RequestError(f"claim '{claim.id}' uses {', '.join(uses)}, not {other}")
        return claim

    def counts(self, chosen: Sequence[Claim]) -> Planned | None:
        names = {claim.variant: None for claim in chosen if isinstance(claim, Exact)}
        if not names or self.request.altered:
            return None
        parts = [self.planned(self.claims.variants[name], (0,), "counts") for name in names]
        return Planned(
            variant=", ".join(names),
            part="counts",
            seeds=(0,),
            cached=tuple(r for p in parts for r in p.cached),
            jobs=tuple(job for p in parts for job in p.jobs),
        )

    def trainings(self, chosen: Sequence[Claim]) -> list[Planned]:
        names = dict.fromkeys(self.request.variants)
        if not names:
            names = dict.fromkeys(
                name
                for claim in chosen
                if not isinstance(claim, Exact)
                for name in own_variants_of(claim)
            )
        return [self.planned(v, self.seeds(v), "train") for v in map(self.claims.variant, names)]

    def seeds(self, variant: Variant) -> tuple[int, ...]:
        """Run numbers; the folds of a cross-validation are runs of their own."""
        asked = self.request.seeds
        if asked is None:
            asked = variant.seeds
        elif asked == "auto":
            asked = LOOKS[0]
        return tuple(range(variant.folds * (1 if variant.deterministic else asked)))

    def planned(
        self,
        variant: Variant,
        seeds: tuple[int, ...],
        part: JobPart,
        *,
        baseline: tuple[str, str] | None = None,
    ) -> Planned:
        """Cached records and jobs; the seeds of a vectorised variant are one job.

        A record without the metric of a claim came before the metric: its run is made again.
        """
        label = f"{baseline[0]} on {variant.id}" if baseline else variant.id
        keys = self.keys(variant, part, "/".join(baseline) if baseline else None)
        metrics = metrics_of(self.chosen[0], variant, part)
        cached, left, again = [], [], set[int]()
        for seed in seeds:
            run = part, label, seed, keys.key(seed)
            record = self.recorded.get(run)
            tried = seed < self.request.tried * variant.folds
            if record and (tried or self.spares(record, metrics)):
                cached.append(record)
            elif not tried or run not in self.failed:
                left.append(seed)
                again |= {seed} if record else set()
        together = variant.vectorised and part == "train"
        batches = [tuple(left)] if together and left else [(seed,) for seed in left]
        return Planned(
            variant=label,
            part=part,
            seeds=seeds,
            cached=tuple(cached),
            jobs=tuple(
                self.job(variant, b, part, keys, baseline=baseline, force=not again.isdisjoint(b))
                for b in batches
            ),
        )

    def spares(self, record: Record, metrics: frozenset[str]) -> bool:
        """Whether a record spares its run."""
        return not self.request.force and metrics <= record.measurements.keys()

    def keys(self, variant: Variant, part: JobPart, baseline: str | None = None) -> Keys:
        return current_keys(
            self.entry,
            variant,
            part,
            overrides=self.request.overrides,
            model=self.request.model,
            baseline=baseline,
        )

    def job(
        self,
        variant: Variant,
        seeds: tuple[int, ...],
        part: JobPart,
        keys: Keys,
        *,
        baseline: tuple[str, str] | None,
        force: bool,
    ) -> Job:
        pairs = [keys(seed) for seed in seeds]
        trains = part == "train"
        devices = self.request.devices if trains else 1
        nodes = self.request.num_nodes if trains else 1
        if devices * nodes > 1:
            check_shared(variant, devices * nodes)
        return Job(
            entry=self.entry,
            variant=variant.id,
            seeds=seeds,
            part=part,
            keys=tuple(found for found, _ in pairs),
            key_parts=tuple(parts for _, parts in pairs),
            root=self.request.root,
            overrides=self.request.overrides,
            model=self.request.model,
            device=self.request.device,
            devices=devices,
            nodes=nodes,
            memory_mb=(variant.memory_mb or self.claims.paper.memory_mb) * devices,
            force=force,
            baseline=baseline,
        )

    def baselines(self, chosen: Sequence[Claim]) -> list[Planned]:
        """Every baseline on each dataset and scored metric of the chosen claims."""
        if not self.request.baselines:
            return []
        from baselines import BASELINES

        if not scored(self.claims, chosen):
            raise RequestError(
                "--baselines: no metric of these claims has a `score`, which says how plain "
                "methods are judged"
            )
        return [
            self.baseline(self.claims.variants[name], metric, baseline.name)
            for name, metric in scored(self.claims, chosen)
            for baseline in BASELINES
        ]

    def baseline(self, variant: Variant, metric: Metric, name: str) -> Planned:
        seeds = tuple(range(1 if (metric.items or 0) >= SMALL_SPLIT else BASELINE_SEEDS))
        return self.planned(variant, seeds, "baseline", baseline=(name, metric.name))

    def estimated(self, planned: Sequence[Planned]) -> list[Planned]:
        estimator = Estimator(
            claims=self.claims,
            root=self.request.root,
            room=self.room,
            local=self.found.ok,
            committed=partial(read_measured, self.entry.folder / "measured.jsonl"),
            # what a node of a cluster would take, this machine cannot try
            probing="never" if self.request.cluster else self.probes.of,
            run=self.try_out,
            tell=self.probes.tell,
        )
        done = estimator.estimated(planned)
        self.missing = estimator.missing
        return done

    def try_out(self, jobs: Sequence[Job]) -> Iterator[Event]:
        open_data(self.claims, jobs)
        with self.prober() as run:
            yield from run(jobs, self.room)

    def prober(self) -> AbstractContextManager[Run]:
        if self.request.engine == "ray":  # which makes runs only
            return engine(replace(self.request, engine="processes"))
        return nullcontext(self.probes.run) if self.probes.run else engine(self.request)

    @cached_property
    def found(self) -> Records:
        return Store(self.request.root).read(self.entry.slug)

    @cached_property
    @no_collecting()
    def recorded(self) -> dict[tuple[str, str, int, str], Record]:
        return dict(zip(map(RUN, self.found.ok), self.found.ok, strict=True))

    @cached_property
    def failed(self) -> frozenset[tuple[str, str, int, str]]:
        return frozenset(map(RUN, self.found.errors))


def _check_device(request: Request) -> None:
    """A device that is not there shows now, not in every run."""
    name, count = request.device, request.devices
    if count * request.num_nodes > 1 and name not in ("cpu", "cuda"):
        raise RequestError(
            f"--device {name}: with --devices or --num-nodes, write --device cuda or cpu"
        )
    if name == "cpu":
        return
    import torch

    try:
        torch.zeros(1, device=name).item()  # `meta` holds nothing
    except (RuntimeError, AssertionError, NotImplementedError):
        raise RequestError(f"--device {name}: no such device here; see `reimpl doctor`") from None
    if name == "cuda" and (here := torch.cuda.device_count()) < count:
        raise RequestError(f"--devices {count}: there are {here} here; see `reimpl doctor`")


def open_data(claims: Claims, jobs: Iterable[Job]) -> None:
    """Fetch and decode every dataset once, before any worker does, when a job will want them.

    Raises:
        DataError: data are missing, or are not what the paper used.
    """
    from reimpl import data

    wanted = sources_read(claims, jobs)
    sources = data.load(wanted)
    for name in wanted:
        _ = sources[name]


def scored(claims: Claims, chosen: Sequence[Claim]) -> list[tuple[str, Metric]]:
    """The (variant, metric) pairs on which baselines are fitted: the first variant of each task."""
    first: dict[str, str] = {}
    for variant in claims.variants.values():
        first.setdefault(variant.dataset, variant.id)
    pairs: dict[tuple[str, str], None] = {}
    for claim in chosen:
        if claims.metrics[claim.metric].score:
            for name in own_variants_of(claim):
                pairs[first[claims.variants[name].dataset], claim.metric] = None
    return [(variant, claims.metrics[metric]) for variant, metric in pairs]


@contextmanager
def engine(request: Request) -> Iterator[Run]:
    """What the request's jobs are run by; what it starts, it keeps until the block ends."""
    if request.engine == "inprocess":
        from reimpl.engines import inprocess

        yield inprocess.run
    elif request.engine == "ray":
        from reimpl.engines import ray

        yield partial(ray.run, address=request.cluster, most=request.workers)
    else:
        from reimpl.engines import processes

        with processes.Team() as team:
            yield team.run
