"""The short texts of Wang & Manning through our code and by bare scikit-learn."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from papers.wang2012_nbsvm import PAPER, labelled, texts
from reimpl import data
from reimpl.claims import Claims
from reimpl.context import RunContext
from reimpl.paper import Data, Seeds, Sources
from reimpl.reading import load_claims

CLAIMS = Path(__file__).parents[2] / "papers" / "wang2012_nbsvm" / "claims.toml"
DATASETS, FOLDS = ("mr", "mpqa", "cr", "subj"), 10


def seconds(work: Callable[[], object]) -> float:
    """Computing time: what else the machine does is not counted."""
    began = time.process_time()
    work()
    return time.process_time() - began


def through_the_paper(claims: Claims, sources: Sources, name: str) -> None:
    """The six cells of a dataset, fold by fold."""
    texts._bags.clear()
    for method in ("mnb", "svm", "nbsvm"):
        for grams in ("uni", "bi"):
            variant = claims.variant(f"{method}-{grams}-{name}")
            fit = PAPER.fit_of(variant)
            assert fit is not None
            for fold in range(FOLDS):
                seeds = Seeds(0, fold, FOLDS)
                fit(variant, RunContext(seeds=seeds, sources=sources, data=Data(train=())))


def by_scikit_learn(sources: Sources, name: str) -> None:
    """The same: each dictionary counted once, three classifiers fitted and asked on each fold."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.svm import LinearSVC

    written, y = labelled(sources, name)
    machine: dict[str, Any] = {"fit_intercept": False, "tol": 0.1, "random_state": 0, "dual": True}
    for bigrams in ("none", "all"):
        analyser: Any = lambda text, wanted=bigrams: texts.features(text, wanted)  # noqa: E731
        X: Any = CountVectorizer(analyzer=analyser, binary=True).fit_transform(written)
        X = X.astype(np.float64)
        for fold in range(FOLDS):
            train, test = (rows.numpy() for rows in Seeds(0, fold, FOLDS).held_out(len(y)))
            bayes = MultinomialNB().fit(X[train], y[train])
            bayes.predict(X[test])
            LinearSVC(C=0.1, **machine).fit(X[train], y[train]).predict(X[test])
            r = bayes.feature_log_prob_[1] - bayes.feature_log_prob_[0]
            scaled, asked = (X[rows].multiply(r).tocsr() for rows in (train, test))
            LinearSVC(C=1.0, **machine).fit(scaled, y[train]).predict(asked)


@pytest.mark.data
def test_all_cells_of_the_short_texts_cost_little_more_than_bare_scikit_learn(
    benchmark: Any,
) -> None:
    claims = load_claims(CLAIMS)
    sources = data.load(claims.sources)
    for name in DATASETS:
        labelled(sources, name)  # read once
    by_scikit_learn(sources, "cr")  # scikit-learn loads once
    pairs = [
        (
            seconds(lambda: [through_the_paper(claims, sources, name) for name in DATASETS]),
            seconds(lambda: [by_scikit_learn(sources, name) for name in DATASETS]),
        )
        for _ in range(3)
    ]
    ratio = statistics.median(ours / bare for ours, bare in pairs)
    benchmark.extra_info["NBSVM, 24 cells through the paper / bare scikit-learn"] = ratio
    benchmark.pedantic(lambda: through_the_paper(claims, sources, "cr"), rounds=1)
    assert ratio <= 1.2
