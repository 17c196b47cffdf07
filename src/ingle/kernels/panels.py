"""Panels: matrices in the kernels' layouts, packed, unpacked, and as a GGUF file stores them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ShapeError
from ingle.kernels import formats
from ingle.kernels.formats import KParts
from ingle.kernels.layout import BF16, F32, INT3_16, INT4, INT4_16, INT5, INT8, INT8_GROUP, IQ4_NL, IQ4_XS, Q2_K, Q3_K

# Pack weights into panels: see linear.py for the layouts, and below for the way back.


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
    groups = _padded(np.asarray(matrix, np.float32), N, _up(K, 32)).reshape(N, -1, formats.COLUMNS_16)
    low = np.minimum(groups.min(axis=2), 0)
    step = (groups.max(axis=2) - low) / most
    unit = np.maximum(step.max(axis=1), -low.min(axis=1) / formats.STEP) / 255
    unit = np.where(unit > 0, unit, 1).astype(np.float32)
    scale, least = np.rint(step / unit[:, None]), np.rint(-low / (formats.STEP * unit[:, None]))
    of, offset = (plane * unit[:, None] for plane in (scale, -formats.STEP * least))
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
    """Pack codes [N, K] with units [N], and scales and minima 0 … 255 [N, K/16]: see kernels/formats.py. K: a multiple of 32."""
    expected = (len(q), q.shape[1] // formats.COLUMNS_16)
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
    """Pack the rows of a K-quant as they lie in a file, uint8 [N, bytes]: see kernels/formats.py. Raises ShapeError for broken rows.

    Panels follow one another, so a large matrix is packed some rows at a time, and never lies in memory code by code.
    """
    step = max(32, chunk_bytes // max(1, raw.shape[1]) // 32 * 32)
    parts = [_pack_k(kind, raw[start : start + step]) for start in range(0, len(raw), step)]
    planes = (np.concatenate([getattr(part, name) for part in parts]) for name in ("weights", "scales"))
    return PackedLinear(parts[0].kind, len(raw), parts[0].columns, *planes)


def _pack_k(kind: str, raw: Array) -> PackedLinear:
    of = formats.split_k(kind, raw)
    (count, columns), number = of.codes.shape, formats.KINDS[kind]
    rows, blocks = _up(count, 32), columns // formats.K_COLUMNS

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
        codes = _words(of.codes) if number == Q3_K else _with_upper_bits(of.codes, formats.CODE_BYTES[number])
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
    words = formats.join_3(whole.reshape(len(whole) // 16, 16, -1, 32)).reshape(len(whole) // 16, 16, -1, 3, 4)
    panels: Array = words.transpose(0, 2, 3, 1, 4)
    return panels


def _group_planes(q: Array, *planes: Array) -> list[Array]:
    return [_bytes(_panels(_group_plane(plane, q.shape))) for plane in planes]


def _group_plane(plane: Array, shape: tuple[int, ...]) -> Array:
    expected = (shape[0], _up(shape[1], 32) // 32)
    if plane.shape != expected:
        raise ShapeError("scale", f"must be {expected} for a matrix of {shape}", plane.shape)
    return _padded(plane.astype(np.float16), _up(shape[0], 32), expected[1])


# Unpack weights: the naive reference of every layout in linear.py. What is stored below goes on from here to the rows of a file.


def unpack(packed: PackedLinear) -> Array:
    """Return the float32 [N, K] that the kernels multiply by: the naive reference of every layout."""
    N, K = packed.padded
    if packed.kind in (F32, BF16):
        if packed.kind == F32:
            panels = packed.weights.view(np.float32)
        else:
            panels = (packed.weights.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        matrix = panels.reshape(N // 16, K, 16).transpose(0, 2, 1).reshape(N, K)
    elif packed.kind in formats.CODE_BYTES:
        matrix = parts_of(packed).values(packed.kind)
    else:
        matrix = _unpack_integers(packed, N, K)
    return np.ascontiguousarray(matrix[: packed.rows, : packed.columns])


def _unpack_integers(packed: PackedLinear, N: int, K: int) -> Array:
    q = codes_of(packed)
    if packed.kind in (INT3_16, INT4_16):
        return _unpack_sixteens(packed, q.astype(np.float32))

    def plane(data: Array) -> Array:
        return np.repeat(group_plane(packed, data).astype(np.float32), 32, axis=1)

    if packed.kind == IQ4_NL:
        return formats.uneven(q) * plane(packed.scales)
    if packed.kind in (INT4, INT5):
        return q.astype(np.float32) * plane(packed.scales) + plane(packed.minima)
    return q.astype(np.float32) * (packed.scales.view(np.float32)[:, None] if packed.kind == INT8 else plane(packed.scales))


def codes_of(packed: PackedLinear) -> Array:
    """Return the codes of a matrix that is not of blocks of 256, padded [N, K]: uint8, of 8 bits int8."""
    N, K = packed.padded
    if packed.kind == INT3_16:
        return _three_bits(packed.weights.reshape(N // 16, K // 32, 192))
    if packed.kind in (INT8, INT8_GROUP):
        return (_matrix(packed.weights.reshape(N // 16, K // 32, 8, 16, 4)) ^ 128).view(np.int8)
    codes = packed.weights.reshape(N // 16, K // 32, 320 if packed.kind == INT5 else 256)
    return _matrix(_nibbles_back(codes[..., :256]) | _upper_bits(codes[..., 256:]))


def group_plane(packed: PackedLinear, data: Array) -> Array:
    """Return a plane of numbers for 32 columns each, float16 [N, K/32]."""
    N, K = packed.padded
    return data.view(np.float16).reshape(N // 16, K // 32, 16).transpose(0, 2, 1).reshape(N, K // 32)


def _unpack_sixteens(packed: PackedLinear, q: Array) -> Array:
    N, K = q.shape
    scales = packed.scales.reshape(N // 16, 64 + K)
    unit = np.ascontiguousarray(scales[:, :64]).view(np.float32).reshape(N, 1)

    def plane(data: Array, of: Array) -> Array:
        whole = data.reshape(N // 16, K // 32, 16, 2).transpose(0, 2, 1, 3).reshape(N, K // 16)
        return np.repeat(of * whole, formats.COLUMNS_16, axis=1)

    return q * plane(scales[:, 64:], unit) + plane(packed.minima, np.float32(-formats.STEP) * unit)


def parts_of(packed: PackedLinear) -> KParts:
    """Return the parts of a matrix of blocks of 256, its rows padded: see kernels/formats.py."""
    N, K = packed.padded
    scales = packed.scales.reshape(N // 16, K // 256, -1)
    units = np.ascontiguousarray(scales[..., :64]).view(np.float16)  # d, then e or what is none

    def rows(plane: Array) -> Array:  # [N/16, blocks, n, 16] → [N, blocks · n]
        return plane.transpose(0, 3, 1, 2).reshape(N, -1)

    codes = packed.weights.reshape(N // 16, K // 32, formats.CODE_BYTES[packed.kind])
    unit = rows(units[:, :, None, :16])
    if packed.kind == Q2_K:
        both = scales[..., 64:].reshape(N // 16, -1, 16, 16)
        return KParts(_two_bits(codes), unit, rows(both & 15), rows(units[:, :, None, 16:]), rows(both >> 4))
    if packed.kind == Q3_K:
        return KParts(_three_bits(codes), unit, _signed(rows, scales))
    q = _matrix(_nibbles_back(codes[..., :256]) | _upper_bits(codes[..., 256:]))
    if packed.kind in formats.MIDDLE or packed.kind == IQ4_XS:
        return KParts(q, unit, _signed(rows, scales))
    lower, upper = scales[..., 64:192].reshape(N // 16, -1, 8, 16), scales[..., 192:].reshape(N // 16, -1, 4, 1, 16)
    pairs = np.concatenate([upper & 15, upper >> 4], axis=3).reshape(lower.shape)
    scale, least = lower & 15 | (pairs & 3) << 4, lower >> 4 | pairs >> 2 << 4
    return KParts(q, unit, rows(scale), rows(units[:, :, None, 16:]), rows(least))


def _signed(rows: Callable[[Array], Array], scales: Array) -> Array:
    return rows(np.ascontiguousarray(scales[..., 32:]).view(np.int8).reshape(*scales.shape[:2], -1, 16))


def _matrix(quads: Array) -> Array:
    """Reorder groups of four columns [N/16, K/32, 8, 16, 4] → [N, K]."""
    return quads.transpose(0, 3, 1, 2, 4).reshape(len(quads) * 16, -1)


def _nibbles_back(codes: Array) -> Array:
    pairs = codes.reshape(*codes.shape[:2], 4, 1, 16, 4)
    quads: Array = np.concatenate([pairs & 15, pairs >> 4], axis=3).reshape(*codes.shape[:2], 8, 16, 4)
    return quads


def _upper_bits(codes: Array) -> Array:
    bits = codes.shape[2] // 64  # of each code: 0, 1 or 2
    if not bits:
        return np.zeros((*codes.shape[:2], 8, 16, 4), np.uint8)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None, None]
    quads = codes.reshape(*codes.shape[:2], bits, 1, 16, 4) >> shifts & (1 << bits) - 1
    placed: Array = quads.reshape(*codes.shape[:2], 8, 16, 4) << 4
    return placed


def _two_bits(codes: Array) -> Array:
    quads = codes.reshape(*codes.shape[:2], 2, 1, 16, 4) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None, None] & 3
    return _matrix(quads.reshape(*codes.shape[:2], 8, 16, 4))


def _three_bits(codes: Array) -> Array:
    words = codes.reshape(*codes.shape[:2], 3, 16, 4).transpose(0, 3, 1, 2, 4)
    matrix: Array = formats.split_3(words.reshape(len(codes) * 16, -1, 12)).reshape(len(codes) * 16, -1)
    return matrix


# Matrices as a GGUF file stores them, in the kernels' panels without loss, and back bit for bit.


# GGUF's kinds of blocks that kernels multiply as they are, and the kernels' kinds for them.
PANELS = {"Q4_0": INT4, "Q4_1": INT4, "Q5_0": INT5, "Q5_1": INT5, "Q8_0": INT8_GROUP, "IQ4_NL": IQ4_NL, **formats.KINDS}
LOSSLESS = frozenset({*PANELS, *formats.BYTES_16})  # these and our own
_MINIMA = {"Q4_0": -8, "Q5_0": -16}  # kinds whose minimum is so many scales, and the kernel that takes them wants it written out
_MOST = 65_504  # the largest float16


def pack_stored(kind: str, raw: Array) -> PackedLinear:
    """Pack rows as they lie in a file, uint8 [N, bytes]. Raises ShapeError for a kind that isn't in `LOSSLESS`, and for broken rows."""
    if kind in formats.KINDS:
        return pack_k(kind, raw)
    if kind in formats.BYTES_16:
        return pack_sixteens(kind, *formats.split_16(kind, raw))
    if kind not in formats.BLOCKS:
        raise ShapeError("kind", f"must be one of {', '.join(sorted(LOSSLESS))}", kind)
    q, scale, minimum = formats.split_32(kind, raw)
    if kind in _MINIMA:
        wide = scale.astype(np.float32) * _MINIMA[kind]
        if (np.abs(wide[np.isfinite(wide)]) > _MOST).any():
            raise ShapeError("scale", f"must be at most {_MOST // -_MINIMA[kind]:,} in {kind}", f"{np.nanmax(np.abs(scale)):,.0f}")
        minimum = wide.astype(np.float16)
    if kind == "Q8_0":
        return pack_int8_groups(q, scale)
    if minimum is None:
        return pack_uneven_values(q, scale)
    return (pack_int4_values if formats.BLOCKS[kind].bits == 4 else pack_int5_values)(q, scale, minimum)


