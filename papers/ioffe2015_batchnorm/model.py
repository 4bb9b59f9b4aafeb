"""The network of sec. 4.1, with batch normalisation (Algs. 1 and 2) or without.

Shapes:  N examples, m of them in a mini-batch; L hidden layers of K activations.
Symbols: as in Alg. 1 and sec. 3.2: x, x̂, y, γ, β, μ, σ², ε; W weights, u inputs of a hidden layer.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-5  # ε, gap "epsilon"
NEWEST = 0.01  # weight of the last mini-batch in the averages, gap "moving-averages"
PIXELS, UNITS, CLASSES = 784, 100, 10  # sec. 4.1
NONLINEARITIES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "sigmoid": (torch.sigmoid_, torch.ops.aten.sigmoid_backward.default),
    "relu": (torch.relu_, lambda dz, z: dz * z.sign()),
}
"""z = g(y), in place of y; and ∂ℓ/∂y from ∂ℓ/∂z and z."""


class Network(nn.Module):
    """Hidden layers z = g(Wu + b), and Wz + b on top."""

    def __init__(self, *, nonlinearity: str, spread: float) -> None:
        super().__init__()
        below = (PIXELS, UNITS, UNITS)
        self.hidden = nn.ModuleList(gaussian(inputs, UNITS, spread=spread) for inputs in below)
        self.g, self.gradient_of_g = NONLINEARITIES[nonlinearity]
        self.output = gaussian(UNITS, CLASSES, spread=spread)

    def last_inputs(self, X: Float[Tensor, "N 784"]) -> Float[Tensor, "N K"]:
        """What goes into the nonlinearities of the last hidden layer (Fig. 1b, c)."""
        first, second, third = self.hidden
        return third(self.g(second(self.g(first(X)))))

    def forward(self, X: Float[Tensor, "N 784"]) -> Float[Tensor, "N 10"]:
        return self.output(self.g(self.last_inputs(X)))


class Normalised(Network):
    """The same with z = g(BN(Wu)) (sec. 3.2): Alg. 1 in training, Alg. 2 in inference."""

    averages: Tensor  # over mini-batches, moving: of each layer E[x], E[σ² + ε] (sec. 3.1)

    def __init__(self, *, m: int, nonlinearity: str, spread: float) -> None:
        super().__init__(nonlinearity=nonlinearity, spread=spread)
        for layer in self.hidden:
            layer.register_parameter("bias", None)  # sec. 3.2: β has its role
        self.m, self.newest = m, NEWEST
        shape = len(self.hidden), UNITS
        self.gamma, self.beta = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        weights = [layer.get_parameter("weight") for layer in self.hidden]
        # looked up once: an attribute of a module takes as long as a sum of K numbers
        self.trained = (self.gamma, self.beta, self.output.weight, self.output.bias, *weights)
        start = torch.tensor([0.0, 1 - 1 / m + EPSILON])  # Var[x] = 1
        self.register_buffer("averages", start.repeat(len(weights))[:, None].repeat(1, UNITS))

    def forward(self, X: Float[Tensor, "N 784"]) -> Float[Tensor, "N 10"]:
        return Training.apply(X, self, *self.trained) if self.training else super().forward(X)

    def last_inputs(self, X: Float[Tensor, "N 784"]) -> Float[Tensor, "N K"]:
        """As of every network; in training without gradients."""
        if self.training:
            with torch.no_grad():
                return self.transform(X, *self.trained)[0]
        mean, variance = self.averages.unflatten(0, (-1, 2)).unbind(1)  # (L, K) each
        unbiased = (variance - EPSILON) * (self.m / (self.m - 1))  # Alg. 2, line 10
        slope = self.gamma * (unbiased + EPSILON).rsqrt()
        y = X
        for layer, a, b in zip(self.hidden, slope, self.beta - slope * mean, strict=True):
            u = y if y is X else self.g(y)
            y = torch.addcmul(b, layer(u), a)  # line 11
        return y

    def transform(self, u: Tensor, *trained: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Alg. 1 in each layer: the last y, and of all layers u, x̂ and ∂y/∂x at fixed μ and σ²."""
        gamma, beta, _, _, *W = trained
        share, epsilon = constants(len(u), u.dtype, u.device)
        moments, kept, y = [], [], None
        for weight, gamma_k, beta_k in zip(W, gamma.unbind(), beta.unbind(), strict=True):
            u = u if y is None else self.g(y)
            x = functional.linear(u, weight)  # (m, K)
            mu = torch.mv(x.T, share)  # (K,); a product, as mean() takes longer
            x_hat = x.sub_(mu)  # not yet scaled
            variance = torch.addmv(epsilon, (x_hat * x_hat).T, share)  # (K,), σ² + ε
            scale = variance.rsqrt()
            x_hat *= scale
            y = torch.addcmul(beta_k, x_hat, gamma_k)
            moments += [mu, variance]
            kept += [u, x_hat, scale.mul_(gamma_k)]
        self.averages.lerp_(torch.stack(moments), self.newest)
        assert y is not None
        return y, kept


