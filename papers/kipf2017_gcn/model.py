"""The two-layer graph convolutional network of Kipf & Welling (2017), secs 2 and 3.1.

Shapes:  N nodes, C input channels, H hidden units, F classes; P inputs and Q outputs of a layer;
         M rows and R columns of any matrix.
Symbols: A adjacency, D degrees, S propagation, X node features, Θ filters, Z scores of the classes.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.functional import pad

from .sparse import Product, Sparse


def sparse(S: Float[Tensor, "M R"]) -> Sparse:
    """A full matrix without its zeros."""
    rows, columns = S.nonzero(as_tuple=True)
    order = columns.argsort(stable=True)
    starts, column_starts = (pad((S != 0).sum(axis).cumsum(0), (1, 0)) for axis in (1, 0))
    return Sparse(S[rows, columns], columns, starts, order, rows[order], column_starts)


def normalise(A: Float[Tensor, "N N"]) -> Float[Tensor, "N N"]:
    """D^-½ A D^-½; zeros for a node without a link."""
    d = A.sum(1).clamp(min=1).rsqrt()  # (N,)
    return d[:, None] * A * d


def propagation(A: Float[Tensor, "N N"], name: str) -> Float[Tensor, "N N"]:
    """S for a row of Table 3."""
    I_N = torch.eye(len(A))
    match name:
        case "renormalisation":
            return normalise(A + I_N)  # eq. (8)
        case "single-parameter":
            return I_N + normalise(A)  # eq. (7)
        case "first-order" | "first-order-term":
            return normalise(A)  # eq. (6)
        case "chebyshev":
            return -normalise(A)  # L̃ = 2 L / λ_max − I of eq. (5), gap "largest-eigenvalue"
        case "none":
            return I_N
    raise ValueError(f"no propagation model '{name}'")


def within(S: Float[Tensor, "N N"], nodes: Tensor, *, hops: int) -> Tensor:
    """The nodes on whose features Z at `nodes` depends, in rising order."""
    near = torch.zeros(len(S), dtype=torch.bool).index_fill(0, nodes, True)
    for _ in range(hops):
        near = near | (S[near] != 0).any(0)
    return near.nonzero()[:, 0]


def drop(x: Float[Tensor, "*any"], *, rate: float, noise: Generator) -> Float[Tensor, "*any"]:
    """Dropout; what stays grows by 1 / (1 − rate)."""
    return x * (torch.rand(x.shape, generator=noise) >= rate) / (1 - rate)


class GraphConvolution(nn.Module):
    """S X Θ, eq. (8), or with several filters Σ_k T_k(S) X Θ_k, eq. (5); no bias, eq. (9)."""

    def __init__(self, inputs: int, outputs: int, *, degree: int) -> None:
        super().__init__()
        self.outputs = outputs
        bound = (6 / (inputs + outputs)) ** 0.5  # of each Θ_k, gap "initialisation"
        filters = (torch.empty(inputs, outputs).uniform_(-bound, bound) for _ in range(degree + 1))
        self.weight = nn.Parameter(torch.cat(list(filters), 1))

    def forward(self, S: Sparse, X: Sparse | Float[Tensor, "N P"]) -> Float[Tensor, "N Q"]:
        Y = Product.apply(X, self.weight) if isinstance(X, Sparse) else X @ self.weight
        first, *more = Y.split(self.outputs, 1)  # X Θ_k, (N, Q) each
        if not more:
            return Product.apply(S, first)
        b, last = more.pop(), torch.zeros(())
        while more:  # Clenshaw's recurrence: no power of S is formed
            b, last = more.pop() + 2 * Product.apply(S, b) - last, b
        return first + Product.apply(S, b) - last


class GCN(nn.Module):
    """Z = S ReLU(S X Θ⁰) Θ¹, eq. (9) before its softmax."""

    def __init__(self, *, channels: int, hidden: int, classes: int, degree: int = 0) -> None:
        super().__init__()
        self.first = GraphConvolution(channels, hidden, degree=degree)
        self.second = GraphConvolution(hidden, classes, degree=degree)

    def forward(
        self, S: Sparse, X: Sparse, *, rate: float = 0.0, noise: Generator | None = None
    ) -> Float[Tensor, "N F"]:
        """Z; with `noise`, the inputs of both layers are dropped at the rate."""
        if noise is None:
            return self.second(S, self.first(S, X).relu())
        # a dropped zero is a zero still: noise is drawn for the other features alone
        X = X._replace(values=drop(X.values, rate=rate, noise=noise))
        hidden = self.first(S, X).relu()  # (N, H)
        return self.second(S, drop(hidden, rate=rate, noise=noise))
