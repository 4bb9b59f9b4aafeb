"""Plain methods, which any paper's method should beat before its claim says much.

Each knows nothing of the harness: it makes a scikit-learn estimator and names a few settings worth
trying, the usual one first. Inputs are rows of numbers (N, D), targets class numbers (N,).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A plain method and the settings to choose from."""

    name: str
    says: str
    """One line for a table."""
    make: "Callable[[int], BaseEstimator]"
    """Seed → unfitted estimator."""
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Parameter, as `set_params` names it → values, the usual one first."""
    limit: int | None = None
    """Most training rows that it is given, whatever the time."""


def _majority(seed: int) -> "BaseEstimator":
    from sklearn.dummy import DummyClassifier

    return DummyClassifier(strategy="most_frequent", random_state=seed)


def _logistic(seed: int) -> "BaseEstimator":
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, random_state=seed))


def _linear_svm(seed: int) -> "BaseEstimator":
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # averaged SGD, not liblinear: its time grows with the rows and not faster
    hinge = SGDClassifier(loss="hinge", average=True, max_iter=30, random_state=seed)
    return make_pipeline(StandardScaler(), hinge)


def _knn(seed: int) -> "BaseEstimator":
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    # not to unit variance: that would blow up pixels which are hardly ever inked
    return make_pipeline(MinMaxScaler(), KNeighborsClassifier(algorithm="auto"))


def _rbf_svm(seed: int) -> "BaseEstimator":
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler
    from sklearn.svm import SVC

    return make_pipeline(MinMaxScaler(), SVC(kernel="rbf", cache_size=500, random_state=seed))


def _forest(seed: int) -> "BaseEstimator":
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=200, random_state=seed)


def _boosting(seed: int) -> "BaseEstimator":
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=seed)


BASELINES: tuple[Baseline, ...] = (
    Baseline(
        name="majority",
        says="the most frequent class of the training rows",
        make=_majority,
    ),
    Baseline(
        name="logistic-regression",
        says="linear, cross-entropy",
        make=_logistic,
        grid={"logisticregression__C": (1.0, 0.1, 0.01)},
    ),
    Baseline(
        name="linear-svm",
        says="linear, hinge loss, one class against the rest",
        make=_linear_svm,
        grid={"sgdclassifier__alpha": (1e-4, 1e-3, 1e-2)},
    ),
    Baseline(
        name="knn",
        says="k nearest neighbours, Euclidean",
        make=_knn,
        grid={
            "kneighborsclassifier__n_neighbors": (
                1,
                3,
                5,
            ),  # 1 first: it works with any number of rows
            "kneighborsclassifier__weights": ("uniform", "distance"),
        },
    ),
    Baseline(
        name="rbf-svm",
        says="support vectors, Gaussian kernel",
        make=_rbf_svm,
        grid={"svc__C": (1.0, 10.0, 100.0), "svc__gamma": ("scale",)},
        limit=100_000,  # time grows with the square of the rows
    ),
    Baseline(
        name="random-forest",
        says="200 trees on bootstrap samples",
        make=_forest,
        grid={"min_samples_leaf": (1, 3), "max_features": ("sqrt", 0.1)},
    ),
    Baseline(
        name="gradient-boosting",
        says="trees on histograms, each on the errors of those before",
        make=_boosting,
        grid={"learning_rate": (0.1, 0.3), "max_leaf_nodes": (31, 15)},
    ),
)
