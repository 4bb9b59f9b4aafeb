"""Training one run by its variant's recipe; the only module that knows Lightning.

Lightning brings device, precision and strategy. A training is handed to it in blocks of a hundred
optimiser steps, because its bookkeeping costs as much as a step of a small network; within a block
runs a plain loop.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from reimpl import optimiser
from reimpl.claims import Metric, Recipe, Variant
from reimpl.context import Moments, Outcome, RunContext, Targets
from reimpl.errors import DivergenceError, PaperError, near
from reimpl.paper import Batch, Data, Paper

BLOCK = 100
"""Optimiser steps per Lightning step."""
EVALUATION_ROWS = 250
"""Examples per forward pass of an evaluation: more spill LeNet-5's maps out of the cache."""
PROBE_ROWS = 2000
"""Examples of each split on which a probe times an evaluation."""


def train(
    paper: Paper, variant: Variant, context: RunContext, *, metrics: Mapping[str, Metric]
) -> Outcome:
    """Train one seed of a variant and measure it.

    Raises:
        DivergenceError: the loss or a metric became NaN or infinite; names the step.
        PaperError: the paper lacks a part that training needs.
    """
    import pytorch_lightning as lightning

    loop = _Loop(paper, variant, context, metrics)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
        trainer = lightning.Trainer(
            accelerator="gpu" if context.device.type == "cuda" else context.device.type,
            devices=1,
            max_epochs=1,
            logger=False,
            barebones=True,
        )
        try:
            blocks = DataLoader(_Blocks(loop), batch_size=None)
            trainer.fit(_module(lightning.LightningModule, loop), blocks)
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
    return loop.outcome()


def probe(
    paper: Paper,
    variant: Variant,
    context: RunContext,
    *,
    metrics: Mapping[str, Metric],
    seconds: float,
) -> tuple[float, float]:
    """Seconds and floating-point operations of a whole training, from a moment of it."""
    loop = _Loop(paper, variant, context, metrics)
    rows = {name: tuple(t[:PROBE_ROWS] for t in batch) for name, batch in loop.splits.items()}
    began = time.perf_counter()
    evaluate(paper, loop.model, rows, metrics)
    seen = sum(len(batch[0]) for batch in rows.values())
    every = sum(len(batch[0]) for batch in loop.splits.values())
    evaluation = (time.perf_counter() - began) * every / max(seen, 1)
    step = timed(loop.one_step, steps=loop.steps, seconds=seconds)
    times = loop.recipe.epochs // loop.recipe.evaluate + 1
    return step * loop.steps + evaluation * times, loop.flops


def timed(one_step: Callable[[int], Any], *, steps: int, seconds: float) -> float:
    """Seconds of a step, after a few that warm up."""
    for step in range(min(3, steps)):
        one_step(step)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        one_step(done % steps)
        done += 1
    return (time.perf_counter() - began) / done


def build_model(paper: Paper, variant: Variant, context: RunContext) -> nn.Module:
    """The network with initial weights from the `init` stream; later draws come from `noise`."""
    if paper.model is None or paper.data is None or paper.loss is None or paper.metrics is None:
        raise PaperError(
            f"{paper.slug}: variant '{variant.id}' has no `fit`, so the paper needs model, data, "
            "loss and metrics"
        )
    torch.manual_seed(context.seeds.integer("init"))
    model = paper.model(variant)
    torch.manual_seed(context.seeds.integer("noise"))
    return model


def recipe_of(variant: Variant) -> Recipe:
    """The variant's recipe.

    Raises:
        PaperError: it has none, and no `fit` either.
    """
    if variant.recipe is None:
        raise PaperError(
            f"variant '{variant.id}' has neither a recipe (epochs, batch_size, lr) nor a `fit`"
        )
    return variant.recipe


def measured_splits(metrics: Mapping[str, Metric], data: Data) -> dict[str, Batch]:
    """The splits that some metric is computed on."""
    wanted = {metric.split for metric in metrics.values()}
    return {name: batch for name, batch in data.splits().items() if name in wanted}


