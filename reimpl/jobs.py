"""One piece of work for an engine: a run, a batch of vectorised runs, a baseline, a count, a probe.

A job can be pickled; `execute` runs it wherever it lands and keeps the records itself, so that a
finished run is safe even when the process that asked for it has died.
"""

import importlib.util
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from inspect import signature
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reimpl.claims import RIVALS, USUAL_NUMBERS, Claims, Scalar, Source, Variant
from reimpl.environment import Clock, environment
from reimpl.errors import DivergenceError, ReimplError, RequestError, RunError, near
from reimpl.keys import code_digest
from reimpl.reading import apply_overrides
from reimpl.records import Record, Store
from reimpl.registry import Entry

if TYPE_CHECKING:
    import torch

    from reimpl.context import Emit, Outcome, RunContext, Trial
    from reimpl.paper import Fit, Paper
    from reimpl.sharing import Share

JobPart = Literal["train", "counts", "baseline", "probe"]
WAIT = 0.5
"""Seconds between looks at a run that another process is making."""
PROBE_SECONDS = 0.4
"""How long a probe trains."""
SHARED_TRIES = 2
"""How often a shared training is begun of which a process is killed."""
BASELINE_SECONDS = 240.0
"""Computing time that tuning and fitting one baseline may take."""
LARGEST = 1e150
"""Finite measurements beyond it overflow when they are squared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to run; several seeds mean one vectorised batch."""

    entry: Entry
    variant: str
    seeds: tuple[int, ...]
    part: JobPart = "train"
    keys: tuple[str, ...]
    key_parts: tuple[Mapping[str, str], ...]
    root: Path
    overrides: Mapping[str, Scalar] = field(default_factory=dict)
    model: str | None = None
    """`FILE.py:Class`, somebody's own model."""
    device: str = "cpu"
    threads: int = 1
    """Processor threads that each of its processes computes with."""
    compiled: bool = False
    """Whether steps are compiled where the recipe leaves that to a probe."""
    devices: int = 1
    """Processes on each node, each with a device, that share the training."""
    nodes: int = 1
    """Machines that share it."""
    memory_mb: float = 0.0
    """What it is thought to need at most, with all its processes."""
    baseline: tuple[str, str] | None = None
    """Name of the baseline and of the metric that it is scored by."""
    force: bool = False
    """Run even when there is a record already."""

    @property
    def name(self) -> str:
        """For people."""
        what = self.baseline[0] if self.baseline else self.variant
        if self.part != "train":
            return f"{what} ({self.part})"
        if len(self.seeds) > 1:
            return f"{what}, {len(self.seeds)} seeds"
        folds = self.entry.claims.variant(self.variant).folds
        seed, fold = divmod(next(iter(self.seeds)), folds)
        return f"{what}, seed {seed}" + (f", fold {fold} of {folds}" if folds > 1 else "")

    @property
    def processes(self) -> int:
        """That share it, on all nodes."""
        return self.devices * self.nodes

    @property
    def cores(self) -> int:
        """Processor threads of all its processes here."""
        return self.threads * self.devices

    @property
    def asked(self) -> Variant:
        """The variant as its overrides change it."""
        claims = self.entry.claims
        return apply_overrides(claims, claims.variant(self.variant), self.overrides)

    @property
    def settled(self) -> Variant:
        """That, with nothing left to a probe."""
        variant = self.asked
        if variant.recipe is None or variant.recipe.compiled != "auto":
            return variant
        return replace(variant, recipe=replace(variant.recipe, compiled=self.compiled))

    @property
    def recorded_as(self) -> str:
        """The variant that its records name; a baseline stands under its own name."""
        return f"{self.baseline[0]} on {self.variant}" if self.baseline else self.variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a short try says of a whole run or batch on this machine."""

    seconds: float
    memory_mb: float
    """What its process held at the end; a worker gives nothing back, so about the most, too."""
    flops: float | None = None
    compiling: float = 0.0
    """Seconds of the first steps of a training that is compiled; of the whole, a part."""
    error: str = ""
    """Why it broke."""


def sources_read(claims: Claims, jobs: Iterable[Job]) -> dict[str, Source]:
    """The datasets that jobs of one paper read, by name."""
    variants = {job.variant for job in jobs if job.part != "counts"}
    names = {name for v in variants for name in claims.sources_of(claims.variants[v])}
    return {name: claims.sources[name] for name in sorted(names)}


def execute(job: Job, emit: "Emit") -> list[Record] | Probe | None:
    """Do the job, with its number of threads, and keep its records.

    Returns:
        What came of it; `None` while another process makes the same runs.

    Raises:
        ReimplError: a mistake of the user's (no data, a paper that cannot be imported).
    """
    with computing(job.threads):
        return _probe_or_nothing(job) if job.part == "probe" else _executed(job, emit)


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Compute with so many threads, and take floats below 1.2e-38 for zero where the CPU can.

    Gradients that vanish over hundreds of steps pass through such denormal numbers, and an Intel
    core needs a hundred cycles for each.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def _executed(job: Job, emit: "Emit") -> list[Record] | None:
    with claim(job) as mine:
        if not mine:
            return None
        kept, left = undone(job)
        if left is None:
            return kept
        emit("started", {})
        fresh = attempt(left, emit)
        keep([(left, fresh)])
        return [*kept, *fresh]


def undone(job: Job) -> tuple[list[Record], Job | None]:
    """The records that there are already, and the job with what is left to do."""
    kept = {} if job.force else _kept(Store(job.root), job)
    left = [seed for seed in job.seeds if seed not in kept]
    return list(kept.values()), _only(job, left) if left else None


def keep(done: Sequence[tuple[Job, Sequence[Record]]]) -> None:
    """Write the records of jobs that are done, together, and remove checkpoints that have served.

    That of a failed job stays, for what stopped it may pass, as a full disk does.
    """
    for root in {job.root for job, _ in done}:
        store = Store(root)
        store.write_many(r for job, records in done if job.root == root for r in records)
    for job, records in done:
        if all(map(_settled, records)):
            for seed in job.seeds:
                _checkpoint(Store(job.root), job, seed).unlink(missing_ok=True)


def _settled(record: Record) -> bool:
    """Whether the run has ended as it would end again: with a result, or diverged."""
    return record.status == "ok" or (record.error or "").startswith(f"{DivergenceError.__name__}: ")


def failed(job: Job, why: str) -> list[Record]:
    """Records that say a job failed from outside: its process was killed."""
    clock = Clock()
    return [_make(job, seed, clock, error=why) for seed in job.seeds]


def claim(job: Job) -> AbstractContextManager[bool]:
    """Whether nobody else is making the same runs; the claim ends with the block.

    Seeds that train as one batch are claimed by their variant, one of them alone, too: another's
    batch may hold it.
    """
    together = job.part == "train" and job.entry.claims.variant(job.variant).vectorised
    return Store(job.root).claim(f"{job.entry.slug}-{job.variant}" if together else job.keys[0])


def _kept(store: Store, job: Job) -> dict[int, Record]:
    found = {}
    for seed, key in zip(job.seeds, job.keys, strict=True):
        record = store.find(
            paper=job.entry.slug, variant=job.recorded_as, seed=seed, key=key, part=_part(job)
        )
        if record is not None:
            found[seed] = record
    return found


def _part(job: Job) -> Literal["train", "counts", "baseline"]:
    return "train" if job.part == "probe" else job.part


def _only(job: Job, seeds: Sequence[int]) -> Job:
    places = [job.seeds.index(seed) for seed in seeds]
    return replace(
        job,
        seeds=tuple(seeds),
        keys=tuple(job.keys[i] for i in places),
        key_parts=tuple(job.key_parts[i] for i in places),
    )


def _checkpoint(store: Store, job: Job, seed: int) -> Path:
    key = job.keys[job.seeds.index(seed)]
    return store.checkpoint_path(paper=job.entry.slug, variant=job.variant, seed=seed, key=key)


def attempt(job: Job, emit: "Emit") -> list[Record]:
    """Run the job without keeping its records; what goes wrong in a run becomes its record.

    Nothing but checkpoints is read or written under `job.root`.
    """
    store, claims = Store(job.root), job.entry.claims
    variant = job.settled
    paper = _paper(job)
    _check_code(job)
    clock = Clock()
    try:
        if job.part == "counts":
            return [_make(job, job.seeds[0], clock, measurements=_counts(paper, variant, claims))]
        contexts = [_context(job, paper, variant, claims, seed, store, emit) for seed in job.seeds]
        for context in contexts:
            context.clock = clock
        if job.part == "baseline":
            return [_run_baseline(job, paper, claims, contexts[0], clock)]
        outcomes = _train(job, paper, variant, claims, contexts)
    except RunError as error:
        return [_make(job, seed, clock, error=_said(error)) for seed in job.seeds]
    except ReimplError:
        raise
    except Exception:
        return [_make(job, seed, clock, error=traceback.format_exc()) for seed in job.seeds]
    return [
        _make(job, context.seeds.run, clock, error=_said(outcome))
        if isinstance(outcome, RunError)
        else _make(job, context.seeds.run, clock, outcome=outcome, context=context)
        for context, outcome in zip(contexts, outcomes, strict=True)
    ]


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _train(
    job: Job, paper: "Paper", variant: Variant, claims: Claims, contexts: Sequence["RunContext"]
) -> "Sequence[Outcome | RunError]":
    from reimpl import training
    from reimpl.context import Outcome

    fit = paper.fit_of(variant)
    _check_own_way(variant, own_fit=fit is not None)
    if job.processes > 1:
        check_shared(variant, job.processes, own_fit=fit is not None)
        return [_train_shared(job, paper, variant, claims, contexts[0])]
    if fit is not None:
        return [Outcome(measurements=_checked(fit(variant, contexts[0]), claims))]
    if len(contexts) > 1:
        from reimpl import vectorised

        return vectorised.train(paper, variant, contexts, metrics=claims.metrics)
    return [training.train(paper, variant, contexts[0], metrics=claims.metrics)]


def check_shared(variant: Variant, processes: int, *, own_fit: bool = False) -> None:
    """Whether a variant's training can be shared among processes.

    Raises:
        RequestError: it can not.
    """
    why = "it trains in a way of its own" if own_fit or variant.recipe is None else None
    if variant.vectorised:
        why = "its seeds train as one batch"
    if why:
        raise RequestError(
            f"variant '{variant.id}' cannot be shared among {processes} processes: {why}"
        )


def _check_own_way(variant: Variant, *, own_fit: bool) -> None:
    """Whether a variant is trained with the numbers that its recipe asks for.

    Raises:
        RequestError: its way to train knows only the usual ones.
    """
    recipe = variant.recipe
    if recipe is None or not (own_fit or variant.vectorised):
        return
    why = "it trains in a way of its own" if own_fit else "its seeds train as one batch"
    for name, value in USUAL_NUMBERS.items():
        if getattr(recipe, name) != value:
            raise RequestError(f"variant '{variant.id}' has no '{name}' to change: {why}")


def _train_shared(
    job: Job, paper: "Paper", variant: Variant, claims: Claims, context: "RunContext"
) -> "Outcome":
    """Train with other processes; when one is killed, once more, from the checkpoint."""
    from reimpl import training
    from reimpl.sharing import LostRankError, shared

    tries = 0
    while True:
        tries += 1
        try:
            with shared(
                job, devices=job.devices, nodes=job.nodes, device=job.device
            ) as context.share:
                return training.train(paper, variant, context, metrics=claims.metrics)
        except LostRankError:
            if tries == SHARED_TRIES:
                raise
            context.curves = {}
            context.clock.begins_again()


def take_part(job: Job, share: "Share") -> None:
    """Train a share of a job as one of the processes that rank 0 has started; keep nothing.

    Raises:
        Exception: whatever goes wrong; rank 0 is told.
    """
    from reimpl import training
    from reimpl.sharing import joined

    claims = job.entry.claims
    variant = job.settled
    with computing(job.threads), joined(share, job.device):
        paper = _paper(job)
        _check_code(job)
        context = _context(
            job, paper, variant, claims, job.seeds[0], Store(job.root), lambda _k, _c: None
        )
        context.share, context.checkpoint_path = share, None
        context.device = _device(job, share)
        training.train(paper, variant, context, metrics=claims.metrics)


def _checked(measured: Mapping[str, Any], claims: Claims) -> dict[str, float | bool | None]:
    """A paper's own measurements: known metrics, as numbers."""
    for name in measured:
        if name not in claims.metrics:
            raise RunError(f"the paper measured '{name}', which claims.toml does not define")
    return {
        name: None if v is None else v if isinstance(v, bool) else float(v)
        for name, v in measured.items()
    }


