"""Noise, probes and the small stand-in for Gaussian data, against plain computations."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from papers.santurkar2018_bn_optimization import PAPER
from papers.santurkar2018_bn_optimization.data import moments
from papers.santurkar2018_bn_optimization.model import DLN, Noise, slope
from papers.santurkar2018_bn_optimization.train import fit, look
from reimpl import context
from reimpl.claims import Variant
from reimpl.context import RunContext
from reimpl.paper import Data, Seeds
from reimpl.reading import load_claims

CLAIMS = load_claims(Path(__file__).parent.parent / "papers" / PAPER.slug / "claims.toml")


def variant(name: str, **settings: Any) -> Variant:
    found = CLAIMS.variant(name)
    return replace(found, settings={**found.settings, **settings})


def images(rows: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    X = torch.randint(0, 256, (rows, 32, 32, 3), dtype=torch.uint8, generator=draw)
    return X, torch.arange(rows) % 10


def run(which: Variant, **more: Any) -> dict[str, Any]:
    data = Data(train=images(40), test=images(40))
    if which["network"] == "dln":
        data = PAPER.data(which, {}, Seeds(7)) if PAPER.data else data
    return dict(fit(which, RunContext(seeds=Seeds(7), sources={}, data=data, **more)))


TINY = {"width": 2, "batch": 8, "steps": 12, "rate": 0.01}


@pytest.mark.parametrize("batchnorm", [False, True])
def test_twenty_points_give_the_loss_and_gradients_of_a_thousand_samples(batchnorm: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    X = torch.randn(1000, 10, generator=draw, dtype=torch.float64) + 0.3
    A = torch.randn(10, 10, generator=draw, dtype=torch.float64)
    torch.manual_seed(2)
    network = DLN(width=10, batchnorm=batchnorm, noise="none")
    few = moments(X)
    found = []
    for points in (X, few):
        batch = (points, points @ A.T, torch.full_like(points[:, 0], 1000 / len(points)))
        _, value, g = slope(network, batch, list(network.parameters()), noise=None)
        found.append(torch.cat([value[None], *[part.flatten() for part in g]]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-7, atol=1e-7 * float(found[0].norm()))


def test_looks_at_two_linear_layers_are_those_worked_out_by_hand() -> None:
    torch.manual_seed(3)
    W1, W2, X, Y = (torch.randn(3, 3, dtype=torch.float64) for _ in range(4))
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).double()
    rate, along = 0.01, [0.5, 2.0]

    def by_hand(W1: Tensor, W2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        miss = X @ W1.T @ W2.T - Y
        return miss.square().sum(), 2 * W2.T @ miss.T @ X, 2 * miss.T @ X @ W1.T

    with torch.no_grad():
        for layer, W in zip(network, (W1, W2), strict=True):
            layer.get_parameter("weight").copy_(W)
    _, G1, G2 = by_hand(W1, W2)
    shift = (by_hand(W1 - rate * G1, W2)[2] - G2).norm()
    steps = [by_hand(W1 - rate * t * G1, W2 - rate * t * G2) for t in along]
    changes = [torch.stack([g1 - G1, g2 - G2]).norm() for _, g1, g2 in steps]
    size = torch.stack([G1, G2]).norm()
    found = look(
        network,
        (X, Y, torch.ones(3).double()),
        (G1, G2),
        variant=variant("dln", rate=rate, along=along),
        noise=None,
    )
    assert found["ics/l2"] == pytest.approx(float(shift))
    assert found["landscape/loss"] == pytest.approx(abs(float(steps[0][0] - steps[1][0])))
    assert found["landscape/gradient"] == pytest.approx(float(max(changes)))
    beta = max(float(c / (rate * t * size)) for c, t in zip(changes, along, strict=True))
    assert found["landscape/beta"] == pytest.approx(beta)


def test_noise_has_other_moments_for_each_unit_and_step_and_none_at_test_time() -> None:
    torch.manual_seed(4)
    noise, a = Noise(per="unit"), torch.ones(2000, 5, 2, 2)
    means = torch.stack([noise(a).mean((0, 2, 3)) for _ in range(50)])  # σ + μ for each unit
    assert 0.5 <= float(means.min()) < 0.7
    assert 1.55 < float(means.max()) <= 1.75
    assert len(means.flatten().unique()) == means.numel()
    assert noise.eval()(a) is a


def test_the_units_of_a_layer_can_share_the_moments_of_their_noise() -> None:
    torch.manual_seed(4)
    noise, a = Noise(per="layer"), torch.ones(2000, 5, 2, 2)
    means = torch.stack([noise(a).mean((0, 2, 3)) for _ in range(50)])
    assert float(means.std(1).max()) < 0.01 < 0.15 < float(means.mean(1).std())


def test_looking_around_changes_nothing_of_the_training() -> None:
    names = ("train/loss", "test/accuracy", "activations/drift")
    often, once = (run(variant("vgg-noisy-bn", **TINY, every=n)) for n in (2, 1000))
    assert [often[name] for name in names] == [once[name] for name in names]


@pytest.mark.parametrize("name", ["vgg-noisy-bn", "dln-bn"])
def test_a_run_that_is_cut_off_and_resumed_ends_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"steps": 12, "every": 3} | (TINY if name.startswith("vgg") else {})
    whole = run(variant(name, **settings))

    class Cut(BaseException):
        pass

    def emit(kind: str, contents: Any) -> None:
        if kind == "progress" and contents["done"] == contents["total"]:
            raise Cut

    monkeypatch.setattr(context, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(context, "PROGRESS_EVERY", 0.0)
    with pytest.raises(Cut):
        run(variant(name, **settings), emit=emit, checkpoint_path=tmp_path / "kept")
    assert (tmp_path / "kept").exists()
    assert run(variant(name, **settings), checkpoint_path=tmp_path / "kept") == whole


def test_the_gradient_through_batchnorm_is_that_of_theorem_4_1() -> None:
    torch.manual_seed(5)
    m, gamma = 64, 1.7
    y = torch.randn(m, 1, dtype=torch.float64, requires_grad=True)
    norm = nn.BatchNorm1d(1, eps=1e-15).double()
    nn.init.constant_(norm.weight, gamma)
    z = norm(y)
    (g,) = torch.autograd.grad((z**3 + z).sum(), z, retain_graph=True)
    (left,) = torch.autograd.grad((z**3 + z).sum(), y)
    y_hat = (y - y.mean()) / y.std(correction=0)
    right = g.square().sum() - g.sum() ** 2 / m - (g * y_hat).sum() ** 2 / m
    torch.testing.assert_close(left.square().sum(), gamma**2 / y.var(correction=0) * right)


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    with pytest.raises(context.DivergenceError, match="NaN"):
        run(variant("dln", rate=1e3, steps=12, every=1))
