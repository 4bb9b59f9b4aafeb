"""What W&B is told of the runs of a paper."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reimpl.claims import Cost, Variant
from reimpl.engines import Event
from reimpl.evidence import Result
from reimpl.jobs import Job
from reimpl.records import Record
from reimpl.registry import Entry


class RunLogger:
    """Tells the tracker what happens to the runs of a paper."""

    def __init__(self, tracker: Any, entry: Entry, *, root: Path, cost: Cost) -> None:
        self.tracker, self.entry, self.root, self.cost = tracker, entry, root, cost

    def see(self, event: Event) -> None:
        """Take what happened to a job."""
        job = event.job
        if job.part in ("counts", "probe"):
            return
        handle = f"{job.recorded_as}/{job.seeds[0]}/{job.part}"
        if event.kind == "started":
            self._start(job, handle)
        elif event.kind == "point":
            self.tracker.point(handle, event.contents["step"], event.contents["values"])
        elif event.kind in ("done", "lost"):
            self._finish(job, handle, event.contents["result"])

    def _start(self, job: Job, handle: str) -> None:
        common: dict[str, Any] = {
            "paper": self.entry.slug,
            "variant": job.recorded_as,
            "job_type": "baseline" if job.baseline else "reproduce",
            "config": self._config(job),
            "tags": [f"cost:{self.cost}"],
        }
        if len(job.seeds) > 1:
            self.tracker.batch(handle, seeds=job.seeds, **common)
        else:
            self.tracker.start(handle, seed=next(iter(job.seeds)), **common)

    def _config(self, job: Job) -> dict[str, Any]:
        variant = job.settled
        recipe = asdict(variant.recipe) if variant.recipe else {}
        return {
            **variant.settings,
            **recipe,
            "overrides": dict(job.overrides),
            "model": job.model,
            "key": job.keys[0],
        }

    def _finish(self, job: Job, handle: str, records: Sequence[Record]) -> None:
        if len(job.seeds) == 1:
            record = records[0]
            self.tracker.finish(
                handle, measurements=record.measurements, status=record.status, error=record.error
            )
            return
        ok = [record for record in records if record.status == "ok"]
        self.tracker.finish_batch(
            handle,
            measured={record.seed: record.measurements for record in ok},
            errors={
                record.seed: record.error or "" for record in records if record.status == "error"
            },
            curves=mean_curves(ok),
        )

    def verdict(self, result: Result) -> None:
        """Send the verdicts, with the curves and record files that they rest on."""
        curves: dict[str, dict[int, list[list[float]]]] = {}
        for record in result.evidence.records:
            if not self.entry.claims.variants.get(record.variant, _NO_VARIANT).vectorised:
                for name, curve in record.curves.items():
                    curves.setdefault(f"{record.variant}: {name}", {})[record.seed] = curve
        lanes = [verdict.lane for verdict in result.verdicts]
        self.tracker.verdict(
            paper=self.entry.slug,
            rows=[asdict(verdict) for verdict in result.verdicts],
            curves=curves,
            records=sorted((self.root / self.entry.slug).glob("*/*.json")),
            summary={lane: lanes.count(lane) for lane in sorted(set(lanes))},
        )


_NO_VARIANT = Variant(id="", says="", source="")


def mean_curves(records: Sequence[Record]) -> dict[str, list[tuple[float, float]]]:
    """Metric → the mean over runs at each step that all of them have."""
    columns: dict[str, dict[float, list[float]]] = {}
    for record in records:
        for name, curve in record.curves.items():
            for step, value in curve:
                columns.setdefault(name, {}).setdefault(step, []).append(value)
    return {
        name: [
            (step, sum(v) / len(v)) for step, v in sorted(points.items()) if len(v) == len(records)
        ]
        for name, points in columns.items()
    }
