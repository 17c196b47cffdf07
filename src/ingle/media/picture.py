"""Bytes of a picture file → its pixels. The header is read first: nothing is decoded that is too large.

EXIF's turn is applied, and all other metadata dropped (a photograph tells where it was taken). What is transparent becomes white. No eye
here sees more than some four million pixels, so a picture of far more is shrunk while it is decoded: a JPEG by its own decoder, others
strip by strip.
"""

import io
import math
import struct
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError, RequestError
from ingle.core.files import how_to_install
from ingle.core.media import ControlName, Picture, SightPiece

if TYPE_CHECKING:
    from PIL.Image import Image


FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # pillow's decoders that are used; it has some forty more, of which each is a way in
# A telephone's camera takes 12 to 50 million. A decoder holds up to 6 bytes of each in a JPEG that comes in scans, 4 in most others, and 16
# in a WebP.
MOST_PIXELS = {"JPEG": 51_000_000, "WEBP": 16_000_000, "PNG": 40_000_000, "GIF": 40_000_000, "BMP": 40_000_000}
KEPT_PIXELS = 12_600_000  # a picture with more of them is shrunk by 2, 4 or 8
_STRIP_ROWS = 256
_ORIENTATION = 0x0112
# EXIF's word for how the camera was held → Pillow's word for the turn that puts it right.
_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
MOST_SIDE = 16_384  # pixels of the longer side
# Pillow's decoders raise any of these for a damaged file.
_FAILURES = (OSError, ValueError, SyntaxError, EOFError, OverflowError, MemoryError, IndexError, TypeError, struct.error)


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


# A picture as an eye reads it: a square of its size; and what is kept of the eye's numbers.


Floats = npt.NDArray[np.float32]
POOLED = 5  # the whole, and its four quarters


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


# A picture cut into square tiles for an eye, and a smaller copy of the whole, as Idefics3 and SmolVLM were trained to see it.
# The steps are those of transformers' `image_processing_pil_idefics3.py`, rounding included, so that pixels are equal to the byte: the
# picture is resized up to three times. Pillow resizes.


Array = npt.NDArray[Any]
# Words of the prompt around tiles, before the whole picture, and for a picture in a chat template.
AROUND, WHOLE, MARKER = "<fake_token_around_image>", "<global-img>", "<image>"
MOST_PX = 4096  # transformers resizes no picture to more, whatever a model asks for
_MOST_TILES = 10  # on a side: the models have words for six


@dataclass(frozen=True)
class TileSettings:
    """A model's way of cutting pictures: its `preprocessor_config.json`."""

    longest_px: int  # pixels to which the longer side is resized first
    tile_px: int  # pixels on a side of a tile
    splits: bool  # whether there are tiles at all, beside the whole picture
    filter: int  # pillow's number of the way to resize; 1 is Lanczos
    scale: float  # factor of each byte, before `mean` is taken away and all is divided by `spread`
    mean: tuple[float, float, float]
    spread: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not 1 <= self.tile_px <= MOST_PX:
            raise ConfigError("max_image_size.longest_edge", f"must be between 1 and {MOST_PX:,}", self.tile_px)
        if not 1 <= self.longest_px <= _MOST_TILES * self.tile_px:
            rule = f"must be between 1 and {_MOST_TILES} tiles of {self.tile_px} pixels"
            raise ConfigError("size.longest_edge", rule, self.longest_px)
        if not 0 <= self.filter <= 5:
            raise ConfigError("resample", "must be one of Pillow's filters, 0 to 5", self.filter)
        if not min(self.spread) > 0:
            raise ConfigError("image_std", "must be above 0", self.spread)


@dataclass(frozen=True, eq=False)
class Tiles:
    """A cut picture."""

    rows: int  # rows of tiles; 0 = there is only the whole picture
    columns: int
    pixels: tuple[npt.NDArray[np.uint8], ...]  # tiles line by line, and last the whole picture: uint8 [tile_px, tile_px, 3]


def cut(picture: Picture, settings: TileSettings) -> Tiles:
    """Cut a picture. Raises ConfigError where Pillow is missing."""
    size = settings.tile_px
    height, width, _ = picture.pixels.shape
    pixels = _resized(picture.pixels, *_longest(height, width, settings.longest_px), settings.filter)
    if not settings.splits:
        return Tiles(0, 0, (_resized(pixels, size, size, settings.filter),))
    height, width, _ = pixels.shape
    pixels = _resized(pixels, *_whole_tiles(height, width, size), settings.filter)
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    if rows == columns == 1:
        return Tiles(0, 0, (pixels,))
    tiles = [pixels[r * size : (r + 1) * size, c * size : (c + 1) * size] for r in range(rows) for c in range(columns)]
    return Tiles(rows, columns, (*tiles, _resized(pixels, size, size, settings.filter)))


