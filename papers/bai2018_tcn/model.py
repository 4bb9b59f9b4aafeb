"""The networks of Bai, Kolter & Koltun (arXiv:1803.01271): temporal convolutions and three rivals.

Shapes:  B sequences, C channels, T steps, H units of a layer, A steps with an answer, O outputs.
Symbols: d dilation, k kernel size; maps of convolutions are (B, H, 1, T).
"""

from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from .gru import gru

Still = tuple[int, int] | None  # first step and steps of a constant input; None: last answer only
SMALL = 0.01  # standard deviation of the first weights, gap "initial-weights"


class Convolution(nn.Module):
    """Causal convolution with dilation d, eq. (1); its weights are g v / ‖v‖ (sec. 3)."""

    def __init__(self, channels: int, H: int, k: int) -> None:
        super().__init__()
        bound = 1 / sqrt(channels * k)
        self.v = nn.Parameter(torch.empty(H, channels * k).uniform_(-bound, bound))
        self.g = nn.Parameter(self.v.detach().norm(dim=1, keepdim=True))
        self.bias = nn.Parameter(torch.empty(H).uniform_(-bound, bound))

    def forward(self, x: Tensor, d: int, every: int = 1) -> Tensor:
        """The outputs at the last step and at each `every`-th step before it."""
        w = self.v * (self.g / self.v.norm(dim=1, keepdim=True))
        w = w.view(len(w), x.shape[1], 1, -1)
        past = d * (w.shape[-1] - 1) - (x.shape[-1] - 1) % every
        x = functional.pad(x, (past, 0)).contiguous(memory_format=torch.channels_last)
        w = w.contiguous(memory_format=torch.channels_last)  # twice as fast for 10 to 25 channels
        return functional.conv2d(x, w, self.bias, stride=(1, every), dilation=(1, d))


class Block(nn.Module):
    """ReLU(x + F(x)), Fig. 1b: F is twice convolution, ReLU, dropout; 1x1 on x if widths differ."""

    def __init__(self, channels: int, H: int, *, k: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = Convolution(channels, H, k), Convolution(H, H, k)
        self.dropout, self.widen = nn.Dropout(dropout), nn.Identity()
        if channels != H:
            self.widen = nn.Conv2d(channels, H, 1)
            nn.init.normal_(self.widen.weight, std=SMALL)

    def forward(self, x: Tensor, d: int, every: int = 1) -> Tensor:
        y = self.dropout(self.first(x, d).relu())
        y = self.dropout(self.second(y, d, every).relu())
        return (y + self.widen(x[..., (x.shape[-1] - 1) % every :: every])).relu()


class TCN(nn.Module):
    """Blocks with d = 1, 2, 4, …, then a linear layer."""

    def __init__(self, blocks: list[Block], answers: int, *, k: int, still: Still) -> None:
        super().__init__()
        self.blocks, self.k, self.still = nn.ModuleList(blocks), k, still
        self.output = nn.Linear(len(blocks[-1].second.bias), answers)
        nn.init.normal_(self.output.weight, std=SMALL)

    def forward(self, x: Float[Tensor, "B C T"]) -> Float[Tensor, "B A O"]:
        x = self.at_last(x[:, :, None]) if self.still is None else self.at_all(x[:, :, None])
        return self.output(x[:, :, 0].transpose(1, 2))

    def at_last(self, x: Tensor) -> Tensor:
        """Of a block with dilation d, the last answer needs every d-th step alone."""
        for block in self.blocks:
            x = block(x, 1, every=2)
        return x[..., -1:]

    def at_all(self, x: Tensor) -> Tensor:
        """In a constant stretch of input, a block that sees r steps settles after r steps."""
        (first, steps), r, d = self.still or (0, 1), 1, 1
        x, end = torch.cat([x[..., : first + 1], x[..., first + steps :]], -1), first + 1
        for block in (*self.blocks, None):
            r = r + 2 * d * (self.k - 1) if block else steps
            more = first + min(r, steps) - end
            longer = [x[..., :end], x[..., end - 1 : end].expand(-1, -1, -1, more), x[..., end:]]
            x, end = torch.cat(longer, -1), end + more
            x, d = block(x, d) if block else x, 2 * d
        return x


class Recurrent(nn.Module):
    """One layer of LSTM, GRU or tanh units, then a linear layer."""

    def __init__(self, layer: nn.RNNBase, answers: int, *, every: bool) -> None:
        super().__init__()
        self.layer, self.output, self.every = layer, nn.Linear(layer.hidden_size, answers), every

    def forward(self, x: Float[Tensor, "B C T"]) -> Float[Tensor, "B A O"]:
        x = x.permute(2, 0, 1)  # (T, B, C)
        h = gru(self.layer, x) if isinstance(self.layer, nn.GRU) else self.layer(x)[0]  # (T, B, H)
        return self.output(h if self.every else h[-1:]).transpose(0, 1)
