"""Scales and minima with the least error, each column weighed by how large its inputs are, then rounding.

As llama.cpp does with an importance matrix.
"""

from torch import Tensor

from ingle.compress.calibration import Inputs
from ingle.compress.quantiser import Quantiser
from ingle.compress.weight_formats import Quantised, WeightFormat, best_grid


def _quantise(weight: Tensor, inputs: Inputs | None, format_: WeightFormat) -> Quantised:
    grid = best_grid(format_, weight, None if inputs is None else inputs.hessian.diagonal())
    return Quantised(grid, grid.codes(weight))


QUANTISER = Quantiser(_quantise, calibrated=True)
