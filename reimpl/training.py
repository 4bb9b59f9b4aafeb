"""Training one run by its variant's recipe; the only module that knows Lightning.

Lightning brings device, precision and strategy. A training is handed to it in blocks of a hundred
optimiser steps, because its bookkeeping costs as much as a step of a small network; within a block
runs a plain loop, which offers a checkpoint every second where steps are long.

A training that is shared takes the same steps on the same batches as one process would, up to
rounding: each process weighs the loss of its rows so that the mean of the gradients is the
gradient of the whole batch. Its processes agree, by the clock of rank 0, on where they look up.
"""

import copy
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from reimpl import optimiser
from reimpl.claims import Metric, Precision, Recipe, Variant
from reimpl.context import Moments, Outcome, RunContext, Targets
from reimpl.errors import DivergenceError, PaperError, RequestError, near
from reimpl.paper import Batch, Data, Paper
from reimpl.sharing import ALONE, Share

BLOCK = 100
"""Optimiser steps per Lightning step."""
EVALUATION_ROWS = 250
"""Examples per forward pass of an evaluation: more spill LeNet-5's maps out of the cache."""
PROBE_ROWS = 2000
"""Examples of each split on which a probe times an evaluation."""
ROUNDING = 1e-5
"""Relative difference of two sums of the same losses that float32 explains."""
DROPOUT = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
)


