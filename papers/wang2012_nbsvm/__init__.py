"""Wang & Manning, "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification", 2012.

Shapes:  N texts, V features.
Symbols: X indicators f̂, y labels (1 positive or subjective, 0 not).
"""

import numpy as np
from jaxtyping import Int

from reimpl.claims import Variant
from reimpl.paper import Context, Measurements, Paper, Sources

from .model import (
    Indicators,
    Labels,
    Linear,
    multinomial_naive_bayes,
    naive_bayes_machine,
    support_vector_machine,
)
from .texts import indicators

SPLITS = ("train", "validation", "test")
"""The order in which texts are numbered, which the folds go by."""


def fit(variant: Variant, context: Context) -> Measurements:
    """Accuracy on the fold held out or, where there are no folds, on the official test half."""
    texts, y = labelled(context.sources, variant.dataset)

    def seen(number: int) -> None:
        context.progress(number / len(texts), 2)
        context.checkpoint({})  # nothing is worth keeping, but a run asked to stop stops here

    X = indicators(texts, bigrams=variant["bigrams"], seen=seen)
    context.progress(1, 2)
    train, test = divided(variant, context, len(y))
    found = classifier(variant, X[train], y[train])
    context.progress(2, 2)
    return {"test/accuracy": 100.0 * float(np.mean(found.positive(X[test]) == y[test]))}


def labelled(sources: Sources, name: str) -> tuple[list[str], Labels]:
    """All texts of a dataset and their labels, split after split."""
    splits = [sources[name][split] for split in SPLITS if split in sources[name]]
    texts = [text for columns in splits for text in columns["text"]]
    return texts, np.concatenate([columns["label"].numpy() for columns in splits])


def divided(
    variant: Variant, context: Context, rows: int
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Rows to learn from and rows to be judged on."""
    if variant.folds > 1:
        train, test = context.seeds.held_out(rows)
        return train.numpy(), test.numpy()
    learnt = len(context.sources[variant.dataset]["train"]["label"])
    return np.arange(learnt), np.arange(learnt, rows)


def classifier(variant: Variant, X: Indicators, y: Labels) -> Linear:
    """The variant's method with the variant's constants."""
    match variant["method"]:
        case "mnb":
            return multinomial_naive_bayes(X, y, alpha=variant["alpha"])
        case "svm":
            return support_vector_machine(X, y, C=variant["C"])
        case "nbsvm":
            constants = {name: variant[name] for name in ("alpha", "C", "beta")}
            return naive_bayes_machine(X, y, **constants)
        case other:
            raise ValueError(f"variant '{variant.id}': no method '{other}'")


PAPER = Paper(slug="wang2012_nbsvm", fit=fit)
