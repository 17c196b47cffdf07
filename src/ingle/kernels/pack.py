"""Pack weights into panels, and unpack them: see linear.py for the layouts."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ShapeError
from ingle.kernels import blocks_16, three_bits
from ingle.kernels.layout import BF16, F32, INT3_16, INT4, INT4_16, INT8, INT8_GROUP

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


def unpack(packed: PackedLinear) -> Array:
    """Return the float32 [N, K] that the kernels multiply by: the naive reference of every layout."""
    N, K = packed.padded
    if packed.kind in (F32, BF16):
        if packed.kind == F32:
            panels = packed.weights.view(np.float32)
        else:
            panels = (packed.weights.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        matrix = panels.reshape(N // 16, K, 16).transpose(0, 2, 1).reshape(N, K)
    else:
        matrix = _unpack_integers(packed, N, K)
    return np.ascontiguousarray(matrix[: packed.rows, : packed.columns])


def _unpack_integers(packed: PackedLinear, N: int, K: int) -> Array:
    def plane(data: Array) -> Array:  # [N, K] from a float16 group plane
        groups = data.view(np.float16).astype(np.float32).reshape(N // 16, K // 32, 16).transpose(0, 2, 1).reshape(N, K // 32)
        return np.repeat(groups, 32, axis=1)

    if packed.kind == INT3_16:
        words = packed.weights.reshape(N // 16, K // 32, 3, 16, 4).transpose(0, 3, 1, 2, 4)
        return _unpack_sixteens(packed, three_bits.split(words.reshape(N, K // 32, 12)).reshape(N, K))
    if packed.kind in (INT4, INT4_16):
        pairs = packed.weights.reshape(N // 16, K // 8, 1, 16, 4)
        quads = np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(N // 16, K // 4, 16, 4)
        q = quads.transpose(0, 2, 1, 3).reshape(N, K).astype(np.float32)
        if packed.kind == INT4_16:
            return _unpack_sixteens(packed, q)
        return q * plane(packed.scales) + plane(packed.minima)
    quads = packed.weights.reshape(N // 16, K // 4, 16, 4)
    q = quads.transpose(0, 2, 1, 3).reshape(N, K).astype(np.float32) - 128
    return q * (packed.scales.view(np.float32)[:, None] if packed.kind == INT8 else plane(packed.scales))


def _unpack_sixteens(packed: PackedLinear, q: Array) -> Array:
    N, K = q.shape
    scales = packed.scales.reshape(N // 16, 64 + K)
    unit = np.ascontiguousarray(scales[:, :64]).view(np.float32).reshape(N, 1)

    def plane(data: Array, of: Array) -> Array:
        whole = data.reshape(N // 16, K // 32, 16, 2).transpose(0, 2, 1, 3).reshape(N, K // 16)
        return np.repeat(of * whole, blocks_16.COLUMNS, axis=1)

    return q * plane(scales[:, 64:], unit) + plane(packed.minima, np.float32(-blocks_16.STEP) * unit)
