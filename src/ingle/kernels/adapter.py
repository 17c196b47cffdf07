"""Low-rank additions to linears, one row at a time: y += B (A x). Every row of a step may have another adapter.

With a bias it is a bottleneck of neurons, y += B relu(A x + b) (arXiv 1902.00751).

A and B are bytes w + 128 with one scale per row, in panels of 16 rows like the linears' (see linear.py): A [panel, K/4, 16, 4],
B [panel, r/4, 16, 4]. x comes rounded to int8, as for the linears. The intermediate result is rounded to two int8 terms here, which
keeps 15 bits. So both products are exact in int32, and their order depends on nothing but the sizes. Source: arXiv 2106.09685.
"""

import numpy as np
from numba import njit

from ingle.kernels import layout as at
from ingle.kernels.simd import (
    f32_at,
    fma,
    get,
    larger,
    largest,
    load_f32,
    load_i32,
    magnitude,
    numbers,
    rounded,
    set_f32,
    set_i32,
    splat,
    store_f32,
    store_i8,
    total,
)
from ingle.kernels.tiles import dot_bytes, row_splats_i


@njit(inline="always")
def _sum(weights, x, row, K):
    """Return Σ over k of row `row` of the activations x · weights [K/4, 16, 4]."""
    groups, result = K // 32, splat(0.0)
    for term in range(2):
        q = get(x, at.BYTES) + (2 * row + term) * K
        scale = get(x, at.SCALE) + (2 * row + term) * groups * 4
        offset = get(x, at.OFFSET) + (2 * row + term) * groups * 4
        for g in range(groups):
            if term == 0 or f32_at(scale + 4 * g) != 0:
                sums = row_splats_i(1, offset + 4 * g, 0)
                for j in range(8):
                    sums = dot_bytes(sums, load_i32(weights + 512 * g + 64 * j), q + 32 * g + 4 * j, 0)
                result = fma(numbers(sums), splat(f32_at(scale + 4 * g)), result)
    return result


@njit(inline="always")
def _round(t, rank):
    """Round float32 [rank] to two terms. Behind them come int8 [2, rank], two scales, and for each term −128 times its sum."""
    most = splat(0.0)
    for i in range(0, 4 * rank, 64):
        most = larger(most, magnitude(load_f32(t + i)))
    top = largest(most)
    step = top / np.float32(127)
    finer = step / np.float32(254)  # what is left over is at most half a step
    inverse = np.float32(127) / top if top > 0 else np.float32(0)
    bytes_, first, second = t + 4 * rank, splat(0.0), splat(0.0)
    for i in range(0, rank, 16):
        values = load_f32(t + 4 * i)
        a = rounded(values * splat(inverse))
        b = rounded(fma(numbers(a), splat(-step), values) * splat(inverse * np.float32(254)))
        store_i8(bytes_ + i, a)
        store_i8(bytes_ + rank + i, b)
        first, second = first + numbers(a), second + numbers(b)
    about = bytes_ + 2 * rank
    set_f32(about, step)
    set_f32(about + 4, finer)
    set_i32(about + 8, np.int32(-128 * total(first)))
    set_i32(about + 12, np.int32(-128 * total(second)))


def adapter_in(place, x, row, t):
    """Entry: t = A x, or relu(A x + b), for one row. place: address of an adapter's record for one linear (layout.py); x: address of the
    activations; t: float32 [rank], written, with room behind it for `adapter_out` (layout.inner_floats)."""
    K, weights, scales = get(place, at.ADAPTER_COLUMNS), get(place, at.ADAPTER_A), get(place, at.ADAPTER_A_SCALES)
    rank, bias = get(place, at.ADAPTER_RANK), get(place, at.ADAPTER_BIAS)
    for panel in range(rank // 16):
        inner = load_f32(scales + 64 * panel) * _sum(weights + 16 * panel * K, x, row, K)
        if bias != 0:
            inner = larger(inner + load_f32(bias + 64 * panel), splat(0.0))
        store_f32(t + 64 * panel, inner)
    _round(t, rank)


def adapter_out(place, t, y):
    """Entry: y += B t, with t from `adapter_in`. y: float32 [rows], read and written."""
    rank, weights, scales = get(place, at.ADAPTER_RANK), get(place, at.ADAPTER_B), get(place, at.ADAPTER_B_SCALES)
    bytes_, about = t + 4 * rank, t + 6 * rank
    step, finer = splat(f32_at(about)), splat(f32_at(about + 4))
    for panel in range(get(place, at.ADAPTER_ROWS) // 16):
        first, second = row_splats_i(1, about + 8, 0), row_splats_i(1, about + 12, 0)
        for j in range(0, rank, 4):
            four = load_i32(weights + 16 * (panel * rank + j))
            first = dot_bytes(first, four, bytes_ + j, 0)
            second = dot_bytes(second, four, bytes_ + rank + j, 0)
        out = y + 64 * panel
        sums = fma(numbers(second), finer, numbers(first) * step)
        store_f32(out, fma(load_f32(scales + 64 * panel), sums, load_f32(out)))