def normalised(pixels: Array, settings: TileSettings) -> npt.NDArray[np.float32]:
    """Return a tile's pixels as the eye wants them: float32 [tile_px, tile_px, 3]."""
    mean, spread = (np.array(of, np.float32) for of in (settings.mean, settings.spread))
    values: npt.NDArray[np.float32] = (pixels.astype(np.float32) * np.float32(settings.scale) - mean) / spread
    return values


def pieces_of(tiles: Tiles, vectors: list[npt.NDArray[np.float32]], controls: frozenset[str]) -> tuple[SightPiece, ...]:
    """Return what the model reads: each tile's vectors after its place in words, as in transformers' `processing_idefics3.py`.

    controls: the model's control tokens. A larger model has none for the places of tiles, and reads their letters.
    """

    def named(name: str) -> SightPiece:
        return ControlName(name) if name in controls else name

    pieces = list[SightPiece]()
    for row in range(tiles.rows):
        for column in range(tiles.columns):
            pieces += [named(AROUND), named(f"<row_{row + 1}_col_{column + 1}>"), vectors[row * tiles.columns + column]]
        pieces.append("\n\n" if row + 1 == tiles.rows else "\n")
    return (*pieces, named(AROUND), named(WHOLE), vectors[-1], named(AROUND))


def _resized(pixels: Array, height: int, width: int, filter_: int) -> npt.NDArray[np.uint8]:
    Image = pillow()
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling(filter_)))


def _longest(height: int, width: int, longest: int) -> tuple[int, int]:
    """Return the size with the longer side resized to `longest`, and no more than MOST_PX; the shorter one is even before that."""
    ratio = width / height
    if width >= height:
        width, height = longest, int(longest / ratio)
        height += height % 2
    else:
        height, width = longest, int(longest * ratio)
        width += width % 2
    height, width = max(height, 1), max(width, 1)
    ratio = width / height
    if width >= height and width > MOST_PX:
        width, height = MOST_PX, int(MOST_PX / ratio)
    elif height > width and height > MOST_PX:
        height, width = MOST_PX, int(MOST_PX * ratio)
    return max(height, 1), max(width, 1)


def _whole_tiles(height: int, width: int, tile: int) -> tuple[int, int]:
    """Return the size in whole tiles: the longer side is rounded up, then the shorter one follows and is rounded up."""
    ratio = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        height = math.ceil(int(width / ratio) / tile) * tile
    else:
        height = math.ceil(height / tile) * tile
        width = math.ceil(int(height * ratio) / tile) * tile
    return height, width


# The colours of a picture, by name: what stands out from its ground.


_GREYS = (("black", 0.22), ("grey", 0.8), ("white", 1.01))  # names of pixels without much colour, by how light they are at the most
# Names of hues, by their last degree.
_HUES = (
    ("red", 14), ("orange", 40), ("yellow", 68), ("green", 165), ("turquoise", 195), ("blue", 255), ("purple", 295), ("pink", 342),
    ("red", 361),
)  # fmt: skip
_LEAST, _MOST = 0.12, 3  # the smallest share of what is not ground that a colour must have, and how many are named
_SAMPLE = 64


def colours(picture: Picture) -> tuple[str, ...]:
    """Return the names of up to three colours, the largest first. The ground (the border's most frequent colour) is left out."""
    pixels = picture.pixels
    step = max(1, max(pixels.shape[:2]) // _SAMPLE)
    small = pixels[::step, ::step].astype(np.float32) / np.float32(255)
    names = _named(small)
    edge = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    ground = np.median(edge, axis=0)
    inside = np.abs(small - ground).max(axis=2) > 0.1
    seen = names[inside] if inside.mean() > 0.02 else names.ravel()
    words, counts = np.unique(seen, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_MOST]
    return tuple(str(words[i]) for i in order if counts[i] >= _LEAST * len(seen))


def _named(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.str_]:
    """Return the name of each pixel's colour: [height, width, 3] in 0 … 1 → [height, width]."""
    high, low = pixels.max(2), pixels.min(2)
    spread = high - low
    r, g, b = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    safe = np.where(spread > 0, spread, 1)
    hue = np.where(high == r, (g - b) / safe % 6, np.where(high == g, (b - r) / safe + 2, (r - g) / safe + 4)) * 60
    names = np.empty(hue.shape, "<U9")
    for name, last in reversed(_HUES):
        names[hue < last] = name
    brown = (hue >= 10) & (hue < 45) & (high < 0.68)
    names[brown] = "brown"
    grey = spread < np.maximum(0.1, 0.18 * high)
    for name, lightest in reversed(_GREYS):
        names[grey & (high < lightest)] = name
    names[high < _GREYS[0][1]] = "black"
    return names


# Emblems: pictures of 64×64 pixels on white, which a painter learns from and paints, and sheets of several.


SIDE = 64  # pixels of a side

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
