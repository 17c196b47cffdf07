"""Emblems: pictures of 64×64 pixels on white, as bytes and as arrays. Pillow reads and writes the files."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError, RequestError
from ingle.core.installing import how_to_install

SIDE = 64
"""Pixels of a side."""
_MOST_PIXELS = 4_000_000


def on_white(data: bytes) -> npt.NDArray[np.uint8]:
    """Return an image file as [64, 64, 3] pixels: on white, whole, in the middle. Raises RequestError for what is no image."""
    image = _pillow()
    try:
        with image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise RequestError("picture", f"must have at most {_MOST_PIXELS:,} pixels", f"{opened.width}×{opened.height}")
            picture = opened.convert("RGBA")
        picture.thumbnail((SIDE, SIDE), image.Resampling.LANCZOS)
        if max(picture.size) < SIDE:  # small ones grow
            scale = SIDE / max(picture.size)
            picture = picture.resize([max(1, round(side * scale)) for side in picture.size], image.Resampling.BICUBIC)
    except (OSError, ValueError, SyntaxError, image.DecompressionBombError) as error:
        raise RequestError("picture", "must be a readable image", error) from error
    ground = image.new("RGBA", (SIDE, SIDE), "white")
    ground.alpha_composite(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    pixels: npt.NDArray[np.uint8] = np.asarray(ground.convert("RGB"), np.uint8)
    return pixels


def png_of(pixels: npt.NDArray[np.uint8], side: int = SIDE) -> bytes:
    """Return pixels [h, w, 3] as a PNG whose longer side has so many pixels."""
    image = _pillow()
    picture = image.fromarray(pixels)
    scale = side / max(picture.size)
    if scale != 1:
        picture = picture.resize([max(1, round(length * scale)) for length in picture.size], image.Resampling.BICUBIC)
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


def sheet(pixels: npt.NDArray[np.uint8], columns: int, gap: int = 4) -> npt.NDArray[np.uint8]:
    """Return pictures [n, h, w, 3] side by side, in rows of so many, as one picture."""
    n, height, width, _ = pixels.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    whole = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, picture in enumerate(pixels):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        whole[top : top + height, left : left + width] = picture
    return whole


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigError("pictures", "need Pillow, which is not installed", "", how_to_install("sight")) from error
    return Image