def count_flops(paper: Paper, model: nn.Module, batch: Batch) -> float:
    """Floating-point operations of one step on the batch, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    assert paper.loss is not None
    counter = FlopCounterMode(display=False)
    with counter:
        paper.loss(model, batch).backward()
    model.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


@torch.no_grad()
def evaluate(
    paper: Paper, model: nn.Module, splits: Mapping[str, Batch], metrics: Mapping[str, Metric]
) -> dict[str, float]:
    """The mean of each per-example metric over each split, by full name."""
    model.eval()
    values: dict[str, float] = {}
    for split, batch in splits.items():
        sums: dict[str, Tensor] = {}
        for rows in zip(*(tensor.split(EVALUATION_ROWS) for tensor in batch), strict=True):
            for name, value in _metrics(paper, model, rows).items():
                sums[name] = (
                    sums.get(name, torch.zeros((), dtype=torch.float64))
                    + value.sum().double().cpu()
                )
        mean = {f"{split}/{name}": float(total) / len(batch[0]) for name, total in sums.items()}
        values |= {name: value for name, value in mean.items() if name in metrics}
    model.train()
    return values


def _metrics(paper: Paper, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    assert paper.metrics is not None
    return paper.metrics(model, paper.prepared(batch))


class _Loop:
    """The training of one network; knows torch, not Lightning."""

    def __init__(
        self, paper: Paper, variant: Variant, context: RunContext, metrics: Mapping[str, Metric]
    ) -> None:
        assert paper.loss is not None
        self.paper, self.context, self.metrics = paper, context, metrics
        self.loss = paper.loss
        self.recipe = recipe_of(variant)
        self.model = build_model(paper, variant, context).to(context.device)
        self.rows = tuple(t.to(context.device) for t in context.data.train)
        self.splits = {
            name: tuple(t.to(context.device) for t in batch)
            for name, batch in measured_splits(metrics, context.data).items()
        }
        size = self.recipe.batch_size
        self.batch = len(self.rows[0]) if size == "full" else size
        self.per_epoch = -(-len(self.rows[0]) // self.batch)
        self.steps = self.per_epoch * self.recipe.epochs
        self.moments = Moments(self.recipe.epochs, self.recipe.evaluate)
        self.targets = Targets(metrics, 1)
        self.order: Tensor | None = None
        self.last: dict[str, float] = {}
        self.optimiser = optimiser.build(self.model.parameters(), self.recipe)
        self.phases = optimiser.Phases(self.recipe, self.optimiser)
        self.flops = count_flops(paper, self.model, self.batch_at(0)) * self.steps
        self.step = 0

    def begin(self) -> None:
        """Go on from the checkpoint, or measure the untrained network."""
        state = self.context.resume()
        if state is None:
            self.measure(0)
            return
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.targets.first, self.last = state["targets"], state["last"]
        torch.set_rng_state(state["rng"].cpu())
        self.order = None  # of the epoch that the checkpoint lies in

    def block(self, begin: int, end: int, backward: Callable[[Tensor], None]) -> None:
        """The steps from `begin` up to `end`, with the evaluations that fall due."""
        losses: list[Tensor] = []
        for step in range(begin, end):
            losses.append(self.one_step(step, backward))
            epoch, rest = divmod(step + 1, self.per_epoch)
            if rest == 0 and self.moments.due(epoch):
                self.measure(epoch)
        self.guard(begin, losses)
        self.step = end
        self.context.progress(end, self.steps, **self.last)
        self.context.checkpoint(self.state())

    def one_step(self, step: int, backward: Callable[[Tensor], None] = Tensor.backward) -> Tensor:
        batch = self.batch_at(step)
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss(self.model, batch)
        backward(loss)
        if self.recipe.clip is not None:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            optimiser.clip(gradients, self.recipe.clip, stacked=False)
        self.optimiser.step()
        if self.phases.shrink:
            optimiser.shrink(self.model.parameters(), self.phases.shrink)
        return loss.detach()

    def batch_at(self, step: int) -> Batch:
        """The step's rows, prepared; the order of an epoch is drawn from its own stream."""
        epoch, place = divmod(step, self.per_epoch)
        if place == 0 or self.order is None:
            self.phases.enter(epoch)
            if self.recipe.batch_size != "full":
                order = self.context.seeds.torch("order", epoch)
                drawn = torch.randperm(len(self.rows[0]), generator=order)
                self.order = drawn.to(self.context.device)
        rows = self.rows
        if self.order is not None:
            chosen = self.order[place * self.batch : (place + 1) * self.batch]
            rows = tuple(t[chosen] for t in self.rows)
        batch = self.paper.prepared(rows)
        if self.paper.augment is None:
            return batch
        return self.paper.augment(batch, self.context.seeds.torch("augment", step))

    def measure(self, epoch: int) -> None:
        self.last = evaluate(self.paper, self.model, self.splits, self.metrics) | self.watched()
        self.targets.see(epoch, {k: torch.tensor([v]) for k, v in self.last.items()})
        if self.moments.keep(epoch):
            self.context.curve(epoch, self.last)

    def watched(self) -> dict[str, float]:
        """What the paper reads off the network as it learns; draws of its own change nothing."""
        if self.paper.watch is None:
            return {}
        self.model.eval()
        with torch.random.fork_rng(devices=[]):
            found = self.paper.watch(self.model, self.context.data)
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        for name in found:
            if name not in self.metrics:
                known = near(name, self.metrics)
                raise PaperError(f"`watch` gives '{name}', no metric of claims.toml. {known}")
        return {name: float(value) for name, value in found.items()}

    def guard(self, begin: int, losses: list[Tensor]) -> None:
        """Looked at once a block, because looking makes a GPU wait."""
        finite = torch.isfinite(torch.stack(losses))
        if not bool(finite.all()):
            place = int((~finite).int().argmax())
            value = float(losses[place])
            raise DivergenceError(
                f"the loss became {value} at step {begin + place + 1} of {self.steps}"
            )

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "targets": self.targets.first,
            "last": self.last,
            "rng": torch.get_rng_state(),
        }

    def outcome(self) -> Outcome:
        self.model.eval()
        more = self.paper.inspect(self.model, self.context.data) if self.paper.inspect else {}
        return Outcome(
            measurements={**self.last, **self.targets.measurements(0), **more},
            parameters=sum(p.numel() for p in self.model.parameters()),
            flops=self.flops,
        )


def _module(base: type, loop: _Loop) -> Any:
    """The loop as Lightning wants it; made here so that Lightning loads only for training."""

    class Trainee(base):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.model = loop.model

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return loop.optimiser

        def on_fit_start(self) -> None:
            loop.begin()

        def training_step(self, block: tuple[int, int], _index: int) -> None:
            loop.block(*block, self.manual_backward)

    return Trainee()


class _Blocks(IterableDataset[tuple[int, int]]):
    """The steps that are left, in blocks (first, one past the last)."""

    def __init__(self, loop: _Loop) -> None:
        self.loop = loop

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for begin in range(self.loop.step, self.loop.steps, BLOCK):
            yield begin, min(begin + BLOCK, self.loop.steps)
