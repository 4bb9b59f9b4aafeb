"""The variants that the harness trains, each tried on a little data."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from reimpl.claims import Claims, Variant
from reimpl.conformance.run import caught, trained_variants
from reimpl.errors import ReimplError
from reimpl.registry import Entry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reimpl.context import RunContext
    from reimpl.paper import Batch, Data, Measurements, Paper

SEEDS = (0, 1)
EPOCHS = 2
"""Steps that a vectorised variant is followed for; the second one shows the optimiser's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A variant that the harness trains, and a little data to try it on."""

    paper: "Paper"
    """Without `prepare`: the batch is prepared."""
    claims: Claims
    variant: Variant
    batch: "Batch"


def trial(entry: Entry, variant: Variant) -> Trial | None:
    """The variant on the paper's example, or on its data; None where these must be fetched."""
    from reimpl.paper import Seeds

    paper = entry.load()
    if paper.example is not None:
        batch = paper.example(variant)
    elif paper.data is None or entry.claims.sources:
        return None
    else:
        rows = paper.data(variant, {}, Seeds(SEEDS[0])).train
        batch = paper.prepared(rows)
    plain = replace(paper, prepare=None)
    return Trial(paper=plain, claims=entry.claims, variant=variant, batch=batch)


def untried(entry: Entry) -> Iterator[str]:
    """Why variants are not tried, or not on an example."""
    if entry.load().example is None:
        tried = "the data have to be fetched, so no variant is tried"
        yield f"none: {tried}" if entry.claims.sources else "none: variants are tried on the data"


def tried(look: Callable[[Trial], Iterable[str]], entry: Entry) -> Iterator[str]:
    """A check of every trained variant; each problem with the variant's name."""
    for variant in trained_variants(entry):
        problems = caught(partial(_look_at, look, entry, variant), entry.folder)
        yield from (f"variant '{variant.id}': {problem}" for problem in problems)


def _look_at(
    look: Callable[[Trial], Iterable[str]], entry: Entry, variant: Variant
) -> Iterable[str]:
    example = trial(entry, variant)
    return look(example) if example else ()


def loss_problems(trial: Trial) -> Iterator[str]:
    """The model does not run, or the loss is no finite scalar."""
    loss = _loss(trial, _model(trial))
    if loss.dim():
        yield f"the loss has shape {tuple(loss.shape)} and must be a scalar"
    elif not loss.isfinite():
        yield f"the loss is {loss.item()}"


def gradient_problems(trial: Trial) -> Iterator[str]:
    """Parameters that no gradient reaches, or one that is not finite."""
    model = _model(trial)
    _loss(trial, model).sum().backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            yield f"no gradient reaches '{name}'"
        elif not parameter.grad.isfinite().all():
            yield f"the gradient of '{name}' is not finite"


def step_problems(trial: Trial) -> Iterator[str]:
    """One step of the variant's recipe leaves the network as it is, or breaks it."""
    model = _model(trial)
    before = _weights(model)
    _train(trial, model, epochs=1)
    after = _weights(model)
    if all(bool((before[name] == after[name]).all()) for name in before):
        yield "a step of the recipe changes no parameter"
    yield from (
        f"a step leaves '{n}' not finite" for n, w in after.items() if not w.isfinite().all()
    )


def metric_problems(trial: Trial) -> Iterator[str]:
    """Metrics that are not one number for each example, or that claims.toml does not know."""
    import torch

    assert trial.paper.metrics is not None
    model, rows = _model(trial).eval(), len(trial.batch[0])
    with torch.no_grad():
        values = trial.paper.metrics(model, trial.batch)
    known = {name.partition("/")[2] for name in trial.claims.metrics}
    for name, value in values.items():
        if name not in known:
            yield f"metric '{name}' is no split/{name} of claims.toml"
        shape = tuple(getattr(value, "shape", ()))
        if shape != (rows,):
            yield f"metric '{name}' has shape {shape}, not one value per example ({rows},)"
        elif not value.isfinite().all():
            yield f"metric '{name}' is not finite"


def vectorised_problems(trial: Trial) -> Iterator[str]:
    """A seed trained in a batch of seeds goes another way than alone."""
    if not trial.variant.vectorised:
        return
    trial = replace(trial, variant=_shortened(trial.variant))
    for seed, found in zip(SEEDS, _together(trial), strict=True):
        model = _model(trial, seed)
        start = _weights(model)
        _train(trial, model, epochs=EPOCHS)
        for name, alone in _weights(model).items():
            # Rounding differs; so may a weight, by a little of what training changed.
            slack = 1e-6 + 1e-3 * float((alone - start[name]).abs().max())
            if not found[name].allclose(alone, rtol=1e-5, atol=slack):
                apart = float((found[name] - alone).abs().max())
                yield f"in a batch of seeds '{name}' of seed {seed} ends {apart:.2g} away"


def _shortened(variant: Variant) -> Variant:
    assert variant.recipe is not None
    recipe = replace(variant.recipe, epochs=EPOCHS, batch_size="full", evaluate=1)
    return replace(variant, recipe=recipe)


def _together(trial: Trial) -> "list[dict[str, Tensor]]":
    """The weights of each seed after training them as one batch."""
    from reimpl import vectorised

    kept: list[dict[str, Tensor]] = []

    def keep(model: "nn.Module", _data: "Data") -> "Measurements":
        kept.append(_weights(model))
        return {}

    outcomes = vectorised.train(
        replace(trial.paper, inspect=keep),
        trial.variant,
        [_context(trial, seed) for seed in SEEDS],
        metrics=trial.claims.metrics,
    )
    for outcome in outcomes:
        if isinstance(outcome, ReimplError):
            raise outcome
    return kept


def _context(trial: Trial, seed: int) -> "RunContext":
    """A run on the trial's batch, whatever split is asked for."""
    from reimpl.context import RunContext
    from reimpl.paper import Data, Seeds

    splits = {metric.split for metric in trial.claims.metrics.values()} - {"train", "test", "none"}
    data = Data(train=trial.batch, test=trial.batch, more=dict.fromkeys(splits, trial.batch))
    return RunContext(seeds=Seeds(seed), sources={}, data=data)


def _model(trial: Trial, seed: int = SEEDS[0]) -> "nn.Module":
    from reimpl.training import build_model

    return build_model(trial.paper, trial.variant, _context(trial, seed))


def _loss(trial: Trial, model: "nn.Module") -> "Tensor":
    assert trial.paper.loss is not None
    return trial.paper.loss(model, trial.batch)


def _weights(model: "nn.Module") -> "dict[str, Tensor]":
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def _train(trial: Trial, model: "nn.Module", *, epochs: int) -> None:
    """The recipe by a plain loop, all rows at once: what the trainers are held against."""
    from reimpl import optimiser

    recipe = trial.variant.recipe
    assert recipe is not None
    parameters = list(model.parameters())
    stepper = optimiser.build(parameters, recipe)
    phases = optimiser.Phases(recipe, stepper)
    for epoch in range(epochs):
        phases.enter(epoch)
        stepper.zero_grad()
        _loss(trial, model).backward()
        if recipe.clip is not None:
            gradients = [p.grad for p in parameters if p.grad is not None]
            optimiser.clip(gradients, recipe.clip, stacked=False)
        stepper.step()
        if phases.shrink:
            optimiser.shrink(parameters, phases.shrink)