def _counts(paper: "Paper", variant: Variant, claims: Claims) -> dict[str, float | bool | None]:
    if paper.counts is None:
        raise RunError(f"{paper.slug}: an exact claim needs the paper's `counts`")
    return {name: v for name, v in paper.counts(variant).items() if name in claims.metrics}


def _context(
    job: Job,
    paper: "Paper",
    variant: Variant,
    claims: Claims,
    seed: int,
    store: Store,
    emit: "Emit",
) -> "RunContext":
    from reimpl import data
    from reimpl.context import RunContext
    from reimpl.paper import Data, Seeds
    from reimpl.sharing import ALONE

    sources, seeds = data.load(claims.sources), Seeds.of_run(seed, variant.folds)
    rows = paper.data(variant, sources, seeds) if paper.data else Data(train=())
    alone = len(job.seeds) == 1
    first = seed == job.seeds[0]
    return RunContext(
        seeds=seeds,
        sources=sources,
        data=rows,
        device=_device(job, ALONE),
        emit=emit if alone else _progress_only(emit),
        checkpoint_path=_checkpoint(store, job, seed) if first else None,
        checkpoint_of=job.seeds,
    )


def _device(job: Job, share: "Share") -> "torch.device":
    """Of a shared training on GPUs, each process of a machine has one."""
    import torch

    several = job.processes > 1 and job.device == "cuda"
    return torch.device("cuda", share.local) if several else torch.device(job.device)


