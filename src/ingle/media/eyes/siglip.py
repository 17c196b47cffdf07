"""SigLIP's vision transformer, as Idefics3 and SmolVLM have it: patches of pixels → features.

Source: arXiv 2303.15343; positions of pictures that are smaller than those of training: arXiv 2307.06304, as in transformers'
`modeling_idefics3.py`. Names of weights are transformers', below `model.vision_model.`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError, ShapeError
from ingle.kernels.tower import EncoderShape, PackedProduct, Read, Tower, TowerFormat, encoder_tensors

Array = npt.NDArray[Any]
CHANNELS = 3
_PATCHES, _POSITIONS, _LAST = "embeddings.patch_embedding", "embeddings.position_embedding.weight", "post_layernorm"


@dataclass(frozen=True)
class SiglipShape:
    """The sizes of an eye."""

    encoder: EncoderShape
    picture_px: int  # pixels on a side of the largest picture
    patch_px: int

    def __post_init__(self) -> None:
        if not 1 <= self.patch_px <= self.picture_px <= 4096:
            rule = "must be at least 1, and no larger than a picture of at most 4,096"
            raise ConfigError("eye.patch_size", rule, f"{self.patch_px} in {self.picture_px}")

    @property
    def side(self) -> int:
        """Patches on a side of the largest picture."""
        return self.picture_px // self.patch_px


def siglip_tensors(shape: SiglipShape) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight by name."""
    hidden = shape.encoder.hidden
    return {
        f"{_PATCHES}.weight": (hidden, CHANNELS, shape.patch_px, shape.patch_px),
        f"{_PATCHES}.bias": (hidden,),
        _POSITIONS: (shape.side**2, hidden),
        **{f"encoder.{name}": size for name, size in encoder_tensors(shape.encoder).items()},
        f"{_LAST}.weight": (hidden,),
        f"{_LAST}.bias": (hidden,),
    }


class Siglip:
    """An eye, ready to look."""

    def __init__(self, shape: SiglipShape, read: Read, format_: TowerFormat) -> None:
        self.shape = shape
        kernels = read(f"{_PATCHES}.weight")
        self._embed = PackedProduct(kernels.reshape(len(kernels), -1), read(f"{_PATCHES}.bias"), format_)
        self._positions = read(_POSITIONS)
        norm = read(f"{_LAST}.weight"), read(f"{_LAST}.bias")
        self._encoder = Tower(shape.encoder, lambda name: read(f"encoder.{name}"), norm, format_)

    def __call__(self, pixels: Array, threads: int) -> npt.NDArray[np.float32]:
        """Return the features of pixels float32 [height, width, 3], normalised: float32 [patches, hidden], line by line.

        Raises ShapeError for a picture that is larger than the eye's, or smaller than a patch. What fills no patch is not looked at.
        """
        patches, places = patches_of(pixels, self.shape), positions(*grid(pixels, self.shape), self.shape.side)
        return self._encoder(self._embed(patches, threads, self._positions[places]), threads)


def grid(pixels: Array, shape: SiglipShape) -> tuple[int, int]:
    """Return how many whole patches there are, down and across. Raises ShapeError."""
    if pixels.ndim != CHANNELS or pixels.shape[2] != CHANNELS or not shape.patch_px <= min(pixels.shape[:2]):
        raise ShapeError("pixels", f"must be [height, width, 3] of at least {shape.patch_px} on a side", pixels.shape)
    rows, columns = pixels.shape[0] // shape.patch_px, pixels.shape[1] // shape.patch_px
    if max(rows, columns) > shape.side:
        raise ShapeError("pixels", f"must be at most {shape.picture_px} on a side", pixels.shape)
    return rows, columns


def patches_of(pixels: Array, shape: SiglipShape) -> npt.NDArray[np.float32]:
    """Cut pixels [height, width, 3] into patches, float32 [patches, 3 · patch²], in the order of a convolution's weights."""
    (rows, columns), size = grid(pixels, shape), shape.patch_px
    whole = pixels[: rows * size, : columns * size].reshape(rows, size, columns, size, CHANNELS)
    return np.ascontiguousarray(whole.transpose(0, 2, 4, 1, 3), np.float32).reshape(rows * columns, -1)


def positions(rows: int, columns: int, side: int) -> npt.NDArray[np.int64]:
    """Return each patch's number among the side² positions of training: a smaller grid is spread over the whole picture.

    The steps and their float32 rounding are transformers', so that patches fall on the same numbers.
    """
    boundaries = np.arange(1 / side, 1.0, 1 / side).astype(np.float32)
    down, across = (
        np.searchsorted(boundaries, np.minimum(np.arange(count, dtype=np.float32) * (np.float32(1) / np.float32(count)), 1 - 1e-6), "right")
        for count in (rows, columns)
    )
    numbers: npt.NDArray[np.int64] = (down[:, None] * side + across[None, :]).reshape(-1)
    return numbers
