"""Chinchilla's law where texts repeat: a token read again counts for less, D' = U + U·R·(1 − e^(−r/R)) (arXiv 2305.16264)."""

import numpy as np

from ingle.scaling.law import ALPHA, BETA, PUBLISHED_REPEATS, Axis, Form, power, worth
from ingle.scaling.points import Floats


def columns(places: Floats, exponents: Floats) -> Floats:
    """See `ingle.scaling.law.Form`."""
    size = power(places[:, 0], exponents[..., 0])
    data = power(worth(places, exponents[..., 2]), exponents[..., 1])
    return np.stack([np.ones_like(size), size, data], axis=-1)


REPEATS = Axis("repeats", 0.5, 60.0, PUBLISHED_REPEATS, 12.0)
FORM = Form("repeated", "E + A·N^−α + B·D'^−β, D' = U + U·R·(1 − e^(−r/R))", ("E", "A", "B"), (ALPHA, BETA, REPEATS), columns, True)
