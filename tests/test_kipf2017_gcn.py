from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import papers.kipf2017_gcn as gcn
from papers.kipf2017_gcn.data import Graph, split
from papers.kipf2017_gcn.model import (
    GCN,
    GraphConvolution,
    drop,
    normalise,
    propagation,
    sparse,
    within,
)
from papers.kipf2017_gcn.sparse import Product
from reimpl import data
from reimpl.claims import Claims, Variant
from reimpl.context import RunContext
from reimpl.paper import Data, Seeds
from reimpl.reading import load_claims

FOLDER = Path(__file__).parents[1] / "papers" / "kipf2017_gcn"
graphs = pytest.mark.parametrize("name", ["cora", "citeseer"])


@pytest.fixture(scope="module")
def claims() -> Claims:
    return load_claims(FOLDER / "claims.toml")


def links(nodes: int = 30) -> Tensor:
    upper = np.triu(np.random.default_rng(0).random((nodes, nodes)) < 1.8 / nodes, 1)
    return torch.from_numpy(upper | upper.T).float()


def made_up(nodes: int = 400) -> Graph:
    generator = torch.Generator().manual_seed(0)
    X = (torch.rand(nodes, 12, generator=generator) < 0.3).float()
    X[0] = 0  # a document without words
    y = torch.arange(nodes) % 3
    S = propagation(links(nodes), "renormalisation")
    fixed = (torch.arange(60), torch.arange(60, 160), torch.arange(160, nodes))
    return Graph(X=X, y=y, S=S, operators=(sparse(S), sparse(X)), fixed=fixed)


def short(claims: Claims, epochs: int, **settings: Any) -> Variant:
    variant = claims.variant("cora-renormalisation")
    assert variant.recipe is not None
    recipe = replace(variant.recipe, epochs=epochs)
    return replace(variant, recipe=recipe, settings={**variant.settings, **settings})


def measured(variant: Variant, seed: int = 0) -> tuple[dict[str, Any], list[tuple[float, float]]]:
    context = RunContext(seeds=Seeds(seed), sources={}, data=Data(train=()))
    return dict(gcn.fit(variant, context)), context.curves["validation/cost"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    graph = made_up()
    monkeypatch.setattr(gcn, "graph_of", lambda _variant, _sources: graph)
    return {"channels": 12, "classes": 3}


# The layers


def test_a_sparse_product_and_its_gradient_are_those_of_full_matrices() -> None:
    S = torch.randn(7, 5) * (torch.rand(7, 5) < 0.4)
    B, G = torch.randn(5, 3, requires_grad=True), torch.randn(7, 3)
    found = Product.apply(sparse(S), B)
    found.backward(G)
    assert torch.allclose(found, S @ B, atol=1e-6)
    assert B.grad is not None
    assert torch.allclose(B.grad, S.T @ G, atol=1e-6)


def test_the_network_is_that_of_torch_geometric_with_the_same_weights() -> None:
    nn = pytest.importorskip("torch_geometric.nn")
    A, X, ours = links(), torch.rand(30, 9), GCN(channels=9, hidden=4, classes=3)
    first, second = nn.GCNConv(9, 4, bias=False), nn.GCNConv(4, 3, bias=False)
    first.lin.weight.data = ours.first.weight.data.T
    second.lin.weight.data = ours.second.weight.data.T
    edges = A.nonzero().T
    theirs = second(first(X, edges).relu(), edges)
    Z = ours(sparse(propagation(A, "renormalisation")), sparse(X))
    assert torch.allclose(Z, theirs, atol=1e-6)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_filters_are_summed_over_chebyshev_polynomials(degree: int) -> None:
    S, X = propagation(links(), "chebyshev"), torch.rand(30, 9)
    layer = GraphConvolution(9, 4, degree=degree)
    T = [torch.eye(30), S, 2 * S @ S - torch.eye(30), 4 * S @ S @ S - 3 * S]
    wanted = sum(t @ X @ theta for t, theta in zip(T, layer.weight.split(4, 1), strict=False))
    assert isinstance(wanted, Tensor)
    assert torch.allclose(layer(sparse(S), X), wanted, atol=1e-5)


def test_propagation_models_are_the_matrices_of_table_3() -> None:
    A = links()
    N = normalise(A)
    lonely = A.sum(1) == 0
    assert lonely.any()
    assert torch.equal(N[lonely], torch.zeros_like(N[lonely]))
    d = A.sum(1)
    assert torch.allclose(N * (d[:, None] * d).sqrt(), A, atol=1e-6)
    assert torch.equal(propagation(A, "single-parameter"), torch.eye(30) + N)
    assert torch.equal(propagation(A, "first-order-term"), N)
    assert torch.equal(propagation(A, "none"), torch.eye(30))
    with pytest.raises(ValueError, match="no propagation model 'renormalization'"):
        propagation(A, "renormalization")


def test_dropout_keeps_the_mean_and_drops_the_rate() -> None:
    x = drop(torch.ones(100_000), rate=0.1, noise=torch.Generator().manual_seed(0))
    assert float((x == 0).float().mean()) == pytest.approx(0.1, abs=0.005)
    assert float(x.mean()) == pytest.approx(1, abs=0.01)


# What is saved leaves the numbers as they are


@pytest.mark.parametrize(("name", "degree"), [("renormalisation", 0), ("chebyshev", 2)])
def test_nodes_beyond_the_reach_of_both_layers_change_nothing(name: str, degree: int) -> None:
    S, X = propagation(links(400), name), torch.rand(400, 9)
    wanted = torch.tensor([3, 5, 8])
    near = within(S, wanted, hops=2 * max(degree, 1))
    assert len(wanted) < len(near) < 200
    network = GCN(channels=9, hidden=4, classes=3, degree=degree)
    weights = list(network.parameters())
    whole = network(sparse(S), sparse(X))[wanted]
    part = network(sparse(S[near][:, near]), sparse(X[near]))[torch.searchsorted(near, wanted)]
    assert torch.allclose(part, whole, atol=1e-6)
    gradients = (torch.autograd.grad(Z.square().sum(), weights) for Z in (part, whole))
    for ours, full in zip(*gradients, strict=True):
        assert torch.allclose(ours, full, atol=1e-5)


def test_a_run_is_that_of_a_plain_loop_over_full_matrices(
    claims: Claims, small: dict[str, Any]
) -> None:
    graph = made_up()
    variant = short(claims, 11, dropout=0.0, window=200, **small)
    _, curve = measured(variant)
    torch.manual_seed(Seeds(0).integer("init"))
    W0, W1 = (p.detach().requires_grad_() for p in gcn.model(variant).parameters())
    optimiser = torch.optim.Adam([W0, W1], lr=0.01)
    train, validation, _ = graph.fixed

    def cost(nodes: Tensor) -> Tensor:
        Z = graph.S @ (graph.S @ graph.X @ W0).relu() @ W1
        return cross_entropy(Z[nodes], graph.y[nodes]) + 5e-4 * 0.5 * W0.square().sum()

    wanted = []
    for _ in range(11):
        optimiser.zero_grad()
        cost(train).backward()
        optimiser.step()
        wanted.append(cost(validation).item())
    assert curve == [(1, pytest.approx(wanted[0])), (11, pytest.approx(wanted[10], abs=1e-5))]


# The run


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    claims: Claims, small: dict[str, Any]
) -> None:
    variant = short(claims, 25, **small)
    assert measured(variant) == measured(variant)
    assert measured(variant)[1] != measured(variant, seed=1)[1]


