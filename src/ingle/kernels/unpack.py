"""Unpack weights: the naive reference of every layout in linear.py. `stored.py` goes on from here to the rows of a file."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.kernels import blocks_16, k_quants, three_bits
from ingle.kernels.k_quants import KParts
from ingle.kernels.layout import BF16, F32, INT3_16, INT4, INT4_16, INT5, INT8, INT8_GROUP, IQ4_NL, IQ4_XS, Q2_K, Q3_K
from ingle.kernels.pack import PackedLinear

Array = npt.NDArray[Any]


def unpack(packed: PackedLinear) -> Array:
    """Return the float32 [N, K] that the kernels multiply by: the naive reference of every layout."""
    N, K = packed.padded
    if packed.kind in (F32, BF16):
        if packed.kind == F32:
            panels = packed.weights.view(np.float32)
        else:
            panels = (packed.weights.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        matrix = panels.reshape(N // 16, K, 16).transpose(0, 2, 1).reshape(N, K)
    elif packed.kind in k_quants.CODE_BYTES:
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
        return k_quants.uneven(q) * plane(packed.scales)
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
    return _matrix(_nibbles(codes[..., :256]) | _upper_bits(codes[..., 256:]))


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
        return np.repeat(of * whole, blocks_16.COLUMNS, axis=1)

    return q * plane(scales[:, 64:], unit) + plane(packed.minima, np.float32(-blocks_16.STEP) * unit)


def parts_of(packed: PackedLinear) -> KParts:
    """Return the parts of a matrix of blocks of 256, its rows padded: see kernels/k_quants.py."""
    N, K = packed.padded
    scales = packed.scales.reshape(N // 16, K // 256, -1)
    units = np.ascontiguousarray(scales[..., :64]).view(np.float16)  # d, then e or what is none

    def rows(plane: Array) -> Array:  # [N/16, blocks, n, 16] → [N, blocks · n]
        return plane.transpose(0, 3, 1, 2).reshape(N, -1)

    codes = packed.weights.reshape(N // 16, K // 32, k_quants.CODE_BYTES[packed.kind])
    unit = rows(units[:, :, None, :16])
    if packed.kind == Q2_K:
        both = scales[..., 64:].reshape(N // 16, -1, 16, 16)
        return KParts(_two_bits(codes), unit, rows(both & 15), rows(units[:, :, None, 16:]), rows(both >> 4))
    if packed.kind == Q3_K:
        return KParts(_three_bits(codes), unit, _signed(rows, scales))
    q = _matrix(_nibbles(codes[..., :256]) | _upper_bits(codes[..., 256:]))
    if packed.kind in k_quants.MIDDLE or packed.kind == IQ4_XS:
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


def _nibbles(codes: Array) -> Array:
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
    matrix: Array = three_bits.split(words.reshape(len(codes) * 16, -1, 12)).reshape(len(codes) * 16, -1)
    return matrix
