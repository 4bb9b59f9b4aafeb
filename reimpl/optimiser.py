"""A recipe's optimiser, for one network or for the stacked parameters of many seeds."""

from collections.abc import Iterable

import torch
from torch import Tensor

from reimpl.claims import Recipe


def build(parameters: Iterable[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    """The torch optimiser that the recipe names.

    Every choice works element by element, so that stacked parameters (S, …) train as S networks do.
    """
    tensors, lr, decay = list(parameters), recipe.lr, recipe.weight_decay
    betas = (recipe.betas[0], recipe.betas[1])
    match recipe.optimiser:
        case "sgd":
            return torch.optim.SGD(tensors, lr=lr, momentum=recipe.momentum, weight_decay=decay)
        case "adam":
            return torch.optim.Adam(tensors, lr=lr, betas=betas, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(tensors, lr=lr, betas=betas, weight_decay=decay)
        case "rmsprop":
            return torch.optim.RMSprop(tensors, lr=lr, momentum=recipe.momentum, weight_decay=decay)


class Phases:
    """The recipe's schedule: sets the optimiser's values at the start of an epoch."""

    def __init__(self, recipe: Recipe, optimiser: torch.optim.Optimizer) -> None:
        self.recipe, self.optimiser = recipe, optimiser
        self.shrink = recipe.shrink

    def enter(self, epoch: int) -> None:
        """Apply every phase that has begun by `epoch`."""
        for phase in self.recipe.schedule:
            if phase["from"] > epoch:
                return
            for key, value in phase.items():
                if key == "shrink":
                    self.shrink = value
                elif key != "from":
                    for group in self.optimiser.param_groups:
                        group[key] = value


def clip(gradients: Iterable[Tensor], largest: float, *, stacked: bool) -> None:
    """Scale gradients in place so that their joint norm is at most `largest`.

    Stacked gradients (S, …) are scaled per seed.
    """
    tensors = list(gradients)
    flat = [g.flatten(1) if stacked else g.flatten()[None] for g in tensors]  # each (S, …)
    norm = torch.cat(flat, dim=1).norm(dim=1)  # (S,)
    factor = (largest / (norm + 1e-6)).clamp(max=1.0)
    for g in tensors:
        g.mul_(factor.view(-1, *[1] * (g.dim() - 1)) if stacked else factor[0])


def shrink(parameters: Iterable[Tensor], share: float) -> None:
    """Take w ← (1 − share)·w, in place."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.mul_(1 - share)
