"""What the exact savings of the temporal convolutions are worth, as ratios measured in one run."""

import statistics
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from papers.bai2018_tcn import PAPER, losses
from papers.bai2018_tcn.data import adding, copying, prepare
from papers.bai2018_tcn.model import TCN
from reimpl.registry import find

ROUNDS = 5


pytestmark = pytest.mark.usefixtures("one_thread")


def networks(variant_id: str) -> tuple[TCN, TCN]:
    """The variant's network, and one with the same weights that computes every step."""
    assert PAPER.model is not None
    variant = find("bai2018_tcn").claims.variant(variant_id)
    saving, full = PAPER.model(variant), PAPER.model(variant)
    assert isinstance(saving, TCN)
    assert isinstance(full, TCN)
    full.load_state_dict(saving.state_dict())
    full.still = (0, 1)
    return saving, full


def compared(saving: TCN, full: TCN, batch: tuple[Tensor, ...], *, last: int | None) -> float:
    """Seconds of a full step over those of a saving one; both must come to the same numbers."""
    X, Y = batch
    from_ = 0 if last is None else -last
    torch.testing.assert_close(saving(X), full(X)[:, from_:], rtol=1e-4, atol=1e-6)

    def step(model: TCN) -> float:
        model.zero_grad()
        began = time.perf_counter()
        losses(model(X)[:, from_:], Y).mean().backward()
        return time.perf_counter() - began

    pairs = [(step(full), step(saving)) for _ in range(ROUNDS)]
    for ours, theirs in zip(saving.parameters(), full.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)
    return statistics.median(whole / part for whole, part in pairs[1:])


def test_a_step_of_adding_is_three_times_faster_for_reading_the_last_answer_alone(
    benchmark: Any,
) -> None:
    saving, full = networks("adding-600-tcn")
    batch = prepare(adding(32, 600, torch.Generator().manual_seed(0)))
    value = compared(saving, full, batch, last=1)
    benchmark.extra_info["TCN, adding: all steps / last step"] = round(value, 3)
    benchmark.pedantic(lambda: saving(batch[0]), rounds=1)
    assert value >= 3


def test_a_step_of_copying_is_faster_for_leaving_out_the_silence(benchmark: Any) -> None:
    saving, full = networks("copy-1000-tcn")
    batch = prepare(copying(32, 1000, torch.Generator().manual_seed(0)))
    value = compared(saving, full, batch, last=None)
    benchmark.extra_info["TCN, copy: all steps / without the silence"] = round(value, 3)
    benchmark.pedantic(lambda: saving(batch[0]), rounds=1)
    assert value >= 1.2
