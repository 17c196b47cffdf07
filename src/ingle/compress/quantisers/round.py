"""Plain rounding: each group from its smallest to its largest weight, without looking at any text."""

from torch import Tensor

from ingle.compress.calibration import Inputs
from ingle.compress.quantiser import Quantiser
from ingle.compress.weight_formats import Form, Quantised, plain_grid


def _quantise(weight: Tensor, _inputs: Inputs | None, form: Form) -> Quantised:
    grid = plain_grid(form, weight)
    return Quantised(grid, grid.codes(weight))


QUANTISER = Quantiser(_quantise)
