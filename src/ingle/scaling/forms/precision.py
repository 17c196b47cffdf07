"""Few bits cost the more, the more a model read: L = E + A·N^−α + B·D^−β + C·(D/N)^γ (Kumar, arXiv 2411.04330)."""

import numpy as np

from ingle.scaling.law import ALPHA, BETA, Axis, Form, power, worth
from ingle.scaling.points import Floats


def columns(places: Floats, exponents: Floats) -> Floats:
    """See `ingle.scaling.law.Form`."""
    size = power(places[:, 0], exponents[..., 0])
    data = power(worth(places), exponents[..., 1])
    cut = power(places[:, 1] / places[:, 0], -exponents[..., 2])
    return np.stack([np.ones_like(size), size, data, cut], axis=-1)


GAMMA = Axis("gamma", 0.05, 1.5, 0.5, 0.2)
FORM = Form("precision", "E + A·N^−α + B·D^−β + C·(D/N)^γ", ("E", "A", "B", "C"), (ALPHA, BETA, GAMMA), columns)
