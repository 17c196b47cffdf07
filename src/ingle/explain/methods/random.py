"""Draws numbers: the baseline that every method must beat."""

import numpy as np

from ingle.explain.cause import Nats
from ingle.explain.effects import Falls


def propose(falls: Falls, answer: str, seed: int) -> Nats:
    """See explain/proposal_method.py."""
    return np.random.default_rng(seed).random(len(falls.causes))
