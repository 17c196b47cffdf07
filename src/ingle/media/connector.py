"""From an eye's features to the language model's vectors: neighbours are joined, then comes one linear (Idefics3, arXiv 2408.12637)."""

from typing import Any

import numpy.typing as npt

from ingle.core.errors import ShapeError

Array = npt.NDArray[Any]


def neighbours_joined(features: Array, factor: int) -> Array:
    """Join squares of factor² features of a square picture: [side², d] → [side² / factor², d · factor²], line by line.

    Raises ShapeError unless the side is a multiple of `factor`. (transformers calls it a pixel shuffle.)
    """
    count, d = features.shape
    side = round(count**0.5)
    if side**2 != count or side % factor:
        raise ShapeError("features", f"must be those of a square whose side is a multiple of {factor}", count)
    less = side // factor
    return features.reshape(less, factor, less, factor * d).swapaxes(1, 2).reshape(less * less, factor * factor * d)
