"""LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition", 1998.

Shapes:  N digits.
Symbols: X images, D classes, y penalties of LeNet-5, x states of the output units of the others.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from reimpl.claims import Variant
from reimpl.paper import Batch, Measurements, Paper

from . import classical
from .data import data, prepare
from .layers import Layer
from .model import LeNet1, LeNet4, LeNet5, Perceptron

RUBBISH = 0.1  # j of eq. (9), gap "rubbish-class"


def model(variant: Variant) -> nn.Module:
    """A variant's network with fresh weights."""
    match variant["network"]:
        case "lenet5":
            return LeNet5()
        case "lenet4":
            return LeNet4()
        case "lenet1":
            return LeNet1()
        case "perceptron":
            return Perceptron(variant["hidden"])
        case other:
            raise ValueError(f"variant '{variant.id}': no network '{other}'")


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean over the batch: eq. (9) for LeNet-5, squared error for the others."""
    X, D = batch
    criterion = maximum_a_posteriori if isinstance(model, LeNet5) else squared_error
    return criterion(model(X), D).mean()


def maximum_a_posteriori(y: Float[Tensor, "N 10"], D: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """y_D + log(e⁻ʲ + Σ_i e^−y_i), eq. (9): the right penalty falls, low ones of others rise."""
    rubbish = y.new_full((len(y), 1), RUBBISH)
    return y.gather(1, D[:, None])[:, 0] + torch.cat([-rubbish, -y], dim=1).logsumexp(1)


def squared_error(x: Float[Tensor, "N 10"], D: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """½ Σ (x − d)² with d = 1 for the class and −1 elsewhere (app. A)."""
    return 0.5 * (x - (2.0 * functional.one_hot(D, 10) - 1.0)).square().sum(1)


def metrics(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """Whether the smallest penalty, or the largest state, is at the wrong class."""
    X, D = batch
    output = model(X)
    answers = output.argmin(1) if isinstance(model, LeNet5) else output.argmax(1)
    return {"error": 100.0 * (answers != D)}


def example(variant: Variant) -> Batch:
    """Four made-up digits of different classes."""
    side = 32 if variant["input"] == "32x32" else 28
    X = torch.linspace(-0.1, 1.175, 4 * side * side).view(4, side, side)
    return X, torch.tensor([0, 3, 5, 9])


def counts(variant: Variant) -> Measurements:
    """Free parameters and connections, layer by layer for a LeNet and in all."""
    if variant.id in classical.FITS:
        return classical.counts(variant)
    network = model(variant)
    layers = {path: layer for path, layer in network.named_modules() if isinstance(layer, Layer)}
    parameters = {
        path: sum(p.numel() for p in layer.parameters()) for path, layer in layers.items()
    }
    connections = _connections(network, layers, example(variant)[0])
    named = {path for path in layers if "." not in path}
    return {
        "parameters": sum(parameters.values()),
        "connections": sum(connections.values()),
        **{f"{path}-parameters": parameters[path] for path in named},
        **{f"{path}-connections": connections[path] for path in named},
    }


def _connections(network: nn.Module, layers: Mapping[str, Layer], X: Tensor) -> dict[str, int]:
    """Connections of each layer, whose maps are seen when the network is run."""
    maps: dict[nn.Module, int] = {}

    def see(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        maps[layer] = output.shape[2:].numel()

    for layer in layers.values():
        layer.register_forward_hook(see)
    network(X)
    return {path: layer.connections(maps[layer]) for path, layer in layers.items()}


PAPER = Paper(
    slug="lecun1998_lenet5",
    model=model,
    data=data,
    prepare=prepare,
    loss=loss,
    metrics=metrics,
    example=example,
    counts=counts,
    fit=classical.FITS,
)
