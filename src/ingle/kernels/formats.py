"""Formats of blocks: GGUF's K-quants, IQ4_XS and blocks of 32 columns, and our own of 16; taken apart, and joined again bit for bit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ShapeError
from ingle.kernels.layout import IQ4_XS, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K

# GGUF's K-quants, and IQ4_XS: blocks of 256 columns with scales of their own, which the kernels multiply as they are.
# | kind | code | a weight is | of so many columns |
# |---|---|---|---|
# | Q2_K | 0 … 3 | d · scale · code − e · minimum | 16: scale and minimum 0 … 15 |
# | Q3_K, Q6_K | 0 … 7, 0 … 63 | d · scale · (code − 4), d · scale · (code − 32) | 16: scale −32 … 31, −128 … 127 |
# | IQ4_XS | 0 … 15 | d · scale · `WEIGHTS[code]` | 32: scale −32 … 31 |
# | Q4_K, Q5_K | 0 … 15, 0 … 31 | d · scale · code − e · minimum | 32: scale and minimum 0 … 63 |
# d and e are float16, one each for a block. In a panel of 16 rows (linear.py) a block of 256 columns is
#     Q2_K          scales: d [16], e [16], then [16, 16] bytes scale | minimum << 4 for each 16 columns
#     Q3_K, Q6_K    scales: d [16], then scales [16, 16] bytes, a vector of rows for each 16 columns
#     IQ4_XS        scales: d [16], then [8, 16] bytes, a vector of rows for each 32 columns
#     Q4_K, Q5_K    scales: d [16], e [16], then [8, 16] bytes scale & 15 | minimum << 4 for each 32 columns, then their upper halves,
#                   [4, 16] bytes: of the 32 columns 2i and 2i + 1, each scale >> 4 | minimum >> 4 << 2
#
#     and the codes of 32 columns are those of INT4, for Q3_K of INT3_16, and for Q2_K [2, 16, 4] bytes with four groups
#     of four columns each; Q5_K and Q6_K have their upper bits behind the lower four: of the
#     eight groups of four columns, bit j of a byte [16, 4] is group j's, or bits 2j and 2j + 1 of the first and the second [16, 4].
#     Source of the blocks: ggml's ggml-common.h (block_q4_K and its neighbours).


Array = npt.NDArray[Any]
K_COLUMNS = 256
KINDS = {"Q2_K": Q2_K, "Q3_K": Q3_K, "Q4_K": Q4_K, "Q5_K": Q5_K, "Q6_K": Q6_K, "IQ4_XS": IQ4_XS}
K_BYTES = {"Q2_K": 84, "Q3_K": 110, "Q4_K": 144, "Q5_K": 176, "Q6_K": 210, "IQ4_XS": 136}  # bytes of a block in a file
# Of the codes of IQ4_XS and IQ4_NL: ggml's kvalues_iq4nl.
WEIGHTS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
MIDDLE = {Q3_K: 4, Q6_K: 32}  # code of a weight 0
CODE_BYTES = {Q2_K: 128, Q3_K: 192, Q4_K: 256, Q5_K: 320, Q6_K: 384, IQ4_XS: 256}  # bytes of the codes of 32 columns in a panel
SCALE_BYTES = {Q2_K: 320, Q3_K: 288, Q4_K: 256, Q5_K: 256, Q6_K: 288, IQ4_XS: 160}  # bytes of the scales of a block in a panel


@dataclass(frozen=True)
class KParts:
    """A matrix [N, K] in parts."""

    codes: Array  # uint8 [N, K]
    unit: Array  # d, float16 [N, K/256]
    scale: Array  # int16 [N, K/16] or [N, K/32]
    least_unit: Array | None = None  # e, float16 [N, K/256]
    least: Array | None = None  # minima, int16, as many as scales

    def values(self, kind: int) -> npt.NDArray[np.float32]:
        """Return the weights, float32 [N, K]."""
        rows, columns = self.codes.shape

        def spread(unit: Array, scale: Array) -> Array:
            each = scale.reshape(*unit.shape, -1).astype(np.float32) * unit.astype(np.float32)[..., None]
            return np.repeat(each.reshape(rows, -1), columns // scale.shape[1], axis=1)

        numbers = uneven(self.codes) if kind == IQ4_XS else self.codes.astype(np.float32) - np.float32(MIDDLE.get(kind, 0))
        result: npt.NDArray[np.float32] = spread(self.unit, self.scale) * numbers
        if self.least is not None and self.least_unit is not None:
            result -= spread(self.least_unit, self.least)
        return result


def uneven(codes: Array) -> npt.NDArray[np.float32]:
    """Return the weights of codes of IQ4_XS and IQ4_NL, before their scales."""
    weights: npt.NDArray[np.float32] = np.array(WEIGHTS, np.float32)[codes]
    return weights


def split_k(kind: str, raw: Array) -> KParts:
    """Split the rows of a file, uint8 [N, bytes], into parts. Raises ShapeError for rows that are no whole blocks."""
    size = K_BYTES[kind]
    if raw.ndim != 2 or raw.shape[1] % size:
        raise ShapeError("rows", f"must be whole blocks of {size} bytes", raw.shape)
    blocks = np.ascontiguousarray(raw).reshape(len(raw), -1, size)
    return {"Q2_K": _split_2, "Q3_K": _split_3, "Q4_K": _split_4, "Q5_K": _split_5, "Q6_K": _split_6, "IQ4_XS": _split_xs}[kind](blocks)


def join_k(kind: str, of: KParts) -> Array:
    """Undo `split`: uint8 [N, bytes]."""
    rows = len(of.codes)
    codes, scale = of.codes.reshape(rows, -1, K_COLUMNS), of.scale.reshape(rows, of.unit.shape[1], -1)
    units = [np.ascontiguousarray(unit, "<f2")[..., None].view(np.uint8) for unit in (of.unit, of.least_unit) if unit is not None]
    least = scale if of.least is None else of.least.reshape(scale.shape)
    match kind:
        case "Q2_K":
            parts = [scale | least << 4, _twos(codes), *units]
        case "Q3_K":
            parts = [_joined(codes.reshape(*codes.shape[:2], 8, 32) >> 2, 1), _twos(codes & 3), _six_bits_apart(scale + 32), *units]
        case "Q4_K":
            parts = [*units, _six_bits_joined(scale, least), _halves(codes, 32)]
        case "Q5_K":
            upper = _joined(codes.reshape(*codes.shape[:2], 8, 32) >> 4, 1)
            parts = [*units, _six_bits_joined(scale, least), upper, _halves(codes & 15, 32)]
        case "Q6_K":
            parts = [_halves(codes & 15, 64), _twos(codes >> 4), scale.astype(np.int8).view(np.uint8), *units]
        case _:
            raised = scale + 32
            upper = np.bitwise_or.reduce((raised >> 4).astype(np.uint16) << np.arange(0, 16, 2, dtype=np.uint16), axis=-1)
            low = (raised & 15).reshape(*raised.shape[:2], 4, 2)
            parts = [*units, upper.astype("<u2")[..., None].view(np.uint8), low[..., 0] | low[..., 1] << 4, _halves(codes, 16)]
    return np.concatenate([part.astype(np.uint8) for part in parts], axis=-1).reshape(rows, -1)


def _joined(parts: Array, bits: int) -> Array:
    """Join numbers of so many bits, [..., n, bytes] → [..., bytes], the first lowest."""
    shifts = bits * np.arange(parts.shape[-2], dtype=np.uint8)[:, None]
    joined: Array = np.bitwise_or.reduce(parts.astype(np.uint8) << shifts, axis=-2)
    return joined


def _twos(codes: Array) -> Array:
    """Undo the `_shifted` of codes of two bits."""
    return _joined(codes.reshape(*codes.shape[:2], 2, 4, 32), 2).reshape(*codes.shape[:2], 64)


def _halves(codes: Array, run: int) -> Array:
    """Undo `_nibbles`."""
    return _joined(codes.reshape(*codes.shape[:2], -1, 2, run), 4).reshape(*codes.shape[:2], 128)


def _six_bits_joined(scale: Array, least: Array) -> Array:
    """Undo `_six_bits` [N, blocks, 8] → [N, blocks, 12]."""
    low, minimum = (plane[..., :4] | plane[..., 4:] >> 4 << 6 for plane in (scale, least))
    return np.concatenate([low, minimum, scale[..., 4:] & 15 | (least[..., 4:] & 15) << 4], axis=-1)


def _six_bits_apart(scale: Array) -> Array:
    """Return Q3_K's scales 0 … 63 [N, blocks, 16] in twelve bytes."""
    upper = _joined((scale >> 4).reshape(*scale.shape[:2], 4, 4), 2)
    return np.concatenate([scale[..., :8] & 15 | (scale[..., 8:] & 15) << 4, upper], axis=-1)


