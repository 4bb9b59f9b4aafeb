"""The corpora of Table 1 as numbers of words, cleaned and padded as the author's code does it."""

import re

import torch

from reimpl.claims import Variant
from reimpl.errors import DataError
from reimpl.paper import Data, Seeds, Sources

from .model import PAD


def data(variant: Variant, sources: Sources, seeds: Seeds) -> Data:
    """Sentences x (N, 4 + longest + 4), words from 1 as they first come, and classes y (N,)."""
    parts = [sources[name][split] for name, split in variant["parts"]]
    sentences = [clean(text, variant["cleaning"]) for part in parts for text in part["text"]]
    x = torch.zeros(len(sentences), max(map(len, sentences)) + 2 * PAD, dtype=torch.int32)
    numbers: dict[str, int] = {}
    for row, words in zip(x.numpy(), sentences, strict=True):
        row[PAD : PAD + len(words)] = [numbers.setdefault(w, len(numbers) + 1) for w in words]
    if len(numbers) != variant["words"]:
        raise DataError(f"{variant.dataset}: {len(numbers)} words, not {variant['words']}")
    y = torch.cat([part[variant["label"]] for part in parts])
    if variant.folds > 1:
        learnt, held = seeds.held_out(len(x))
        return Data(train=(x[learnt], y[learnt]), test=(x[held], y[held]))
    sizes = [len(part["text"]) for part in parts]
    train, *dev, test = zip(x.split(sizes), y.split(sizes), strict=True)
    return Data(train=train, test=test, more=dict(zip(["dev"], dev, strict=False)))


def clean(text: str, how: str) -> list[str]:
    """The tokens of `process_data.py`: SST comes split already, TREC keeps its capitals."""
    text = re.sub(r"[^A-Za-z0-9(),!?'`]", " ", text)
    if how != "sst":
        text = re.sub(r"'s|'ve|n't|'re|'d|'ll", r" \g<0>", text)
        text = re.sub(r"[,!()?]", r" \g<0> ", text)
    return (text if how == "trec" else text.lower()).split()
