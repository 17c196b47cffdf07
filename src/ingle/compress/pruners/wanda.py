"""Weights go whose size times that of their input is small in their row (Wanda, arXiv 2306.11695); nothing else changes.

Score of a weight: |w| · ‖x‖₂, compared within a row. Of a unit: the sum of the squares of the scores of its columns.
"""

from torch import Tensor

from ingle.compress.calibration import Inputs
from ingle.compress.pruning import Cut, PrunedBlock, largest, top


def sparse(weight: Tensor, inputs: Inputs, share: float, of: int) -> Cut:
    """See `ingle.compress.pruning.Sparse`."""
    return Cut(largest(weight.abs() * inputs.hessian.diagonal().sqrt().float(), share, of))


def units(block: PrunedBlock, count: int) -> Cut:
    """See `ingle.compress.pruning.Units`."""
    scores = block.weight.double().square().sum(0) * block.inputs.hessian.diagonal()
    return Cut(top(scores.view(-1, block.size).sum(1), count))


LOOKS = True
CUTS = {"none": sparse, "2:4": sparse, "channels": units, "heads": units}