def train(
    paper: Paper, variant: Variant, context: RunContext, *, metrics: Mapping[str, Metric]
) -> Outcome:
    """Train one seed of a variant and measure it.

    Raises:
        DivergenceError: the loss or a metric became NaN or infinite; names the step.
        PaperError: the paper lacks a part that training needs.
        RequestError: its batches cannot be shared among processes, and they should be.
    """
    import pytorch_lightning as lightning

    loop = _Loop(paper, variant, context, metrics)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
        trainer = lightning.Trainer(
            **_placed(context.device, context.share),
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


def _placed(device: torch.device, share: Share) -> dict[str, Any]:
    """Where Lightning trains: here, or with others in the group that this process has joined."""
    cuda = device.type == "cuda"
    accelerator = "gpu" if cuda else device.type
    if share.alone:
        devices = [device.index or 0] if cuda else 1
        return {"accelerator": accelerator, "devices": devices, "plugins": _members(share)}
    from pytorch_lightning.strategies import DDPStrategy

    return {
        "accelerator": accelerator,
        "devices": share.devices,
        "num_nodes": share.nodes,
        "strategy": DDPStrategy(cluster_environment=_members(share)),
        "use_distributed_sampler": False,
        "sync_batchnorm": cuda,
    }


def _members(share: Share) -> Any:
    """The processes as Lightning asks for them: started by us, and never those of a scheduler."""
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    class Members(LightningEnvironment):
        @property
        def creates_processes_externally(self) -> bool:
            return True

        def global_rank(self) -> int:
            return share.rank

        def world_size(self) -> int:
            return share.world

        def local_rank(self) -> int:
            return share.local

        def node_rank(self) -> int:
            return share.node

        def teardown(self) -> None:
            """Nothing of the environment is ours."""

    return Members()


def probe(
    paper: Paper,
    variant: Variant,
    context: RunContext,
    *,
    metrics: Mapping[str, Metric],
    seconds: float,
) -> tuple[float, float, float]:
    """Seconds and floating-point operations of a whole training, from a moment of it.

    The third is what of these seconds compiling takes, where steps are compiled.
    """
    loop = _Loop(paper, variant, context, metrics)
    rows = {name: tuple(t[:PROBE_ROWS] for t in batch) for name, batch in loop.splits.items()}
    began = time.perf_counter()
    evaluate(paper, loop.model, rows, metrics, loop.arithmetic)
    seen = sum(len(batch[0]) for batch in rows.values())
    every = sum(len(batch[0]) for batch in loop.splits.values())
    evaluation = (time.perf_counter() - began) * every / max(seen, 1)
    compiling = loop.compiling()
    step = timed(loop.one_step, steps=loop.steps, seconds=seconds)
    times = loop.recipe.epochs // loop.recipe.evaluate + 1
    return compiling + step * loop.steps + evaluation * times, loop.flops, compiling


def timed(one_step: Callable[[int], Any], *, steps: int, seconds: float) -> float:
    """Seconds of a step, after a few that warm up; one is enough where a step is long."""
    began = time.perf_counter()
    for step in range(min(3, steps)):
        one_step(step)
        if time.perf_counter() - began > seconds:
            break
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


def check_batchnorm(paper: Paper, model: nn.Module, device: torch.device) -> None:
    """Whether a network's batch normalisation can see a batch that is shared.

    Raises:
        RequestError: there is some, and on a CPU no process sees the rows of the others.
    """
    batchnorm = nn.modules.batchnorm._BatchNorm  # what Lightning synchronises, on CUDA
    if device.type != "cuda" and any(isinstance(m, batchnorm) for m in model.modules()):
        raise RequestError(
            f"{paper.slug}: on {device.type}, batch normalisation sees the rows of one process "
            "only; take one device, or --device cuda"
        )


def reduction(paper: Paper, model: nn.Module, batch: Batch) -> Literal["mean", "sum"]:
    """Whether the loss of a batch is the mean or the sum of the losses of its rows.

    Two unequal parts of a batch are held against the whole, as in training but for dropout and
    torch's batch normalisation, or as in evaluation where a network draws noise of its own.

    Raises:
        RequestError: it is neither, so that a batch cannot be shared.
    """
    assert paper.loss is not None
    n, k = len(batch[0]), max(1, len(batch[0]) // 3)
    first, second = tuple(t[:k] for t in batch), tuple(t[k:] for t in batch)
    trial = copy.deepcopy(model)
    gpus = [batch[0].device] if batch[0].is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices=gpus):
        _still(trial)
        if float(paper.loss(trial, batch)) != float(paper.loss(trial, batch)):
            trial.eval()
        whole, a, b = (float(paper.loss(trial, rows)) for rows in (batch, first, second))
    if not math.isfinite(whole):
        return "mean"  # the first step says what is wrong
    if math.isclose(whole, (k * a + (n - k) * b) / n, rel_tol=ROUNDING):
        return "mean"
    if math.isclose(whole, a + b, rel_tol=ROUNDING):
        return "sum"
    raise RequestError(
        f"{paper.slug}: the loss of a batch is neither the mean nor the sum over its rows, so "
        "processes cannot share it; take one device"
    )


def _still(model: nn.Module) -> None:
    """Training mode without the modules that draw noise or that are synchronised elsewhere."""
    model.train()
    for module in model.modules():
        if isinstance(module, (*DROPOUT, nn.modules.batchnorm._BatchNorm)):
            module.eval()


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
    from reimpl.flops import counter

    assert paper.loss is not None
    with counter() as counted:
        paper.loss(model, batch).backward()
    model.zero_grad(set_to_none=True)
    return float(counted.get_total_flops())


def draws(device: torch.device) -> dict[str, Tensor]:
    """The states of the generators from which a training on the device draws, by name."""
    states = {"rng": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda_rng"] = torch.cuda.get_rng_state(device)
    return states


def draw_from(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Make the next draws be those that follow what `draws` gave; on a CPU it gave no GPU's."""
    torch.set_rng_state(states["rng"].cpu())
    if device.type == "cuda" and "cuda_rng" in states:
        torch.cuda.set_rng_state(states["cuda_rng"].cpu(), device)


class Arithmetic:
    """The numbers that a network computes with: 32 bits, or those of one of Lightning's plugins.

    The plugins are asked here and not by Lightning itself, which knows only whole blocks of steps.
    """

    def __init__(
        self, precision: Precision = "32", device: str = "cpu", *, channels_last: bool = False
    ) -> None:
        self.channels_last = channels_last
        self.plugin: Any = None
        if precision == "bf16-true":
            from pytorch_lightning.plugins.precision import HalfPrecision

            self.plugin = HalfPrecision(precision)
        elif precision != "32":
            from pytorch_lightning.plugins.precision import MixedPrecision

            self.plugin = MixedPrecision(precision, device)
        self.scaler: torch.amp.GradScaler | None = getattr(self.plugin, "scaler", None)

    def narrowed(self, model: nn.Module) -> nn.Module:
        """The model, in place, with weights as they are in training."""
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self.plugin.convert_module(model) if self.plugin else model

    def widened(self, model: nn.Module) -> nn.Module:
        """The model with weights of 32 bits at least, a copy where they have fewer."""
        if any(p.dtype in (torch.bfloat16, torch.float16) for p in model.parameters()):
            return copy.deepcopy(model).float()
        return model

    def of(self, compute: Callable[[Batch], Any], batch: Batch) -> Any:
        """What `compute` gives for the batch."""
        if self.channels_last:
            batch = tuple(_channels_last(t) for t in batch)
        if self.plugin is None:
            return compute(batch)
        with self.plugin.forward_context():
            return compute(self.plugin.convert_input(batch))

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss times what keeps its gradients within float16."""
        return self.scaler.scale(loss) if self.scaler else loss

    def unscale(self, optimiser: torch.optim.Optimizer) -> None:
        """Take that out of the gradients."""
        if self.scaler:
            self.scaler.unscale_(optimiser)

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """Step, unless gradients were too large for float16."""
        if self.scaler:
            self.scaler.step(optimiser)
            self.scaler.update()
        else:
            optimiser.step()


FLOAT32 = Arithmetic()


@torch.no_grad()
def evaluate(
    paper: Paper,
    model: nn.Module,
    splits: Mapping[str, Batch],
    metrics: Mapping[str, Metric],
    arithmetic: Arithmetic = FLOAT32,
) -> dict[str, float]:
    """The mean of each per-example metric over each split, by full name."""
    assert paper.metrics is not None
    measure = partial(paper.metrics, model)
    model.eval()
    values: dict[str, float] = {}
    for split, batch in splits.items():
        sums: dict[str, Tensor] = {}
        for rows in zip(*(tensor.split(EVALUATION_ROWS) for tensor in batch), strict=True):
            for name, value in arithmetic.of(measure, paper.prepared(rows)).items():
                sums[name] = (
                    sums.get(name, torch.zeros((), dtype=torch.float64))
                    + _wide(value).sum().double().cpu()
                )
        mean = {f"{split}/{name}": float(total) / len(batch[0]) for name, total in sums.items()}
        values |= {name: value for name, value in mean.items() if name in metrics}
    model.train()
    return values


def _channels_last(t: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t


def _wide(value: Tensor) -> Tensor:
    """With bits enough to be summed."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


class _Loop:
    """The training of one network; knows torch, not Lightning."""

    def __init__(
        self, paper: Paper, variant: Variant, context: RunContext, metrics: Mapping[str, Metric]
    ) -> None:
        assert paper.loss is not None
        self.paper, self.context, self.metrics = paper, context, metrics
        self.share = context.share
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
        self.draws: dict[str, Tensor] | None = None
        """The states of the draws with which the next block begins, when not the present ones."""
        self.others: Tensor | None = None
        """The states of the draws of all processes, a row each, where a training is shared."""
        self.next = 1
        """The step after which the processes of a shared training look up."""
        self.last: dict[str, float] = {}
        self.optimiser = optimiser.build(self.model.parameters(), self.recipe)
        self.phases = optimiser.Phases(self.recipe, self.optimiser)
        self.flops = count_flops(paper, self.model, self.batch_at(0)) * self.steps
        self.step = 0
        self.adds_up = not self.share.alone and self.check_shared() == "sum"
        self.arithmetic = Arithmetic(
            self.recipe.precision, context.device.type, channels_last=self.recipe.channels_last
        )
        self.model = self.arithmetic.narrowed(self.model)
        compiled: Any = torch.compile(self.model) if self.recipe.compiled else self.model
        self.learn = partial(self.loss, compiled)

    def check_shared(self) -> Literal["mean", "sum"]:
        if self.batch < self.share.world:
            raise RequestError(
                f"{self.paper.slug}: a batch of {self.batch} cannot be shared among "
                f"{self.share.world} processes"
            )
        check_batchnorm(self.paper, self.model, self.context.device)
        return reduction(self.paper, self.model, self.batch_at(0))

    def begin(self) -> None:
        """Go on from the checkpoint, or measure the untrained network."""
        state = self.share.told(self.context.resume(), self.context.device)
        if state is None:
            self.measure(0)
            return
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.arithmetic.scaler is not None:
            self.arithmetic.scaler.load_state_dict(state["scaler"])
        self.targets.go_on(state["targets"])
        self.last = state["last"]
        self.next = self.step + 1
        self.draws = self.resumed(state)
        self.order = None  # of the epoch that the checkpoint lies in

    def resumed(self, state: Mapping[str, Any]) -> dict[str, Tensor] | None:
        """Where the draws go on; those of other ranks begin anew with each block."""
        if self.share.leads:
            return {name: state[name] for name in ("rng", "cuda_rng") if name in state}
        rows = state.get("others")
        if self.step % BLOCK == 0 or rows is None or len(rows) != self.share.world:
            return None
        here = draws(self.context.device)
        # copies, for torch crashes when it takes a state from the middle of a tensor
        parts = rows[self.share.rank].split([len(t) for t in here.values()])
        return {name: part.clone() for name, part in zip(here, parts, strict=True)}

    def block(self, begin: int, end: int, backward: Callable[[Tensor], None]) -> None:
        """The steps from `begin` up to `end`, with the evaluations that fall due."""
        losses: list[Tensor] = []
        self.seed(begin)
        for step in range(begin, end):
            losses.append(self.one_step(step, backward))
            epoch, rest = divmod(step + 1, self.per_epoch)
            if rest == 0 and self.moments.due(epoch):
                self.measure(epoch)
            due = self.context.due() if self.share.alone else step + 1 == self.next
            if due or step + 1 == end:
                self.look(step + 1, losses)
                losses = []

    def look(self, end: int, losses: list[Tensor]) -> None:
        """Divergence, progress and checkpoint after the steps up to `end`."""
        self.guard(self.step, losses)
        self.step = end
        if not self.share.alone:
            self.agree(len(losses))
        self.context.progress(end, self.steps, **self.last)
        self.context.checkpoint(self.state())

    def agree(self, steps: int) -> None:
        """Hear from rank 0 when to look up next, and from all where their draws stand."""
        mine = torch.cat(list(draws(self.context.device).values()))
        told = torch.zeros(self.share.world, 1 + len(mine), device=self.context.device)
        told[self.share.rank, 0] = min(self.context.ahead(steps), BLOCK)
        told[self.share.rank, 1:] = mine
        told = (self.share.total(told) * self.share.world).round()
        self.next = self.step + int(told[0, 0])
        self.others = told[:, 1:].to(torch.uint8)

    def seed(self, begin: int) -> None:
        """Draws go on as the checkpoint left them; other ranks have their own for each block."""
        if self.draws is not None:  # only now, for Lightning draws before the first block
            draw_from(self.draws, self.context.device)
        elif not self.share.leads:
            torch.manual_seed(self.context.seeds.integer("noise", self.share.rank, begin))
        self.draws = None

    def one_step(self, step: int, backward: Callable[[Tensor], None] = Tensor.backward) -> Tensor:
        batch, counts = self.share_at(step)
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.arithmetic.of(self.learn, batch)
        if not self.share.alone:
            loss = counts * loss
        backward(self.arithmetic.scaled(loss))
        self.arithmetic.unscale(self.optimiser)
        if self.recipe.clip is not None:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            optimiser.clip(gradients, self.recipe.clip, stacked=False)
        self.arithmetic.step(self.optimiser)
        if self.phases.shrink:
            optimiser.shrink(self.model.parameters(), self.phases.shrink)
        return _wide(loss.detach())

    def compiling(self) -> float:
        """Seconds until both sizes of a batch are compiled: the usual one, and an epoch's last."""
        if not self.recipe.compiled:
            return 0.0
        began = time.perf_counter()
        for step in (0, self.per_epoch - 1):
            self.one_step(step)
        return time.perf_counter() - began

    def batch_at(self, step: int) -> Batch:
        """The step's rows, prepared and varied."""
        batch = self.paper.prepared(self.rows_at(step, ALONE)[0])
        if self.paper.augment is None:
            return batch
        return self.paper.augment(batch, self.context.seeds.torch("augment", step))

    def share_at(self, step: int) -> tuple[Batch, float]:
        """This process's part of that, and what its loss counts in the mean over all processes."""
        if self.share.alone:
            return self.batch_at(step), 1.0
        if self.paper.augment is None:
            rows, count = self.rows_at(step, self.share)
            batch = self.paper.prepared(rows)
        else:  # which draws for the whole batch
            whole = self.batch_at(step)
            batch, count = self.share.of(whole), len(whole[0])
        if count <= self.share.rank:  # nothing was left for this one
            return batch, 0.0
        return batch, self.share.world if self.adds_up else self.share.counts(count)

    def rows_at(self, step: int, share: Share) -> tuple[Batch, int]:
        """A share of the step's rows, and the number of them all.

        The order of an epoch is drawn from its own stream.
        """
        epoch, place = divmod(step, self.per_epoch)
        if place == 0 or self.order is None:
            self.phases.enter(epoch)
            if self.recipe.batch_size != "full":
                order = self.context.seeds.torch("order", epoch)
                drawn = torch.randperm(len(self.rows[0]), generator=order)
                self.order = drawn.to(self.context.device)
        if self.order is None:
            return share.of(self.rows), len(self.rows[0])
        chosen = self.order[place * self.batch : (place + 1) * self.batch]
        (mine,) = share.of((chosen,))
        return tuple(t[mine] for t in self.rows), len(chosen)

    def measure(self, epoch: int) -> None:
        """Rank 0 does, while the others wait for its next gradient."""
        if not self.share.leads:
            return
        measured = evaluate(self.paper, self.model, self.splits, self.metrics, self.arithmetic)
        self.last = measured | self.watched()
        self.targets.see(epoch, {k: torch.tensor([v]) for k, v in self.last.items()})
        if self.moments.keep(epoch):
            self.context.curve(epoch, self.last)

    def watched(self) -> dict[str, float]:
        """What the paper reads off the network as it learns; draws of its own change nothing."""
        if self.paper.watch is None:
            return {}
        self.model.eval()
        with torch.random.fork_rng(devices=[]):
            found = self.paper.watch(self.arithmetic.widened(self.model), self.context.data)
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        for name in found:
            if name not in self.metrics:
                known = near(name, self.metrics)
                raise PaperError(f"`watch` gives '{name}', no metric of claims.toml. {known}")
        return {name: float(value) for name, value in found.items()}

    def guard(self, begin: int, losses: list[Tensor]) -> None:
        """Not after every step, because looking makes a GPU wait."""
        seen = self.share.total(torch.stack(losses))
        finite = torch.isfinite(seen)
        if not bool(finite.all()):
            place = int((~finite).int().argmax())
            value = float(seen[place])
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
            **draws(self.context.device),
            "others": self.others,
            "scaler": self.arithmetic.scaler.state_dict() if self.arithmetic.scaler else None,
        }

    def outcome(self) -> Outcome:
        self.model.eval()
        inspect = self.paper.inspect if self.share.leads else None
        whole = self.arithmetic.widened(self.model)
        more = inspect(whole, self.context.data) if inspect else {}
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
        begin = self.loop.step
        while begin < self.loop.steps:
            end = min(begin - begin % BLOCK + BLOCK, self.loop.steps)
            yield begin, end
            begin = end
