"""Nanda et al. 2023: the shortcuts are exact, and the measures find what was put in."""

from dataclasses import replace
from math import log
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from papers.nanda2023_grokking import PAPER, train
from papers.nanda2023_grokking.fourier import F, key_frequencies, measures, one_frequency
from papers.nanda2023_grokking.model import PAIRS, SUMS, D, H, P, Transformer, cross_entropy
from reimpl.claims import Variant
from reimpl.context import RunContext
from reimpl.paper import Data, Seeds
from reimpl.reading import load_claims

CLAIMS = load_claims(Path(__file__).parent.parent / "papers/nanda2023_grokking/claims.toml")


def plain(model: Transformer, X: Tensor) -> Tensor:
    """The textbook's transformer: every place, every head, causal mask, then the last row."""
    tokens = torch.cat([X, torch.full((len(X), 1), P)], dim=1)
    x = model.W_E[tokens] + model.W_pos
    attention, mlp = model.attention, model.mlp
    q, k, v = (
        (x @ W.T).view(len(X), 3, H, D // H).transpose(1, 2)
        for W in (attention.W_Q, attention.W_K, attention.W_V)
    )
    z = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + z.transpose(1, 2).flatten(2) @ attention.W_O.T
    x = x + (x @ mlp.W_in.T + mlp.b_in).relu() @ mlp.W_out.T + mlp.b_out
    return (x @ model.W_U.T)[:, -1]


def moved(dtype: torch.dtype) -> Transformer:
    """A network whose biases are not zero and whose attention is not nearly even."""
    torch.manual_seed(0)
    model = Transformer().to(dtype)
    with torch.no_grad():
        for w in model.parameters():
            w.add_(0.1 * torch.randn_like(w))
    return model


def rows(seed: int = 0) -> Tensor:
    return torch.randperm(len(PAIRS), generator=torch.Generator().manual_seed(seed))


def gradients(model: Transformer, L: Tensor, y: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(cross_entropy(L, y), list(model.parameters())))


# float64 has 16 digits and float32 seven; a few are lost where terms cancel
@pytest.mark.parametrize(("dtype", "digits"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
def test_outputs_and_gradients_are_those_of_the_plain_transformer(
    dtype: torch.dtype, digits: float
) -> None:
    model, learnt = moved(dtype), rows()[:500]
    X, y = PAIRS[learnt], SUMS[learnt]
    ours, theirs = model(X), plain(model, X)
    assert (ours - theirs).norm() <= digits * theirs.norm()
    pairs = zip(gradients(model, ours, y), gradients(model, theirs, y), strict=True)
    names = [name for name, _ in model.named_parameters()]
    far = [n for n, (a, b) in zip(names, pairs, strict=True) if (a - b).norm() > digits * b.norm()]
    assert far == []


def test_the_basis_is_orthonormal() -> None:
    assert torch.allclose(F @ F.T, torch.eye(P).double(), atol=1e-12)


class Circuit(Transformer):
    """What the paper says a network becomes: logits Σ cos w_k(a + b - c) for k = 14 and 35."""

    def forward(self, X: Tensor) -> Tensor:
        turns = 2 * torch.pi / P * (X.sum(1, keepdim=True) - torch.arange(P))
        return 30 * ((14 * turns).cos() + (35 * turns).cos())


KEYS = torch.tensor([27, 28, 69, 70])  # cos and sin of 14 and 35


def test_the_logits_of_the_algorithm_are_explained_by_its_frequencies() -> None:
    found = measures(Circuit(), KEYS, *rows().split(P * P // 2 + 1))
    assert found["logits/explained"] == pytest.approx(100, abs=1e-3)
    assert found["test/accuracy"] == 100


def test_restricted_keeps_and_excluded_loses_what_the_algorithm_knows() -> None:
    found = measures(Circuit(), KEYS, *rows().split(P * P // 2 + 1))
    assert found["restricted/loss"] == pytest.approx(found["test/loss"], abs=1e-3)
    assert found["excluded/loss"] == pytest.approx(torch.tensor(P).log().item(), abs=1e-3)


def test_key_frequencies_are_found_in_the_map_from_neurons_to_logits() -> None:
    model = Transformer()
    with torch.no_grad():
        model.W_U.copy_(F[KEYS].T.float() @ torch.randn(4, D))
    assert key_frequencies(model).tolist() == KEYS.tolist()


def test_a_neuron_of_one_frequency_is_explained_and_one_of_two_is_not() -> None:
    model = Transformer()
    turns = 2 * torch.pi / P * PAIRS
    one = (14 * turns[:, 0]).cos() + (14 * turns).cos().prod(1)
    two = (14 * turns[:, 0]).cos() + (35 * turns[:, 1]).cos()
    model.mlp.neurons = lambda x: torch.stack([one, two], dim=1)  # pyright: ignore[reportAttributeAccessIssue]
    assert one_frequency(model).tolist() == pytest.approx([1.0, 0.5], abs=1e-4)


def short(epochs: int, evaluate: int) -> Variant:
    variant = CLAIMS.variant("mainline")
    assert variant.recipe is not None
    return replace(variant, recipe=replace(variant.recipe, epochs=epochs, evaluate=evaluate))


def context(path: Path | None = None, kind: type[RunContext] = RunContext) -> RunContext:
    assert PAPER.data is not None
    everything = PAPER.data(CLAIMS.variant("mainline"), {}, Seeds(0)).train
    learnt, others = zip(*(t[:400].split(200) for t in everything), strict=True)
    return kind(
        seeds=Seeds(0), sources={}, data=Data(train=learnt, test=others), checkpoint_path=path
    )


class CutError(Exception):
    """The machine went away."""


class Cut(RunContext):
    """Has kept what it knew after five epochs, and is gone in the sixth."""

    def progress(self, done: float, total: float, **shown: float) -> None:
        if done == 6:
            raise CutError


def test_a_run_that_was_cut_off_goes_on_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reimpl.context.CHECKPOINT_EVERY", 0)
    whole = train.fit(short(8, 8), context())
    with pytest.raises(CutError):
        train.fit(short(8, 8), context(tmp_path / "kept", Cut))
    assert train.fit(short(8, 8), context(tmp_path / "kept")) == whole


def test_phases_are_read_off_the_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = 0.4 * log(P), 2.0 * log(P)
    curves = {  # at epochs 0, 200, 400, 600, 800
        "train/accuracy": [1, 100, 100, 100, 100],
        "test/accuracy": [1, 1, 5, 40, 100],
        "test/loss": [high, high, high, high, low],
        "excluded/loss": [high, low, high, high, high],
        "restricted/loss": [high, high, low, low, low / 2],
        "weights/squares": [9, 8, 6, 5, 4],
        "gini/W_L": [0.1, 0.1, 0.2, 0.7, 0.8],
    }
    looks = ({name: ys[i] for name, ys in curves.items()} for i in range(5))
    monkeypatch.setattr(train, "measures", lambda *_: next(looks))
    model = Transformer()
    weights = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    found = train.hindsight(model, dict.fromkeys(range(0, 1000, 200), weights), context())
    expected = {
        "epochs/to-99-train": 200,
        "epochs/to-95-test": 800,
        "epochs/delay": 4,
        "epochs/memorised": 200,
        "excluded/lead": 400,
        "restricted/lead": 400,
        "weights/ratio": 0.5,
        "gini/lag": 200,
        "restricted/ratio": 0.5,
    }
    assert {name: found[name] for name in expected} == expected