def stored_rows(kind: str, packed: PackedLinear, chunk_bytes: int = 1 << 22) -> Iterator[Array]:
    """Undo `pack_stored`: yield the rows of the file, uint8 [n, bytes], about `chunk_bytes` of codes at a time.

    Raises ShapeError for a matrix of another kind, and our own formats, which no file of others has.
    """
    if PANELS.get(kind) != packed.kind:
        raise ShapeError("kind", "must be one of GGUF's, and the packed matrix's", kind)
    step = max(32, chunk_bytes // max(1, packed.columns) // 32 * 32)
    for start in range(0, packed.rows, step):
        yield _stored(kind, _some(packed, start, min(start + step, packed.rows)))


def _some(packed: PackedLinear, start: int, stop: int) -> PackedLinear:
    """Return rows of a matrix, from a multiple of 32 on: panels follow one another in each plane."""
    panels = packed.padded[0] // 16
    first, last = start // 16, -(-stop // 32) * 2

    def some(plane: Array) -> Array:
        return plane.reshape(panels, -1)[first:last].reshape(-1)

    return replace(packed, rows=stop - start, weights=some(packed.weights), scales=some(packed.scales), minima=some(packed.minima))


def _stored(kind: str, packed: PackedLinear) -> Array:
    if kind in formats.KINDS:
        return formats.join_k(kind, parts_of(packed))[: packed.rows]
    q = codes_of(packed)[: packed.rows]
    scale, minimum = (group_plane(packed, plane)[: packed.rows] if plane.size else None for plane in (packed.scales, packed.minima))
    assert scale is not None, "every block has a scale"
    return formats.join_32(kind, q, scale, minimum if formats.BLOCKS[kind].minimum else None)
