"""A law: a form with its exponents and coefficients."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingle.scaling.form import Form
from ingle.scaling.points import Floats, Place, Point, places_array


@dataclass(frozen=True, slots=True)
class Law:
    """A form with its numbers, in the unit of the runs' loss."""

    form: Form
    exponents: tuple[float, ...]
    coefficients: tuple[float, ...]

    def loss_at(self, places: Iterable[Point | Place]) -> Floats:
        """Return the loss at each place, float64 [n]."""
        columns = self.form.columns(places_array(places), np.array(self.exponents, np.float64))
        result: Floats = columns @ np.array(self.coefficients, np.float64)
        return result

    def table(self) -> dict[str, Any]:
        """Return the law as plain values: form, equation, and each number by its name."""
        exponents = dict(zip((axis.name for axis in self.form.axes), self.exponents, strict=True))
        return (
            {"form": self.form.name, "equation": self.form.words} | exponents | dict(zip(self.form.terms, self.coefficients, strict=True))
        )