def _split_2(blocks: Array) -> KParts:
    both, packed = blocks[..., :16], blocks[..., 16:80]
    codes = _shifted(packed.reshape(*packed.shape[:2], 2, 1, 32), (0, 2, 4, 6), 3)
    return KParts(_flat(codes), _half(blocks, 80), _flat(both & 15).astype(np.int16), _half(blocks, 82), _flat(both >> 4).astype(np.int16))


def _split_3(blocks: Array) -> KParts:
    upper, lower, packed = blocks[..., :32], blocks[..., 32:96], blocks[..., 96:108]
    codes = _shifted(lower.reshape(*lower.shape[:2], 2, 1, 32), (0, 2, 4, 6), 3) | _bits(upper[:, :, None], range(8), 1, (2, 4), 2)
    low = np.concatenate([packed[..., :8] & 15, packed[..., :8] >> 4], axis=-1)
    high = _shifted(packed[..., None, 8:], (0, 2, 4, 6), 3).reshape(low.shape)
    scale = (low | high << 4).astype(np.int16) - 32
    return KParts(_flat(codes), _half(blocks, 108), _flat(scale))


def _split_4(blocks: Array) -> KParts:
    return KParts(_flat(_nibbles(blocks[..., 16:], 32)), *_six_bits(blocks))


