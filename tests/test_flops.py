"""What a fused recurrent layer computes is counted, though torch's own counter knows none."""

import pytest
import torch
from torch import nn

from reimpl import flops

T, B, C, H = 9, 4, 5, 7


def counted(layer: nn.Module, *, backward: bool) -> int:
    x = torch.rand(T, B, C, requires_grad=True)
    with flops.counter() as counter:
        y = layer(x)[0]
        if backward:
            y.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(("layers", "ways"), [(1, 1), (2, 1), (1, 2)])
def test_a_fused_lstm_counts_as_its_matrix_products_do(
    layers: int, ways: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lstm = nn.LSTM(C, H, layers, bidirectional=ways == 2)
    forward = 2 * T * B * sum(p.numel() for p in lstm.parameters() if p.dim() == 2)
    assert counted(lstm, backward=False) == forward
    assert counted(lstm, backward=True) == 3 * forward
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # step by step
    assert counted(lstm, backward=False) == forward
    first = 2 * B * 4 * H * H * layers * ways  # no gradient for the state before the first step
    assert counted(lstm, backward=True) == 3 * forward - first


def test_those_of_a_gpu_count_by_the_same_rule() -> None:
    """By their arguments, as nothing here could run them."""
    aten, x = torch.ops.aten, (T, B, C)
    weights = [(4 * H, C), (4 * H, H), (4 * H,), (4 * H,)]
    registry = flops.counter().flop_registry
    once = 2 * T * B * 4 * H * (C + H)
    for op, times in ((aten._cudnn_rnn, 1), (aten._cudnn_rnn_backward, 2)):
        names = [argument.name for argument in op.default._schema.arguments]
        assert names[:2] == ["input", "weight"]
        rule = registry[op]
        tensors = [torch.empty(shape, device="meta") for shape in weights]
        assert rule(torch.empty(x, device="meta"), tensors, out_val=None) == times * once
