"""The networks of LeCun, Bottou, Bengio & Haffner (Proc. IEEE 1998), sec. II-B and III-C.

Shapes:  N images, M feature maps (one for each connection table), H x W pixels of a map, U units.
Symbols: a weighted sum, x state of a unit, y penalty of a class, A and S of the squashing function, F fan-in of a unit.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

A, S = 1.7159, 2 / 3  # app. A
C3_OF_LENET5 = "012 123 234 345 045 015 0123 1234 2345 0345 0145 0125 0134 1245 0235 012345".split()  # table I
C3_OF_LENET1 = "0 01 01 1 01 01 2 23 23 3 23 23".split()  # gap "lenet1-c3"
C3_OF_LENET4 = "012 123 234 345 456 567 067 017 024 135 246 357 046 157 026 137".split()  # gap "lenet4-c3"

# Fig. 3, gap "rbf-codes": 0 to 9 side by side, 7 x 12 pixels each.
DIGITS = """
.#####. ...##.. .#####. ####### .#####. .#####. ..####. ####### .#####. .#####.
....... ..###.. ....... .....## ....... ....... .##.... .....## ##...## ##..###
..###.. .####.. .#####. ....##. ....... ####### ##..... .....## ##...## ##...##
.##.##. ...##.. ##...## ...##.. .##..## ##..... ##..... ....##. ##...## ##...##
##...## ...##.. #....## ..####. .##..## ##..... ######. ...##.. .#####. ##..###
##...## ...##.. ....##. .....## ###..## .####.. ###..## ...##.. ##...## .######
##...## ...##.. ..###.. .....## ##...## ..####. ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## ##...## .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ##..### ##...## ###..## ..##... ##...## ....##.
..###.. .###### ####### .#####. .###### .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
"""


def squash(a: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """x = A tanh(S a), eq. (6): ±1 are the points of greatest curvature, and the targets."""
    return A * torch.tanh(S * a)


def draw(*shape: int, fan_in: int) -> nn.Parameter:
    """Weights or biases from U(−2.4/F, 2.4/F), app. A."""
    return nn.Parameter(torch.empty(*shape).uniform_(-2.4 / fan_in, 2.4 / fan_in))


class Convolution(nn.Module):
    """C: each map sees 5x5 neighbourhoods, at the same place, of those maps below that its table names."""

    def __init__(self, below: int, table: Sequence[str]) -> None:
        super().__init__()
        self.shape = (len(table), below, 5, 5)
        pairs = [above * below + int(m) for above, names in enumerate(table) for m in names]
        self.register_buffer("place", torch.tensor(pairs), persistent=False)
        self.kernel = nn.Parameter(torch.cat([draw(len(t), 25, fan_in=25 * len(t)) for t in table]))
        self.bias = nn.Parameter(torch.cat([draw(1, fan_in=25 * len(t)) for t in table]))

    def connections(self, positions: int) -> int:
        return positions * (self.kernel.numel() + self.bias.numel())

    def forward(self, x: Float[Tensor, "N below H W"]) -> Float[Tensor, "N above H-4 W-4"]:
        above, below, *_ = self.shape
        dense = self.kernel.new_zeros(above * below, 25).index_copy(0, self.get_buffer("place"), self.kernel)
        return functional.conv2d(x, dense.view(self.shape), self.bias)


class Subsampling(nn.Module):
    """S: the sum of a 2x2 neighbourhood times a trainable coefficient plus a trainable bias; `copies` maps of each."""

    def __init__(self, below: int, copies: int = 1) -> None:
        super().__init__()
        self.copies = copies
        self.coefficient = draw(below * copies, 1, 1, fan_in=4)
        self.bias = draw(below * copies, 1, 1, fan_in=4)

    def connections(self, positions: int) -> int:
        return positions * self.bias.numel() * (4 + 1)

    def forward(self, x: Float[Tensor, "N below H W"]) -> Float[Tensor, "N above H//2 W//2"]:
        mean = functional.avg_pool2d(x, 2)
        if self.copies > 1:
            mean = mean.repeat_interleave(self.copies, dim=1)
        return torch.addcmul(self.bias, mean, 4 * self.coefficient)


class Full(nn.Module):
    """a = W x + b; C5 is one because its maps are 1x1 when the input is 32x32."""

    def __init__(self, below: int, units: int) -> None:
        super().__init__()
        self.weight = draw(units, below, fan_in=below)
        self.bias = draw(units, fan_in=below)

    def connections(self, positions: int) -> int:
        return positions * (self.weight.numel() + self.bias.numel())

    def forward(self, x: Float[Tensor, "N below"]) -> Float[Tensor, "N U"]:
        return functional.linear(x, self.weight, self.bias)


class RBF(nn.Module):
    """y_i = Σ_j (x_j − w_ij)², eq. (7), with fixed w of ±1: drawings of the digits; the smallest y wins."""

    def __init__(self) -> None:
        super().__init__()
        rows = [line.split() for line in DIGITS.split("\n") if line]
        codes = [[1.0 if pixel == "#" else -1.0 for row in rows for pixel in row[d]] for d in range(10)]
        self.register_buffer("w", torch.tensor(codes), persistent=False)  # (10, 84)

    def connections(self, positions: int) -> int:
        return positions * self.get_buffer("w").numel()

    def forward(self, x: Float[Tensor, "N 84"]) -> Float[Tensor, "N 10"]:
        w = self.get_buffer("w")
        return x.square().sum(1, keepdim=True) - 2 * x @ w.T + w.square().sum(1)


class LeNet(nn.Module):
    """C1, S2, C3, S4: the maps that LeNet-1, -4 and -5 have in common, each layer squashed."""

    def __init__(self, *, maps: int, copies: int = 1, table: Sequence[str]) -> None:
        super().__init__()
        self.C1 = Convolution(1, ["0"] * maps)
        self.S2 = Subsampling(maps, copies)
        self.C3 = Convolution(maps * copies, table)
        self.S4 = Subsampling(len(table))

    def maps(self, x: Float[Tensor, "N H W"]) -> Float[Tensor, "N U"]:
        x = x[:, None]
        for layer in (self.C1, self.S2, self.C3, self.S4):
            x = squash(layer(x))
        return x.flatten(1)


class LeNet5(LeNet):
    """Fig. 2 and sec. II-B: maps of 28x28, 14x14, 10x10, 5x5, then 120 and 84 units; returns penalties y."""

    def __init__(self) -> None:
        super().__init__(maps=6, table=C3_OF_LENET5)
        self.C5, self.F6, self.output = Full(16 * 25, 120), Full(120, 84), RBF()

    def forward(self, x: Float[Tensor, "N 32 32"]) -> Float[Tensor, "N 10"]:
        return self.output(squash(self.F6(squash(self.C5(self.maps(x))))))


class LeNet4(LeNet):
    """Sec. III-C.8: 4 maps, 8 subsampled, 16, 16, then 120 units and 10; returns states of the output units."""

    def __init__(self) -> None:
        super().__init__(maps=4, copies=2, table=C3_OF_LENET4)
        self.C5, self.output = Full(16 * 25, 120), Full(120, 10)

    def forward(self, x: Float[Tensor, "N 32 32"]) -> Float[Tensor, "N 10"]:
        return squash(self.output(squash(self.C5(self.maps(x)))))


class LeNet1(LeNet):
    """Sec. III-C.7: 4 maps of 24x24, 4 of 12x12, 12 of 8x8, 12 of 4x4, 10 units; returns their states."""

    def __init__(self) -> None:
        super().__init__(maps=4, table=C3_OF_LENET1)
        self.output = Full(12 * 16, 10)

    def forward(self, x: Float[Tensor, "N 28 28"]) -> Float[Tensor, "N 10"]:
        return squash(self.output(self.maps(x)))


class Perceptron(nn.Module):
    """Sec. III-C.5 and 6: fully connected layers, each squashed; returns states of the output units."""

    def __init__(self, hidden: Sequence[int]) -> None:
        super().__init__()
        sizes = [28 * 28, *hidden, 10]
        self.layers = nn.ModuleList([Full(*pair) for pair in pairwise(sizes)])

    def forward(self, x: Float[Tensor, "N 28 28"]) -> Float[Tensor, "N 10"]:
        x = x.flatten(1)
        for layer in self.layers:
            x = squash(layer(x))
        return x
