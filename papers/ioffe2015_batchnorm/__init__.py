"""Ioffe & Szegedy, "Batch normalization: accelerating deep network training by ...", 2015.

Shapes:  N digits, K activations of the last hidden layer, T evaluations.
Symbols: X binary pixels, D classes.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from reimpl.claims import Variant
from reimpl.paper import Batch, Data, Measurements, Paper, Seeds, Sources

from .activations import SHARES, inspect, watch
from .model import PIXELS, UNITS, Network, Normalised

INK = 128  # gap "binary-pixels"


def model(variant: Variant) -> nn.Module:
    """A variant's network, with a buffer (T, 3, K) for what `watch` sees of its training."""
    recipe = variant.recipe
    assert recipe is not None  # the networks of sec. 4.2 are not built
    normalised = partial(Normalised, m=int(recipe.batch_size))
    kind = normalised if variant["normalised"] else Network
    network = kind(nonlinearity=variant["nonlinearity"], spread=variant["spread"])
    evaluations = recipe.epochs // recipe.evaluate + 2
    network.register_buffer("past", torch.full((evaluations, len(SHARES), UNITS), torch.inf))
    return network


def data(_variant: Variant, sources: Sources, _seeds: Seeds) -> Data:
    """MNIST with binary pixels: X (N, 784) of 0 and 1, one byte each; D (N,)."""
    train, test = (
        ((split["image"].flatten(1) >= INK).to(torch.uint8), split["label"])
        for split in (sources["mnist"]["train"], sources["mnist"]["test"])
    )
    return Data(train=train, test=test)


def prepare(batch: Batch) -> Batch:
    """Bytes → numbers."""
    X, D = batch
    return X.float(), D


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of the softmax, averaged over the mini-batch."""
    X, D = batch
    return functional.cross_entropy(model(X), D)


def metrics(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """Whether the largest output is that of the class."""
    X, D = batch
    return {"accuracy": 100.0 * (model(X).argmax(1) == D)}


def example(_variant: Variant) -> Batch:
    """Sixty made-up digits, six of each class."""
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(60, PIXELS, generator=generator) > 0.8).float(), torch.arange(60) % 10


def counts(variant: Variant) -> Measurements:
    """Parameters in all, and of the normalisation."""
    network = model(variant)
    norm = [network.gamma, network.beta] if isinstance(network, Normalised) else []
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "normalisation-parameters": sum(p.numel() for p in norm),
    }


PAPER = Paper(
    slug="ioffe2015_batchnorm",
    model=model,
    data=data,
    prepare=prepare,
    loss=loss,
    metrics=metrics,
    example=example,
    counts=counts,
    watch=watch,
    inspect=inspect,
)
