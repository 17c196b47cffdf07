"""A picture cut into square tiles for an eye, and a smaller copy of the whole, as Idefics3 and SmolVLM were trained to see it.

The steps are those of transformers' `image_processing_pil_idefics3.py`, rounding included, so that pixels are equal to the byte: the
picture is resized up to three times. Pillow resizes.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError
from ingle.core.media import ControlName, Picture, SightPiece
from ingle.media.picture import pillow

Array = npt.NDArray[Any]
AROUND, WHOLE, MARKER = "<fake_token_around_image>", "<global-img>", "<image>"
"""Words of the prompt around tiles, before the whole picture, and for a picture in a chat template."""
MOST_PX = 4096
"""transformers resizes no picture to more, whatever a model asks for."""
_MOST_TILES = 10
"""On a side: the models have words for six."""


@dataclass(frozen=True)
class TileSettings:
    """A model's way of cutting pictures: its `preprocessor_config.json`."""

    longest_px: int
    """Pixels to which the longer side is resized first."""
    tile_px: int
    """Pixels on a side of a tile."""
    splits: bool
    """Whether there are tiles at all, beside the whole picture."""
    filter: int
    """Pillow's number of the way to resize; 1 is Lanczos."""
    scale: float
    """Factor of each byte, before `mean` is taken away and all is divided by `spread`."""
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

    rows: int
    """Rows of tiles; 0 = there is only the whole picture."""
    columns: int
    pixels: tuple[npt.NDArray[np.uint8], ...]
    """Tiles line by line, and last the whole picture: uint8 [tile_px, tile_px, 3]."""


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
