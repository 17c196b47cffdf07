"""Codes of three bits: 32 columns in three words of four bytes, of which byte i holds those of the columns 4j + i, j = 0 … 7:

    word 0    code 0 | code 1 << 3 | (code 6 & 3)  << 6
    word 1    code 2 | code 3 << 3 | (code 7 & 3)  << 6
    word 2    code 4 | code 5 << 3 | (code 6 >> 2) << 6 | (code 7 >> 2) << 7

so that six of eight take a shift and a mask, and the other two twice that.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def join(codes: Array) -> Array:
    """Join codes 0 … 7 [..., 32] → words, uint8 [..., 12]."""
    of = np.moveaxis(codes.astype(np.uint8).reshape(*codes.shape[:-1], 8, 4), -2, 0)
    first, second = of[0] | of[1] << 3 | (of[6] & 3) << 6, of[2] | of[3] << 3 | (of[7] & 3) << 6
    return np.concatenate([first, second, of[4] | of[5] << 3 | (of[6] >> 2) << 6 | (of[7] >> 2) << 7], axis=-1)


def split(words: Array) -> Array:
    """Split words, uint8 [..., 12] → codes, uint8 [..., 32]."""
    a, b, c = words[..., :4], words[..., 4:8], words[..., 8:]
    last = [a >> 6 | c >> 4 & 4, b >> 6 | c >> 5 & 4]
    return np.concatenate([a & 7, a >> 3 & 7, b & 7, b >> 3 & 7, c & 7, c >> 3 & 7, *last], axis=-1)
