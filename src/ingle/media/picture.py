"""Bytes of a picture file → its pixels. The header is read first: nothing is decoded that is too large.

EXIF's turn is applied, and all other metadata dropped (a photograph tells where it was taken). What is transparent becomes white.
"""

import io
import struct
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ingle.core.errors import ConfigError, RequestError
from ingle.core.installing import how_to_install
from ingle.core.media import Picture

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Pillow's decoders that are used; it has some forty more, of which each is a way in."""
MOST_PIXELS = 40_000_000
"""A telephone's camera takes 12 to 50 million; decoded, each takes three bytes."""
MOST_SIDE = 16_384
"""Pixels of the longer side."""
_FAILURES = (OSError, ValueError, SyntaxError, EOFError, OverflowError, MemoryError, IndexError, TypeError, struct.error)
"""Pillow's decoders raise any of these for a damaged file."""


def read_picture(data: bytes, at: str = "picture") -> Picture:
    """Return the picture in a PNG, JPEG, WebP, GIF or BMP file.

    `at` names it in errors. Raises RequestError for one that is damaged, too large or animated, ConfigError where Pillow is missing.
    """
    image = _opened(data, at)
    width, height = image.size
    if not width or not height:
        raise RequestError(at, "This picture has no pixels", f"{width} × {height}", "Save it again, as PNG or JPEG.")
    if max(width, height) > MOST_SIDE or width * height > MOST_PIXELS:
        limit = f"A picture may have {MOST_PIXELS // 1_000_000} million pixels, and {MOST_SIDE:,} on a side"
        raise RequestError(at, limit, f"{width:,} × {height:,}", "Make it smaller first.")
    if getattr(image, "n_frames", 1) > 1:
        raise RequestError(at, "This picture moves; one picture at a time can be read", "", "Save the frame that you mean, as PNG.")
    try:
        return Picture(_pixels(image))
    except _FAILURES as error:
        raise _damaged(at, error) from error


def png_of(picture: Picture) -> bytes:
    """Return the picture as a PNG file. Raises ConfigError where Pillow is missing."""
    file = io.BytesIO()
    pillow().fromarray(picture.pixels).save(file, "PNG")
    return file.getvalue()


def pillow() -> Any:
    """Return Pillow's module `Image`. Raises ConfigError with the command that installs it."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigError("pictures", "Pictures need Pillow, which is not installed", "", how_to_install("sight")) from error
    return Image


def _opened(data: bytes, at: str) -> "Image":
    library = pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", library.DecompressionBombWarning)  # our own limit is below
            image: Image = library.open(io.BytesIO(data), formats=FORMATS)
    except library.DecompressionBombError as error:
        limit = f"A picture may have {MOST_PIXELS // 1_000_000} million pixels"
        raise RequestError(at, limit, "far more", "Make it smaller first.") from error
    except library.UnidentifiedImageError as error:
        cure = "Send a PNG, JPEG, WebP, GIF or BMP."
        raise RequestError(at, "This is no picture that can be read here", f"{len(data):,} bytes", cure) from error
    except _FAILURES as error:
        raise _damaged(at, error) from error
    return image


def _pixels(image: "Image") -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Decode: RGB uint8 [H, W, 3]."""
    from PIL import ImageOps

    Image = pillow()
    turned = ImageOps.exif_transpose(image) or image
    if turned.mode.startswith("I"):  # 16 bits of grey: Pillow's own conversion would cut off above 255
        grey = np.asarray(turned).astype(np.int64)
        grey = (grey >> 8 if grey.max(initial=0) > 255 else grey).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, 2)
    if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
        clear = turned.convert("RGBA")
        white = Image.new("RGBA", clear.size, (255, 255, 255, 255))
        turned = Image.alpha_composite(white, clear)
    return np.array(turned.convert("RGB"))


def _damaged(at: str, error: Exception) -> RequestError:
    return RequestError(at, "This picture is damaged or cut off", str(error)[:100], "Save it again, as PNG or JPEG.")
