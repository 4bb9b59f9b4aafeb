from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from papers.wang2012_nbsvm import PAPER, labelled
from papers.wang2012_nbsvm.model import (
    log_count_ratio,
    multinomial_naive_bayes,
    naive_bayes_machine,
    support_vector_machine,
)
from papers.wang2012_nbsvm.texts import features, indicators
from reimpl import data
from reimpl.claims import Claims
from reimpl.context import RunContext
from reimpl.paper import Data, Seeds
from reimpl.reading import load_claims

FOLDER = Path(__file__).parents[1] / "papers" / "wang2012_nbsvm"


@pytest.fixture(scope="module")
def claims() -> Claims:
    return load_claims(FOLDER / "claims.toml")


def made_up(rows: int = 200, columns: int = 50) -> tuple[csr_matrix, np.ndarray]:
    rng = np.random.default_rng(0)
    y = (rng.random(rows) < 0.7).astype(np.int64)
    X = (rng.random((rows, columns)) < 0.2 + 0.2 * y[:, None] * rng.random(columns)).astype(float)
    return csr_matrix(X), y


def told(_number: int) -> None: ...


def test_pairs_include_the_ends_of_the_text() -> None:
    assert features(" Not GOOD", "all") == [
        *("not", "good"),
        *("*start*-not", "not-good", "good-*end*"),
    ]


def test_purged_pairs_keep_letters_and_hyphens_while_words_keep_all() -> None:
    assert features("so-so, 10!", "letters")[:3] == ["so-so,", "10!", "*start*-so-so"]
    assert features("so-so, 10!", "letters")[3:] == ["so-so-", "-*end*"]


def test_a_word_said_twice_counts_once() -> None:
    X = indicators(["good good film", "film"], bigrams="none", seen=told)
    assert X.toarray().tolist() == [[1.0, 1.0], [1.0, 0.0]]


def test_the_same_texts_are_taken_apart_once() -> None:
    texts = ["one text", "another text"]
    first = indicators(texts, bigrams="all", seen=told)
    assert indicators(list(texts), bigrams="all", seen=told) is first
    assert indicators(texts, bigrams="none", seen=told) is not first


def test_naive_bayes_is_that_of_scikit_learn_where_every_feature_was_seen() -> None:
    from sklearn.naive_bayes import MultinomialNB

    X, y = made_up()
    theirs = MultinomialNB(alpha=1.0).fit(X, y)
    ours = multinomial_naive_bayes(X, y, alpha=1.0)
    np.testing.assert_allclose(ours.w, np.subtract(*theirs.feature_log_prob_[::-1]), atol=1e-12)
    assert ours.positive(X).tolist() == theirs.predict(X).tolist()


def test_a_feature_of_no_text_has_no_weight_and_leaves_the_others_as_they_are() -> None:
    X, y = made_up()
    wider = csr_matrix(np.pad(X.toarray(), ((0, 0), (0, 1))))
    r = log_count_ratio(wider, y, alpha=1.0)
    assert r[-1] == 0.0
    np.testing.assert_array_equal(r[:-1], log_count_ratio(X, y, alpha=1.0))


def test_the_machine_is_at_the_bottom_of_its_loss() -> None:
    X, y = made_up()
    signs, dense = torch.from_numpy(2.0 * y - 1), torch.from_numpy(X.toarray())

    def loss(w: torch.Tensor) -> torch.Tensor:
        return w @ w / 2 + 0.1 * (1 - signs * (dense @ w)).clamp(min=0).square().sum()

    w = torch.zeros(dense.shape[1], dtype=torch.float64, requires_grad=True)
    least = torch.optim.LBFGS([w], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        least.zero_grad()
        value = loss(w)
        value.backward()
        return value

    least.step(closure)
    ours = torch.from_numpy(support_vector_machine(X, y, C=0.1).w)
    assert 1.0 <= loss(ours) / loss(w.detach()) < 1.02


def test_without_the_machine_interpolation_leaves_naive_bayes_less_its_bias() -> None:
    X, y = made_up()
    ours = naive_bayes_machine(X, y, alpha=1.0, C=1.0, beta=0.0)
    r = log_count_ratio(X, y, alpha=1.0)
    np.testing.assert_allclose(ours.w / np.linalg.norm(ours.w), r / np.linalg.norm(r), atol=1e-12)


def test_a_text_of_unknown_words_is_negative() -> None:
    X, y = made_up()
    machine = support_vector_machine(X, y, C=0.1)
    assert not machine.positive(csr_matrix(0 * X[:1])).any()


def test_every_method_runs_on_folds_and_on_an_official_half(claims: Claims) -> None:
    texts = [("fine good", "dull bad")[i % 2] + f" {i % 7} film" for i in range(60)]
    split = {"text": texts, "label": (torch.arange(60) + 1) % 2}
    for variant in claims.variants.values():
        sources = {variant.dataset: {"train": split, "test": split}}
        seeds = Seeds(0, 3, variant.folds)
        context = RunContext(seeds=seeds, sources=sources, data=Data(train=()))
        fit = PAPER.fit_of(variant)
        assert fit is not None
        assert fit(variant, context) == {"test/accuracy": 100.0}


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "words", "with_pairs"), [("cr", 5_713, 40_514), ("mpqa", 6_299, 28_350)]
)
def test_dictionaries_have_the_sizes_that_the_authors_logged(
    claims: Claims, name: str, words: int, with_pairs: int
) -> None:
    texts, _ = labelled(data.load(claims.sources), name)
    assert indicators(texts, bigrams="none", seen=told).get_shape()[1] == words
    assert indicators(texts, bigrams="all", seen=told).get_shape()[1] == with_pairs


@pytest.mark.data
def test_customer_reviews_come_within_the_margin_of_table_2(claims: Claims) -> None:
    sources, variant = data.load(claims.sources), claims.variant("nbsvm-bi-cr")
    fit = PAPER.fit_of(variant)
    assert fit is not None
    total = 0.0
    for fold in range(10):
        context = RunContext(seeds=Seeds(0, fold, 10), sources=sources, data=Data(train=()))
        total += fit(variant, context)["test/accuracy"] or 0.0
    assert total / 10 == pytest.approx(81.8, abs=1.26)
