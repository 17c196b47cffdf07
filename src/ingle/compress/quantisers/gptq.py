"""Column by column, each error made up for by the columns still to come (GPTQ).

Source: arXiv 2210.17323; scales with the least error are fixed before, the columns with the largest inputs come first.
"""

from torch import Tensor

from ingle.compress.calibration import Inputs
from ingle.compress.quantiser import Quantiser, damped, gptq
from ingle.compress.weight_formats import Quantised, WeightFormat, best_grid

DAMPING = 0.01


def _quantise(weight: Tensor, inputs: Inputs | None, format_: WeightFormat) -> Quantised:
    assert inputs is not None, "it is calibrated"
    hessian = damped(inputs, DAMPING)
    return gptq(weight, hessian, best_grid(format_, weight, hessian.diagonal()))


QUANTISER = Quantiser(_quantise, calibrated=True)
