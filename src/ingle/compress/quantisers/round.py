"""Plain rounding: each group from its smallest to its largest weight, without looking at any text."""

from torch import Tensor

from ingle.compress.calibration import Inputs
from ingle.compress.quantiser import Quantiser
from ingle.compress.weight_formats import Quantised, WeightFormat, plain_grid


def _quantise(weight: Tensor, _inputs: Inputs | None, format_: WeightFormat) -> Quantised:
    grid = plain_grid(format_, weight)
    return Quantised(grid, grid.codes(weight))


QUANTISER = Quantiser(_quantise)
