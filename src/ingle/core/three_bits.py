"""Q3_1: a block of 32 weights in 3 bits each, as Q4_1 is one in 4; ours, for GGUF has none whose columns need not be a multiple of 256.

A block is 16 bytes: float16 scale and minimum, then three words of four bytes with the codes 0 … 7; a weight is scale · code + minimum.
Byte i of the words holds the codes of the columns 4j + i, j = 0 … 7:

    word 0    code 0 | code 1 << 3 | (code 6 & 3)  << 6
    word 1    code 2 | code 3 << 3 | (code 7 & 3)  << 6
    word 2    code 4 | code 5 << 3 | (code 6 >> 2) << 6 | (code 7 >> 2) << 7

so that six of eight take a shift and a mask, and the other two twice that.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
KIND = "Q3_1"
GROUP, BLOCK_BYTES = 32, 16


def join(codes: Array) -> Array:
    """Codes 0 … 7 [..., 32] → words, uint8 [..., 12]."""
    of = np.moveaxis(codes.astype(np.uint8).reshape(*codes.shape[:-1], 8, 4), -2, 0)
    first, second = of[0] | of[1] << 3 | (of[6] & 3) << 6, of[2] | of[3] << 3 | (of[7] & 3) << 6
    return np.concatenate([first, second, of[4] | of[5] << 3 | (of[6] >> 2) << 6 | (of[7] >> 2) << 7], axis=-1)


def split(words: Array) -> Array:
    """uint8 [..., 12] → codes, uint8 [..., 32]."""
    a, b, c = words[..., :4], words[..., 4:8], words[..., 8:]
    last = [a >> 6 | c >> 4 & 4, b >> 6 | c >> 5 & 4]
    return np.concatenate([a & 7, a >> 3 & 7, b & 7, b >> 3 & 7, c & 7, c >> 3 & 7, *last], axis=-1)


def codes_of(raw: Array) -> tuple[Array, Array, Array]:
    """Blocks uint8 [N, K/32 · 16] → codes uint8 [N, K], scale and minimum float16 [N, K/32]."""
    blocks = np.ascontiguousarray(raw).reshape(len(raw), -1, BLOCK_BYTES)
    halves = np.ascontiguousarray(blocks[..., :4]).view("<f2")
    return split(blocks[..., 4:]).reshape(len(raw), -1), halves[..., 0], halves[..., 1]


def decode(raw: Array) -> npt.NDArray[np.float32]:
    """Blocks uint8 [N, K/32 · 16] → float32 [N, K]."""
    codes, *planes = codes_of(raw)
    scale, minimum = (np.repeat(plane.astype(np.float32), GROUP, axis=1) for plane in planes)
    return codes * scale + minimum


def as_q4_1(raw: Array) -> Array:
    """The same numbers as GGUF's Q4_1, which has a bit to spare: uint8 [N, K/32 · 20]."""
    blocks = np.ascontiguousarray(raw).reshape(len(raw), -1, BLOCK_BYTES)
    codes = split(blocks[..., 4:])
    return np.concatenate([blocks[..., :4], codes[..., :16] | codes[..., 16:] << 4], axis=-1).reshape(len(raw), -1)
