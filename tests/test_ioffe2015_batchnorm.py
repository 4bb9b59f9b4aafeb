from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from papers.ioffe2015_batchnorm import PAPER, activations
from papers.ioffe2015_batchnorm.model import EPSILON, NEWEST, Network, Normalised
from reimpl.paper import Data
from reimpl.registry import find

M = 60


def batches(count: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for k in range(count):
        yield torch.randn(M, 784, generator=generator).double() + 0.1 * k


def both(nonlinearity: str = "sigmoid") -> tuple[Normalised, nn.Sequential]:
    """Our network, and one of torch's layers with the same parameters; in double precision."""
    torch.manual_seed(1)
    ours = Normalised(m=M, nonlinearity=nonlinearity, spread=0.1)
    nn.init.normal_(ours.gamma, 1.0, 0.3)
    nn.init.normal_(ours.beta)
    ours.double()
    ours.averages[1::2] = 1 - 1 / M + EPSILON  # not as in single precision
    return ours, of_torch(ours, nonlinearity, NEWEST).double()


def of_torch(ours: Normalised, nonlinearity: str, momentum: float | None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for linear, gamma, beta in zip(ours.hidden, ours.gamma, ours.beta, strict=True):
        norm = nn.BatchNorm1d(len(gamma), EPSILON, momentum)
        norm.load_state_dict({"weight": gamma, "bias": beta}, strict=False)
        layers += [linear, norm, nn.Sigmoid() if nonlinearity == "sigmoid" else nn.ReLU()]
    return deepcopy(nn.Sequential(*layers, ours.output))


def close(a: Tensor, b: Tensor) -> bool:
    return a.allclose(b, rtol=1e-9, atol=1e-9)


def gradients(network: nn.Module, X: Tensor, pull: Tensor) -> dict[str, Tensor]:
    """The outputs, and the gradients of all parameters and of X."""
    X = X.clone().requires_grad_()
    out = network(X)
    inputs = {"X": X, **dict(network.named_parameters())}
    found = torch.autograd.grad((out * pull).sum(), list(inputs.values()))
    return {"out": out.detach(), **dict(zip(inputs, found, strict=True))}


def network_of(variant: str, *, seed: int = 0) -> Network:
    assert PAPER.model
    torch.manual_seed(seed)
    network = PAPER.model(find("ioffe2015_batchnorm").claims.variant(variant))
    assert isinstance(network, Network)
    return network


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "relu"])
@pytest.mark.parametrize("m", [M, 7])  # a mini-batch of the usual size, and of another
def test_outputs_and_gradients_are_those_of_torch(nonlinearity: str, m: int) -> None:
    ours, torchs = both(nonlinearity)
    (X,) = batches(1)
    pull = torch.randn(m, 10, generator=torch.Generator().manual_seed(2)).double()
    mine, theirs = (gradients(network, X[:m], pull) for network in (ours, torchs))
    for name in ("out", "X"):
        assert close(mine[name], theirs[name]), name
    for k in range(3):
        assert close(mine[f"hidden.{k}.weight"], theirs[f"{3 * k}.weight"])
        assert close(mine["gamma"][k], theirs[f"{3 * k + 1}.weight"])
        assert close(mine["beta"][k], theirs[f"{3 * k + 1}.bias"])
    for kind in ("weight", "bias"):
        assert close(mine[f"output.{kind}"], theirs[f"9.{kind}"])


def test_gradients_are_those_of_finite_differences() -> None:
    ours, _ = both()
    (X,) = batches(1)
    X = X[:5].clone().requires_grad_()

    def outputs(X: Tensor, *_: Tensor) -> Tensor:
        return ours(X)  # parameters are varied in place

    inputs = (X, *ours.parameters())
    assert torch.autograd.gradcheck(outputs, inputs, fast_mode=True, atol=1e-9, rtol=1e-4)


def test_inference_is_that_of_torch_after_any_number_of_batches() -> None:
    ours, torchs = both()
    for X in batches(20):
        for network in (ours, torchs):
            network(X)
        mine, theirs = deepcopy(ours).eval(), deepcopy(torchs).eval()
        assert close(mine(X), theirs(X))


def test_what_goes_into_the_last_nonlinearities_is_that_of_torch() -> None:
    ours, torchs = both()
    for X in batches(2):
        assert close(ours.last_inputs(X), torchs[:-2](X))
    (X,) = batches(1)
    assert close(ours.eval().last_inputs(X), torchs.eval()[:-2](X))


def test_the_scale_of_the_weights_changes_neither_output_nor_the_gradient_below() -> None:
    (X,) = batches(1)
    pull = torch.randn(M, 10, generator=torch.Generator().manual_seed(3)).double()
    found = []
    for a in (1e3, 2e3):  # large, so that ε is nothing beside the variance
        network, _ = both()
        with torch.no_grad():
            network.hidden[0].get_parameter("weight").mul_(a)
        found.append(gradients(network, X, pull))
    first, second = found
    scaled = "hidden.0.weight"
    for name in first.keys() - {scaled}:
        assert close(first[name], second[name]), name
    assert close(1e3 * second[scaled], 1e3 * first[scaled] / 2)  # sec. 3.3: 1/a


def test_accuracy_by_algorithm_2_is_that_of_torch_with_cumulative_averages() -> None:
    network = network_of("bn")
    assert isinstance(network, Normalised)
    X = (torch.rand(600, 784) > 0.8).to(torch.uint8)
    oracle = of_torch(network, "sigmoid", momentum=None)
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
