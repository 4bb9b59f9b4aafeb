from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from papers.ioffe2015_batchnorm import PAPER, activations
from papers.ioffe2015_batchnorm.model import EPSILON, NEWEST, Network, Normalised
from reimpl.paper import Data
from reimpl.registry import find

M, INPUTS, UNITS = 60, 9, 7
CLOSE = {"rtol": 1e-6, "atol": 1e-6}  # 1/m is a buffer in single precision


def batches(count: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for k in range(count):
        yield 3.0 * torch.randn(M, INPUTS, generator=generator).double() + k


def both() -> tuple[Normalised, nn.Sequential]:
    torch.manual_seed(1)
    linear = nn.Linear(INPUTS, UNITS, bias=False).double()
    norm = nn.BatchNorm1d(UNITS, float(EPSILON), NEWEST).double()
    ours = Normalised(linear.weight.detach().clone(), m=M).double()
    with torch.no_grad():
        for mine, theirs in zip((ours.gamma, ours.beta), norm.parameters(), strict=True):
            mine.normal_()
            theirs.copy_(mine)
    return ours, nn.Sequential(linear, norm)


def network_of(variant: str, *, seed: int = 0) -> Network:
    assert PAPER.model
    torch.manual_seed(seed)
    network = PAPER.model(find("ioffe2015_batchnorm").claims.variant(variant))
    assert isinstance(network, Network)
    return network


def test_outputs_and_gradients_are_those_of_torch() -> None:
    (x,) = batches(1)
    pull = torch.randn(M, UNITS, generator=torch.Generator().manual_seed(2)).double()
    found = []
    for layer in both():
        u = x.clone().requires_grad_()
        y = layer(u)
        found.append([y, *torch.autograd.grad((y * pull).sum(), [u, *layer.parameters()])])
    assert all(a.allclose(b, **CLOSE) for a, b in zip(*found, strict=True))


def test_gradients_are_those_of_finite_differences() -> None:
    layer, torchs = both()
    (x,) = batches(1)
    u = x[:5].clone().requires_grad_()
    assert torch.autograd.gradcheck(layer, (u,))
    assert layer(u).allclose(torchs(u))  # a mini-batch of another size than usual


def test_inference_is_that_of_torch_after_any_number_of_batches() -> None:
    ours, torchs = both()
    for x in batches(20):
        for layer in (ours, torchs):
            layer(x)
        mine, theirs = deepcopy(ours).eval(), deepcopy(torchs).eval()
        assert mine(x).allclose(theirs(x), **CLOSE)


def test_the_scale_of_the_weights_changes_neither_output_nor_the_gradient_below() -> None:
    (x,) = batches(1)
    pull = torch.randn(M, UNITS, generator=torch.Generator().manual_seed(3)).double()
    found = []
    for a in (1e3, 2e3):  # large, so that ε is nothing beside the variance
        layer, _ = both()
        with torch.no_grad():
            layer.weight.mul_(a)
        u = x.clone().requires_grad_()
        y = layer(u)
        found.append((y, *torch.autograd.grad((y * pull).sum(), [u, layer.weight])))
    (y, du, dW), (y2, du2, dW2) = found
    assert y.allclose(y2, **CLOSE)
    assert du.allclose(du2, **CLOSE)
    assert (1e3 * dW2).allclose(1e3 * dW / 2, **CLOSE)  # sec. 3.3: 1/a


def with_torchs_norm(layer: nn.Module, norm: nn.BatchNorm1d) -> nn.Module:
    assert isinstance(layer, Normalised)
    linear = nn.Linear(layer.weight.shape[1], len(layer.weight), bias=False)
    linear.weight = layer.weight
    return nn.Sequential(linear, norm)


def test_accuracy_by_algorithm_2_is_that_of_torch_with_cumulative_averages() -> None:
    network = network_of("bn")
    X = (torch.rand(600, 784) > 0.8).to(torch.uint8)
    oracle = deepcopy(network)
    oracle.hidden = nn.ModuleList(
        with_torchs_norm(layer, nn.BatchNorm1d(100, float(EPSILON), momentum=None))
        for layer in network.hidden
    )
    with torch.no_grad():
        for x in X.split(60):
            oracle(x.float())
        answers = oracle.eval()(X.float()).argmax(1)
    D = answers.where(torch.arange(600) % 4 > 0, (answers + 1) % 10)  # a quarter is wrong
    found = activations.inspect(network.eval(), Data(train=(X, D), test=(X, D)))
    assert found["population/accuracy"] == pytest.approx(75.0)


def test_drift_counts_the_way_of_the_median_and_doublings_of_the_width() -> None:
    low = torch.tensor([-1.0, -1.0, 0.0])
    past = torch.stack([low, low + 1, low + torch.tensor([2.0, 4.0, 8.0])], 1)  # (T, 3)
    found = activations.drift(past[:, :, None].expand(3, 3, 100))
    assert found == pytest.approx({"drift/median": 1 / 8, "drift/width": 2.0})


def test_watching_changes_nothing_but_its_own_record() -> None:
    network = network_of("bn")
    before = {name: t.clone() for name, t in network.state_dict().items()}
    X = (torch.rand(120, 784, generator=torch.Generator().manual_seed(0)) > 0.8).to(torch.uint8)
    data = Data(train=(X,), test=(X,))
    first = activations.watch(network.eval(), data)
    again = activations.watch(network.eval(), data)
    after = network.state_dict()
    assert [name for name in before if not before[name].equal(after[name])] == ["past"]
    assert again == {**first, "drift/median": 0.0}


def test_networks_of_a_pair_start_from_the_same_weights() -> None:
    plain, normalised = (
        {name: t for name, t in network_of(name).named_parameters() if name.endswith("weight")}
        for name in ("plain", "bn")
    )
    assert plain.keys() == normalised.keys()
    assert all(plain[name].equal(normalised[name]) for name in plain)
