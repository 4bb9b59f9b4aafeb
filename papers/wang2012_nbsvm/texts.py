"""Texts as indicators of words and of pairs of neighbours (secs 2 and 3).

Shapes:  N texts, V features.
Symbols: X indicators f̂.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_matrix

PURGED = re.compile(r"[^a-z -]")  # gap "imdb-pairs"
EVERY = 500
"""Texts between two calls of `seen`."""
_bags: dict[tuple[tuple[str, ...], str], csr_matrix] = {}


def words(text: str) -> list[str]:
    """What stands between blanks, in lower case (gap "tokens")."""
    return text.strip().lower().split(" ")


def pairs(ordered: Sequence[str]) -> list[str]:
    """Neighbours, the ends of the text among them: *start*-not, not-good, good-*end*."""
    return [f"{first}-{second}" for first, second in pairwise(["*start*", *ordered, "*end*"])]


def features(text: str, bigrams: str) -> list[str]:
    """Words, and with `bigrams` "all" or "letters" the pairs, of letters and hyphens only."""
    found = words(text)
    match bigrams:
        case "none":
            return found
        case "all":
            return found + pairs(found)
        case "letters":
            return found + pairs(PURGED.sub("", " ".join(found)).split(" "))
        case other:
            raise ValueError(f"no bigrams '{other}'")


def indicators(
    texts: Sequence[str], *, bigrams: str, seen: Callable[[int], None]
) -> Float[csr_matrix, "N V"]:
    """X over the dictionary of all texts, made once in a process for the same texts.

    Ten folds and three methods share it; no label plays a part.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    key = (tuple(texts), bigrams)
    if key not in _bags:
        taken_apart: Any = partial(features, bigrams=bigrams)
        counter = CountVectorizer(analyzer=taken_apart, binary=True)
        _bags[key] = csr_matrix(counter.fit_transform(_told(texts, seen)), dtype=np.float64)
    return _bags[key]


def _told(texts: Sequence[str], seen: Callable[[int], None]) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number % EVERY == 0:
            seen(number)
        yield text
