"""GPTQ towards what the original would have given, then codes, scales and minima in turn, each as good as it can be.

Drift: arXiv 2504.02692 (GPTAQ). Codes one by one: arXiv 2309.01885 (QuantEase); that scales are fitted between is ours.
"""

from torch import Tensor

from ingle.compress.calibration import Inputs
from ingle.compress.forms import Form, Quantised, best_grid
from ingle.compress.quantiser import Quantiser
from ingle.compress.solving import corrected, damped, descend, gptq

DAMPING = 0.01
SWEEPS = 4


def _quantise(weight: Tensor, inputs: Inputs | None, form: Form) -> Quantised:
    assert inputs is not None, "it is calibrated"
    hessian, wanted = damped(inputs, DAMPING), corrected(weight, inputs, DAMPING)
    return descend(wanted, hessian, gptq(wanted, hessian, best_grid(form, wanted, hessian.diagonal())), SWEEPS)


QUANTISER = Quantiser(_quantise, calibrated=True, drift=True)
