"""What every run gets from the harness: seeds, data, device, progress, curves, checkpoints."""

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import torch

from reimpl.claims import Metric
from reimpl.environment import Clock
from reimpl.errors import DivergenceError, RecordError
from reimpl.paper import Data, Seeds, Sources
from reimpl.sharing import ALONE, Share

Emit = Callable[[str, Mapping[str, Any]], None]
"""Sends `progress` or `point` with its contents to whoever watches."""

STOP = Event()
"""Set when this process is asked to end: the next checkpoint is written and the run breaks off."""
CHECKPOINT_EVERY = 30.0
"""Seconds between checkpoints."""
LOOK_EVERY = 1.0
"""Seconds between looks at progress, divergence and checkpoints; far less than engines wait for a
process that they have told to stop."""
PROGRESS_EVERY = 0.2
"""Seconds between two reports of progress."""
FORMAT = 1
"""Of checkpoints; raised with each change to what a trainer of ours keeps in them."""
CURVE_POINTS = 200
"""Points of a curve that are kept; longer ones are thinned on a geometric grid."""


class Stopped(BaseException):
    """The run was asked to stop and has written its checkpoint; no `Exception`, so none eats it."""


class Enough(BaseException):
    """A trial has seen as much as it wanted; no `Exception`, so that no paper's code eats it."""


@dataclass(slots=True, kw_only=True)
class Trial:
    """Breaks a run off once it has shown how fast it goes."""

    seconds: float
    """How long to look, from the first report of progress on."""
    began: tuple[float, float] | None = None
    """When the first report came, and how much was done then."""
    estimate: float | None = None
    """Seconds of a whole run, from the last report."""
    share: float = 0.0
    """How much of a whole run was done at the last report."""
    _made: float = field(default_factory=time.perf_counter)

    def see(self, done: float, total: float) -> None:
        """Take a report of progress.

        Raises:
            Enough: it has looked long enough.
        """
        now, self.share = time.perf_counter(), done / total
        if self.began is None:
            self.began = now, done
            self.estimate = (now - self._made) * total / done if done > 0 else None
        elif done > self.began[1]:
            pace = (now - self.began[0]) / (done - self.began[1])
            self.estimate = self.began[0] - self._made + pace * (total - self.began[1])
        if done > 0 and now - self.began[0] >= self.seconds:
            raise Enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What training one seed gives."""

    measurements: Mapping[str, float | bool | None]
    parameters: int | None = None
    flops: float | None = None
    """Of the whole training, counted on one step, without evaluation."""


@dataclass(slots=True, kw_only=True)
class RunContext:
    """The `Context` that papers and trainers see."""

    seeds: Seeds
    sources: Sources
    data: Data
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    emit: Emit = lambda _kind, _contents: None
    checkpoint_path: Path | None = None
    checkpoint_of: tuple[int, ...] = ()
    """The runs that the checkpoint is of: this one, or the batch that this one leads."""
    share: Share = ALONE
    """What of the training is this process's."""
    clock: Clock = field(default_factory=Clock)
    trial: Trial | None = None
    """Set when the run is only tried."""
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    _last_checkpoint: float = field(default_factory=time.monotonic)
    _last_look: float = field(default_factory=time.monotonic)
    _last_progress: float = 0.0
    _before: float | None = 0.0
    """How far earlier attempts came; after `resume`, the next report of progress says it."""

    def progress(self, done: float, total: float, **shown: float) -> None:
        """Say how far the run is; at most five times a second reach the screen."""
        if self.trial is not None:
            self.trial.see(done, total)
        if self._before is None:
            self._before = done
        now = time.monotonic()
        if now - self._last_progress >= PROGRESS_EVERY or done >= total:
            self._last_progress = now
            contents = {"done": done, "total": total, "before": self._before, "shown": shown}
            self.emit("progress", contents)

    def curve(self, step: float, values: Mapping[str, float]) -> None:
        """Add a point to the run's curves; NaN ends the run."""
        for name, value in values.items():
            if math.isnan(value):
                raise DivergenceError(f"'{name}' became NaN at step {step:g}")
            self.curves.setdefault(name, []).append((step, value))
        self.emit("point", {"seed": self.seeds.run, "step": step, "values": dict(values)})

    def due(self) -> bool:
        """Whether to look up after this step: a second has passed, or somebody wants us to end."""
        return STOP.is_set() or time.monotonic() - self._last_look >= LOOK_EVERY

    def ahead(self, steps: int) -> int:
        """Steps up to the next look, when so many have taken the time since the last one."""
        seconds = time.monotonic() - self._last_look
        return max(1, int(steps * LOOK_EVERY / max(seconds, 1e-9)))

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Keep `state`, at most every half minute.

        Raises:
            RecordError: it cannot be written.
            Stopped: it is written, and this process is asked to end.
        """
        self._last_look = time.monotonic()
        if self.checkpoint_path is None:
            return
        if not STOP.is_set() and time.monotonic() - self._last_checkpoint < CHECKPOINT_EVERY:
            return
        kept = {**self._fits(), "state": state, "curves": self.curves, "took": self.clock.took()}
        try:
            _put(self.checkpoint_path, kept)
        except Exception as error:
            if (refusal := _refusal(error)) is None:
                raise
            why = refusal.strerror or refusal
            hint = "Make room, or choose a folder that can be written"
            raise RecordError(f"{self.checkpoint_path}: {why}. {hint}.") from None
        self._last_checkpoint = time.monotonic()
        if STOP.is_set():
            raise Stopped

    def resume(self) -> Mapping[str, Any] | None:
        """The state kept last by an attempt that was cut off.

        One that is damaged, of other runs, or kept by a release with another format, is none.
        """
        if self.checkpoint_path is None or not self.checkpoint_path.exists():
            return None
        try:
            kept = torch.load(self.checkpoint_path, map_location=self.device, weights_only=False)
        except Exception:  # damage shows in many ways, and starting again is right after each
            return None
        if any(kept.get(name) != value for name, value in self._fits().items()):
            return None
        self.curves = kept["curves"]
        self._before = None
        self.clock.goes_on(*kept["took"])
        return kept["state"]

    def _fits(self) -> dict[str, Any]:
        """What a checkpoint says that this run can go on from."""
        return {"format": FORMAT, "runs": self.checkpoint_of}


def _put(path: Path, kept: Mapping[str, Any]) -> None:
    """Write under another name, sync, rename; what was written in part is removed."""
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save(kept, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def _refusal(error: BaseException | None) -> OSError | None:
    """What the file system said, which torch covers with an error of its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


