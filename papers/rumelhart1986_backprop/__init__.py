"""Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors" (1986)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from reimpl.claims import Variant
from reimpl.errors import RequestError, near
from reimpl.paper import Batch, Data, Paper, Seeds, Sources

from .data import Cases, family_trees, hold_out, parity, symmetry
from .model import FamilyTrees, Layered
from .weights import Facts, code_facts, mirror_facts


def cases(variant: Variant) -> Cases:
    """Everything there is to learn in a variant's task."""
    match variant["task"]:
        case "families":
            return family_trees(tolerance=variant["tolerance"])
        case "symmetry":
            return symmetry(variant["inputs"])
        case "parity":
            return parity(variant["inputs"])
        case other:
            known = near(other, ("families", "parity", "symmetry"))
            raise RequestError(f"variant '{variant.id}': unknown task '{other}'. {known}")


def model(variant: Variant) -> nn.Module:
    """A variant's network with fresh weights."""
    if variant["task"] == "families":
        return FamilyTrees(spread=variant["spread"])
    names = ("inputs", "hidden", "direct", "spread")
    return Layered(**{name: variant[name] for name in names})


def data(variant: Variant, _sources: Sources, seeds: Seeds) -> Data:
    """All cases; of the family trees four random ones are held out (gap "held-out-cases")."""
    everything = cases(variant)
    if variant["task"] != "families":
        return Data(train=everything)
    train, test = hold_out(everything, 4, seeds.numpy("split"))
    return Data(train=train, test=test)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """E = ½ Σ_c Σ_j (y − d)², eq. (3), summed and not averaged.

    An output within the tolerance counts as having no error (Fig. 4).
    """
    X, D, T = batch
    miss = model(X) - D  # (N, O)
    return 0.5 * torch.where(miss.abs() < T, 0.0, miss).square().sum()


def metrics(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """Per cent, by case: every output is on its side of one half, or within 0.2 (gap "right")."""
    X, D, _ = batch
    worst = (model(X) - D).abs().amax(dim=1)  # (N,)
    return {"accuracy": 100.0 * (worst < 0.5), "within-0.2": 100.0 * (worst < 0.2)}


def inspect(model: nn.Module, data: Data) -> Facts:
    """What the captions of Figs 1 and 4 say of the learned weights."""
    solved = bool((metrics(model, data.train)["accuracy"] == 100.0).all())
    if isinstance(model, FamilyTrees):
        return {"solved": solved, **code_facts(model)}
    if isinstance(model, Layered) and model.shape == (6, 2):
        facts = mirror_facts(model)
        return {"solved": solved, **(facts if solved else dict.fromkeys(facts))}
    return {"solved": solved}


def example(variant: Variant) -> Batch:
    """The first three cases."""
    X, D, T = cases(variant)
    return X[:3], D[:3], T[:3]


def counts(variant: Variant) -> dict[str, int]:
    """Parameters of the network, cases of the task, and cases in which some output should be on."""
    _, D, _ = cases(variant)
    return {
        "parameters": sum(p.numel() for p in model(variant).parameters()),
        "cases": len(D),
        "positives": int(D.any(dim=1).sum()),
    }


PAPER = Paper(
    slug="rumelhart1986_backprop",
    model=model,
    data=data,
    loss=loss,
    metrics=metrics,
    inspect=inspect,
    example=example,
    counts=counts,
)
