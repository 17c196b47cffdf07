"""Draws numbers: the baseline that every method must beat."""

import numpy as np

from ingle.explain.cause import Nats
from ingle.explain.falls import Falls


def propose(falls: Falls, answer: str, seed: int) -> Nats:
    return np.random.default_rng(seed).random(len(falls.causes))
