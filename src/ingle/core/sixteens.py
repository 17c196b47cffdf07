"""Q4_16: weights in 4 bits with a scale and a minimum, a byte each, for every 16 columns; ours. As large as Q4_1, whose float16 serve 32.

A row is a float32 `unit`, then for every 32 columns 20 bytes: two scales and two minima, of columns 0 … 15 and 16 … 31, and 16 bytes of
codes as in Q4_1, column i in the lower half of byte i and column i + 16 in the upper. A weight is

    unit · (scale · code − 16 · minimum),    scale and minimum 0 … 255, code 0 … 15

so that in a product with bytes all but the unit are whole numbers.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
KIND = "Q4_16"
COLUMNS, UNIT_BYTES, BLOCK_BYTES = 16, 4, 20
STEP = 16
"""Of a minimum."""


def join(unit: Array, scale: Array, minimum: Array, codes: Array) -> Array:
    """float32 [N], whole numbers 0 … 255 [N, K/16] twice, and codes [N, K] → rows, uint8 [N, 4 + K/32 · 20]."""
    of = codes.astype(np.uint8).reshape(len(codes), -1, 2, COLUMNS)
    planes = [plane.astype(np.uint8).reshape(len(codes), -1, 2) for plane in (scale, minimum)]
    blocks = np.concatenate([*planes, of[:, :, 0] | of[:, :, 1] << 4], axis=2).reshape(len(codes), -1)
    return np.concatenate([np.ascontiguousarray(unit, "<f4").view(np.uint8).reshape(-1, UNIT_BYTES), blocks], axis=1)


def split(raw: Array) -> tuple[Array, Array, Array, Array]:
    """What `join` was given: unit float32 [N], scale and minimum uint8 [N, K/16], codes uint8 [N, K]."""
    unit = np.ascontiguousarray(raw[:, :UNIT_BYTES]).view("<f4")[:, 0]
    blocks = np.ascontiguousarray(raw[:, UNIT_BYTES:]).reshape(len(raw), -1, BLOCK_BYTES)
    scale, minimum, packed = (blocks[..., a:b] for a, b in ((0, 2), (2, 4), (4, BLOCK_BYTES)))
    codes = np.concatenate([packed & 15, packed >> 4], axis=2)
    return unit, scale.reshape(len(raw), -1), minimum.reshape(len(raw), -1), codes.reshape(len(raw), -1)


def decode(raw: Array) -> npt.NDArray[np.float32]:
    """Rows uint8 [N, 4 + K/32 · 20] → float32 [N, K]."""
    unit, scale, minimum, codes = split(raw)
    step = np.float32(-STEP) * unit
    planes = ((unit[:, None] * scale), (step[:, None] * minimum))
    of, least = (np.repeat(plane.astype(np.float32), COLUMNS, axis=1) for plane in planes)
    return codes * of + least
