"""Low-rank additions to linears, one row at a time: y += B (A x), so that every row of a step may have another adapter.

With a bias it is a bottleneck of neurons, y += B relu(A x + b) (arXiv 1902.00751).

A and B are int8 with one scale per row, in panels of 16 rows like the linears' (see linear.py): A [panel, K, 16], B [panel, r, 16].
Both products take float32 input, in an order that depends on nothing but the sizes. Source: arXiv 2106.09685.
"""

from numba import njit

from ingle.kernels import layout as at
from ingle.kernels.simd import f32_at, fma, get, larger, load_f32, load_i8, splat, store_f32


@njit(inline="always")
def _sum(weights, x, count):
    """Σ over k of x[k] · weights[k, 16], in four sums that don't wait for each other; count is a multiple of 4."""
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    for k in range(0, count, 4):
        a = fma(splat(f32_at(x + 4 * k)), load_i8(weights + 16 * k), a)
        b = fma(splat(f32_at(x + 4 * k + 4)), load_i8(weights + 16 * k + 16), b)
        c = fma(splat(f32_at(x + 4 * k + 8)), load_i8(weights + 16 * k + 32), c)
        d = fma(splat(f32_at(x + 4 * k + 12)), load_i8(weights + 16 * k + 48), d)
    return (a + b) + (c + d)


def adapter_in(place, x, t):
    """Entry: t = A x, or relu(A x + b). place: address of an adapter's record for one linear (layout.py); x: float32 [K]; t: float32
    [rank], written.
    """
    K, weights, scales = get(place, at.ADAPTER_COLUMNS), get(place, at.ADAPTER_A), get(place, at.ADAPTER_A_SCALES)
    bias = get(place, at.ADAPTER_BIAS)
    for panel in range(get(place, at.ADAPTER_RANK) // 16):
        inner = load_f32(scales + 64 * panel) * _sum(weights + 16 * panel * K, x, K)
        if bias != 0:
            inner = larger(inner + load_f32(bias + 64 * panel), splat(0.0))
        store_f32(t + 64 * panel, inner)


def adapter_out(place, t, y):
    """Entry: y += B t, t as `adapter_in` left it. y: float32 [rows], read and written."""
    rank, weights, scales = get(place, at.ADAPTER_RANK), get(place, at.ADAPTER_B), get(place, at.ADAPTER_B_SCALES)
    for panel in range(get(place, at.ADAPTER_ROWS) // 16):
        out = y + 64 * panel
        store_f32(out, fma(load_f32(scales + 64 * panel), _sum(weights + 16 * panel * rank, t, rank), load_f32(out)))