class Moments:
    """When a training is evaluated, and which of those points its curves keep."""

    def __init__(self, epochs: int, every: int, *, points: int = CURVE_POINTS) -> None:
        self.epochs, self.every, self.points = epochs, every, points
        count = epochs // every + 1
        self.kept = None if count <= points else self._grid(count)

    def _grid(self, count: int) -> frozenset[int]:
        grid = torch.logspace(0, math.log10(count - 1), self.points).round().long().tolist()
        return frozenset({0, self.epochs, *(int(i) * self.every for i in grid)})

    def due(self, epoch: int) -> bool:
        """Whether the state after `epoch` epochs is evaluated."""
        return epoch % self.every == 0 or epoch == self.epochs

    def keep(self, epoch: int) -> bool:
        """Whether that evaluation goes into the curves."""
        return self.kept is None or epoch in self.kept


class Targets:
    """Watches curves for the first epoch at which their targets are met; one entry per seed."""

    def __init__(self, metrics: Mapping[str, Metric], seeds: int) -> None:
        self.watched = {name: metric.reaches for name, metric in metrics.items() if metric.reaches}
        self.lower = {name: metrics[r.curve].better != "higher" for name, r in self.watched.items()}
        self.first = {
            name: torch.full((seeds,), math.inf, dtype=torch.float64) for name in self.watched
        }

    def see(self, epoch: int, values: Mapping[str, torch.Tensor]) -> None:
        """Take the values (S,) of each curve after `epoch` epochs."""
        for name, reaches in self.watched.items():
            value = values.get(reaches.curve)
            if value is None:  # a variant that has no such curve
                self.first[name][:] = math.nan
                continue
            met = value <= reaches.target if self.lower[name] else value >= reaches.target
            self.first[name][met.cpu() & self.first[name].isinf()] = float(epoch)

    def go_on(self, first: Mapping[str, torch.Tensor]) -> None:
        """Take what a checkpoint kept, which was read to the device of the run."""
        self.first = {name: epochs.cpu() for name, epochs in first.items()}

    def measurements(self, seed: int) -> dict[str, float]:
        """Metric name → epochs to its target for the seed at that place, infinite for a miss.

        A metric whose curve the variant does not have is left out.
        """
        found = {name: float(first[seed]) for name, first in self.first.items()}
        return {name: epoch for name, epoch in found.items() if not math.isnan(epoch)}
