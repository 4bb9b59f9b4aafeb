"""The rows of the paper's table that no gradient trains (sec. III-C).

Shapes:  N digits, P pixels, K inputs of a classifier, U radial units; 10 classes.
Symbols: X pixels in [0, 1], D classes, F inputs of a linear classifier, W its weights with the constant's last.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from reimpl.claims import Variant
from reimpl.paper import Batch, Context, Fit, Measurements

ROWS = 1000
"""Digits that are compared with all others at a time: the distances are 240 MB then."""


def fit_linear(_variant: Variant, context: Context) -> Measurements:
    """Weighted sums of pixels, the largest wins; least squares on targets 0 and 1 (gap "linear-training")."""
    return _linear(_pixels(context.data.train), _pixels(context.data.test), context=context)


def fit_pca_quadratic(variant: Variant, context: Context) -> Measurements:
    """Second-degree polynomial of the projections on the first 40 principal components (sec. III-C.3)."""
    X, X_test = _pixels(context.data.train).double(), _pixels(context.data.test).double()
    mean = X.mean(0)
    _, axes = torch.linalg.eigh((X - mean).T @ (X - mean))  # (P, P), the largest last
    axes = axes[:, -variant["components"] :]
    return _linear(quadratic((X - mean) @ axes), quadratic((X_test - mean) @ axes), context=context)


def fit_rbf(variant: Variant, context: Context) -> Measurements:
    """Gaussian units on the K-means centres of each class, then a linear classifier (sec. III-C.4)."""
    from sklearn.cluster import KMeans

    X, D = _pixels(context.data.train), context.data.train[1]
    centres = []
    for digit in range(10):
        seed = context.seeds.integer("init", digit) % 2**32
        means = KMeans(variant["centres"], n_init=1, max_iter=50, random_state=seed).fit(X[D == digit].numpy())
        centres.append(torch.from_numpy(means.cluster_centers_))
        context.progress(digit + 1, 11)
    W = torch.cat(centres)  # (U, P)
    F, F_test = (radial(x, W, width=variant["width"]) for x in (X, _pixels(context.data.test)))
    return _linear(F, F_test, context=context, ridge=variant["ridge"])


def fit_knn(variant: Variant, context: Context) -> Measurements:
    """The majority of the k nearest training digits; among equal classes, the one with the nearest (sec. III-C.2)."""
    X, D = _pixels(context.data.train), context.data.train[1]
    answers = []
    for done, rows in enumerate(_pixels(context.data.test).split(ROWS)):
        near = D[distances(rows, X).topk(variant["k"], dim=1, largest=False).indices]  # (N, k), nearest first
        votes = (near[:, :, None] == near[:, None, :]).sum(2)
        answers.append(near.gather(1, votes.argmax(1, keepdim=True))[:, 0])
        context.progress(done + 1, 10)
    return {"test/error": _error(torch.cat(answers), _test(context)[1])}


def fit_svm(variant: Variant, context: Context) -> Measurements:
    """One polynomial machine for each pair of classes, the most votes win (sec. III-C.11, gap "svm-constants")."""
    from sklearn.svm import SVC

    X, D = _pixels(context.data.train), context.data.train[1]
    machine = SVC(kernel="poly", degree=variant["degree"], coef0=variant["offset"], C=variant["C"], cache_size=1000)
    machine.fit(X.numpy(), D.numpy())
    context.progress(1, 2)
    answers = torch.from_numpy(machine.predict(_pixels(context.data.test).numpy()))
    return {"test/error": _error(answers, _test(context)[1])}
