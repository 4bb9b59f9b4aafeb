"""The network of sec. 4.1, with batch normalisation (Algs. 1 and 2) or without.

Shapes:  N examples, m of them in a mini-batch; I inputs and K activations of a layer.
Symbols: as in Alg. 1 and sec. 3.2: x, x̂, y, γ, β, μ, σ², ε; u inputs and W weights of a layer.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

EPSILON = torch.tensor(1e-5)  # ε, gap "epsilon"; a tensor, since adding a number takes longer
NEWEST = 0.01  # weight of the last mini-batch in the averages, gap "moving-averages"
PIXELS, UNITS, CLASSES = 784, 100, 10  # sec. 4.1


class Transform(torch.autograd.Function):
    """Alg. 1 on x = Wu: y = γ x̂ + β with x̂ = (x − μ) / √(σ² + ε), and the gradients of sec. 3.

    ∂ℓ/∂x, there before simplification, is γ / √(σ² + ε) · (∂ℓ/∂y − (∂ℓ/∂β + x̂ ∂ℓ/∂γ) / m).
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, W: Tensor, gamma: Tensor, beta: Tensor, layer: Any) -> Tensor:
        share = layer.share if len(u) == layer.m else u.new_full((len(u),), 1 / len(u))  # (m,)
        x = functional.linear(u, W)  # (m, K)
        mu = share @ x  # (K,): a mean, and faster than mean()
        x_hat = x.sub_(mu)  # not yet scaled
        variance = share @ (x_hat * x_hat)  # (K,), σ²
        layer.mean.lerp_(mu, layer.newest)
        layer.variance.lerp_(variance, layer.newest)
        scale = variance.add_(EPSILON).rsqrt_()
        x_hat *= scale
        ctx.save_for_backward(u, W, x_hat, scale * gamma)
        return torch.addcmul(beta, x_hat, gamma)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (dy,), (u, W, x_hat, slope) = grad_outputs, ctx.saved_tensors
        dbeta, dgamma = dy.sum(0), torch.linalg.vecdot(dy, x_hat, dim=0)
        through = torch.addcmul(dbeta, x_hat, dgamma)  # (m, K), by way of μ and σ²
        dx = torch.sub(dy, through, alpha=1 / len(dy)).mul_(slope)
        du = dx.mm(W) if ctx.needs_input_grad[0] else None
        return du, dx.T.mm(u), dgamma, dbeta, None


class Normalised(nn.Module):
    """BN_γβ(Wu): Alg. 1 in training; in inference Alg. 2, γ (Wu − E[x]) / √(Var[x] + ε) + β."""

    mean: Tensor  # E[x], and below E[σ²], as moving averages over mini-batches (sec. 3.1)
    variance: Tensor
    share: Tensor

    def __init__(self, weight: Tensor, *, m: int) -> None:
        super().__init__()
        activations = len(weight)
        self.weight, self.m, self.newest = nn.Parameter(weight), m, NEWEST
        self.gamma = nn.Parameter(torch.ones(activations))
        self.beta = nn.Parameter(torch.zeros(activations))
        self.register_buffer("mean", torch.zeros(activations))
        self.register_buffer("variance", torch.full((activations,), 1 - 1 / m))  # Var[x] = 1
        self.register_buffer("share", torch.full((m,), 1 / m))

    def forward(self, u: Float[Tensor, "N I"]) -> Float[Tensor, "N K"]:
        if self.training:
            return Transform.apply(u, self.weight, self.gamma, self.beta, self)
        unbiased = self.variance * (self.m / (self.m - 1))  # Alg. 2, line 10
        slope = self.gamma * (unbiased + EPSILON).rsqrt()
        return torch.addcmul(self.beta - slope * self.mean, u @ self.weight.T, slope)  # line 11


class Network(nn.Module):
    """Hidden layers z = g(Wu + b), or z = g(BN(Wu)) where m is given (sec. 3.2); Wz + b on top."""

    def __init__(self, *, m: int | None, nonlinearity: str, spread: float) -> None:
        super().__init__()
        below = (PIXELS, UNITS, UNITS)
        layers = [gaussian(inputs, UNITS, spread=spread) for inputs in below]
        self.hidden = nn.ModuleList([Normalised(x.weight, m=m) for x in layers] if m else layers)
        self.g = {"sigmoid": torch.sigmoid, "relu": torch.relu}[nonlinearity]
        self.output = gaussian(UNITS, CLASSES, spread=spread)

    def last_inputs(self, X: Float[Tensor, "N I"]) -> Float[Tensor, "N K"]:
        """What goes into the nonlinearities of the last hidden layer (Fig. 1b, c)."""
        first, second, third = self.hidden
        return third(self.g(second(self.g(first(X)))))

    def forward(self, X: Float[Tensor, "N I"]) -> Float[Tensor, "N 10"]:
        return self.output(self.g(self.last_inputs(X)))


def gaussian(inputs: int, units: int, *, spread: float) -> nn.Linear:
    """Weights from N(0, spread²), where spread is 0 from He's N(0, 2 / inputs); biases of zero."""
    layer = nn.Linear(inputs, units)
    nn.init.normal_(layer.weight, std=spread or (2 / inputs) ** 0.5)
    nn.init.zeros_(layer.bias)
    return layer
