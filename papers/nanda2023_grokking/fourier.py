"""What secs 4 and 5 read off a network in the Fourier basis mod P.

Shapes:  P numbers, K key frequencies, N pairs to learn, M neurons.
Symbols: F the orthonormal real basis (1, cos w_1, sin w_1, …), w_k = 2πk / P; L logits (P², P).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .model import PAIRS, SUMS, P, Transformer, cross_entropy

_w = 2 * torch.pi / P * torch.outer(torch.arange(1, P // 2 + 1), torch.arange(P)).double()
_waves = torch.stack([_w.cos(), _w.sin()], 1).flatten(0, 1) * (2 / P) ** 0.5
F = torch.cat([torch.full((1, P), P**-0.5).double(), _waves])  # (P, P)


def key_frequencies(model: Transformer) -> Int[Tensor, " keys"]:
    """Rows of F whose frequency has a quarter of the largest norm in W_L: gap "key-frequencies"."""
    W_L = F[1:] @ model.neuron_logit_map.double()  # (P - 1, M), cosines and sines in turn
    norms = W_L.view(P // 2, -1).norm(dim=1).repeat_interleave(2)
    return (norms >= norms.max() / 4).nonzero()[:, 0] + 1


@torch.no_grad()
def measures(model: Transformer, keys: Tensor, train: Tensor, test: Tensor) -> dict[str, float]:
    """Those of sec. 5.1 and shares of secs 4.2 and 4.3; `train` and `test` are places in PAIRS."""
    L = model(PAIRS).double()
    B = F[keys][:, SUMS].T / P**0.5  # (P², 2K), cos and sin of w_k(a + b), orthonormal
    C = B.T @ L  # (2K, P)
    fitted = (C * F[keys]).view(-1, 2 * P).sum(1).square().sum() / 2  # by cos w_k(a + b - c)
    norms = (F @ model.neuron_logit_map.double()).norm(dim=1)
    return {
        "train/accuracy": 100.0 * float((L[train].argmax(1) == SUMS[train]).double().mean()),
        "test/accuracy": 100.0 * float((L[test].argmax(1) == SUMS[test]).double().mean()),
        "test/loss": float(cross_entropy(L[test], SUMS[test])),
        "restricted/loss": float(cross_entropy(B @ C + L.mean(0), SUMS)),
        "excluded/loss": float(cross_entropy((L - B @ C)[train], SUMS[train])),
        "gini/W_L": float((norms[:, None] - norms).abs().mean() / (2 * norms.mean())),
        "weights/squares": sum(float(w.square().sum()) for w in model.parameters()),
        "logits/explained": 100.0 * float(fitted / (L - L.mean()).square().sum()),
        "neurons/explained": 100.0 * float((one_frequency(model) > 0.85).double().mean()),
    }


def one_frequency(model: Transformer) -> Float[Tensor, " M"]:
    """Of each neuron's variance over all pairs, the share of its best frequency up to degree 2."""
    h = model.mlp.neurons(model.middle(PAIRS)).view(P, P, -1)
    power = torch.einsum("abm,ia,jb->ijm", h - h.mean((0, 1)), F.to(h), F.to(h)).square()
    both = power[1:, 1:].view(P // 2, 2, P // 2, 2, -1).sum((1, 3)).diagonal().T  # of a and b
    alone = (power[1:, 0] + power[0, 1:]).view(P // 2, 2, -1).sum(1)  # of a, and of b; (P // 2, M)
    return (alone + both).amax(0) / power.sum((0, 1))
