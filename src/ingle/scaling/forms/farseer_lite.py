"""Data are worth another amount to larger models: L = E + A·N^−α + B·N^γ·D^−β (after Farseer, arXiv 2506.10972, with one term less)."""

import numpy as np

from ingle.scaling.law import ALPHA, BETA, Axis, Form, power, worth
from ingle.scaling.points import Floats


def columns(places: Floats, exponents: Floats) -> Floats:
    """See `ingle.scaling.law.Form`."""
    size = power(places[:, 0], exponents[..., 0])
    data = power(worth(places), exponents[..., 1]) * power(places[:, 0], -exponents[..., 2])
    return np.stack([np.ones_like(size), size, data], axis=-1)


GAMMA = Axis("gamma", -0.3, 0.3, 0.0, 0.08)
FORM = Form("farseer_lite", "E + A·N^−α + B·N^γ·D^−β", ("E", "A", "B"), (ALPHA, BETA, GAMMA), columns)
