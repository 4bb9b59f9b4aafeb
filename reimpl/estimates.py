"""What work takes here: time, memory, operations, and with how many threads a variant goes best."""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from heapq import nlargest
from itertools import count, takewhile
from pathlib import Path
from statistics import median
from textwrap import shorten
from typing import Any, Literal

from reimpl.claims import Claims
from reimpl.engines import Event, Room, at_once
from reimpl.environment import environment
from reimpl.errors import DataError
from reimpl.jobs import BASELINE_SECONDS, Job, JobPart, Probe
from reimpl.records import Record

PACKING_PAYS = 60.0
"""Seconds of work from which on it is worth trying how a variant is packed best."""
GAIN = 1.2
"""Times that more threads must get done before a run has them: its last digits change with them."""
RECENT = 20
"""Runs of a variant that its time is judged by: the last ones, as machine and neighbours change."""
SLACK = 1.2
"""Times the memory of a short probe that a run may come to need."""
BEYOND = "beyond the budget"
UNKNOWN = "not known before the first run"
ELSEWHERE = "records of another machine, perhaps"
Probing = Literal["here", "new", "never"]
"""What is tried for a moment: what was never run on this machine, what no record of any machine
tells, or nothing."""
Tell = Callable[[int, int], None]
"""Is told how many short probes are made, of how many."""
_Grouped = dict[tuple[str, str], list[Record]]
"""Variant and part → records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What is to be done for one variant, count or baseline."""

    variant: str
    """As its records name it."""
    part: JobPart
    seeds: tuple[int, ...]
    cached: tuple[Record, ...]
    jobs: tuple[Job, ...]
    seconds: float | None = None
    """What the jobs take here one after another, as far as it is known."""
    basis: str = ""
    """What the estimate rests on."""
    broken: str = ""
    """Why a short probe of it broke, as its runs will too."""
    flops: float | None = None
    """Floating-point operations of the runs to make, evaluation aside, as far as they are known."""

    @property
    def label(self) -> str:
        """What wants call it by: a variant is counted and trained, and either has its price."""
        return f"counts of {self.variant}" if self.part == "counts" else self.variant


def wall_seconds(planned: Iterable[Planned], room: Room) -> float:
    """A guess at the time of the whole, by the work shared out or the longest job."""
    left = [(p.seconds or 0.0, p.jobs) for p in planned if p.jobs]
    width = sum(job.cores for job in at_once([job for _, jobs in left for job in jobs], room))
    work = sum(seconds * jobs[0].cores for seconds, jobs in left)
    longest = max((seconds / len(jobs) for seconds, jobs in left), default=0.0)
    return max(work / max(width, 1), longest)


def peak_memory_mb(planned: Iterable[Planned], room: Room) -> float:
    """The most that the jobs at work at one time are thought to need."""
    jobs = [job for p in planned for job in p.jobs]
    largest = sorted((job.memory_mb for job in jobs), reverse=True)
    return sum(largest[: len(at_once(jobs, room))])


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """Something that planned work is for."""

    name: str
    variants: frozenset[str]
    """Labels of the planned work that it needs."""
    rank: int = 0
    """Lower ones come first, whatever they cost."""


def within(
    planned: Sequence[Planned], wants: Iterable[Want], *, seconds: float, room: Room
) -> tuple[list[Planned], dict[str, str]]:
    """The work that fits into a time, the cheapest wants first, and why other wants do not fit.

    It stands in the order in which it is to be done, so that a time that was thought too short cuts
    off the dearest: of one want long before short.

    Work that several wants share is paid once; work of unknown length fits nowhere. What broke in
    a probe takes no time: its runs break, too, and are recorded so.
    """
    price = {p.label: _price(p) for p in planned if p.jobs}
    taken: frozenset[str] = frozenset()
    waiting, beyond = list(wants), dict[str, str]()
    fitting = [p for p in planned if not p.jobs]
    while waiting:
        cheapest = min(
            waiting, key=lambda w: (w.rank, sum(price.get(v, 0.0) for v in w.variants - taken))
        )
        waiting.remove(cheapest)
        more = taken | cheapest.variants
        known = all(price.get(variant, 0.0) < math.inf for variant in more)
        if known and wall_seconds([p for p in planned if p.label in more], room) <= seconds:
            new = [p for p in planned if p.jobs and p.label in more - taken]
            fitting += sorted(new, key=lambda p: -(p.seconds or 0.0))
            taken = more
        else:
            beyond[cheapest.name] = BEYOND if known else f"its time is {UNKNOWN}"
    return fitting, beyond


def _price(planned: Planned) -> float:
    if planned.seconds is not None:
        return planned.seconds
    return 0.0 if planned.broken else math.inf


