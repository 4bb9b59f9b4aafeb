"""The rows of the paper's table that no gradient trains (sec. III-C).

Shapes:  N digits, P pixels, K inputs of a classifier, U radial units; 10 classes.
Symbols: X pixels in [0, 1], D classes, F inputs of a linear classifier, W its weights or centres.
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
    """Weighted sums of pixels, of which the largest wins (sec. III-C.1, gap "linear-training")."""
    return _linear(_pixels(context.data.train), _pixels(_test(context)), context=context)


def fit_pca_quadratic(variant: Variant, context: Context) -> Measurements:
    """A polynomial of second degree of the first 40 principal components (sec. III-C.3)."""
    X, X_test = _pixels(context.data.train).double(), _pixels(_test(context)).double()
    mean = X.mean(0)
    _, axes = torch.linalg.eigh((X - mean).T @ (X - mean))  # (P, P), the largest last
    axes = axes[:, -variant["components"] :]
    return _linear(quadratic((X - mean) @ axes), quadratic((X_test - mean) @ axes), context=context)


def fit_rbf(variant: Variant, context: Context) -> Measurements:
    """Gaussian units on K-means centres of each class, then a linear classifier (sec. III-C.4)."""
    from sklearn.cluster import KMeans

    X, D = _pixels(context.data.train), context.data.train[1]
    centres = []
    for digit in range(10):
        seed = context.seeds.integer("init", digit) % 2**32
        means = KMeans(variant["centres"], max_iter=50, random_state=seed)
        centres.append(torch.from_numpy(means.fit(X[digit == D].numpy()).cluster_centers_))
        context.progress(digit + 1, 11)
    W = torch.cat(centres)  # (U, P)
    F, F_test = (radial(x, W, width=variant["width"]) for x in (X, _pixels(_test(context))))
    return _linear(F, F_test, context=context, ridge=variant["ridge"])


def fit_knn(variant: Variant, context: Context) -> Measurements:
    """The majority of the k nearest training digits (sec. III-C.2); ties: the nearest."""
    X, D = _pixels(context.data.train), context.data.train[1]
    answers = []
    for done, rows in enumerate(_pixels(_test(context)).split(ROWS)):
        nearest = distances(rows, X).topk(variant["k"], dim=1, largest=False).indices
        near = D[nearest]  # (N, k)
        votes = (near[:, :, None] == near[:, None, :]).sum(2)
        answers.append(near.gather(1, votes.argmax(1, keepdim=True))[:, 0])
        context.progress(done + 1, 10)
    return {"test/error": _error(torch.cat(answers), _test(context)[1])}


def fit_svm(variant: Variant, context: Context) -> Measurements:
    """A polynomial machine for each pair of classes, the most votes win (gap "svm-constants")."""
    from sklearn.svm import SVC

    X, D = _pixels(context.data.train), context.data.train[1]
    constants = {"degree": variant["degree"], "coef0": variant["offset"], "C": variant["C"]}
    machine = SVC(kernel="poly", **constants, cache_size=1000).fit(X.numpy(), D.numpy())
    context.progress(1, 2)
    answers = torch.from_numpy(machine.predict(_pixels(_test(context)).numpy()))
    return {"test/error": _error(answers, _test(context)[1])}


FITS: dict[str, Fit] = {
    "linear": fit_linear,
    "knn": fit_knn,
    "pca-quadratic": fit_pca_quadratic,
    "rbf": fit_rbf,
    "svm-poly": fit_svm,
}


def counts(variant: Variant) -> Measurements:
    """Inputs and free parameters of the linear classifiers, read off what they are built of."""
    match variant.id:
        case "linear":
            inputs = with_constant(_pixels((torch.zeros(1, 28, 28), torch.zeros(1)))).shape[1]
        case "pca-quadratic":
            inputs = with_constant(quadratic(torch.zeros(1, variant["components"]))).shape[1]
        case _:
            return {}
    return {"inputs": inputs, "parameters": inputs * 10}


def quadratic(x: Float[Tensor, "N P"]) -> Float[Tensor, "N K"]:
    """All products of pairs of inputs, squares among them."""
    first, second = torch.triu_indices(x.shape[1], x.shape[1])
    return x[:, first] * x[:, second]


def radial(
    x: Float[Tensor, "N P"], W: Float[Tensor, "U P"], *, width: float
) -> Float[Tensor, "N U"]:
    """exp(−|x − w|² / 2σ²); σ is `width` times the mean distance from a centre to the next."""
    nearest = distances(W, W).fill_diagonal_(torch.inf).amin(1).clamp(min=0).sqrt()
    return torch.exp(distances(x, W) / (-2 * (width * nearest.mean()) ** 2))


def distances(a: Float[Tensor, "N P"], b: Float[Tensor, "U P"]) -> Float[Tensor, "N U"]:
    """Squared Euclidean distances as |a|² − 2ab + |b|², since products of matrices are fast."""
    return torch.addmm(a.square().sum(1, keepdim=True) + b.square().sum(1), a, b.T, alpha=-2)


def with_constant(F: Float[Tensor, "N K"]) -> Float[Tensor, "N K+1"]:
    """F with a column of ones."""
    return torch.cat([F, F.new_ones(len(F), 1)], dim=1)


def least_squares(
    F: Float[Tensor, "N K"], D: Int[Tensor, " N"], *, ridge: float
) -> Float[Tensor, "K 10"]:
    """The W of least |F W − T|² + ridge·N·|W|²; T is 1 for the class and 0 elsewhere."""
    normal = F.T @ F + ridge * len(F) * torch.eye(F.shape[1], dtype=F.dtype)
    T = functional.one_hot(D, 10).to(F.dtype)
    return torch.linalg.pinv(normal, rtol=1e-12, hermitian=True) @ (F.T @ T)


def _linear(F: Tensor, F_test: Tensor, *, context: Context, ridge: float = 0.0) -> Measurements:
    """Errors of the linear classifier by least squares, in double precision."""
    F, F_test = with_constant(F.double()), with_constant(F_test.double())
    D = context.data.train[1]
    W = least_squares(F, D, ridge=ridge)
    context.progress(1, 1)
    return {
        "train/error": _error((F @ W).argmax(1), D),
        "test/error": _error((F_test @ W).argmax(1), _test(context)[1]),
    }


def _pixels(batch: Iterable[Tensor]) -> Float[Tensor, "N P"]:
    X, *_ = batch
    return X.flatten(1).float() / 255


def _error(answers: Tensor, D: Tensor) -> float:
    return 100.0 * float((answers != D).double().mean())


def _test(context: Context) -> Batch:
    assert context.data.test is not None
    return context.data.test
