"""Adding, copy memory, digits pixel by pixel: N sequences of T steps and C channels."""

import torch
from torch import Generator, Tensor, nn

from reimpl.claims import Variant
from reimpl.paper import Batch, Data, Seeds, Sources


def data(variant: Variant, sources: Sources, seeds: Seeds) -> Data:
    """Sets drawn once, as large as the released code's; or MNIST, all pixels in one order."""
    task, T, draw = variant["task"], variant["length"], seeds.torch("split")
    if task in ("adding", "copy"):
        make, N = (adding, 50_000) if task == "adding" else (copying, 10_000)
        return Data(train=make(N, T, draw), test=make(1000, T, draw))
    order = torch.randperm(T, generator=draw) if task == "permuted" else torch.arange(T)
    mnist = sources["mnist"].items()
    split = {n: (s["image"].flatten(1)[:, order], s["label"][:, None]) for n, s in mnist}
    return Data(train=split["train"], test=split["test"])


def adding(N: int, T: int, draw: Generator) -> tuple[Tensor, Tensor]:
    """Values in [0, 1], (N, T), and the two places whose values are to be added, (N, 2)."""
    one, step = (torch.randint(low, T, (N, 1), generator=draw) for low in (0, 1))
    return torch.rand(N, T, generator=draw), torch.cat([one, (one + step) % T], 1)


def copying(N: int, T: int, draw: Generator) -> tuple[Tensor, Tensor]:
    """Ten symbols of 1 to 8, T − 1 zeros, eleven 9s, (N, T + 20) in bytes; the symbols, (N, 10)."""
    symbols = torch.randint(1, 9, (N, 10), generator=draw)
    X = nn.functional.pad(symbols, (0, T - 1))
    return nn.functional.pad(X, (0, 11), value=9).byte(), symbols


def prepare(batch: Batch) -> Batch:
    """Inputs (N, C, T) and what the last steps should answer: sum, symbols or digit."""
    (X, Y), x = batch, batch[0][:, None].float()
    if X.is_floating_point():
        marks = torch.zeros_like(X).scatter_(1, Y, 1.0)
        return torch.stack([X, marks], 1), X.gather(1, Y).sum(1, keepdim=True)
    return (x if Y.shape[1] > 1 else (x / 255 - 0.1307) / 0.3081), Y  # gap "digit-scaling"
