"""Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023)."""

import torch

from reimpl.claims import Variant
from reimpl.paper import Data, Measurements, Paper, Seeds, Sources

from .fourier import PAIRS, SUMS
from .model import Transformer
from .train import fit


def data(variant: Variant, _sources: Sources, seeds: Seeds) -> Data:
    """All pairs in a random order: the first share to learn, the others to test (sec. 3)."""
    drawn = torch.randperm(len(PAIRS), generator=seeds.torch("split"))
    learnt, others = drawn.tensor_split([int(variant["fraction"] * len(PAIRS))])
    return Data(train=(PAIRS[learnt], SUMS[learnt]), test=(PAIRS[others], SUMS[others]))


def counts(variant: Variant) -> Measurements:
    """Weights and biases, and pairs to learn."""
    weights = sum(w.numel() for w in Transformer().parameters())
    return {"parameters": weights, "pairs": int(variant["fraction"] * len(PAIRS))}


PAPER = Paper(slug="nanda2023_grokking", data=data, fit=fit, counts=counts)
