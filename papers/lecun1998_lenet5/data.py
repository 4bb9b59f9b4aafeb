"""MNIST as each method of the paper takes it (sec. III-A): 60,000 to learn, 10,000 to test."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from reimpl.claims import Variant
from reimpl.paper import Batch, Data, Seeds, Sources

BACKGROUND, INK = -0.1, 1.175  # sec. II-B: mean about 0, variance about 1


def data(variant: Variant, sources: Sources, _seeds: Seeds) -> Data:
    """The regular database: X (N, 28, 28) or as the variant's `input` says, in bytes; D (N,).

    The training digits are the first `digits` of the 60,000 (sec. III-B, gap "fewer-digits").
    """
    train, test = (_split(sources["mnist"][split], variant["input"]) for split in ("train", "test"))
    return Data(train=(train[0][: variant["digits"]], train[1][: variant["digits"]]), test=test)


def prepare(batch: Batch) -> Batch:
    """Bytes → background −0.1, ink 1.175."""
    X, D = batch
    return X.float().mul_((INK - BACKGROUND) / 255).add_(BACKGROUND), D


def _split(columns: Mapping[str, Any], wanted: str) -> tuple[Tensor, Tensor]:
    X, D = columns["image"], columns["label"]
    match wanted:
        case "28x28":
            return X, D
        case "32x32":  # so that the ends of strokes reach the middle of a field of C1 (sec. II-B)
            return functional.pad(X, (2, 2, 2, 2)), D
        case "16x16":
            return _smaller(X), D
        case other:
            raise ValueError(f"no input '{other}'")


def _smaller(X: Tensor) -> Tensor:
    """Digits of about 16x16 in a field of 28x28, for LeNet-1 (sec. III-C.7, gap "lenet1-input")."""
    parts = (x[:, None].float() for x in X.split(10_000))  # all at once would take a gigabyte
    small = torch.cat([functional.interpolate(x, size=22, mode="area")[:, 0] for x in parts])
    return functional.pad(small.round().byte(), (3, 3, 3, 3))
