"""The one-layer transformer of Nanda, Chan, Lieberum, Smith & Steinhardt (ICLR 2023).

Only "=" enters the loss, so only its row of attention, MLP and logits is computed: same numbers.

Shapes:  N pairs, P = 113 numbers, D width, H heads, M neurons; T = P + 1 tokens, the last is "=".
Symbols: X the pairs (a, b), L logits; W_E, W_pos, W_Q, W_K, W_V, W_O, W_in, W_out, W_U as in sec. 3
         and app. A; W_L = W_U W_out, the neuron-logit map of sec. 4.2.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

P, D, H, M = 113, 128, 4, 512  # sec. 3
PAIRS = torch.cartesian_prod(torch.arange(P), torch.arange(P))  # (P², 2)
SUMS = PAIRS.sum(1) % P  # (P²,)


def drawn(*shape: int, width: int = D) -> nn.Parameter:
    """Weights from N(0, 1 / width): gap "initialisation"."""
    return nn.Parameter(torch.randn(shape) / width**0.5)


def linear(
    x: Float[Tensor, "N i"], W: Float[Tensor, "o i"], b: Float[Tensor, " o"] | None = None
) -> Float[Tensor, "N o"]:
    """W x + b, by oneDNN: on a CPU its float32 kernels take half the time of torch's usual ones."""
    if x.is_cpu and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return functional.linear(x.to_mkldnn(), W, b).to_dense()
    return functional.linear(x, W, b)


def cross_entropy(L: Float[Tensor, "N P"], y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Mean over the pairs; log-softmax in float64, as in the authors' code (app. D.2)."""
    return functional.cross_entropy(L.double(), y)


class Attention(nn.Module):
    """x + W_O Σ_i A_i v_i at "=": what it takes from the places i of a, b and itself; no biases."""

    def __init__(self) -> None:
        super().__init__()
        self.W_Q, self.W_K, self.W_V, self.W_O = (drawn(D, D) for _ in range(4))

    def forward(self, x: Float[Tensor, "3 T D"], X: Int[Tensor, "N 2"]) -> Float[Tensor, "N D"]:
        """`x` has every token at every place: all pairs share its rows, so each is made once."""
        equals = x[2, -1]  # (D,)
        q = (self.W_Q @ equals).view(H, -1, 1)
        qk = (q * self.W_K.view(H, -1, D)).sum(1) / (D // H) ** 0.5  # (H, D)
        scores, v = x @ qk.T, x @ self.W_V.T  # (3, T, H), (3, T, D)
        seen = [functional.embedding(X[:, i], scores[i]) for i in (0, 1)]
        A = torch.stack([*seen, scores[2, -1].expand(len(X), H)]).softmax(0)  # (3, N, H)
        # The weights sum to one, so values may be counted from that of "=", which is added later
        values = [functional.embedding(X[:, i], v[i] - v[2, -1]) for i in (0, 1)]
        first, second = (y.view(-1, H, D // H) for y in values)
        z = torch.addcmul(A[0, ..., None] * first, A[1, ..., None], second)  # (N, H, D / H)
        return linear(z.flatten(1), self.W_O, equals + self.W_O @ v[2, -1])


class MLP(nn.Module):
    """W_out ReLU(W_in x + b_in) + b_out."""

    def __init__(self) -> None:
        super().__init__()
        self.W_in, self.b_in = drawn(M, D), nn.Parameter(torch.zeros(M))
        self.W_out, self.b_out = drawn(D, M), nn.Parameter(torch.zeros(D))

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        return linear(self.neurons(x), self.W_out, self.b_out)

    def neurons(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N M"]:
        return linear(x, self.W_in, self.b_in).relu()


class Transformer(nn.Module):
    """L = W_U (x + MLP(x)), x = Attention(W_E + W_pos) at "="; no layer norm, W_U is not tied."""

    def __init__(self) -> None:
        super().__init__()
        self.W_E, self.W_pos = drawn(P + 1, D), drawn(3, D)
        self.attention, self.mlp = Attention(), MLP()
        self.W_U = drawn(P, D, width=P)

    def forward(self, X: Int[Tensor, "N 2"]) -> Float[Tensor, "N P"]:
        x = self.middle(X)
        return linear(x + self.mlp(x), self.W_U)

    def middle(self, X: Int[Tensor, "N 2"]) -> Float[Tensor, "N D"]:
        """The residual stream of "=" between attention and MLP."""
        return self.attention(self.W_E + self.W_pos[:, None], X)

    @property
    def neuron_logit_map(self) -> Float[Tensor, "P M"]:
        """W_L."""
        return self.W_U @ self.mlp.W_out
