"""CIFAR-10 as it is, and the linear network's Gaussian data in few points (app. A)."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from reimpl.claims import Variant
from reimpl.paper import Batch, Context, Data, Seeds, Sources


def data(variant: Variant, sources: Sources, seeds: Seeds) -> Data:
    """Images in bytes and their classes; or x, A x and each row's share of the loss."""
    if variant["network"] == "vgg":
        train, test = (sources["cifar10"][split] for split in ("train", "test"))
        return Data(train=(train["img"], train["label"]), test=(test["img"], test["label"]))
    draw, P = seeds.numpy("split"), variant["width"]
    A, X = torch.from_numpy(draw.normal(size=(P, P))), draw.normal(size=(variant["samples"], P))
    X = moments(torch.from_numpy(X))
    return Data(train=(X, X @ A.T, torch.full_like(X[:, 0], variant["weight"] / len(X))))


def moments(X: Float[Tensor, "N P"]) -> Float[Tensor, "2*P P"]:
    """2P points with X's mean and covariance: linear layers, BatchNorm and ‖·‖² see no more."""
    mean, P = X.mean(0), X.shape[1]
    axes = torch.linalg.cholesky((X - mean).T @ (X - mean) / len(X)).T * P**0.5
    return torch.cat([mean + axes, mean - axes])


def batches(variant: Variant, context: Context, start: int) -> Iterator[tuple[int, Batch]]:
    """Steps from `start` on, each with its rows: all of them, or the next of this pass's order."""
    rows, size = len(context.data.train[0]), variant["batch"]
    order, steps = torch.arange(rows), rows // size  # of a pass; what is left over waits
    for step in range(start, variant["steps"]):
        if steps > 1 and (step == start or step % steps == 0):
            order = torch.randperm(rows, generator=context.seeds.torch("order", step // steps))
        at = order[step % steps * size :][:size]
        yield step, prepare((tensor[at] for tensor in context.data.train), context.device)


def prepare(batch: Iterable[Tensor], device: torch.device) -> Batch:
    """To the device; bytes → −1 to 1, (N, 3, H, W), the channels last in memory (gap "input")."""
    X, *rest = (tensor.to(device) for tensor in batch)
    return (X / 127.5 - 1).permute(0, 3, 1, 2) if X.dtype == torch.uint8 else X, *rest
