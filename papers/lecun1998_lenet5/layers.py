"""The layers of sec. II-B: convolution, subsampling, full connection, radial basis functions.

Shapes:  N digits, B maps or units below a layer, M maps or units of it, H x W pixels of a map.
Symbols: a weighted sum, x state of a unit, y penalty of a class, w weight of an RBF unit, F fan-in.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from .tables import DIGITS

A, S = 1.7159, 2 / 3  # app. A


def squash(a: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """A tanh(S a), eq. (6): ±1 are its points of greatest curvature, and the targets."""
    return A * torch.tanh(S * a)


def draw(*shape: int, fan_in: int) -> Tensor:
    """Weights or biases from U(−2.4/F, 2.4/F), app. A."""
    return torch.empty(*shape).uniform_(-2.4 / fan_in, 2.4 / fan_in)


class Layer(nn.Module):
    """What the paper counts: a connection for each weight and bias, at each position of a map."""

    def connections(self, positions: int) -> int:
        return positions * sum(p.numel() for p in self.parameters())


class Convolution(Layer):
    """C: each map sees 5x5 neighbourhoods in those maps below that the table names for it."""

    def __init__(self, below: int, table: str) -> None:
        super().__init__()
        maps = table.split()
        self.shape = (len(maps), below, 5, 5)
        seen = [above * below + int(m) for above, names in enumerate(maps) for m in names]
        self.register_buffer("seen", torch.tensor(seen), persistent=False)
        fan_ins = [25 * len(names) for names in maps]
        self.kernels = nn.Parameter(torch.cat([draw(F // 25, 25, fan_in=F) for F in fan_ins]))
        self.bias = nn.Parameter(torch.cat([draw(1, fan_in=F) for F in fan_ins]))

    def forward(self, x: Float[Tensor, "N B H W"]) -> Float[Tensor, "N M H-4 W-4"]:
        above, below, *_ = self.shape
        empty = self.kernels.new_zeros(above * below, 25)
        dense = empty.index_copy(0, self.get_buffer("seen"), self.kernels)
        return functional.conv2d(x, dense.view(self.shape), self.bias)


class Subsampling(Layer):
    """S: coefficient · (sum of a 2x2 neighbourhood) + bias; `copies` maps for each map below."""

    def __init__(self, below: int, copies: int = 1) -> None:
        super().__init__()
        self.copies = copies
        self.coefficient = nn.Parameter(draw(below * copies, 1, 1, fan_in=4))
        self.bias = nn.Parameter(draw(below * copies, 1, 1, fan_in=4))

    def connections(self, positions: int) -> int:
        return positions * (4 * self.coefficient.numel() + self.bias.numel())

    def forward(self, x: Float[Tensor, "N B H W"]) -> Float[Tensor, "N M H//2 W//2"]:
        rows = x[..., ::2, :] + x[..., 1::2, :]  # a step is 5 % cheaper than with avg_pool2d
        total = rows[..., ::2] + rows[..., 1::2]
        if self.copies > 1:
            total = total.repeat_interleave(self.copies, dim=1)
        return torch.addcmul(self.bias, total, self.coefficient)


class Full(Layer):
    """Every unit sees all below; C5 is one because its maps have one pixel (sec. II-B)."""

    def __init__(self, below: int, units: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(draw(units, below, fan_in=below))
        self.bias = nn.Parameter(draw(units, fan_in=below))

    def forward(self, x: Float[Tensor, "N B"]) -> Float[Tensor, "N M"]:
        return functional.linear(x, self.weight, self.bias)


class RBF(Layer):
    """y_i = Σ_j (x_j − w_ij)², eq. (7); w is fixed, ±1, a drawing of digit i."""

    def __init__(self) -> None:
        super().__init__()
        rows = [line.split() for line in DIGITS.strip().splitlines()]
        drawn = [[pixel == "#" for row in rows for pixel in row[i]] for i in range(10)]
        self.register_buffer("w", 2.0 * torch.tensor(drawn) - 1.0, persistent=False)  # (10, 84)

    def connections(self, positions: int) -> int:
        return positions * self.get_buffer("w").numel()

    def forward(self, x: Float[Tensor, "N 84"]) -> Float[Tensor, "N 10"]:
        w = self.get_buffer("w")
        return x.square().sum(1, keepdim=True) - 2 * x @ w.T + w.square().sum(1)
