import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from papers.bai2018_tcn import PAPER, losses
from papers.bai2018_tcn.data import adding, copying, prepare
from papers.bai2018_tcn.gru import gru
from papers.bai2018_tcn.model import TCN, Block
from papers.bai2018_tcn.rivals import lstm
from reimpl.paper import Seeds
from reimpl.registry import find

CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-6}
"""Single precision, summed in another order."""


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def tcn(C: int, *, levels: int, k: int, still: tuple[int, int] | None) -> TCN:
    torch.manual_seed(0)
    blocks = [Block(6 if i else C, 6, k=k, dropout=0.0) for i in range(levels)]
    return TCN(blocks, 10, k=k, still=still)


def in_full(model: TCN) -> TCN:
    twin = deepcopy(model)
    twin.still = (0, 1)
    return twin


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def plain(model: TCN, x: Tensor) -> Tensor:
    """The released network, written with torch's own convolutions and weight normalisation."""
    for i, block in enumerate(model.blocks):
        y = x
        for name in ("first", "second"):
            ours: Any = block.get_submodule(name)
            d = 2**i
            v = ours.v.view(len(ours.v), y.shape[1], -1)
            conv: Any = weight_norm(nn.Conv1d(y.shape[1], len(v), v.shape[2], dilation=d))
            conv.bias = ours.bias
            conv.parametrizations.weight.original0.data = ours.g[:, :, None].data
            conv.parametrizations.weight.original1.data = v.data
            y = conv(functional.pad(y, (d * (v.shape[2] - 1), 0))).relu()
        widen = block.get_submodule("widen")
        x = (y + (x if isinstance(widen, nn.Identity) else widen(x[:, :, None])[:, :, 0])).relu()
    return model.output(x.transpose(1, 2))


def test_a_tcn_at_all_steps_is_the_released_network() -> None:
    model = tcn(2, levels=4, k=3, still=(0, 1))
    x = torch.rand(3, 2, 50, generator=draw())
    torch.testing.assert_close(model(x), plain(model, x), **CLOSE)


@pytest.mark.parametrize("T", [1, 2, 37, 64, 600])
def test_the_last_step_alone_gives_the_same_answer_and_gradients(T: int) -> None:
    model = tcn(2, levels=5, k=4, still=None)
    full = in_full(model)
    x = torch.rand(3, 2, T, generator=draw())
    torch.testing.assert_close(model(x), full(x)[:, -1:], **CLOSE)
    ours, theirs = (gradients(m, m(x)[:, -1].square().sum()) for m in (model, full))
    torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("T", [12, 60, 400])
def test_leaving_out_the_middle_of_a_silence_changes_no_answer_and_no_gradient(T: int) -> None:
    model = tcn(1, levels=5, k=4, still=(10, T - 1))
    full = in_full(model)
    x, Y = prepare(copying(3, T, draw()))
    torch.testing.assert_close(model(x), full(x), **CLOSE)
    ours, theirs = (gradients(m, losses(m(x), Y).mean()) for m in (model, full))
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_the_silence_is_where_the_variants_say() -> None:
    claims = find("bai2018_tcn").claims
    variant = claims.variant("copy-1000-tcn")
    assert PAPER.model is not None
    network = PAPER.model(variant)
    assert isinstance(network, TCN)
    assert network.still is not None
    first, steps = network.still
    X, _ = copying(2, variant["length"], draw())
    assert (X[:, first - 1] > 0).all()
    assert (X[:, first : first + steps] == 0).all()
    assert (X[:, first + steps] == 9).all()


def test_an_answer_knows_nothing_of_later_steps() -> None:
    model = tcn(1, levels=4, k=3, still=(0, 1))
    x = torch.rand(1, 1, 40, generator=draw())
    later = x.clone()
    later[:, :, 25:] = 5.0
    assert torch.equal(model(x)[:, :25], model(later)[:, :25])


def test_gru_gives_the_states_and_gradients_of_torch() -> None:
    torch.manual_seed(0)
    layer, x, w = nn.GRU(2, 7), torch.rand(30, 4, 2), torch.rand(30, 4, 7)
    run: list[Callable[[], Tensor]] = [lambda: gru(layer, x), lambda: layer(x)[0]]
    ours, theirs = (gradients(layer, (states() * w).sum()) for states in run)
    torch.testing.assert_close(run[0](), run[1](), **CLOSE)
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_units_of_the_better_lstm_forget_over_one_step_to_all() -> None:
    torch.manual_seed(0)
    layer: Any = lstm.model(find("bai2018").claims.variant("seq-mnist-lstm-tuned")).layer
    keeps, takes_up = (
        (layer.bias_ih_l0 + layer.bias_hh_l0)[i * 130 : (i + 1) * 130].sigmoid() for i in (1, 0)
    )
    torch.testing.assert_close(keeps + takes_up, torch.ones(130))
    steps = (1 / takes_up - 1).sort().values  # τ
    assert 1 <= steps[0] < 2
    assert 500 < steps[-1] <= 784
    assert 15 < steps[65] < 55  # √784 = 28


def test_every_pair_of_places_is_as_likely() -> None:
    _, places = adding(20_000, 5, draw())
    pairs = torch.bincount(places[:, 0] * 5 + places[:, 1], minlength=25).view(5, 5)
    assert (pairs.diagonal() == 0).all()
    rest = pairs[~torch.eye(5, dtype=torch.bool)]
    assert ((rest - 1000).abs() < 150).all()


def test_the_sum_is_of_the_marked_values() -> None:
    X, Y = prepare(adding(50, 30, draw()))
    assert (X[:, 1].sum(1) == 2).all()
    torch.testing.assert_close((X[:, 0] * X[:, 1]).sum(1, keepdim=True), Y)


def test_the_constant_answer_loses_a_sixth() -> None:
    _, Y = prepare(adding(20_000, 10, draw()))
    assert float(losses(torch.ones(20_000, 1, 1), Y).mean()) == pytest.approx(1 / 6, abs=0.005)


def test_who_remembers_nothing_loses_ten_ln_8_over_1020() -> None:
    _, Y = copying(4, 1000, draw())
    answers = torch.full((4, 1020, 10), -1e4)
    answers[:, :-10, 0] = 0.0
    answers[:, -10:, 1:9] = 0.0
    torch.testing.assert_close(losses(answers, Y), torch.full((4,), 10 * math.log(8) / 1020))


def test_permuted_digits_have_the_same_order_in_both_splits() -> None:
    image = torch.arange(784).view(1, 28, 28).remainder(251).byte()
    columns = {"image": image, "label": torch.tensor([3])}
    assert PAPER.data is not None
    variant = find("bai2018_tcn").claims.variant("perm-mnist-tcn")
    rows = PAPER.data(variant, {"mnist": {"train": columns, "test": columns}}, Seeds(0))
    assert rows.test is not None
    assert torch.equal(rows.train[0], rows.test[0])
    assert not torch.equal(rows.train[0], image.flatten(1))
    assert torch.equal(rows.train[0].sort().values, image.flatten(1).sort().values)
