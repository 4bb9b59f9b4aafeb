"""Kipf & Welling, "Semi-Supervised Classification with Graph Convolutional Networks" (2017)."""

import torch
from torch.nn.functional import cross_entropy

from reimpl.claims import Variant
from reimpl.paper import Context, Measurements, Paper

from .data import data, graph_of, split
from .model import GCN, sparse, within


def model(variant: Variant) -> GCN:
    """A variant's network with fresh weights."""
    return GCN(**{name: variant[name] for name in ("channels", "hidden", "classes", "degree")})


def fit(variant: Variant, context: Context) -> Measurements:
    """Sec. 5.2 and the authors' code: Adam, all nodes at once, early stopping. On the CPU."""
    X, y, S, whole, _ = graph = graph_of(variant, context.sources)
    train, validation, test = split(graph, context.seeds, how=variant["split"])
    near = within(S, train, hops=2 * max(variant["degree"], 1))
    part, here = (sparse(S[near][:, near]), sparse(X[near])), torch.searchsorted(near, train)
    torch.manual_seed(context.seeds.integer("init"))
    gcn = model(variant)
    noise, recipe, window = context.seeds.torch("noise"), variant.recipe, variant["window"]
    assert recipe is not None
    first = {"params": [gcn.first.weight], "weight_decay": recipe.weight_decay}
    optimiser = torch.optim.Adam([first, {"params": [gcn.second.weight]}], recipe.lr, fused=True)
    costs = []
    for epoch in range(recipe.epochs):
        optimiser.zero_grad()
        cross_entropy(gcn(*part, rate=variant["dropout"], noise=noise)[here], y[train]).backward()
        optimiser.step()
        with torch.no_grad():
            Z = gcn(*whole)
            L2 = recipe.weight_decay / 2 * gcn.first.weight.square().sum()
            costs.append(float(cross_entropy(Z[validation], y[validation]) + L2))
        context.progress(epoch + 1, recipe.epochs)
        if epoch % 10 == 0:
            context.curve(epoch + 1, {"validation/cost": costs[-1]})
        if epoch > window and window * costs[-1] > sum(costs[-window - 1 : -1]):
            break  # gap "early-stopping"
    right = 100.0 * (gcn(*whole).argmax(1) == y).double()
    return {"test/accuracy": float(right[test].mean()), "epochs": len(costs)}


def counts(variant: Variant) -> Measurements:
    """Weights of both layers."""
    return {"parameters": sum(p.numel() for p in model(variant).parameters())}


PAPER = Paper(slug="kipf2017_gcn", model=model, data=data, fit=fit, counts=counts)
