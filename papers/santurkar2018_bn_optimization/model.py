"""The two networks of Santurkar, Tsipras, Ilyas & Madry (NeurIPS 2018), app. A.

Shapes:  N examples, C units or channels, P inputs of the linear network; a map is H x W or nothing.
Symbols: a activations, W weights; m, s, μ and σ as in the noise of sec. 2.1.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

VGG_A = ((1,), (2,), (4, 4), (8, 8), (8, 8))
"""Channels of the convolutions over those of the first; maps are halved after each group."""
LAYERS = 25  # of the deep linear network


class Noise(nn.Module):
    """a ← s·a + m in training, with moments of m and s that are drawn anew at each step (app. A).

    For each unit, or once for the layer, μ ~ U(−0.5, 0.5) and σ ~ U(1, 1.25); for each activation
    m ~ U(μ − 0.1, μ + 0.1) and s ~ N(σ, 0.1). A map is one unit (gap "noise-units").
    """

    def __init__(self, *, per: str) -> None:
        super().__init__()
        self.per = per

    def forward(self, a: Float[Tensor, "N C *map"]) -> Float[Tensor, "N C *map"]:
        if not self.training:
            return a  # gap "noise-at-test"
        drawn = (1, a.shape[1] if self.per == "unit" else 1, *[1] * (a.dim() - 2))
        mu, sigma = a.new_empty(drawn).uniform_(-0.5, 0.5), a.new_empty(drawn).uniform_(1.0, 1.25)
        m = torch.rand_like(a).mul_(0.2).add_(mu - 0.1)
        # in the order of memory, channels last: normal draws are ten times faster
        s = torch.randn_like(a.movedim(1, -1)).movedim(-1, 1).mul_(0.1).add_(sigma)
        return torch.addcmul(m, s, a)


class Normalise(nn.Sequential):
    """What follows the product with the weights: BatchNorm, noise, both or neither."""

    def __init__(self, norm: nn.Module, *, batchnorm: bool, noise: str) -> None:
        super().__init__(*[norm] * batchnorm, *[Noise(per=noise)] * (noise != "none"))


class DLN(nn.Sequential):
    """x ↦ W₂₅ … W₁ x with square matrices; nothing follows the last (gap "last-layer")."""

    def __init__(self, *, width: int, batchnorm: bool, noise: str) -> None:
        super().__init__(glorot(nn.Linear(width, width, bias=False)))
        for _ in range(LAYERS - 1):
            self.append(Normalise(nn.BatchNorm1d(width), batchnorm=batchnorm, noise=noise))
            self.append(glorot(nn.Linear(width, width, bias=False)))
        self.double()


class VGG(nn.Sequential):
    """Configuration A of VGG for images of 32x32; its first convolution has `width` channels."""

    def __init__(self, *, width: int, batchnorm: bool, noise: str) -> None:
        super().__init__()
        C, follow = 3, {"batchnorm": batchnorm, "noise": noise}
        for group in VGG_A:
            for times in group:
                self.append(glorot(nn.Conv2d(C, C := times * width, 3, padding=1)))
                self.extend([Normalise(nn.BatchNorm2d(C), **follow), nn.ReLU()])
            self.append(nn.MaxPool2d(2))
        self.append(nn.Flatten())
        for _ in range(2):
            self.append(glorot(nn.Linear(C, C)))
            self.extend([Normalise(nn.BatchNorm1d(C), **follow), nn.ReLU()])
        self.append(glorot(nn.Linear(C, 10)))


def glorot(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """Uniform Glorot weights and no bias to begin with (app. A, gap "glorot")."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def loss(output: Float[Tensor, "N C"], Y: Tensor, share: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of classes Y; with `share`, Σ ‖W x − A x‖² over all samples (app. A)."""
    if share is None:
        return functional.cross_entropy(output, Y)
    return ((output - Y).square().sum(1) * share).sum()


def slope(
    network: nn.Module, batch: tuple[Tensor, ...], wanted: list[nn.Parameter], *, noise: int | None
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Output, loss and gradients, with the noise of a step when it has a number."""
    if noise is not None:
        torch.manual_seed(noise)
    output = network(batch[0])
    value = loss(output, *batch[1:])
    return output.detach(), value.detach(), torch.autograd.grad(value, wanted)
