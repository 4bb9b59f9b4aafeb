"""Naive Bayes, a linear machine, and a machine on log-count ratios (sec. 2).

Shapes:  N texts, V features: words, or words and pairs of neighbours.
Symbols: X indicators f̂, y labels (1 positive, 0 negative), p and q smoothed counts of the features
         in positive and negative texts, r log-count ratio, w weights, b bias.

Every method gives a Linear, so that they differ only in how w and b are found.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix

Indicators = Float[csr_matrix, "N V"]
Labels = Int[np.ndarray, " N"]
Weights = Float[np.ndarray, " V"]

SOLVER: dict[str, Any] = {"dual": True, "tol": 0.1, "random_state": 0, "fit_intercept": False}
"""LIBLINEAR's solver 1 at its own tolerance, no constant feature (gaps "solver", "no-bias")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """ŷ = sign(wᵀf̂ + b), eq. (1); a tie is negative."""

    w: Weights
    b: float = 0.0

    def positive(self, X: Indicators) -> Bool[np.ndarray, " N"]:
        """Which texts are on the positive side."""
        return X @ self.w + self.b > 0


def multinomial_naive_bayes(X: Indicators, y: Labels, *, alpha: float) -> Linear:
    """The weights are w = r, and b = log(N₊ / N₋) (sec. 2.1)."""
    return Linear(w=log_count_ratio(X, y, alpha=alpha), b=float(np.log(y.sum() / (1 - y).sum())))


def support_vector_machine(X: Indicators, y: Labels, *, C: float) -> Linear:
    """Least ½ wᵀw + C Σ max(0, 1 − y wᵀf̂)² over the texts (sec. 2.2; gap "solver")."""
    return Linear(w=_machine(X, y, C=C))


def naive_bayes_machine(X: Indicators, y: Labels, *, alpha: float, C: float, beta: float) -> Linear:
    """A machine on r ∘ f̂, its weights drawn to their mean size, w′ = (1 − β) w̄ + β w (sec. 2.3).

    As w′ᵀ(r ∘ f̂) = (r ∘ w′)ᵀf̂, texts to be classified need no scaling.
    """
    r = log_count_ratio(X, y, alpha=alpha)
    scaled = X.copy()
    scaled.data *= r[scaled.indices]
    w = _machine(scaled, y, C=C)
    return Linear(w=r * ((1 - beta) * np.abs(w).mean() + beta * w))


def log_count_ratio(X: Indicators, y: Labels, *, alpha: float) -> Weights:
    """Eq. (2): r = log((p / ‖p‖₁) / (q / ‖q‖₁)); 0 where no text has it (gap "unseen-features")."""
    positive, negative = y @ X, (1 - y) @ X
    seen = positive + negative > 0
    p, q = positive[seen] + alpha, negative[seen] + alpha
    r = np.zeros(len(seen))
    r[seen] = np.log(p / p.sum()) - np.log(q / q.sum())
    return r


def _machine(X: Indicators, y: Labels, *, C: float) -> Weights:
    from sklearn.svm import LinearSVC

    return LinearSVC(C=C, **SOLVER).fit(X, y).coef_[0]
