"""Citation graphs as Yang et al. (2016) prepared them, and their splits (sec. 5)."""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reimpl.claims import Variant
from reimpl.paper import Data, Seeds, Sources

from .model import propagation, sparse
from .sparse import Sparse


class Graph(NamedTuple):
    """N nodes with shares of C words (rows sum to one, sec. 5.2), a class, and S between them."""

    X: Float[Tensor, "N C"]
    y: Int[Tensor, " N"]
    S: Float[Tensor, "N N"]
    operators: tuple[Sparse, Sparse]  # S and X without their zeros
    fixed: tuple[Tensor, ...]  # nodes that train, validate and test in the Planetoid split


def graph_of(variant: Variant, sources: Sources) -> Graph:
    """The graph that a variant learns from."""
    files, name = sources["planetoid"]["files"], variant["graph"]
    return _read(files[f"data/ind.{name}.graph"].parent, name, variant["propagation"])


@lru_cache(maxsize=2)  # reading takes as long as training
def _read(folder: Path, name: str, rule: str) -> Graph:
    from torch_geometric.io import read_planetoid_data

    raw: Any = read_planetoid_data(str(folder), name)
    A = torch.zeros(raw.num_nodes, raw.num_nodes).index_put(tuple(raw.edge_index), torch.ones(()))
    X, S = raw.x / raw.x.sum(1, keepdim=True).clamp(min=1), propagation(A, rule)
    fixed = tuple(mask.nonzero()[:, 0] for mask in (raw.train_mask, raw.val_mask, raw.test_mask))
    return Graph(X=X, y=raw.y, S=S, operators=(sparse(S), sparse(X)), fixed=fixed)


def split(graph: Graph, seeds: Seeds, *, how: str) -> tuple[Tensor, ...]:
    """Nodes that train, validate and test: Planetoid's, or as many drawn anew (sec. 6.1)."""
    if how == "planetoid":
        return graph.fixed
    drawn = graph.X.any(1).nonzero()[:, 0]  # gap "random-splits"
    drawn = drawn[torch.randperm(len(drawn), generator=seeds.torch("split"))]
    of_class = graph.y[drawn] == graph.y.unique()[:, None]  # (F, N)
    train = (of_class & (of_class.cumsum(1) <= 20)).any(0)  # sec. 5.1
    return drawn[train], *drawn[~train][:1500].split([500, 1000])  # sec. 5.2


def data(variant: Variant, sources: Sources, seeds: Seeds) -> Data:
    """Words and classes, for methods that know of no links; `fit` takes the graph."""
    graph = graph_of(variant, sources)
    rows = [(graph.X[v], graph.y[v]) for v in split(graph, seeds, how=variant["split"])]
    return Data(train=rows[0], more={"validation": rows[1]}, test=rows[2])
