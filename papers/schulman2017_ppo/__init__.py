"""Schulman et al., "Proximal Policy Optimization Algorithms" (arXiv:1707.06347, 2017)."""

from reimpl.paper import Paper

from .model import counts
from .train import fit

PAPER = Paper(slug="schulman2017_ppo", counts=lambda v: counts(v.settings), fit=fit)
