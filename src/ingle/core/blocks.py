"""How 16 tokens' keys and values of one group lie in memory: a *block*.

`float16`, `float32`: keys [width, 16], one column a token, so that 16 scores are one vector; then values [16, width]. `int8`: the same in
bytes −127 … 127, then the float16 scales of the 16 keys and of the 16 values; a number is scale · byte. The scale is max |x| / 127 over
the token's key (after RoPE) or value, rounded to float16 before it divides, so that kernel and NumPy agree to the bit.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
BLOCK_TOKENS = 16
CACHES = ("float32", "float16", "int8")
"""Number types that keys and values can be cached in."""
_LARGEST = np.float32(65504)  # of float16: larger scales would be infinite


def block_elements(width: int, dtype: str) -> int:
    """Return the numbers in one block; for int8, its bytes, scales included."""
    return 2 * BLOCK_TOKENS * width + (4 * BLOCK_TOKENS if dtype == "int8" else 0)


def largest(dtype: str) -> float:
    """Return the largest number that this type can hold."""
    return float(_LARGEST) * 127 if dtype == "int8" else float(np.finfo(dtype).max)


def to_int8(x: Array) -> tuple[Array, Array]:
    """Quantise x [..., D] to int8 bytes [..., D] and float16 scales [...], one for each row. A row that is not finite has the scale NaN."""
    x = np.asarray(x, np.float32)
    most = np.abs(x).max(axis=-1, initial=0) / np.float32(127)
    scale = np.where(np.isfinite(most), np.minimum(most, _LARGEST), np.nan).astype(np.float16)
    step = np.where(scale > 0, scale, 1).astype(np.float32)[..., None]
    return np.clip(np.rint(np.nan_to_num(x / step)), -127, 127).astype(np.int8), scale


def parts(blocks: Array, width: int) -> tuple[Array, Array, Array | None]:
    """Return views of blocks [..., elements]: keys [..., width, 16], values [..., 16, width] and, for int8, scales [..., 2, 16] of both."""
    size, before = BLOCK_TOKENS * width, blocks.shape[:-1]
    keys = blocks[..., :size].reshape(*before, width, BLOCK_TOKENS)
    values = blocks[..., size : 2 * size].reshape(*before, BLOCK_TOKENS, width)
    if blocks.dtype != np.int8:
        return keys, values, None
    return keys, values, blocks[..., 2 * size :].view(np.float16).reshape(*before, 2, BLOCK_TOKENS)


def write(block: Array, width: int, columns: slice, keys: Array, values: Array) -> None:
    """Write tokens into columns of a block: keys and values [n, D]."""
    to_keys, to_values, scales = parts(block, width)
    if scales is not None:
        keys, scales[0, columns] = to_int8(keys)
        values, scales[1, columns] = to_int8(values)
    to_keys[: keys.shape[1], columns] = keys.T
    to_values[columns, : values.shape[1]] = values


def clear(blocks: Array, width: int, column: int) -> None:
    """Zero the columns of blocks from `column` on."""
    keys, values, scales = parts(blocks, width)
    keys[..., column:] = 0
    values[..., column:, :] = 0
    if scales is not None:
        scales[..., column:] = 0
