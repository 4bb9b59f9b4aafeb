"""The networks of Rumelhart, Hinton & Williams (Nature 1986) and of their chapter in PDP vol. 1.

Shapes:  N cases, I input units, H hidden units.
Symbols: X states of the input units (N, I); y those of a layer above it, Y of the output units;
         σ(x) = 1 / (1 + e⁻ˣ), eq. (2).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

PEOPLE, RELATIONSHIPS = 24, 12  # Fig. 3: one input unit for each


def total_input(below: int, units: int, *, spread: float) -> nn.Linear:
    """x_j = Σ_i y_i w_ji, eq. (1); a bias is the weight from a unit that is always on (p. 533).

    All start from U(−spread, spread): ±0.3 in the caption of Fig. 1, gap "initial-range" elsewhere.
    """
    layer = nn.Linear(below, units)
    for weight in layer.parameters():
        nn.init.uniform_(weight, -spread, spread)
    return layer


class Layered(nn.Module):
    """Y = σ(V [y, X]), y = σ(W X): a hidden layer, and where asked direct links beside it."""

    def __init__(self, *, inputs: int, hidden: int, direct: bool, spread: float) -> None:
        super().__init__()
        self.shape, self.direct = (inputs, hidden), direct
        self.hidden = total_input(inputs, hidden, spread=spread) if hidden else None
        self.output = total_input(hidden + inputs * direct, 1, spread=spread)

    def forward(self, X: Float[Tensor, "N I"]) -> Float[Tensor, "N 1"]:
        below = [] if self.hidden is None else [torch.sigmoid(self.hidden(X))]  # (N, H)
        if self.direct:
            below.append(X)
        return torch.sigmoid(self.output(torch.cat(below, dim=-1)))


class FamilyTrees(nn.Module):
    """The five layers of Fig. 3: 24 people and 12 relationships → 6 + 6 → 12 → 6 → 24 people."""

    def __init__(self, *, spread: float) -> None:
        super().__init__()
        self.person = total_input(PEOPLE, 6, spread=spread)
        self.relationship = total_input(RELATIONSHIPS, 6, spread=spread)
        self.central = total_input(12, 12, spread=spread)
        self.penultimate = total_input(12, 6, spread=spread)
        self.output = total_input(6, PEOPLE, spread=spread)

    def forward(self, X: Float[Tensor, "N 36"]) -> Float[Tensor, "N 24"]:
        person, relationship = X.split([PEOPLE, RELATIONSHIPS], dim=-1)
        groups = [self.person(person), self.relationship(relationship)]
        y = torch.sigmoid(torch.cat(groups, dim=-1))  # (N, 12)
        y = torch.sigmoid(self.central(y))  # (N, 12)
        y = torch.sigmoid(self.penultimate(y))  # (N, 6)
        return torch.sigmoid(self.output(y))
