"""What Fig. 1 and Fig. 4 say of the learned weights, read off a trained network."""

import torch
from torch import Tensor

from .data import BRANCH, GENERATION
from .model import FamilyTrees, Layered

Facts = dict[str, int | float | bool | None]
PER_TREE = 12


def mirror_facts(model: Layered) -> Facts:
    """The caption of Fig. 1, for the two hidden units of a 6-2-1 network."""
    assert model.hidden is not None  # the caller asks for 6-2-1
    W = model.hidden.weight.detach()  # (2, 6)
    size = W.abs()
    halves = (size[:, :3] + size[:, 3:].flip(1)).sort(dim=1).values  # (2, 3), smallest first
    ratio = halves / halves[:, :1]
    return {
        "weights/asymmetry": float(((W + W.flip(1)).abs().amax(1) / size.amax(1)).max()),
        "weights/middle-ratio": float(ratio[:, 1].mean()),
        "weights/largest-ratio": float(ratio[:, 2].mean()),
        "weights/one-two-four": bool((ratio.round() == torch.tensor([1.0, 2.0, 4.0])).all()),
        "weights/unit-correlation": float(torch.corrcoef(W)[0, 1]),
        "weights/bias-signs": bool((model.hidden.bias < 0).all() and (model.output.bias > 0).all()),
    }


def code_facts(model: FamilyTrees) -> Facts:
    """The caption of Fig. 4, for the weights from the 24 people to their six units."""
    W = model.person.weight.detach().T.double()  # (24, 6)
    nationality = _share_between(W, torch.arange(2).repeat_interleave(PER_TREE))
    placed = torch.tensor(BRANCH * 2) >= 0
    return {
        "codes/nationality": float(nationality.max()),
        "codes/generation": float(_share_between(W, torch.tensor(GENERATION * 2)).max()),
        "codes/branch": float(_share_between(W[placed], torch.tensor(BRANCH * 2)[placed]).max()),
        "codes/ignoring": int((nationality < 0.1).sum()),
        "codes/twin-distance": _twin_distance(model, without=int(nationality.argmax())),
    }


def _share_between(W: Tensor, groups: Tensor) -> Tensor:
    """η², (6,): of the variance of each unit's weights, the share between the groups."""
    means = torch.stack([W[groups == g].mean(0) for g in groups.unique()])  # (groups, 6)
    between = (means[groups] - W.mean(0)).square().sum(0)
    return between / (W - W.mean(0)).square().sum(0)


def _twin_distance(model: FamilyTrees, *, without: int) -> float:
    """Mean distance of the codes of twins over that of other pairs across the trees."""
    W, bias = model.person.weight.detach().T, model.person.bias.detach()
    codes = torch.sigmoid(W + bias)[:, [unit for unit in range(6) if unit != without]]  # (24, 5)
    apart = torch.cdist(codes[:PER_TREE], codes[PER_TREE:])  # (12, 12)
    twins = torch.eye(PER_TREE, dtype=torch.bool)
    return float(apart[twins].mean() / apart[~twins].mean())
