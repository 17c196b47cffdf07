"""The contract of a form of law. To add one, put a file into scaling/forms: the file's name is its name, its first line its title.

The file holds `FORM`. A form is a sum of terms, each with a coefficient ≥ 0. The terms depend on a few exponents in a way that the file
says, and on the coefficients only as a factor. So the exponents alone are searched, and the coefficients are solved for
(variable projection, arXiv 2603.22339).
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ingle.core.errors import ConfigError
from ingle.scaling.points import Floats


@dataclass(frozen=True, slots=True)
class Axis:
    """One exponent, and where it is believed to lie before any run is seen."""

    name: str
    low: float
    """Least value that is searched."""
    high: float
    middle: float
    """Believed value."""
    spread: float
    """Standard deviation of that belief."""


@dataclass(frozen=True, slots=True)
class Form:
    """A family of laws."""

    name: str
    words: str
    """Its equation."""
    terms: tuple[str, ...]
    """Names of the coefficients. The first term is the loss that no model goes below, and its column is 1."""
    axes: tuple[Axis, ...]
    columns: Callable[[Floats, Floats], Floats]
    """(places [n, 3] of `places_array`, exponents [..., axes]) → terms without their coefficients [..., n, terms]."""
    knows_repeats: bool = False
    """Whether the runs themselves say what a second reading is worth."""


PUBLISHED_REPEATS = 15.0
"""Readings after which a repeated token is worth 1/e of a new one (arXiv 2305.16264)."""
ALPHA = Axis("alpha", 0.02, 1.5, 0.38, 0.16)
BETA = Axis("beta", 0.02, 1.5, 0.38, 0.16)


def worth(places: Floats, repeats: Floats | float = PUBLISHED_REPEATS) -> Floats:
    """Return tokens in units of new ones [..., n]: U + U·R·(1 − e^(−r/R)) for r repetitions of U different tokens."""
    tokens, unique = places[:, 1], places[:, 2]
    rate = np.asarray(repeats, np.float64)[..., None]
    result: Floats = unique + unique * rate * -np.expm1(-(tokens / unique - 1) / rate)
    return result


def power(base: Floats, exponents: Floats) -> Floats:
    """Return base^−exponent: [..., n] and [...] → [..., n]."""
    result: Floats = np.exp(-exponents[..., None] * np.log(base))
    return result


def form_names() -> list[str]:
    """Return the names of all forms."""
    import ingle.scaling.forms as folder

    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__))


def find_form(name: str) -> Form:
    """Return the form of that name. Raises ConfigError with the names there are."""
    if name not in form_names():
        raise ConfigError("form", f"must be one of {', '.join(form_names())}", name)
    form: Form = importlib.import_module(f"ingle.scaling.forms.{name}").FORM
    return form