class Training(torch.autograd.Function):
    """Outputs of a normalised network in training, and gradients by the equations of sec. 3.

    ∂ℓ/∂x, there before simplification, is γ / √(σ² + ε) · (∂ℓ/∂y − (∂ℓ/∂β + x̂ ∂ℓ/∂γ) / m).
    One function for all layers: to begin and end one takes autograd a third of a layer's time.
    """

    @staticmethod
    def forward(ctx: Any, X: Tensor, network: Normalised, *trained: Tensor) -> Tensor:
        _, _, V, b, *W = trained
        y, kept = network.transform(X, *trained)
        z = network.g(y)
        ctx.gradient_of_g = network.gradient_of_g
        ctx.save_for_backward(*kept, z, V, *W)
        return functional.linear(z, V, b)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (dlogits,), saved = grad_outputs, ctx.saved_tensors
        layers = len(saved) // 4
        z, V, *W = saved[3 * layers :]
        dV, db, dz = dlogits.T.mm(z), dlogits.sum(0), dlogits.mm(V)
        dW, dgamma, dbeta = [], [], []
        for k in reversed(range(layers)):
            u, x_hat, slope = saved[3 * k : 3 * k + 3]
            dy = ctx.gradient_of_g(dz, z)
            dbeta_k, dgamma_k = dy.sum(0), torch.linalg.vecdot(dy, x_hat, dim=0)
            through = torch.addcmul(dbeta_k, x_hat, dgamma_k)  # (m, K), by way of μ and σ²
            dx = torch.sub(dy, through, alpha=1 / len(dy)).mul_(slope)
            dW, dgamma, dbeta = [dx.T.mm(u), *dW], [dgamma_k, *dgamma], [dbeta_k, *dbeta]
            if k or ctx.needs_input_grad[0]:
                z, dz = u, dx.mm(W[k])
        dX = dz if ctx.needs_input_grad[0] else None
        return dX, None, torch.stack(dgamma), torch.stack(dbeta), dV, db, *dW


@lru_cache(maxsize=16)
def constants(m: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """1/m for each example of a mini-batch (m,), and ε for each activation (K,)."""
    share = torch.full((m,), 1 / m, dtype=dtype, device=device)
    return share, torch.full((UNITS,), EPSILON, dtype=dtype, device=device)


def gaussian(inputs: int, units: int, *, spread: float) -> nn.Linear:
    """Weights from N(0, spread²), where spread is 0 from He's N(0, 2 / inputs); biases of zero."""
    layer = nn.Linear(inputs, units)
    nn.init.normal_(layer.weight, std=spread or (2 / inputs) ** 0.5)
    nn.init.zeros_(layer.bias)
    return layer
