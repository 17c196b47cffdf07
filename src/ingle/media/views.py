"""A picture as an eye reads it: a square of its size; and what is kept of the eye's numbers."""

import numpy as np
import numpy.typing as npt

from ingle.core.media import Picture
from ingle.media.picture import pillow

Floats = npt.NDArray[np.float32]
POOLED = 5
"""The whole, and its four quarters."""


def square(picture: Picture, side: int) -> npt.NDArray[np.uint8]:
    """Return the whole picture in the middle of a white square: uint8 [side, side, 3]. Nothing of it is cut off or stretched."""
    Image = pillow()
    height, width = picture.pixels.shape[:2]
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = np.asarray(Image.fromarray(picture.pixels).resize(size, Image.Resampling.BICUBIC))
    out = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = small
    return out


def pooled(features: Floats) -> Floats:
    """Return the means over the whole picture and over its four quarters: [places, places, n] → [5 · n]."""
    places = features.shape[0]
    half, rest = (places + 1) // 2, places // 2  # the line in the middle belongs to both sides
    low, high = slice(0, half), slice(rest, places)
    parts = [features, *(features[rows, columns] for rows in (low, high) for columns in (low, high))]
    return np.concatenate([part.mean((0, 1)) for part in parts])
