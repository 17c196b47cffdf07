"""Pack weights into panels: see linear.py for the layouts, and unpack.py for the way back."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ShapeError
from ingle.kernels import blocks_16, k_quants, three_bits
from ingle.kernels.layout import BF16, F32, INT3_16, INT4, INT4_16, INT5, INT8, INT8_GROUP, IQ4_NL, Q2_K, Q3_K

Array = npt.NDArray[Any]


def _empty() -> Array:
    return np.zeros(0, np.uint8)


@dataclass(frozen=True)
class PackedLinear:
    """A packed matrix [N, K]: its kind, true shape, and planes as flat bytes."""

    kind: int
    rows: int
    columns: int
    weights: Array
    scales: Array = field(default_factory=_empty)
    minima: Array = field(default_factory=_empty)

    @property
    def padded(self) -> tuple[int, int]:
        """Shape padded to 32, as in the kernels: outputs of one linear are input of the next."""
        return _up(self.rows, 32), _up(self.columns, 32)

    @property
    def nbytes(self) -> int:
        """Bytes of all planes."""
        return int(self.weights.nbytes + self.scales.nbytes + self.minima.nbytes)


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


def _shape(matrix: Array) -> tuple[int, int]:
    if matrix.ndim != 2:
        raise ShapeError("matrix", "must have two dimensions", matrix.shape)
    return matrix.shape[0], matrix.shape[1]


def _padded(matrix: Array, rows: int, columns: int) -> Array:
    if matrix.shape == (rows, columns):
        return matrix
    out = np.zeros((rows, columns), matrix.dtype)
    out[: matrix.shape[0], : matrix.shape[1]] = matrix
    return out


def _bytes(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _whole(matrix: Array) -> Array:
    return _padded(matrix, _up(matrix.shape[0], 32), _up(matrix.shape[1], 32))


def _panels(matrix: Array) -> Array:
    """Reorder [N, K] → [N/16, K, 16]."""
    N, K = matrix.shape
    return matrix.reshape(N // 16, 16, K).transpose(0, 2, 1)


def _quads(matrix: Array) -> Array:
    """Reorder bytes [N, K] → [N/16, K/4, 16, 4]."""
    N, K = matrix.shape
    return matrix.reshape(N // 16, 16, K // 4, 4).transpose(0, 2, 1, 3)


def pack_fp32(matrix: Array) -> PackedLinear:
    """Pack float32 [N, K] unchanged."""
    return PackedLinear(F32, *_shape(matrix), _bytes(_panels(_whole(np.asarray(matrix, np.float32)))))


def pack_bf16(words: Array) -> PackedLinear:
    """Pack bfloat16 [N, K], given as its uint16 words, unchanged."""
    return PackedLinear(BF16, *_shape(words), _bytes(_panels(_whole(np.asarray(words, np.uint16)))))


def to_bf16(matrix: Array) -> Array:
    """Round float32 to the nearest bfloat16, ties to even, as uint16 words."""
    words = matrix.view(np.uint32)
    return ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16)


def pack_int8(matrix: Array) -> PackedLinear:
    """Round float [N, K] to int8 with one scale per row, max |w| / 127, and pack it."""
    matrix = np.asarray(matrix, np.float32)
    scale = np.abs(matrix).max(axis=1) / 127
    q = np.rint(matrix / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
    return pack_int8_values(q, scale)


def pack_int8_values(q: Array, scale: Array) -> PackedLinear:
    """Pack int8 [N, K] with scale [N]: w = scale · q."""
    stored = (_whole(q).astype(np.int16) + 128).astype(np.uint8)
    return PackedLinear(INT8, *_shape(q), _bytes(_quads(stored)), _bytes(_padded(scale.astype(np.float32)[:, None], _up(len(q), 32), 1)))


def pack_int8_groups(q: Array, scale: Array) -> PackedLinear:
    """Pack int8 [N, K] with float16 scale [N, K/32] (GGUF's Q8_0): w = scale · q."""
    stored = (_whole(q).astype(np.int16) + 128).astype(np.uint8)
    return PackedLinear(INT8_GROUP, *_shape(q), _bytes(_quads(stored)), _bytes(_panels(_group_plane(scale, q.shape))))


def pack_int8_grouped(matrix: Array) -> PackedLinear:
    """Round float [N, K] to int8 with one float16 scale per 32 columns, max |w| / 127, and pack it."""
    N, K = matrix.shape
    groups = _padded(np.asarray(matrix, np.float32), N, _up(K, 32)).reshape(N, -1, 32)
    scale = (np.abs(groups).max(axis=2) / 127).astype(np.float16)
    step = scale.astype(np.float32)
    q = np.rint(groups / np.where(step > 0, step, 1)[..., None]).clip(-127, 127)
    return pack_int8_groups(q.astype(np.int8).reshape(N, -1)[:, :K], scale)


def pack_int4(matrix: Array) -> PackedLinear:
    """Round float [N, K] to 0 … 15 with scale and minimum per 32 columns, and pack it."""
    return pack_int4_values(*_rounded(matrix, 15))


def pack_int4_16(matrix: Array) -> PackedLinear:
    """Round float [N, K] to 0 … 15 with scale and minimum per 16 columns, in whole numbers of a unit per row, and pack it."""
    return _rounded_sixteens("Q4_16", matrix, 15)


def pack_int3_16(matrix: Array) -> PackedLinear:
    """Do `pack_int4_16` with codes 0 … 7."""
    return _rounded_sixteens("Q3_16", matrix, 7)


def _rounded_sixteens(kind: str, matrix: Array, most: int) -> PackedLinear:
    N, K = matrix.shape
    groups = _padded(np.asarray(matrix, np.float32), N, _up(K, 32)).reshape(N, -1, blocks_16.COLUMNS)
    low = np.minimum(groups.min(axis=2), 0)
    step = (groups.max(axis=2) - low) / most
    unit = np.maximum(step.max(axis=1), -low.min(axis=1) / blocks_16.STEP) / 255
    unit = np.where(unit > 0, unit, 1).astype(np.float32)
    scale, least = np.rint(step / unit[:, None]), np.rint(-low / (blocks_16.STEP * unit[:, None]))
    of, offset = (plane * unit[:, None] for plane in (scale, -blocks_16.STEP * least))
    q = np.rint((groups - offset[..., None]) / np.where(of > 0, of, 1)[..., None])
    return replace(pack_sixteens(kind, unit, scale, least, np.clip(q, 0, most).reshape(N, -1)), columns=K)


def _rounded(matrix: Array, most: int) -> tuple[Array, Array, Array]:
    """Return codes 0 … `most`, uint8 [N, K], and the float16 scales and minima."""
    N, K = matrix.shape
    groups = _padded(np.asarray(matrix, np.float32), N, _up(K, 32)).reshape(N, -1, 32)
    low = groups.min(axis=2).astype(np.float16)
    scale = ((groups.max(axis=2) - low) / most).astype(np.float16)
    step = scale.astype(np.float32)
    q = np.rint((groups - low.astype(np.float32)[..., None]) / np.where(step > 0, step, 1)[..., None])
    return np.clip(q, 0, most).astype(np.uint8).reshape(N, -1)[:, :K], scale, low


def pack_int4_values(q: Array, scale: Array, minimum: Array) -> PackedLinear:
    """Pack uint8 [N, K] of 0 … 15 with float16 scale and minimum [N, K/32] (GGUF's Q4_1): w = scale · q + minimum."""
    return PackedLinear(INT4, *_shape(q), _bytes(_nibbles(q)), *_group_planes(q, scale, minimum))


def pack_int5_values(q: Array, scale: Array, minimum: Array) -> PackedLinear:
    """Do `pack_int4_values` for 0 … 31 (GGUF's Q5_1)."""
    return PackedLinear(INT5, *_shape(q), _bytes(_with_upper_bits(q, 320)), *_group_planes(q, scale, minimum))


def pack_uneven_values(q: Array, scale: Array) -> PackedLinear:
    """Pack codes 0 … 15, uint8 [N, K], with float16 scale [N, K/32] (GGUF's IQ4_NL): w = scale · k_quants.WEIGHTS[q]."""
    return PackedLinear(IQ4_NL, *_shape(q), _bytes(_nibbles(q)), *_group_planes(q, scale))


def pack_int5(matrix: Array) -> PackedLinear:
    """Round float [N, K] to 0 … 31 with scale and minimum per 32 columns, and pack it."""
    return pack_int5_values(*_rounded(matrix, 31))


def _nibbles(q: Array) -> Array:
    """Reorder codes [N, K] → [N/16, K/8, 16, 4], two groups of four columns to a byte."""
    quads = _quads(_whole(q))
    nibbles: Array = quads[:, 0::2] | (quads[:, 1::2] << 4)
    return nibbles


def pack_sixteens(kind: str, unit: Array, scale: Array, minimum: Array, q: Array) -> PackedLinear:
    """Pack codes [N, K] with units [N], and scales and minima 0 … 255 [N, K/16]: see kernels/blocks_16.py. K: a multiple of 32."""
    expected = (len(q), q.shape[1] // blocks_16.COLUMNS)
    if q.shape[1] % 32 or scale.shape != expected or minimum.shape != expected:
        raise ShapeError("scale", f"must be {expected} for a matrix of {q.shape}, whose columns fill blocks of 32", scale.shape)
    rows = _up(len(q), 32)
    scales, minima = (
        _padded(plane.astype(np.uint8), rows, expected[1]).reshape(rows // 16, 16, -1, 2).transpose(0, 2, 1, 3).reshape(rows // 16, -1)
        for plane in (scale, minimum)
    )
    units = _padded(unit.astype(np.float32)[:, None], rows, 1).reshape(-1, 16).view(np.uint8)
    codes = q.astype(np.uint8)
    weights, number = (_nibbles(codes), INT4_16) if kind == "Q4_16" else (_words(codes), INT3_16)
    return PackedLinear(number, *_shape(q), _bytes(weights), _bytes(np.concatenate([units, scales], axis=1)), _bytes(minima))


def pack_k(kind: str, raw: Array, chunk_bytes: int = 1 << 22) -> PackedLinear:
    """Pack the rows of a K-quant as they lie in a file, uint8 [N, bytes]: see kernels/k_quants.py. Raises ShapeError for broken rows.

    Panels follow one another, so a large matrix is packed some rows at a time, and never lies in memory code by code.
    """
    step = max(32, chunk_bytes // max(1, raw.shape[1]) // 32 * 32)
    parts = [_pack_k(kind, raw[start : start + step]) for start in range(0, len(raw), step)]
    planes = (np.concatenate([getattr(part, name) for part in parts]) for name in ("weights", "scales"))
    return PackedLinear(parts[0].kind, len(raw), parts[0].columns, *planes)


def _pack_k(kind: str, raw: Array) -> PackedLinear:
    of = k_quants.split(kind, raw)
    (count, columns), number = of.codes.shape, k_quants.KINDS[kind]
    rows, blocks = _up(count, 32), columns // k_quants.COLUMNS

    def panels(plane: Array) -> Array:  # [N, blocks · n] → [N/16, blocks, n · 16] bytes, the rows innermost
        whole = _padded(plane, rows, plane.shape[1]).reshape(rows // 16, 16, blocks, -1).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(whole).view(np.uint8).reshape(rows // 16, blocks, -1)

    if of.least is None or of.least_unit is None:
        scales = [panels(of.unit), panels(of.scale.astype(np.int8))]
    elif number == Q2_K:
        scales = [panels(of.unit), panels(of.least_unit), panels((of.scale | of.least << 4).astype(np.uint8))]
    else:
        pairs = (of.scale.reshape(count, -1, 2) >> 4 | of.least.reshape(count, -1, 2) >> 4 << 2).astype(np.uint8)
        lower, upper = of.scale & 15 | (of.least & 15) << 4, pairs[..., 0] | pairs[..., 1] << 4
        scales = [panels(of.unit), panels(of.least_unit), panels(lower.astype(np.uint8)), panels(upper)]
    if number == Q2_K:
        codes = _pairs(of.codes)
    else:
        codes = _words(of.codes) if number == Q3_K else _with_upper_bits(of.codes, k_quants.CODE_BYTES[number])
    return PackedLinear(number, count, columns, _bytes(codes), _bytes(np.concatenate(scales, axis=2)))


def _with_upper_bits(q: Array, size: int) -> Array:
    """Reorder codes [N, K] → [N/16, K/32, size]: the lower four bits as INT4, then bits 4 and 5 of each eight groups of four columns."""
    panels = _up(len(q), 32) // 16
    parts = [_nibbles(q & 15).reshape(panels, -1, 256)]
    if size > parts[0].shape[2]:
        bits = 1 if size == 320 else 2  # of each code
        quads = (_quads(_whole(q)) >> 4).reshape(panels, -1, bits, 8 // bits, 16, 4)
        shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None, None]
        parts.append(np.bitwise_or.reduce(quads << shifts, axis=3).reshape(panels, -1, 64 * bits))
    return np.concatenate(parts, axis=2)


def _pairs(q: Array) -> Array:
    """Reorder codes of two bits [N, K] → [N/16, K/16, 16, 4], four groups of four columns to a byte."""
    quads = _quads(_whole(q))
    quads = quads.reshape(len(quads), -1, 4, 16, 4) << np.arange(0, 8, 2, dtype=np.uint8)[:, None, None]
    pairs: Array = np.bitwise_or.reduce(quads, axis=2)
    return pairs


def _words(q: Array) -> Array:
    """Reorder codes of three bits [N, K] → [N/16, K/32, 3, 16, 4]."""
    whole = _whole(q)
    words = three_bits.join(whole.reshape(len(whole) // 16, 16, -1, 32)).reshape(len(whole) // 16, 16, -1, 3, 4)
    panels: Array = words.transpose(0, 2, 3, 1, 4)
    return panels


def _group_planes(q: Array, *planes: Array) -> list[Array]:
    return [_bytes(_panels(_group_plane(plane, q.shape))) for plane in planes]


def _group_plane(plane: Array, shape: tuple[int, ...]) -> Array:
    expected = (shape[0], _up(shape[1], 32) // 32)
    if plane.shape != expected:
        raise ShapeError("scale", f"must be {expected} for a matrix of {shape}", plane.shape)
    return _padded(plane.astype(np.float16), _up(shape[0], 32), expected[1])
