"""Size and data each take their part off: L = E + A·N^−α + B·D^−β (Hoffmann, arXiv 2203.15556)."""

import numpy as np

from ingle.scaling.law import ALPHA, BETA, Form, power, worth
from ingle.scaling.points import Floats


def columns(places: Floats, exponents: Floats) -> Floats:
    """See `ingle.scaling.law.Form`."""
    size = power(places[:, 0], exponents[..., 0])
    return np.stack([np.ones_like(size), size, power(worth(places), exponents[..., 1])], axis=-1)


FORM = Form("chinchilla", "E + A·N^−α + B·D^−β", ("E", "A", "B"), (ALPHA, BETA), columns)
