"""Yoon Kim, "Convolutional Neural Networks for Sentence Classification", EMNLP 2014."""

from reimpl.claims import Variant
from reimpl.paper import Measurements, Paper

from .data import data
from .model import TextCNN
from .train import fit


def counts(variant: Variant) -> Measurements:
    """Words, which `data` holds the corpus to, and free parameters above their vectors."""
    model = TextCNN(words=variant["words"], classes=variant["classes"])
    return {
        "words": len(model.words) - 1,
        "filter-parameters": sum(p.numel() for p in [*model.filters, model.biases]),
        "softmax-parameters": sum(p.numel() for p in model.output.parameters()),
    }


PAPER = Paper(slug="kim2014_textcnn", data=data, counts=counts, fit=fit)
