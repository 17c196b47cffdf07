"""Emblems: pictures of 64×64 pixels on white, which a painter learns from and paints, and sheets of several."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.media import Picture
from ingle.media.picture import pillow

SIDE = 64
"""Pixels of a side."""

Pixels = npt.NDArray[np.uint8]


def emblem_of(picture: Picture) -> Pixels:
    """Return a picture as [64, 64, 3]: whole, in the middle of white."""
    Image = pillow()
    image = Image.fromarray(picture.pixels)
    scale = SIDE / max(image.size)
    if scale != 1:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS)
    ground = Image.new("RGB", (SIDE, SIDE), "white")
    ground.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return np.array(ground)


def sheet(pixels: Pixels, columns: int, gap: int = 4) -> Picture:
    """Return pictures [n, h, w, 3] side by side, in rows of so many, as one."""
    n, height, width, _ = pixels.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    whole: npt.NDArray[Any] = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, one in enumerate(pixels):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        whole[top : top + height, left : left + width] = one
    return Picture(whole)


def enlarged(picture: Picture, times: float) -> Picture:
    """Return a picture so many times as large, smoothly; exactly as it is for 1."""
    Image = pillow()
    image = Image.fromarray(picture.pixels)
    size = max(1, round(image.width * times)), max(1, round(image.height * times))
    return picture if size == image.size else Picture(np.array(image.resize(size, Image.Resampling.BICUBIC)))
