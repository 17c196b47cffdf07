"""GPTQ where tokens count by what hangs on them, then codes, scales and minima in turn, each as good as it can be.

A token's error counts by the square of the slope at the linear's outputs there, so what is made small is the change of what the whole
model says, not of one linear's outputs. Source: arXiv 2505.07004 (GuidedQuant), with one group of outputs; the slopes are those of tokens
that the model draws itself. Codes one by one: arXiv 2309.01885 (QuantEase); that scales are fitted between is ours.
"""

from torch import Tensor

from ingle.compress.calibration import Inputs
from ingle.compress.quantiser import Quantiser, damped, descend, gptq
from ingle.compress.weight_formats import Quantised, WeightFormat, best_grid

DAMPING = 0.01
SWEEPS = 4


def _quantise(weight: Tensor, inputs: Inputs | None, format_: WeightFormat) -> Quantised:
    assert inputs is not None, "it is calibrated"
    hessian = damped(inputs, DAMPING)
    return descend(weight, hessian, gptq(weight, hessian, best_grid(format_, weight, hessian.diagonal())), SWEEPS)


QUANTISER = Quantiser(_quantise, calibrated=True, guided=True)
