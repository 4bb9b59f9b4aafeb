"""The agent of Schulman et al. (2017): networks and policies, with their slopes written out.

At 64 samples a step autograd costs several times the arithmetic; the tests hold both together.

Shapes:  N samples, D observed numbers, O outputs: choices, or numbers that an action has.
Symbols: s state, a action, π policy, S entropy; θ parameters, g slope of the loss by something.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax

Array = np.ndarray
Samples = Float[Array, " N"]
Outputs = Float[Array, "N O"]
HIDDEN = 64  # two layers of 64 tanh units (sec. 6.1)


class Perceptron:
    """W₃ᵀ tanh(W₂ᵀ tanh(W₁ᵀ s + b₁) + b₂) + b₃; `theta` and `g` hold W₁, b₁, W₂ and so on."""

    def __init__(self, theta: list[Array], g: list[Array]) -> None:
        self.theta, self.g, self.layers = theta, g, (np.empty(0),) * 3

    def __call__(self, s: Float[Array, "N D"]) -> Outputs:
        W1, b1, W2, b2, W3, b3 = self.theta
        first = np.tanh(s @ W1 + b1)  # (N, 64)
        second = np.tanh(first @ W2 + b2)  # (N, 64)
        self.layers = s, first, second
        return second @ W3 + b3

    def backward(self, g: Outputs) -> None:
        """From the slope by the outputs of the last call to those by θ."""
        for i in (2, 1, 0):
            np.matmul(self.layers[i].T, g, out=self.g[2 * i])
            g.sum(0, out=self.g[2 * i + 1])
            if i:
                g = (g @ self.theta[2 * i].T) * (1 - self.layers[i] ** 2)  # (N, 64)


class Gaussian:
    """π(a|s) = Π N(a; μ(s), σ²), σ a parameter of its own (sec. 6.1); S = Σ log σ + constant."""

    def __init__(self, log_sigma: Float[Array, " O"], g: Float[Array, " O"]) -> None:
        self.log_sigma, self.g = log_sigma, g

    def act(self, mu: Outputs, noise: Outputs) -> Outputs:
        return mu + np.exp(self.log_sigma) * noise

    def log(self, mu: Outputs, a: Outputs) -> Samples:
        z = (a - mu) / np.exp(self.log_sigma)  # (N, O)
        return -0.5 * (z * z + np.log(2 * np.pi)).sum(1) - self.log_sigma.sum()

    def backward(self, mu: Outputs, a: Outputs, *, g: Samples, bonus: float) -> Outputs:
        """From the slopes by log π (g) and by S (−bonus) to that by μ; that by log σ is kept."""
        z = (a - mu) / np.exp(self.log_sigma)  # (N, O)
        self.g[:] = g @ (z * z - 1) - bonus
        return g[:, None] * z / np.exp(self.log_sigma)


class Categorical:
    """π(a|s) ∝ eˣ at the output x of choice a, drawn as the largest x plus Gumbel noise."""

    def act(self, x: Outputs, noise: Outputs) -> Int[Array, " N"]:
        return (x + noise).argmax(1)

    def log(self, x: Outputs, a: Int[Array, " N"]) -> Samples:
        return log_softmax(x, axis=1)[np.arange(len(a)), a]

    def backward(self, x: Outputs, a: Int[Array, " N"], *, g: Samples, bonus: float) -> Outputs:
        """From the slopes by log π (g) and by the mean of S = −Σ π log π (−bonus) to that by x."""
        logs = log_softmax(x, axis=1)
        pi = np.exp(logs)
        S = -(pi * logs).sum(1, keepdims=True)  # (N, 1)
        chosen = np.arange(pi.shape[1]) == a[:, None]  # (N, O)
        return g[:, None] * (chosen - pi) + bonus / len(a) * pi * (logs + S)


def start(v: Mapping[str, Any], rng: np.random.Generator) -> list[Array]:
    """W₁, b₁, …, W₃, b₃ of the policy and of the value, then log σ = 0 (gap "extras")."""
    D, A, H, root = v["observations"], v["actions"], HIDDEN, 2**0.5
    sizes = [(D, H), (H, H), (H, A), (D, H), (H, H), (H, 1)]
    parts = []
    for shape, gain in zip(sizes, (root, root, 0.01, root, root, 1.0), strict=True):
        U, _, V = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
        glorot = rng.uniform(-1, 1, shape) * (6 / sum(shape)) ** 0.5
        parts += [gain * U @ V if v["extras"] else glorot, np.zeros(shape[1])]
    return parts if v["discrete"] else [*parts, np.zeros(A)]


def counts(v: Mapping[str, Any]) -> dict[str, int]:
    """Numbers in θ."""
    return {"parameters": sum(part.size for part in start(v, np.random.default_rng(0)))}