def _progress_only(emit: "Emit") -> "Emit":
    """A batch reports as one; its curves travel with its records."""
    return lambda kind, contents: emit(kind, contents) if kind == "progress" else None


def _run_baseline(
    job: Job, paper: "Paper", claims: Claims, context: "RunContext", clock: Clock
) -> Record:
    from baselines import BASELINES
    from reimpl.baselining import fit_baseline

    assert job.baseline is not None
    name, metric_name = job.baseline
    metric = claims.metrics[metric_name]
    assert metric.score is not None
    result = fit_baseline(
        next(baseline for baseline in BASELINES if baseline.name == name),
        context.data,
        prepare=paper.prepare,
        score=metric.score,
        split=metric.split,
        seed=context.seeds.integer("init") % 2**31,
        budget_s=BASELINE_SECONDS,
        progress=context.progress,
    )
    chosen = ", ".join(f"{key}={value}" for key, value in result.chosen.items())
    note = "; ".join(
        part for part in (chosen, f"{result.train_rows} training rows", result.note) if part
    )
    return _make(
        job, job.seeds[0], clock, measurements={metric_name: result.measurement}, note=note
    )


def _diverged(measured: Mapping[str, Any]) -> DivergenceError | None:
    """What is wrong with a run's numbers; an infinite one is a target never reached."""
    for name, value in measured.items():
        if value is not None and value != value:
            return DivergenceError(f"'{name}' is NaN")
        if value is not None and LARGEST < abs(value) < inf:
            return DivergenceError(f"'{name}' is beyond {LARGEST:g}, too large for any statistic")
    return None


