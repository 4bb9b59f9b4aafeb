"""Many seeds of one variant trained as one batch, for variants that say `vectorised = true`.

Parameters are stacked along a new first axis (`torch.func.stack_module_state`), gradients come from
`vmap`, and the step is traced once (`make_fx`) so that a network of a few dozen weights does not
spend its time in Python. Every seed gets its own initial weights, data order and split; the numbers
equal one-by-one runs to float tolerance. A network that draws random numbers as it trains (dropout)
would share its draws among the seeds, so such a variant stays one by one.

Shapes: S seeds, N examples, B examples of a step.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from reimpl import optimiser
from reimpl.claims import Metric, Variant
from reimpl.context import Moments, Outcome, RunContext, Targets
from reimpl.errors import DivergenceError, PaperError
from reimpl.paper import Batch, Paper
from reimpl.training import build_model, count_flops, measured_splits, recipe_of, timed

Stacked = dict[str, Tensor]
SEED_CURVE_POINTS = 40
"""Points of one seed's curve that are kept: hundreds of seeds are read back together."""
PROGRESS_EVERY = 50
"""Steps between looks at progress, divergence and checkpoints; fewer where they are long."""


def train(
    paper: Paper, variant: Variant, contexts: Sequence[RunContext], *, metrics: Mapping[str, Metric]
) -> list[Outcome | DivergenceError]:
    """Train one seed per context, all at once; a seed that diverges does so alone.

    Raises:
        PaperError: the paper watches its networks or varies its examples, which must be done one
            seed after another.
    """
    for name in ("watch", "augment"):
        if getattr(paper, name) is not None:
            raise PaperError(f"{paper.slug}: `{name}` and `vectorised` do not go together")
    return _Batch(paper, variant, contexts, metrics).train()


def probe(
    paper: Paper,
    variant: Variant,
    contexts: Sequence[RunContext],
    *,
    metrics: Mapping[str, Metric],
    seconds: float,
) -> tuple[float, float]:
    """Seconds and floating-point operations of the whole batch, from a moment of it."""
    batch = _Batch(paper, variant, contexts, metrics)
    flops = count_flops(paper, deepcopy(batch.single), batch._one(batch._batch_at(0))[0])
    for first in sorted({0, 1, batch.per_epoch - 1}):  # each may be traced to a graph of its own
        if first < batch.steps:
            batch._one_step(first)
    step = timed(batch._one_step, steps=batch.steps, seconds=seconds)
    return step * batch.steps, flops * batch.steps * len(contexts)