@dataclass(kw_only=True)
class Estimator:
    """Estimates planned work by records, and by short probes where there are none."""

    claims: Claims
    root: Path
    """Of the records; the probes are remembered there, by machine."""
    room: Room
    local: Sequence[Record]
    """In its folder of runs; not all of this machine, where some were restored or are shared."""
    committed: Callable[[], Sequence[Record]]
    """In the paper's folder."""
    probing: Probing
    run: Callable[[Sequence[Job]], Iterable[Event]]
    """Runs the probes."""
    tell: Tell
    missing: str | None = None
    """Why there are no data to try anything on, when there are none."""
    runs: int = field(init=False, default=0)
    """Jobs of the whole plan, finished ones too, so that what was cut off goes on as it began."""

    def estimated(self, planned: Sequence[Planned]) -> list[Planned]:
        """With time, memory, operations and threads.

        Raises:
            ReimplError: what a probe is refused for.
        """
        self.runs = sum(self._count(p) for p in planned if p.part != "counts")
        self._probe_all([p for p in planned if _trains(p) and self._known(p) is None], threads=1)
        timed = [self._timed(p) for p in planned]
        worth = [p for p in timed if self._compiling_may_pay(p) or self._packing_pays(p)]
        self._probe_all(worth, threads=1)
        timed = self._compiled([self._timed(p) for p in planned])  # by what was just probed, too
        large = [p for p in timed if self._packing_pays(p)]
        for threads in self._wider():
            self._probe_all(large, threads=threads)
        return [self._packed(p) if self._packing_pays(p) else p for p in timed]

    def _wider(self) -> list[int]:
        """Threads that are tried beside one: 2, 4, 8, … and each run's share, or else all."""
        share = self.room.threads // max(1, min(self.runs, self.room.threads))
        most = share if share > 1 else self.room.threads
        return [*takewhile(lambda n: n < most, (2**k for k in count(1))), most]

    def _count(self, planned: Planned) -> int:
        if planned.part == "train" and self.claims.variants[planned.variant].vectorised:
            return 1
        return len(planned.jobs) + len(planned.cached)

    def _at_once(self, threads: int) -> int:
        return max(1, min(self.room.threads // threads, self.runs))

    def _timed(self, planned: Planned) -> Planned:
        count = sum(len(job.seeds) for job in planned.jobs)
        if count == 0:
            return planned
        if planned.part == "counts":
            return replace(planned, seconds=0.1 * count, basis="counting")
        probe = self._probe(planned, threads=1)
        planned = replace(planned, flops=self._flops(planned, probe))
        if probe is not None:
            planned = _given(planned, memory_mb=SLACK * probe.memory_mb)
        known = self._known(planned)
        if known is None and probe is not None and probe.seconds:
            seconds = probe.seconds * count / len(planned.jobs[0].seeds)
            return replace(planned, seconds=seconds, basis="a short probe here")
        if known is not None:
            records, basis = known
            seconds = median(record.wall_s for record in records) * count
            return replace(planned, seconds=seconds, basis=basis)
        if planned.part == "baseline":
            seconds, basis = BASELINE_SECONDS * count, "the budget of a baseline, at most"
            return replace(planned, seconds=seconds, basis=basis)
        if probe is not None and probe.error:
            basis = f"a short probe here broke: {probe.error}"
            return replace(planned, basis=basis, broken=probe.error)
        return replace(planned, basis=UNKNOWN)

    def _known(self, planned: Planned) -> tuple[Sequence[Record], str] | None:
        """The last runs to go by: of this key or else variant, and of this processor first.

        A kind of device says nothing of another's pace.
        """
        device = planned.jobs[0].device
        runs = self._alike(planned, _of(planned, self._local))
        local = [
            _of_kind(device, records)
            for records in (
                _last(self._alike(planned, planned.cached)),
                _last(_of_these_keys(planned, runs)),
                _altered_so(planned, _last(runs)),
            )
        ]
        here = next(filter(None, (_of_this(device, records) for records in local)), None)
        if here is not None:
            return here, "earlier runs here"
        if self._by_probe(planned):
            return None
        committed = _of(planned, self._committed)
        if self.probing != "never":  # or else a batch of another size is better than nothing
            committed = self._alike(planned, committed)
        others = _of_kind(device, _altered_so(planned, _last(committed)))
        there = next(filter(None, local), None) or others
        return (there, ELSEWHERE) if there else None

    def _by_probe(self, planned: Planned) -> bool:
        """Whether a probe here tells more than records of another machine."""
        if self.probing == "never":  # or of a node of a cluster
            return False
        probe = self._probe(planned, threads=1)
        kept = probe is not None and probe.seconds > 0
        return kept or (self._soon_probed(planned) and self.probing == "here")

    def _alike(self, planned: Planned, records: Sequence[Record]) -> Sequence[Record]:
        """Of seeds that are trained as one batch: those of a batch about as large.

        A batch of ten takes about as long as one of three; the records share its time out.
        """
        if planned.part != "train" or not self.claims.variants[planned.variant].vectorised:
            return records
        batches = Counter(record.started for record in records)
        wanted = len(planned.jobs[0].seeds) if planned.jobs else len(planned.seeds)
        return [r for r in records if wanted <= 2 * batches[r.started] <= 4 * wanted]

    def _soon_probed(self, planned: Planned) -> bool:
        """Whether a moment is enough; a `fit` may work for minutes before it first reports."""
        return _trains(planned) and self.claims.variants[planned.variant].recipe is not None

    def _worth_trying(self, planned: Planned) -> bool:
        return (planned.seconds or 0.0) >= PACKING_PAYS and self._soon_probed(planned)

    def _packing_pays(self, planned: Planned) -> bool:
        if self.room.threads == 1 or not self._worth_trying(planned):
            return False
        return planned.jobs[0].device == "cpu" and planned.jobs[0].processes == 1

    def _flops(self, planned: Planned, probe: Probe | None) -> float | None:
        """Of all runs to make, by a probe or by earlier runs of any machine."""
        count = sum(len(job.seeds) for job in planned.jobs)
        if probe is not None and probe.flops:
            return probe.flops * count / len(planned.jobs[0].seeds)
        records = [*_of(planned, self._local), *_of(planned, self._committed)]
        earlier = planned.cached or _altered_so(planned, _last(records))
        known = [record.flops for record in earlier if record.flops]
        return median(known) * count if known else None

    def _packed(self, planned: Planned) -> Planned:
        """With the number of threads that gets the most done in a time."""
        tried = {n: self._probe(planned, threads=n) for n in (1, *self._wider())}
        probes = {n: probe for n, probe in tried.items() if probe is not None and probe.seconds}
        if 1 not in probes:
            return planned
        planned = _given(planned, memory_mb=SLACK * max(p.memory_mb for p in probes.values()))
        done = {n: self._at_once(n) / probe.seconds for n, probe in probes.items()}
        best = max(done, key=done.__getitem__)
        if done[best] / done[1] < GAIN:
            return planned
        faster = probes[1].seconds / probes[best].seconds
        return self._sooner(_given(planned, threads=best), faster, "threads", best)

    def _sooner(self, planned: Planned, faster: float, choice: str, value: Any) -> Planned:
        """In so many times less, unless its time is of runs for which the same was chosen."""
        known = self._known(planned)
        if planned.seconds is None or (known and known[0][0].environment.get(choice) == value):
            return planned
        return replace(planned, seconds=planned.seconds / faster)

    def _compiling_may_pay(self, planned: Planned) -> bool:
        if not self._worth_trying(planned):
            return False
        recipe = planned.jobs[0].asked.recipe
        return recipe is not None and recipe.compiled == "auto"

    def _compiled(self, planned: Sequence[Planned]) -> list[Planned]:
        """With compiled steps where that is left to a probe and gets more done in a time."""
        left = {i: p for i, p in enumerate(planned) if self._compiling_may_pay(p)}
        trials = {i: _given(p, compiled=True) for i, p in left.items()}
        self._probe_all(list(trials.values()), threads=1)
        chosen = {i: self._faster(p, trials[i]) for i, p in left.items()}
        return [chosen.get(i, p) for i, p in enumerate(planned)]

    def _faster(self, usual: Planned, compiled: Planned) -> Planned:
        plain, other = self._probe(usual, threads=1), self._probe(compiled, threads=1)
        if other is not None and other.error:
            broke = shorten(other.error, 120, placeholder=" …")
            return replace(usual, basis=f"{usual.basis}; compiling broke: {broke}")
        if plain is None or other is None or not (plain.seconds and other.compiling):
            return usual
        faster = plain.seconds / other.seconds
        if faster < GAIN:
            return usual
        compiled = _given(compiled, memory_mb=SLACK * other.memory_mb)
        return self._sooner(compiled, faster, "compiled", True)

    # Short probes

    def _probe_all(self, planned: Sequence[Planned], *, threads: int) -> None:
        """Probe what is not remembered, with as many neighbours as the runs will have."""
        fresh = [p for p in planned if _label(p, threads) not in self._kept]
        copies = -(-self._at_once(threads) // max(len(fresh), 1))
        labels: dict[int, str] = {}
        jobs: list[Job] = []
        for p in fresh:
            for _ in range(copies):
                alone = replace(p.jobs[0], devices=1, nodes=1)
                jobs.append(replace(alone, part="probe", threads=threads))
                labels[id(jobs[-1])] = _label(p, threads)
        found: dict[str, list[Probe]] = {}
        try:
            for event in self._tried(jobs):
                if event.kind == "refused":
                    raise event.contents["error"]
                if event.kind in ("done", "lost"):
                    found.setdefault(labels[id(event.job)], []).append(_found(event))
        except DataError as error:
            self.missing = str(error)
        self._kept.update({label: _typical(probes) for label, probes in found.items()})
        if found:
            _write_kept(self._place, self._kept)

    def _tried(self, jobs: Sequence[Job]) -> Iterator[Event]:
        if jobs and self.probing != "never":
            self.tell(0, len(jobs))
            made = 0
            for event in self.run(jobs):
                yield event
                made += event.kind in ("done", "refused", "lost")
                self.tell(made, len(jobs))

    def _probe(self, planned: Planned, *, threads: int) -> Probe | None:
        return self._kept.get(_label(planned, threads)) if _trains(planned) else None

    @cached_property
    def _local(self) -> _Grouped:
        return _grouped(self.local)

    @cached_property
    def _committed(self) -> _Grouped:
        return _grouped(self.committed())

    @cached_property
    def _kept(self) -> dict[str, Probe]:
        try:
            return {k: Probe(**v) for k, v in json.loads(self._place.read_text()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    @property
    def _place(self) -> Path:
        return self.root / "probes.json"


def _trains(planned: Planned) -> bool:
    return planned.part == "train" and bool(planned.jobs)


def _grouped(records: Iterable[Record]) -> _Grouped:
    groups: _Grouped = {}
    for record in records:
        groups.setdefault((record.variant, record.part), []).append(record)
    return groups


def _of(planned: Planned, groups: _Grouped) -> list[Record]:
    return groups.get((planned.variant, planned.part), [])


def _last(records: Iterable[Record]) -> list[Record]:
    return nlargest(RECENT, records, key=lambda record: record.started)


def _of_these_keys(planned: Planned, records: Iterable[Record]) -> list[Record]:
    """Those of the runs to make, as there are where these are forced."""
    keys = {key for job in planned.jobs for key in job.keys}
    return [record for record in records if record.key in keys]


def _altered_so(planned: Planned, records: Iterable[Record]) -> list[Record]:
    """Those of whatever code that `--set` and `--model` altered as they do the runs to make.

    Of a record that says it in its file: give few.
    """
    how = planned.jobs[0].overrides, planned.jobs[0].model
    return [record for record in records if (record.overrides, record.model) == how]


def _of_kind(device: str, records: Iterable[Record]) -> list[Record]:
    """Those made on a device of the same kind: cpu, cuda, mps."""
    kind = device.partition(":")[0]
    return [record for record in records if _made_on(record.environment)[1] == kind]


def _of_this(device: str, records: Iterable[Record]) -> list[Record]:
    """Those made on such a device here: of cards that are not told apart, on any."""
    here = environment()
    where = (here["cpu"], "cpu") if device == "cpu" else (here["gpu"], device.partition(":")[0])
    return [record for record in records if _made_on(record.environment) == where]


def _made_on(environment: Mapping[str, Any]) -> tuple[Any, str]:
    """The processor and the kind of device; records of old do not name it and are of a CPU."""
    device = environment.get("device", "cpu").partition(":")[0]
    return environment.get("cpu" if device == "cpu" else "gpu"), device


def _given(planned: Planned, *, memory_mb: float = 0.0, **chosen: Any) -> Planned:
    """Its jobs with what was chosen, and with this much memory when they have less."""
    jobs = [
        replace(job, memory_mb=max(job.memory_mb, memory_mb * job.devices), **chosen)
        for job in planned.jobs
    ]
    return replace(planned, jobs=tuple(jobs))


def _label(planned: Planned, threads: int) -> str:
    """A probe by what decides its pace: machine, threads, and the code and settings of any seed."""
    job = planned.jobs[0]
    parts = {name: part for name, part in job.key_parts[0].items() if name != "seed"}
    digest = sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    here = environment()
    card = "" if job.device == "cpu" else f"{here['gpu']}/"
    compiled = "/compiled" if job.compiled else ""
    return f"{here['cpu']}/{card}{job.device}/{threads}/{len(job.seeds)}/{digest}{compiled}"


def _found(event: Event) -> Probe:
    """What a probe found; one whose process died has found that."""
    if event.kind == "lost":
        return Probe(seconds=0.0, memory_mb=0.0, error=event.contents["why"])
    return event.contents["result"]


def _typical(probes: Sequence[Probe]) -> Probe:
    return Probe(
        seconds=median(probe.seconds for probe in probes),
        memory_mb=max(probe.memory_mb for probe in probes),
        flops=probes[0].flops,
        compiling=median(probe.compiling for probe in probes),
        error=probes[0].error,
    )


def _write_kept(path: Path, kept: Mapping[str, Probe]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.tmp")
        part.write_text(
            json.dumps({k: asdict(probe) for k, probe in kept.items() if not probe.error})
        )
        part.replace(path)
    except OSError:
        return  # an estimate that is not kept is made again
