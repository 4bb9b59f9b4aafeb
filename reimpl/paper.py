"""What a paper's Python supplies, and what it gets from the harness.

An ordinary supervised paper supplies `model`, `data`, `loss`, `metrics` and `example`; the harness
trains it by the variant's recipe. An unusual variant supplies a `fit` and gets a `Context`.

Shapes: N examples, S seeds trained as one batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from reimpl.claims import Variant

Batch = tuple[Tensor, ...]
"""Inputs, targets, and what else the loss needs, each (N, …)."""
Measurements = Mapping[str, float | int | bool | None]
"""Metric name → value; `inf` is a target never reached, `None` a metric not defined for the run."""

AXES = ("init", "order", "split", "noise", "augment")
"""What chance decides: initial weights, order and split of the data, all else (dropout, noise),
and how training examples are varied."""


@dataclass(frozen=True, slots=True)
class Seeds:
    """The streams of one seed: one per axis, independent of each other and of the variant.

    Two variants run with the same seed share split, data order and initial draws: they are paired.
    In a cross-validation the folds of one seed share the split and nothing else.
    """

    seed: int
    fold: int = 0
    folds: int = 1

    @classmethod
    def of_run(cls, run: int, folds: int) -> "Seeds":
        """Those of a numbered run: run 37 of a ten-fold cross-validation is fold 7 of seed 3."""
        return cls(run // folds, run % folds, folds)

    @property
    def run(self) -> int:
        """The number of the run."""
        return self.seed * self.folds + self.fold

    def sequence(self, axis: str, *more: int) -> np.random.SeedSequence:
        """The axis's own `SeedSequence`; `more` numbers a further stream (an epoch, a class)."""
        own = (self.fold,) if self.folds > 1 and axis != "split" else ()
        return np.random.SeedSequence(self.seed, spawn_key=(AXES.index(axis), *own, *more))

    def held_out(self, rows: int) -> tuple[Tensor, Tensor]:
        """The rows to learn from and those held out in this fold, each (N,) in rising order.

        A random partition into folds that differ by one row at most. It hangs on the seed and the
        number of rows alone, so papers that use the same rows are compared on the same folds.
        """
        drawn = torch.randperm(rows, generator=self.torch("split"))
        held = torch.zeros(rows, dtype=torch.bool)
        held[drawn[self.fold :: self.folds]] = True
        return (~held).nonzero()[:, 0], held.nonzero()[:, 0]

    def integer(self, axis: str, *more: int) -> int:
        """A 63-bit seed for the axis."""
        return int(self.sequence(axis, *more).generate_state(1, np.uint64)[0] >> 1)

    def torch(self, axis: str, *more: int) -> torch.Generator:
        """A torch generator on the CPU for the axis."""
        return torch.Generator().manual_seed(self.integer(axis, *more))

    def numpy(self, axis: str, *more: int) -> np.random.Generator:
        """A NumPy generator for the axis."""
        return np.random.default_rng(self.sequence(axis, *more))


@runtime_checkable
class Sources(Protocol):
    """The datasets that the paper's `claims.toml` names, decoded and checked."""

    def __getitem__(self, name: str, /) -> Mapping[str, Mapping[str, Any]]:
        """Split → column → values.

        Images are uint8 tensors (N, H, W[, C]), numbers tensors (N,), text lists.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A paper's data, split as the paper splits it. Every tensor has N rows."""

    train: Batch
    test: Batch | None = None
    more: Mapping[str, Batch] = field(default_factory=dict)
    """Further splits, by the name that metrics use."""

    def splits(self) -> dict[str, Batch]:
        """All splits by name."""
        named = {"train": self.train, **self.more}
        return named if self.test is None else {**named, "test": self.test}


@runtime_checkable
class Context(Protocol):
    """What a paper's own `fit` gets from the harness."""

    seeds: Seeds
    device: torch.device
    sources: Sources
    data: Data
    """The paper's `data` for this variant and seed."""

    def progress(self, done: float, total: float, **shown: float) -> None:
        """Say how far the run is, in any unit that goes with time, with figures worth watching.

        Called after the first small piece of work and every second or so: a probe stops there.
        """
        ...

    def curve(self, step: float, values: Mapping[str, float]) -> None:
        """Add a point to the run's curves.

        Raises:
            DivergenceError: a value is NaN.
        """
        ...

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Keep `state` (anything `torch.save` takes); written at most every half minute."""
        ...

    def resume(self) -> Mapping[str, Any] | None:
        """The state kept last, when an earlier attempt at this run was cut off."""
        ...


Fit = Callable[[Variant, Context], Measurements]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """A paper as a value; importing the module that holds it has no other effect."""

    slug: str
    """First author, year, method: the folder's name."""
    model: Callable[[Variant], nn.Module] | None = None
    """A variant's network; torch's global generator is seeded from the `init` stream before."""
    data: Callable[[Variant, Sources, Seeds], Data] | None = None
    """The data; most papers ignore the seeds, which are there for random splits (axis `split`)."""
    prepare: Callable[[Batch], Batch] | None = None
    """Raw batch (uint8, say) → what the model takes. Called on every batch, after indexing."""
    augment: Callable[[Batch, torch.Generator], Batch] | None = None
    """Varies a prepared batch of a recipe's training, by draws from the step's own generator."""
    loss: Callable[[nn.Module, Batch], Tensor] | None = None
    """A scalar: summed or averaged over the batch as the paper does."""
    metrics: Callable[[nn.Module, Batch], Mapping[str, Tensor]] | None = None
    """One value per example (N,), by the name after the slash: `error` gives `train/error` and
    `test/error`, the mean over the split, in the metric's unit: a share in per cent is
    100 · (wrong)."""
    inspect: Callable[[nn.Module, Data], Measurements] | None = None
    """What is read off the trained network beside `metrics` (weight ratios, …)."""
    example: Callable[[Variant], Batch] | None = None
    """A small made-up batch of the right shapes, already prepared."""
    counts: Callable[[Variant], Measurements] | None = None
    """What `exact` claims need; no training, no data."""
    watch: Callable[[nn.Module, Data], Mapping[str, float]] | None = None
    """What is read off the network at every evaluation of a recipe's training: points of the
    curves, the last ones measurements. In evaluation mode; its random draws change nothing."""
    fit: Mapping[str, Fit] | Fit = field(default_factory=dict)
    """Variants (by id) that train in a way of their own; a function is for all variants."""
    folder: Path | None = None
    """Where the paper lies, when not beside the module that defines it."""

    def fit_of(self, variant: Variant) -> Fit | None:
        """The variant's own way to train, when it has one."""
        return self.fit.get(variant.id) if isinstance(self.fit, Mapping) else self.fit

    def prepared(self, batch: Batch) -> Batch:
        """The batch as the model takes it."""
        return self.prepare(batch) if self.prepare else batch
