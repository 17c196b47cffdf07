"""Bytes of a picture file → its pixels. The header is read first: nothing is decoded that is too large.

EXIF's turn is applied, and all other metadata dropped (a photograph tells where it was taken). What is transparent becomes white. No eye
here sees more than some four million pixels, so a picture of far more is shrunk while it is decoded: a JPEG by its own decoder, others
strip by strip.
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
MOST_PIXELS = {"JPEG": 51_000_000, "WEBP": 16_000_000, "PNG": 40_000_000, "GIF": 40_000_000, "BMP": 40_000_000}
"""A telephone's camera takes 12 to 50 million. A decoder holds up to 6 bytes of each in a JPEG that comes in scans, 4 in most others, and
16 in a WebP."""
KEPT_PIXELS = 12_600_000
"""A picture with more of them is shrunk by 2, 4 or 8."""
_STRIP_ROWS = 256
_ORIENTATION = 0x0112
_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
"""EXIF's word for how the camera was held → Pillow's word for the turn that puts it right."""
MOST_SIDE = 16_384
"""Pixels of the longer side."""
_FAILURES = (OSError, ValueError, SyntaxError, EOFError, OverflowError, MemoryError, IndexError, TypeError, struct.error)
"""Pillow's decoders raise any of these for a damaged file."""


def read_picture(data: bytes, at: str = "picture") -> Picture:
    """Return the picture in a PNG, JPEG, WebP, GIF or BMP file, of KEPT_PIXELS at most.

    `at` names it in errors. Raises RequestError for one that is damaged, too large or animated, ConfigError where Pillow is missing.
    """
    image = _opened(data, at)
    width, height = image.size
    if not width or not height:
        raise RequestError(at, "This picture has no pixels", f"{width} × {height}", "Save it again, as PNG or JPEG.")
    most = MOST_PIXELS[image.format or "PNG"]
    if max(width, height) > MOST_SIDE or width * height > most:
        limit = f"A {image.format} may have {most // 1_000_000} million pixels, and {MOST_SIDE:,} on a side"
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
        limit = f"A picture may have {MOST_PIXELS['JPEG'] // 1_000_000} million pixels"
        raise RequestError(at, limit, "far more", "Make it smaller first.") from error
    except library.UnidentifiedImageError as error:
        cure = "Send a PNG, JPEG, WebP, GIF or BMP."
        raise RequestError(at, "This is no picture that can be read here", f"{len(data):,} bytes", cure) from error
    except _FAILURES as error:
        raise _damaged(at, error) from error
    return image


def _pixels(image: "Image") -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Decode: RGB uint8 [H, W, 3]."""
    width, height = image.size
    factor = next(factor for factor in (1, 2, 4, 8) if width * height <= KEPT_PIXELS * factor**2)
    if factor > 1:
        image.draft(None, (width // factor, height // factor))  # a JPEG's decoder shrinks by itself; others leave it to us
        factor = round(factor * image.size[0] / width)
    image.load()
    small, turn = _plain(image, factor), _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    return np.array(small.transpose(pillow().Transpose[turn]) if turn else small)


def _plain(image: "Image", factor: int) -> "Image":
    """Return a decoded picture as RGB, `factor` times smaller; strip by strip, so that no second one of its size is made."""
    library = pillow()
    width, height = image.size
    top: Any = image.getextrema()[1] if image.mode.startswith("I") else 0
    small: Image = library.new("RGB", (-(-width // factor), -(-height // factor)))
    for row in range(0, height, _STRIP_ROWS):  # a multiple of every factor
        strip = _rgb(image.crop((0, row, width, min(height, row + _STRIP_ROWS))), top > 255)
        small.paste(strip.reduce(factor) if factor > 1 else strip, (0, row // factor))
    return small


def _rgb(image: "Image", is_wide: bool) -> "Image":
    library = pillow()
    if image.mode.startswith("I"):  # 16 bits of grey: Pillow's own conversion would cut off above 255
        grey = np.asarray(image).astype(np.int64)
        grey = (grey >> 8 if is_wide else grey).clip(0, 255).astype(np.uint8)
        wide: Image = library.fromarray(np.repeat(grey[:, :, None], 3, 2))
        return wide
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        clear = image.convert("RGBA")
        image = library.alpha_composite(library.new("RGBA", clear.size, (255, 255, 255, 255)), clear)
    return image.convert("RGB")


def _damaged(at: str, error: Exception) -> RequestError:
    return RequestError(at, "This picture is damaged or cut off", str(error)[:100], "Save it again, as PNG or JPEG.")
