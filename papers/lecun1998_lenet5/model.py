"""The networks of LeCun, Bottou, Bengio & Haffner (Proc. IEEE 1998), secs II-B and III-C.

Shapes:  N digits, M units, H x W pixels.
Symbols: x states of units, y penalties of classes; layers are called as in Fig. 2.
"""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from .layers import RBF, Convolution, Full, Subsampling, squash
from .tables import C3_OF_LENET1, C3_OF_LENET4, C3_OF_LENET5


class LeNet(nn.Module):
    """C1, S2, C3 and S4, each squashed: what LeNet-1, LeNet-4 and LeNet-5 have in common."""

    def __init__(self, *, maps: int, copies: int = 1, table: str) -> None:
        super().__init__()
        self.C1, self.S2 = Convolution(1, "0 " * maps), Subsampling(maps, copies)
        self.C3, self.S4 = Convolution(maps * copies, table), Subsampling(len(table.split()))

    def maps(self, x: Float[Tensor, "N H W"]) -> Float[Tensor, "N M"]:
        x = x[:, None]
        for layer in (self.C1, self.S2, self.C3, self.S4):
            x = squash(layer(x))
        return x.flatten(1)


class LeNet5(LeNet):
    """Fig. 2: 6 maps of 28x28, 6 of 14x14, 16 of 10x10, 16 of 5x5, 120, 84; penalties y."""

    def __init__(self) -> None:
        super().__init__(maps=6, table=C3_OF_LENET5)
        self.C5, self.F6, self.output = Full(16 * 25, 120), Full(120, 84), RBF()

    def forward(self, x: Float[Tensor, "N 32 32"]) -> Float[Tensor, "N 10"]:
        return self.output(squash(self.F6(squash(self.C5(self.maps(x))))))


class LeNet4(LeNet):
    """Sec. III-C.8: 4 maps, 8, 16, 16, then 120 units; the states of 10 output units."""

    def __init__(self) -> None:
        super().__init__(maps=4, copies=2, table=C3_OF_LENET4)
        self.C5, self.output = Full(16 * 25, 120), Full(120, 10)

    def forward(self, x: Float[Tensor, "N 32 32"]) -> Float[Tensor, "N 10"]:
        return squash(self.output(squash(self.C5(self.maps(x)))))


class LeNet1(LeNet):
    """Sec. III-C.7: 4 maps of 24x24, 4 of 12x12, 12 of 8x8, 12 of 4x4; the states of 10 units."""

    def __init__(self) -> None:
        super().__init__(maps=4, table=C3_OF_LENET1)
        self.output = Full(12 * 16, 10)

    def forward(self, x: Float[Tensor, "N 28 28"]) -> Float[Tensor, "N 10"]:
        return squash(self.output(self.maps(x)))


class Perceptron(nn.Module):
    """Secs III-C.5 and III-C.6: fully connected; the states of 10 output units."""

    def __init__(self, hidden: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Full(*sizes) for sizes in pairwise([28 * 28, *hidden, 10]))

    def forward(self, x: Float[Tensor, "N 28 28"]) -> Float[Tensor, "N 10"]:
        x = x.flatten(1)
        for layer in self.layers:
            x = squash(layer(x))
        return x