def _make(
    job: Job,
    seed: int,
    clock: Clock,
    *,
    outcome: "Outcome | None" = None,
    context: "RunContext | None" = None,
    measurements: Mapping[str, float | bool | None] | None = None,
    error: str | None = None,
    note: str | None = None,
) -> Record:
    """A run's record; numbers that cannot be judged make it one of a failed run."""
    measured = dict(outcome.measurements if outcome else measurements or {})
    if (diverged := _diverged(measured)) is not None:
        return _make(job, seed, clock, error=_said(diverged))
    place = job.seeds.index(seed)
    wall, cpu = clock.took()
    share = len(job.seeds)  # a batch's time is shared out among its seeds
    if share > 1:
        note = f"one of {share} seeds trained as one batch"
    elif job.processes > 1:
        note = f"shared among {job.processes} processes"
    return Record(
        paper=job.entry.slug,
        variant=job.recorded_as,
        seed=seed,
        part=_part(job),
        status="ok" if error is None else "error",
        measurements=measured,
        key=job.keys[place],
        key_parts=dict(job.key_parts[place]),
        overrides=dict(job.overrides),
        model=job.model,
        curves={k: [list(point) for point in curve] for k, curve in context.curves.items()}
        if context
        else {},
        started=clock.started,
        wall_s=round(wall / share, 4),
        cpu_s=round(cpu / share, 4),
        parameters=outcome.parameters if outcome else None,
        flops=round(outcome.flops) if outcome and outcome.flops else None,
        environment={
            **environment(job.entry.folder),
            "device": job.device,
            **({"compiled": True} if job.compiled else {}),
        },
        error=error,
        note=note,
    )


def _paper(job: Job) -> "Paper":
    paper = job.entry.load()
    if job.model is None:
        return paper
    build = own_model(job.model)
    try:
        signature(build).bind()
    except (TypeError, ValueError):
        return replace(paper, model=build)
    return replace(paper, model=lambda _variant: build())


