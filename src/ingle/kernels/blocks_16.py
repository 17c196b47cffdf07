"""Q4_16 and Q3_16: our own formats of 4 or 3 bits, with a scale and a minimum of a byte each for every 16 columns.

They take no more room than GGUF's Q4_1, whose scale and minimum are float16 and serve 32. A row is a float32 `unit`, then for every 32
columns a block: two scales and two minima, of columns 0 … 15 and 16 … 31, and the codes; those of 4 bits as in Q4_1, column i in the lower
half of byte i and column i + 16 in the upper, those of 3 bits as kernels/three_bits.py has them. A weight is

    unit · (scale · code − 16 · minimum),    scale and minimum 0 … 255, code 0 … 15 or 0 … 7

so that in a product with bytes all but the unit are whole numbers.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.kernels import three_bits

Array = npt.NDArray[Any]
COLUMNS, UNIT_BYTES = 16, 4
BLOCK_BYTES = {"Q4_16": 20, "Q3_16": 16}
"""Bytes of a block, by kind."""
STEP = 16
"""Factor of a minimum."""


def join(kind: str, unit: Array, scale: Array, minimum: Array, codes: Array) -> Array:
    """Join units float32 [N], scales and minima 0 … 255 [N, K/16], and codes [N, K] into rows, uint8 [N, 4 + bytes of the blocks]."""
    of, rows = codes.astype(np.uint8).reshape(len(codes), -1, 2 * COLUMNS), len(codes)
    packed = of[..., :COLUMNS] | of[..., COLUMNS:] << 4 if kind == "Q4_16" else three_bits.join(of)
    planes = [plane.astype(np.uint8).reshape(rows, -1, 2) for plane in (scale, minimum)]
    head = np.ascontiguousarray(unit, "<f4").view(np.uint8).reshape(-1, UNIT_BYTES)
    return np.concatenate([head, np.concatenate([*planes, packed], axis=2).reshape(rows, -1)], axis=1)


def split(kind: str, raw: Array) -> tuple[Array, Array, Array, Array]:
    """Undo `join`: unit float32 [N], scale and minimum uint8 [N, K/16], codes uint8 [N, K]."""
    unit = np.ascontiguousarray(raw[:, :UNIT_BYTES]).view("<f4")[:, 0]
    blocks = np.ascontiguousarray(raw[:, UNIT_BYTES:]).reshape(len(raw), -1, BLOCK_BYTES[kind])
    scale, minimum, packed = blocks[..., :2], blocks[..., 2:4], blocks[..., 4:]
    codes = np.concatenate([packed & 15, packed >> 4], axis=2) if kind == "Q4_16" else three_bits.split(packed)
    return unit, scale.reshape(len(raw), -1), minimum.reshape(len(raw), -1), codes.reshape(len(raw), -1)


def decode(kind: str, raw: Array) -> npt.NDArray[np.float32]:
    """Decode rows uint8 [N, 4 + bytes of the blocks] → float32 [N, K]."""
    unit, scale, minimum, codes = split(kind, raw)
    step = np.float32(-STEP) * unit
    of, least = (np.repeat(plane.astype(np.float32), COLUMNS, axis=1) for plane in (unit[:, None] * scale, step[:, None] * minimum))
    return codes * of + least
