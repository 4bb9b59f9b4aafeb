"""Santurkar, Tsipras, Ilyas & Madry, "How does batch normalization help optimization?", 2018."""

from reimpl.claims import Variant
from reimpl.paper import Measurements, Paper

from .data import data
from .train import fit, model


def counts(variant: Variant) -> Measurements:
    """Free parameters of the network."""
    return {"parameters": sum(p.numel() for p in model(variant).parameters())}


PAPER = Paper(slug="santurkar2018_bn_optimization", model=model, data=data, counts=counts, fit=fit)