class _Remember(nn.Module):
    """Computes no output twice, so that loss and metrics share one forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.given: tuple[Tensor, ...] = ()
        self.output: Any = None

    def forward(self, *inputs: Tensor) -> Any:
        if len(inputs) != len(self.given) or any(
            a is not b for a, b in zip(inputs, self.given, strict=True)
        ):
            self.given, self.output = inputs, self.model(*inputs)
        return self.output


class _Objective(nn.Module):
    """Loss and, when asked, metrics of one seed's network on one batch."""

    def __init__(self, paper: Paper, model: nn.Module, *, with_metrics: bool) -> None:
        super().__init__()
        self.paper, self.model, self.with_metrics = paper, model, with_metrics

    def forward(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        assert self.paper.loss is not None
        assert self.paper.metrics is not None
        batch = self.paper.prepared(batch)
        model = _Remember(self.model)
        loss = self.paper.loss(model, batch)
        if not self.with_metrics:
            return loss, {}
        means = {
            k: v.mean(dtype=torch.float64).detach()
            for k, v in self.paper.metrics(model, batch).items()
        }
        return loss, means


class _Batch:
    """The training of S seeds."""

    def __init__(
        self,
        paper: Paper,
        variant: Variant,
        contexts: Sequence[RunContext],
        metrics: Mapping[str, Metric],
    ) -> None:
        self.paper, self.variant, self.contexts, self.metrics = paper, variant, contexts, metrics
        self.recipe = recipe_of(variant)
        self.device = contexts[0].device
        models = [build_model(paper, variant, context).to(self.device) for context in contexts]
        self.single = models[0]
        params, buffers = stack_module_state(models)
        self.params: Stacked = {k: p.detach().requires_grad_() for k, p in params.items()}
        self.buffers: Stacked = dict(buffers)
        self.splits, self.shared = self._stack_data()
        self.rows = self.splits["train"]
        self.examples = self.rows[0].shape[0 if self.shared["train"] else 1]
        size = self.recipe.batch_size
        self.size = self.examples if size == "full" else size
        self.per_epoch = -(-self.examples // self.size)
        self.steps = self.per_epoch * self.recipe.epochs
        self.moments = Moments(self.recipe.epochs, self.recipe.evaluate, points=SEED_CURVE_POINTS)
        self.targets = Targets(metrics, len(contexts))
        self.optimiser = optimiser.build(self.params.values(), self.recipe)
        self.phases = optimiser.Phases(self.recipe, self.optimiser)
        self.lost: dict[int, DivergenceError] = {}
        self.last: dict[str, Tensor] = {}
        self.order: Tensor | None = None
        self.step = 0
        self.traced: dict[Any, Callable[..., Any]] = {}

    def train(self) -> list[Outcome | DivergenceError]:
        """Run to the last epoch and read every seed off."""
        first = self._one(self._batch_at(0))[0]
        self.flops = count_flops(self.paper, deepcopy(self.single), first)
        self._restore()
        for step in range(self.step, self.steps):
            self._one_step(step)
            regular = (step + 1) % PROGRESS_EVERY == 0 or step + 1 == self.steps
            if regular or self.contexts[0].due():
                self.step = step + 1
                self._look()
        self._measure(self.recipe.epochs, {})
        return [self.lost.get(place) or self._outcome(place) for place in range(len(self.contexts))]

    def _one_step(self, step: int) -> None:
        batch = self._batch_at(step)
        epoch, place = divmod(step, self.per_epoch)
        due = place == 0 and self.moments.due(epoch)
        # With the full batch the forward pass of the step is the evaluation of the training split.
        free = due and self.recipe.batch_size == "full"
        gradients, (_, means) = self._traced(with_metrics=free, batch=batch)(
            self.params, self.buffers, batch
        )
        if due:
            self._measure(epoch, {f"train/{name}": value for name, value in means.items()})
        for name, parameter in self.params.items():
            parameter.grad = gradients[name]
        if self.recipe.clip is not None:
            optimiser.clip(gradients.values(), self.recipe.clip, stacked=True)
        self.optimiser.step()
        if self.phases.shrink:
            optimiser.shrink(self.params.values(), self.phases.shrink)

    def _seed(self, *, with_metrics: bool) -> Callable[..., tuple[Tensor, Mapping[str, Tensor]]]:
        """Loss and metric means of one seed, as a function of its parameters, buffers and batch."""
        objective = _Objective(self.paper, self.single, with_metrics=with_metrics)

        def one(
            params: Stacked, buffers: Stacked, batch: Batch
        ) -> tuple[Tensor, Mapping[str, Tensor]]:
            named = {f"model.{k}": v for k, v in {**params, **buffers}.items()}
            return functional_call(objective, named, (batch,))

        return one

    def _traced(self, *, with_metrics: bool, batch: Batch) -> Callable[..., Any]:
        """Gradients, loss (S,) and metric means (S,): one traced graph per shape of batch."""
        signature = (with_metrics, batch[0].shape)
        if signature not in self.traced:
            one, axis = self._seed(with_metrics=with_metrics), 0 if self._stacked_batch else None
            every = vmap(grad_and_value(one, has_aux=True), in_dims=(0, 0, axis))
            plain = {k: p.detach() for k, p in self.params.items()}
            graph = make_fx(every)(plain, self.buffers, batch)
            graph.graph.eliminate_dead_code()
            graph.recompile()
            self.traced[signature] = graph
        traced = self.traced[signature]
        return lambda params, buffers, batch: traced(
            {k: p.detach() for k, p in params.items()}, buffers, batch
        )

    @torch.no_grad()
    def _measure(self, epoch: int, known: Mapping[str, Tensor]) -> None:
        """Evaluate every split whose values the step did not already give."""
        values = {name: value for name, value in known.items() if name in self.metrics}
        for split, rows in self.splits.items():
            if any(name.startswith(f"{split}/") for name in values):
                continue
            if split == "train" and not self._wanted("train"):
                continue
            _, means = self._evaluate(rows, shared=self.shared[split])
            values |= {
                f"{split}/{k}": v for k, v in means.items() if f"{split}/{k}" in self.metrics
            }
        self.last = values
        self.targets.see(epoch, values)
        if self.moments.keep(epoch):
            self._keep(epoch)

    def _wanted(self, split: str) -> bool:
        return any(metric.split == split and not metric.reaches for metric in self.metrics.values())

    def _evaluate(self, rows: Batch, *, shared: bool) -> tuple[Tensor, Mapping[str, Tensor]]:
        one = self._seed(with_metrics=True)
        return vmap(one, in_dims=(0, 0, None if shared else 0))(self.params, self.buffers, rows)

    def _keep(self, epoch: int) -> None:
        for place, context in enumerate(self.contexts):
            if place in self.lost:
                continue
            try:
                context.curve(
                    epoch, {name: float(value[place]) for name, value in self.last.items()}
                )
            except DivergenceError as error:
                self.lost[place] = error

    def _look(self) -> None:
        """Progress, seeds that went NaN, checkpoint."""
        finite = torch.stack(
            [p.detach().flatten(1).isfinite().all(1) for p in self.params.values()]
        ).all(0)
        for place in (~finite).nonzero().flatten().tolist():
            self.lost.setdefault(
                place,
                DivergenceError(
                    f"a weight became NaN or infinite by step {self.step} of {self.steps}"
                ),
            )
        shown = {name: float(value.nanmean()) for name, value in self.last.items()}
        self.contexts[0].progress(self.step, self.steps, **shown)
        self.contexts[0].checkpoint(self._state())

    def _outcome(self, place: int) -> Outcome:
        model = deepcopy(self.single)
        model.load_state_dict(
            {k: v[place].detach() for k, v in {**self.params, **self.buffers}.items()}
        )
        model.eval()
        context = self.contexts[place]
        more = self.paper.inspect(model, context.data) if self.paper.inspect else {}
        last = {name: float(value[place]) for name, value in self.last.items()}
        return Outcome(
            measurements={**last, **self.targets.measurements(place), **more},
            parameters=sum(p[place].numel() for p in self.params.values()),
            flops=self.flops * self.steps,
        )

    # Data and order

    def _stack_data(self) -> tuple[dict[str, Batch], dict[str, bool]]:
        """Every measured split, stacked (S, N, …) unless all seeds have the same rows."""
        every = [
            {"train": context.data.train, **measured_splits(self.metrics, context.data)}
            for context in self.contexts
        ]
        splits: dict[str, Batch] = {}
        shared: dict[str, bool] = {}
        for name, first in every[0].items():
            shared[name] = all(_same(first, other[name]) for other in every)
            rows = first if shared[name] else _stack([other[name] for other in every])
            splits[name] = tuple(t.to(self.device) for t in rows)
        return splits, shared

    @property
    def _stacked_batch(self) -> bool:
        return self.recipe.batch_size != "full" or not self.shared["train"]

    def _batch_at(self, step: int) -> Batch:
        """The rows of a step: (N, …) for a shared full batch, else (S, B, …)."""
        epoch, place = divmod(step, self.per_epoch)
        if place == 0 or (self.order is None and self.recipe.batch_size != "full"):
            self.phases.enter(epoch)
            if self.recipe.batch_size != "full":
                orders = [
                    torch.randperm(self.examples, generator=c.seeds.torch("order", epoch))
                    for c in self.contexts
                ]
                self.order = torch.stack(orders).to(self.device)  # (S, N)
        if self.order is None:
            return self.rows
        chosen = self.order[:, place * self.size : (place + 1) * self.size]  # (S, B)
        if self.shared["train"]:
            return tuple(t[chosen] for t in self.rows)
        seeds = torch.arange(len(self.contexts), device=self.device)[:, None]
        return tuple(t[seeds, chosen] for t in self.rows)

    def _one(self, batch: Batch) -> tuple[Batch, ...]:
        """The first seed's rows, prepared."""
        rows = tuple(t[0] for t in batch) if self._stacked_batch else batch
        return (self.paper.prepared(rows),)

    # Checkpoints

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "params": {k: p.detach() for k, p in self.params.items()},
            "optimiser": self.optimiser.state_dict(),
            "targets": self.targets.first,
            "last": self.last,
            "lost": {place: str(error) for place, error in self.lost.items()},
            "curves": [context.curves for context in self.contexts],
        }

    def _restore(self) -> None:
        state = self.contexts[0].resume()
        if state is None:
            return
        self.step = state["step"]
        self.order = None  # of the epoch that the checkpoint lies in
        with torch.no_grad():
            for name, parameter in self.params.items():
                parameter.copy_(state["params"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.targets.go_on(state["targets"])
        self.last = state["last"]
        self.lost = {place: DivergenceError(error) for place, error in state["lost"].items()}
        for context, curves in zip(self.contexts, state["curves"], strict=True):
            context.curves = curves


def _same(first: Batch, second: Batch) -> bool:
    return all(a is b or torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _stack(batches: Sequence[Batch]) -> Batch:
    return tuple(torch.stack(tensors) for tensors in zip(*batches, strict=True))
