"""Small weights go (arXiv 1506.02626): no text is looked at. The baseline of all others.

Differs: weights are compared in a row, as Wanda does, which is no worse than over a whole matrix and keeps the share of each output.
"""

from torch import Tensor

from ingle.compress.calibration import Inputs
from ingle.compress.pruning import Cut, PrunedBlock, largest, top


def sparse(weight: Tensor, _inputs: Inputs, share: float, of: int) -> Cut:
    """See `ingle.compress.pruning.Sparse`."""
    return Cut(largest(weight.abs(), share, of))


def units(block: PrunedBlock, count: int) -> Cut:
    """See `ingle.compress.pruning.Units`."""
    return Cut(top(block.squares, count))


LOOKS = False
CUTS = {"none": sparse, "2:4": sparse, "channels": units, "heads": units}
