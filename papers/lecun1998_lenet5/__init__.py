"""LeCun, Bottou, Bengio & Haffner (1998), "Gradient-based learning applied to document recognition"."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from reimpl.claims import Variant
from reimpl.paper import Batch, Measurements, Paper

from .classical import FITS, inputs_of
from .data import data, prepare
from .model import LeNet1, LeNet4, LeNet5, Perceptron

RUBBISH = 0.1  # j of eq. (9), gap "rubbish-class"


def model(variant: Variant) -> nn.Module:
    """A variant's network with fresh weights."""
    match variant["method"]:
        case "lenet5":
            return LeNet5()
        case "lenet4":
            return LeNet4()
        case "lenet1":
            return LeNet1()
        case "perceptron":
            return Perceptron(variant["hidden"])
        case other:
            raise ValueError(f"variant '{variant.id}': '{other}' is no network")


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean over the batch: of eq. (9) for the penalties of LeNet-5, of ½ Σ (x − d)² with targets ±1 elsewhere."""
    X, D = batch
    if isinstance(model, LeNet5):
        return maximum_a_posteriori(model(X), D)
    targets = 2.0 * functional.one_hot(D, 10) - 1.0
    return 0.5 * (model(X) - targets).square().sum(1).mean()


def maximum_a_posteriori(y: Tensor, D: Tensor) -> Tensor:
    """y_D + log(e⁻ʲ + Σ_i e^−y_i), eq. (9): pulls the right penalty down, pushes the others up while they are low."""
    rubbish = y.new_full((len(y), 1), RUBBISH)
    others = torch.logsumexp(torch.cat([-rubbish, -y], dim=1), dim=1)
    return (y.gather(1, D[:, None])[:, 0] + others).mean()


def metrics(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """Whether the class of the smallest penalty, or of the most active unit, is the wrong one."""
    X, D = batch
    output = model(X)
    answer = output.argmin(1) if isinstance(model, LeNet5) else output.argmax(1)
    return {"error": 100.0 * (answer != D)}


def example(variant: Variant) -> Batch:
    """Four made-up digits, each of another class."""
    side = 32 if variant["input"] == "32x32" else 28
    return torch.linspace(-0.1, 1.175, 4 * side * side).view(4, side, side), torch.tensor([0, 3, 5, 9])


def counts(variant: Variant) -> Measurements:
    """Free parameters and connections of every layer and in all, read off the built network."""
    if variant["method"] in FITS:
        return inputs_of(variant)
    network, sizes = model(variant), {}
    for path, layer in network.named_modules():
        if hasattr(layer, "connections"):
            layer.register_forward_hook(lambda *call, name=path: sizes.update({name: call[2].shape[2:].numel()}))
    network(example(variant)[0])
    found: dict[str, float | bool | None] = {}
    for path, positions in sizes.items():
        layer = network.get_submodule(path)
        found[f"{path}-parameters"] = sum(p.numel() for p in layer.parameters())
        found[f"{path}-connections"] = layer.connections(positions)
    totals = {what: sum(v for k, v in found.items() if k.endswith(what)) for what in ("parameters", "connections")}
    return {**found, **totals}


PAPER = Paper(
    slug="lecun1998_lenet5",
    model=model,
    data=data,
    prepare=prepare,
    loss=loss,
    metrics=metrics,
    example=example,
    counts=counts,
    fit=FITS,
)