def test_training_stops_at_the_first_cost_above_the_mean_of_the_ten_before(
    claims: Claims, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # a rise in epoch 5 is not asked about, one in epoch 13 stays below the mean of 3 to 12
    costs = iter([29.0, 28, 27, 26, 99, 24, 23, 22, 21, 20, 19, 18, 22, 16, 60, 0])
    plain = torch.nn.functional.cross_entropy

    def cost(Z: Tensor, y: Tensor) -> Tensor:
        return plain(Z, y) if Z.requires_grad else torch.tensor(next(costs))

    monkeypatch.setattr(gcn, "cross_entropy", cost)
    variant = short(claims, 100, **small)
    assert variant.recipe is not None
    undecayed = replace(variant, recipe=replace(variant.recipe, weight_decay=0.0))
    assert measured(undecayed)[0]["epochs"] == 15


def test_random_splits_have_the_sizes_of_the_fixed_one_and_no_node_without_words() -> None:
    graph = made_up(1800)
    train, validation, test = split(graph, Seeds(0), how="random")
    assert graph.y[train].bincount().tolist() == [20, 20, 20]
    assert (len(validation), len(test)) == (500, 1000)
    assert len(torch.cat([train, validation, test]).unique()) == 1560
    assert graph.X[torch.cat([train, validation, test])].any(1).all()
    assert not torch.equal(train, split(graph, Seeds(1), how="random")[0])


# The graphs


@pytest.mark.data
@graphs
def test_graphs_have_the_sizes_of_table_1(claims: Claims, name: str) -> None:
    pytest.importorskip("torch_geometric")
    nodes, channels, classes, links, lonely = {
        "cora": (2708, 1433, 7, 5278, 0),
        "citeseer": (3327, 3703, 6, 4552, 48),
    }[name]
    variant = claims.variant(f"{name}-first-order-term")
    graph = gcn.graph_of(variant, data.load(claims.sources))
    assert graph.X.shape == (nodes, channels) == (nodes, variant["channels"])
    assert len(graph.y.unique()) == classes == variant["classes"]
    # Table 1 prints 5,429 and 4,732 links, which counts some of them twice
    assert int((graph.S != 0).sum()) == 2 * links
    assert int((graph.S.sum(1) == 0).sum()) == lonely
    assert [len(part) for part in graph.fixed] == [20 * classes, 500, 1000]


@pytest.mark.data
@graphs
def test_some_nodes_know_only_each_other_so_the_largest_eigenvalue_is_two(
    claims: Claims, name: str
) -> None:
    pytest.importorskip("torch_geometric")
    variant = claims.variant(f"{name}-first-order-term")
    S = gcn.graph_of(variant, data.load(claims.sources)).S
    one, other = (S == 1).nonzero()[0]  # both have one link: 1 / sqrt(1 · 1)
    x = torch.zeros(len(S)).index_fill(0, one, 1.0).index_fill(0, other, -1.0)
    assert torch.equal(x - S @ x, 2 * x)