def _check_code(job: Job) -> None:
    """Whether the code that this process has imported is what the job's key says.

    Raises:
        RequestError: it was changed after the one or the other.
    """
    imported, folder = _imported(job.entry.folder), job.entry.folder
    read = {"paper_code": imported[folder]}
    rival = job.entry.claims.variant(job.variant).rival
    if job.model is not None:
        file, _, name = job.model.partition(":")
        read["model"] = f"{code_digest(Path(file))} {name}"
    elif rival is not None:
        read["model"] = imported.get(folder / RIVALS / f"{rival}.py", "")
    if job.part == "baseline":  # the model is one of ours
        read.pop("model", None)
    if not read.items() <= job.key_parts[0].items():
        raise RequestError(
            f"{job.entry.slug}: the paper's code changed while it ran; run the command again"
        )


@cache
def _imported(folder: Path) -> Mapping[Path, str]:
    """What a paper and its rivals said when this process first imported them, as it does once."""
    return {place: code_digest(place) for place in (folder, *(folder / RIVALS).glob("*.py"))}


def own_model(spec: str) -> Any:
    """The class that `FILE.py:Class` names.

    Raises:
        RequestError: no such file or class, or the file cannot be imported.
    """
    path, _, name = spec.partition(":")
    file = Path(path)
    if not name or not file.is_file():
        raise RequestError(f"--model {spec}: write FILE.py:Class, with a file that exists")
    digest = sha256(str(file.resolve()).encode()).hexdigest()[:8]
    module_spec = importlib.util.spec_from_file_location(f"reimpl_model_{digest}", file)
    if module_spec is None or module_spec.loader is None:
        raise RequestError(f"--model {spec}: {file.name} is no Python file")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise RequestError(f"--model {spec}: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        public = [known for known in vars(module) if not known.startswith("_")]
        raise RequestError(f"--model {spec}: {file.name} has no '{name}'. {near(name, public)}")
    return getattr(module, name)


def _probe_or_nothing(job: Job) -> Probe:
    """A try that breaks gives no estimate, and says what broke it."""
    try:
        return _probe(job)
    except Exception as error:
        if isinstance(error, ReimplError) and not isinstance(error, RunError):
            raise
        said = " ".join(str(error).split())
        return Probe(seconds=0.0, memory_mb=0.0, error=f"{type(error).__name__}: {said}")


def _probe(job: Job) -> Probe:
    """Train for a moment, and say what the whole would take."""
    import psutil

    from reimpl import training, vectorised

    claims = job.entry.claims
    variant = job.settled
    paper = _paper(job)
    store = Store(job.root / "probe")
    contexts = [
        _context(job, paper, variant, claims, seed, store, lambda _k, _c: None)
        for seed in job.seeds
    ]
    contexts[0].checkpoint_path = None
    fit = paper.fit_of(variant)
    wall, cpu, compiling = time.perf_counter(), time.process_time(), 0.0
    if fit is not None:
        seconds, flops = _probe_fit(fit, variant, contexts[0])
    elif len(contexts) > 1:
        seconds, flops = vectorised.probe(
            paper, variant, contexts, metrics=claims.metrics, seconds=PROBE_SECONDS
        )
    else:
        seconds, flops, compiling = training.probe(
            paper, variant, contexts[0], metrics=claims.metrics, seconds=PROBE_SECONDS
        )
    # Less what other programs took of the core; but a `fit` may wait, or have help, and a
    # compiler is a process of its own.
    if fit is None and not compiling and job.threads == 1 and job.device == "cpu":
        seconds *= min(1.0, (time.process_time() - cpu) / (time.perf_counter() - wall))
    return Probe(
        seconds=seconds,
        memory_mb=psutil.Process().memory_info().rss / 2**20,
        flops=flops,
        compiling=compiling,
    )


def _probe_fit(fit: "Fit", variant: Variant, context: "RunContext") -> tuple[float, float | None]:
    """Seconds and floating-point operations of torch, by two tries, for counting slows a try.

    What NumPy and others compute is not counted. The try that is timed comes second: what a paper
    keeps from run to run, such as words that it has counted, a process makes only once.
    """
    from reimpl.flops import counter

    flops, share = 0, 0.0
    # a fit that transforms torch itself may not bear to be watched; what else is wrong shows below
    with suppress(Exception), counter() as counted:
        share = _tried(fit, variant, context).share
        flops = counted.get_total_flops()
    seconds = _tried(fit, variant, context).estimate or 0.0
    return seconds, flops / share if flops and share else None


def _tried(fit: "Fit", variant: Variant, context: "RunContext") -> "Trial":
    """The run, broken off after a moment."""
    from reimpl.context import Enough, Trial

    trial = Trial(seconds=PROBE_SECONDS)
    with suppress(Enough):
        fit(variant, replace(context, trial=trial, curves={}))
    return trial
