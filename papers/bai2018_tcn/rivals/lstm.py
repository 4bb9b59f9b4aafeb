"""An LSTM whose units remember for one step to all T from the start, evenly in the logarithm."""

from math import log

import torch
from torch import nn

from reimpl.claims import Variant

from ..model import Recurrent


def model(variant: Variant) -> nn.Module:
    """A layer of H units and a linear one, as the paper's; other first weights for x and biases.

    A unit that is left alone keeps a share τ / (1 + τ) of its memory from step to step and takes up
    1 / (1 + τ) of what comes in: biases of log τ and −log τ, as Tallec & Ollivier
    (arXiv:1804.11188) have them, but log τ is drawn uniformly and not τ. The weights of the input
    are from N(0, 1), so that a pixel tells at once; torch's own are twenty times as small.
    """
    H = variant["hidden"]
    layer = nn.LSTM(1, H)
    Wx, _, bx, bh = layer.parameters()
    scales = torch.empty(H).uniform_(0, log(variant["length"]))
    nn.init.normal_(Wx)
    with torch.no_grad():
        bx.copy_(torch.cat([-scales, scales, torch.zeros(2 * H)]))  # i, f, g, o
        bh.zero_()  # torch adds the two
    return Recurrent(layer, 10, every=False)
