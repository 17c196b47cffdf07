"""Layers go that change the least what passes through them: block influence, 1 − cos(in, out) (ShortGPT, arXiv 2403.03853)."""

from torch import Tensor

from ingle.compress.pruning import top


def layers(influence: Tensor, count: int) -> Tensor:
    """See `ingle.compress.pruning.Depth`."""
    return top(influence, count)


LOOKS = True
CUTS = {"layers": layers}
