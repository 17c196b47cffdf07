"""GGUF's blocks of 32 columns, split into what kernels want, and joined again bit for bit.

A block is a float16 scale, for some kinds a float16 minimum, for codes of five bits a word of their upper bits, and the codes: bytes,
or halves of bytes, column i in the lower half of byte i and column i + 16 in the upper. Source: ggml's ggml-common.h (block_q4_0 and its
neighbours).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
COLUMNS = 32


@dataclass(frozen=True, slots=True)
class Block:
    """The contents of a block beside its scale."""

    bits: int
    """Of a code: 4, 5 or 8."""
    minimum: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of a block."""
        return 2 + 2 * self.minimum + 4 * self.bits


BLOCKS = {
    "Q4_0": Block(4), "Q4_1": Block(4, minimum=True), "Q5_0": Block(5), "Q5_1": Block(5, minimum=True), "Q8_0": Block(8),
    "IQ4_NL": Block(4),
}  # fmt: skip


def split(kind: str, raw: Array) -> tuple[Array, Array, Array | None]:
    """Split rows of a file, uint8 [N, bytes], into codes uint8 (of Q8_0 int8) [N, K], and float16 scales and minima [N, K/32] (None = there
    are none)."""
    of = BLOCKS[kind]
    blocks = np.ascontiguousarray(raw).reshape(len(raw), -1, of.nbytes)
    scale, minimum, codes = _half(blocks, 0), _half(blocks, 2) if of.minimum else None, blocks[..., 2 + 2 * of.minimum :]
    if of.bits == 8:
        return np.ascontiguousarray(codes).view(np.int8).reshape(len(raw), -1), scale, minimum
    halves = codes[..., -16:]
    q = np.concatenate([halves & 15, halves >> 4], axis=2)
    if of.bits == 5:
        q |= np.unpackbits(codes[..., :4], axis=-1, bitorder="little") << 4
    return q.reshape(len(raw), -1), scale, minimum


def join(kind: str, q: Array, scale: Array, minimum: Array | None) -> Array:
    """Undo `split`: uint8 [N, bytes]."""
    of, codes = BLOCKS[kind], q.reshape(*scale.shape, COLUMNS)
    parts = [_bytes(plane) for plane in (scale, minimum) if plane is not None]
    if of.bits == 8:
        parts.append(codes.view(np.uint8))
    else:
        if of.bits == 5:
            parts.append(np.packbits(codes >> 4, axis=-1, bitorder="little"))
        parts.append(codes[..., :16] & 15 | (codes[..., 16:] & 15) << 4)
    return np.concatenate(parts, axis=-1).reshape(len(q), -1)


def _half(blocks: Array, at: int) -> Array:
    return np.ascontiguousarray(blocks[..., at : at + 2]).view("<f2")[..., 0]


def _bytes(plane: Array) -> Array:
    return np.ascontiguousarray(plane, "<f2")[..., None].view(np.uint8)