def _split_5(blocks: Array) -> KParts:
    lower = _nibbles(blocks[..., 48:], 32)
    upper = _bits(blocks[:, :, None, 16:48], range(8), 1, (4, 2), 4)
    return KParts(_flat(lower | upper), *_six_bits(blocks))


def _split_6(blocks: Array) -> KParts:
    lower = _nibbles(blocks[..., :128], 64)
    upper = _shifted(blocks[..., 128:192].reshape(*blocks.shape[:2], 2, 1, 32), (0, 2, 4, 6), 3).reshape(lower.shape) << 4
    return KParts(_flat(lower | upper), _half(blocks, 208), _flat(blocks[..., 192:208].view(np.int8).astype(np.int16)))


def _split_xs(blocks: Array) -> KParts:
    upper = np.ascontiguousarray(blocks[..., 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    lower = (blocks[..., 4:8, None] >> np.array([0, 4], np.uint8) & 15).reshape(upper.shape)
    return KParts(_flat(_nibbles(blocks[..., 8:], 16)), _half(blocks, 0), _flat((lower | upper << 4).astype(np.int16) - 32))


def _six_bits(blocks: Array) -> tuple[Array, Array, Array, Array]:
    """Return d, scales, e and minima of Q4_K and Q5_K, whose numbers of six bits lie in twelve bytes."""
    low, least, both = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    scale = np.concatenate([low & 63, both & 15 | low >> 6 << 4], axis=-1).astype(np.int16)
    minimum = np.concatenate([least & 63, both >> 4 | least >> 6 << 4], axis=-1).astype(np.int16)
    return _half(blocks, 0), _flat(scale), _half(blocks, 2), _flat(minimum)


def _half(blocks: Array, at: int) -> Array:
    return np.ascontiguousarray(blocks[..., at : at + 2]).view("<f2")[..., 0]


def _flat(parts: Array) -> Array:
    return np.ascontiguousarray(parts.reshape(len(parts), -1))


def _shifted(packed: Array, shifts: tuple[int, ...], mask: int) -> Array:
    """Return (byte >> shift) & mask for each shift, on the axis before the last: [..., 1, n] → [..., shifts, n]."""
    found: Array = packed >> np.array(shifts, np.uint8)[:, None] & np.uint8(mask)
    return found


def _nibbles(packed: Array, run: int) -> Array:
    """Return codes [N, blocks, runs, 2, n]: of each run of n bytes first the lower halves, then the upper."""
    return _shifted(packed.reshape(*packed.shape[:2], -1, 1, run), (0, 4), 15)


def _bits(packed: Array, shifts: Any, mask: int, shape: tuple[int, int], place: int) -> Array:
    """Return one bit of each byte for each shift, moved to its place: [N, blocks, 1, n] → [N, blocks, *shape, n]."""
    found = _shifted(packed, tuple(shifts), mask) << np.uint8(place)
    return found.reshape(*packed.shape[:2], *shape, packed.shape[-1])


# GGUF's blocks of 32 columns, split into what kernels want, and joined again bit for bit.
# A block is a float16 scale, for some kinds a float16 minimum, for codes of five bits a word of their upper bits, and the codes: bytes, or
# halves of bytes, column i in the lower half of byte i and column i + 16 in the upper. Source: ggml's ggml-common.h (block_q4_0 and its
# neighbours).


COLUMNS_32 = 32


@dataclass(frozen=True, slots=True)
class Block:
    """The contents of a block beside its scale."""

    bits: int  # of a code: 4, 5 or 8
    minimum: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of a block."""
        return 2 + 2 * self.minimum + 4 * self.bits


BLOCKS = {
    "Q4_0": Block(4), "Q4_1": Block(4, minimum=True), "Q5_0": Block(5), "Q5_1": Block(5, minimum=True), "Q8_0": Block(8),
    "IQ4_NL": Block(4),
}  # fmt: skip


def split_32(kind: str, raw: Array) -> tuple[Array, Array, Array | None]:
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


def join_32(kind: str, q: Array, scale: Array, minimum: Array | None) -> Array:
    """Undo `split`: uint8 [N, bytes]."""
    of, codes = BLOCKS[kind], q.reshape(*scale.shape, COLUMNS_32)
    parts = [_bytes(plane) for plane in (scale, minimum) if plane is not None]
    if of.bits == 8:
        parts.append(codes.view(np.uint8))
    else:
        if of.bits == 5:
            parts.append(np.packbits(codes >> 4, axis=-1, bitorder="little"))
        parts.append(codes[..., :16] & 15 | (codes[..., 16:] & 15) << 4)
    return np.concatenate(parts, axis=-1).reshape(len(q), -1)


def _bytes(plane: Array) -> Array:
    return np.ascontiguousarray(plane, "<f2")[..., None].view(np.uint8)


# Codes of three bits: 32 columns in three words of four bytes, of which byte i holds those of the columns 4j + i, j = 0 … 7:
#     word 0    code 0 | code 1 << 3 | (code 6 & 3)  << 6
#     word 1    code 2 | code 3 << 3 | (code 7 & 3)  << 6
#     word 2    code 4 | code 5 << 3 | (code 6 >> 2) << 6 | (code 7 >> 2) << 7
# so that six of eight take a shift and a mask, and the other two twice that.


def join_3(codes: Array) -> Array:
    """Join codes 0 … 7 [..., 32] → words, uint8 [..., 12]."""
    of = np.moveaxis(codes.astype(np.uint8).reshape(*codes.shape[:-1], 8, 4), -2, 0)
    first, second = of[0] | of[1] << 3 | (of[6] & 3) << 6, of[2] | of[3] << 3 | (of[7] & 3) << 6
    return np.concatenate([first, second, of[4] | of[5] << 3 | (of[6] >> 2) << 6 | (of[7] >> 2) << 7], axis=-1)


def split_3(words: Array) -> Array:
    """Split words, uint8 [..., 12] → codes, uint8 [..., 32]."""
    a, b, c = words[..., :4], words[..., 4:8], words[..., 8:]
    last = [a >> 6 | c >> 4 & 4, b >> 6 | c >> 5 & 4]
    return np.concatenate([a & 7, a >> 3 & 7, b & 7, b >> 3 & 7, c & 7, c >> 3 & 7, *last], axis=-1)


# Q4_16 and Q3_16: our own formats of 4 or 3 bits, with a scale and a minimum of a byte each for every 16 columns.
# They take no more room than GGUF's Q4_1, whose scale and minimum are float16 and serve 32. A row is a float32 `unit`, then for every 32
# columns a block: two scales and two minima, of columns 0 … 15 and 16 … 31, and the codes; those of 4 bits as in Q4_1, column i in the
# lower half of byte i and column i + 16 in the upper, those of 3 bits as kernels/formats.py has them. A weight is
#     unit · (scale · code − 16 · minimum),    scale and minimum 0 … 255, code 0 … 15 or 0 … 7
# so that in a product with bytes all but the unit are whole numbers.


COLUMNS_16, UNIT_BYTES = 16, 4
BYTES_16 = {"Q4_16": 20, "Q3_16": 16}  # bytes of a block, by kind
STEP = 16  # factor of a minimum


def join_16(kind: str, unit: Array, scale: Array, minimum: Array, codes: Array) -> Array:
    """Join units float32 [N], scales and minima 0 … 255 [N, K/16], and codes [N, K] into rows, uint8 [N, 4 + bytes of the blocks]."""
    of, rows = codes.astype(np.uint8).reshape(len(codes), -1, 2 * COLUMNS_16), len(codes)
    packed = of[..., :COLUMNS_16] | of[..., COLUMNS_16:] << 4 if kind == "Q4_16" else join_3(of)
    planes = [plane.astype(np.uint8).reshape(rows, -1, 2) for plane in (scale, minimum)]
    head = np.ascontiguousarray(unit, "<f4").view(np.uint8).reshape(-1, UNIT_BYTES)
    return np.concatenate([head, np.concatenate([*planes, packed], axis=2).reshape(rows, -1)], axis=1)


def split_16(kind: str, raw: Array) -> tuple[Array, Array, Array, Array]:
    """Undo `join`: unit float32 [N], scale and minimum uint8 [N, K/16], codes uint8 [N, K]."""
    unit = np.ascontiguousarray(raw[:, :UNIT_BYTES]).view("<f4")[:, 0]
    blocks = np.ascontiguousarray(raw[:, UNIT_BYTES:]).reshape(len(raw), -1, BYTES_16[kind])
    scale, minimum, packed = blocks[..., :2], blocks[..., 2:4], blocks[..., 4:]
    codes = np.concatenate([packed & 15, packed >> 4], axis=2) if kind == "Q4_16" else split_3(packed)
    return unit, scale.reshape(len(raw), -1), minimum.reshape(len(raw), -1), codes.reshape(len(raw), -1)


def decode(kind: str, raw: Array) -> npt.NDArray[np.float32]:
    """Decode rows uint8 [N, 4 + bytes of the blocks] → float32 [N, K]."""
    unit, scale, minimum, codes = split_16(kind, raw)
    step = np.float32(-STEP) * unit
    of, least = (np.repeat(plane.astype(np.float32), COLUMNS_16, axis=1) for plane in (unit[:, None] * scale, step[:, None] * minimum))
    return codes * of + least
