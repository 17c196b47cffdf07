"""Plain rounding: each group from its smallest to its largest weight, without looking at any text."""

from torch import Tensor

from ingle.compress.calibration import Inputs
from ingle.compress.forms import Form, Quantised, plain_grid
from ingle.compress.quantiser import Quantiser


def _quantise(weight: Tensor, _inputs: Inputs | None, form: Form) -> Quantised:
    grid = plain_grid(form, weight)
    return Quantised(grid, grid.codes(weight))


QUANTISER = Quantiser(_quantise)
