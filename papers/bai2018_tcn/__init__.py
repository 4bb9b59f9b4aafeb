"""Bai, Kolter & Koltun on convolutional and recurrent networks for sequences, arXiv:1803.01271."""

import torch
from torch import Tensor, nn

from reimpl.claims import Variant
from reimpl.paper import Batch, Paper, Seeds

from .data import adding, copying, data, prepare
from .model import TCN, Block, Recurrent


def model(variant: Variant) -> nn.Module:
    """A variant's network with fresh weights."""
    copies, H = variant["task"] == "copy", variant["hidden"]
    C, answers = (2, 1) if variant["task"] == "adding" else (1, 10)
    if variant["network"] == "tcn":
        k, p, count = (variant[name] for name in ("kernel", "dropout", "levels"))
        still = (10, variant["length"] - 1) if p == 0 else (0, 1)  # dropout differs at every step
        blocks = [Block(H if i else C, H, k=k, dropout=p) for i in range(count)]
        return TCN(blocks, answers, k=k, still=still if copies else None)
    layer = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[variant["network"]](C, H)
    if "forget" in variant.settings:
        for bias in (layer.bias_ih_l0, layer.bias_hh_l0):  # torch adds the two
            nn.init.constant_(bias[H : 2 * H], variant["forget"] / 2)
    return Recurrent(layer, answers, every=copies)


def losses(answers: Tensor, Y: Tensor) -> Tensor:
    """Of each sequence, (N,): squared error, or cross-entropy averaged over all answered steps."""
    if Y.is_floating_point():
        return (answers[:, :, 0] - Y).square().mean(1)
    wanted = nn.functional.pad(Y, (answers.shape[1] - Y.shape[1], 0))  # 0 before the symbols
    return -answers.log_softmax(2).gather(2, wanted[:, :, None]).mean((1, 2))


def metrics(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The loss; what per cent of the symbols, or whether the digit, is right."""
    answers, Y = torch.cat([model(x) for x in batch[0].split(50)]), batch[1]  # to save memory
    found = {"loss": losses(answers, Y)}
    if not Y.is_floating_point():
        found["accuracy"] = 100.0 * (answers[:, -Y.shape[1] :].argmax(2) == Y).float().mean(1)
    return found


def example(variant: Variant) -> Batch:
    """Three made-up sequences; symbols of the copy task do for pixels."""
    T, task, draw = variant["length"], variant["task"], Seeds(0).torch("split")
    X, Y = adding(3, T, draw) if task == "adding" else copying(3, T - 20 * (task != "copy"), draw)
    return prepare((X, Y if task in ("adding", "copy") else Y[:, :1]))


PAPER = Paper(
    slug="bai2018_tcn",
    model=model,
    data=data,
    prepare=prepare,
    loss=lambda model, batch: losses(model(batch[0]), batch[1]).mean(),
    metrics=metrics,
    example=example,
    counts=lambda variant: {"parameters": sum(p.numel() for p in model(variant).parameters())},
)
