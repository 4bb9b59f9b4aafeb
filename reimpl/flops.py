"""Floating-point operations as torch counts them, those of fused recurrent layers with them."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Shape = Sequence[int]


def counter() -> FlopCounterMode:
    """Counts what is computed while it is entered; of elementwise work and of NumPy's, nothing."""
    aten = torch.ops.aten
    fused = {
        aten.mkldnn_rnn_layer: lambda x, *more, **_: _forward(x, more[:4]),
        aten.mkldnn_rnn_layer_backward: lambda x, *more, **_: _backward(x, more[:4]),
        aten._cudnn_rnn: lambda x, weights, *_, **__: _forward(x, weights),
        aten._cudnn_rnn_backward: lambda x, weights, *_, **__: _backward(x, weights),
    }
    return FlopCounterMode(display=False, custom_mapping=fused)


def _forward(x: Shape, weights: Sequence[Any]) -> int:
    """Every step is multiplied by every matrix of every layer; x (…, inputs) holds all steps."""
    return 2 * prod(x[:-1]) * sum(prod(shape) for shape in weights if len(shape) == 2)


def _backward(x: Shape, weights: Sequence[Any]) -> int:
    """As for any product of matrices: once more for the inputs and once for the weights."""
    return 2 * _forward(x, weights)
