"""The first tokens teach little that lasts: L = E + A·N^−α + B·(D + D₀)^−β. Short runs then lie above a plain power law's start.

D₀ is in tokens, whatever the models' size; with runs much longer than that the form is Chinchilla's. The exponent here is log₁₀ D₀.
"""

import numpy as np

from ingle.scaling.law import ALPHA, BETA, Axis, Form, power, worth
from ingle.scaling.points import Floats


def columns(places: Floats, exponents: Floats) -> Floats:
    """See `ingle.scaling.law.Form`."""
    size = power(places[:, 0], exponents[..., 0])
    data = power(worth(places) + 10.0 ** exponents[..., 2, None], exponents[..., 1])
    return np.stack([np.ones_like(size), size, data], axis=-1)


BURN_IN = Axis("burn_in", 4.0, 7.0, 5.5, 0.8)
FORM = Form("burn_in", "E + A·N^−α + B·(D + D₀)^−β", ("E", "A", "B"), (ALPHA, BETA, BURN_IN), columns)
