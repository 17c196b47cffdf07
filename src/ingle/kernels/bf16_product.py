"""Matrix products for learning: float32 rows by weights that are kept as pairs of bfloat16, summed in float32.

Rows are rounded to bfloat16 on the way. Weights [N, K] are *panels* of 16 columns: int32 [N / 16, K / 2, 16], each a pair of neighbouring
rows of Wᵀ. The naive reference is the float32 product of both, rounded (train as PyTorch's bfloat16 does, but for the sums' order).
"""

from numba import njit

from ingle.kernels.cpu import tile_rows
from ingle.kernels.simd import get, load_f32, load_i32, store_bf16
from ingle.kernels.tiles import outer_pairs, store_tile, zeros_f

FIELDS = ("X", "ROWS", "STEPS", "PANELS", "WEIGHTS", "OUT", "ROUNDED")
"""Fields of a call's record: x float32 [rows, K], its rows, K / 2 and N / 16; panels; out float32 [rows, N]; scratch bfloat16 [rows, K]."""
X, ROWS, STEPS, PANELS, WEIGHTS, OUT, ROUNDED = range(len(FIELDS))
_BLOCK = 96
"""Rows whose rounded numbers stay in the cache beside a panel."""


def _product(rows):
    @njit
    def product(steps, x, row, panel, out, stride):
        tile = zeros_f(rows)
        for i in range(steps):
            tile = outer_pairs(tile, load_i32(panel + 64 * i), x + 4 * i, row)
        store_tile(tile, out, stride)

    return product


_MOST, _ = tile_rows()
_large, _p4, _p2, _p1 = (_product(rows) for rows in (_MOST, 4, 2, 1))


def bf16_product(call):
    """Entry: out = x Wᵀ."""
    rows, steps, panels = get(call, ROWS), get(call, STEPS), get(call, PANELS)
    row, stride = 4 * steps, 64 * panels
    for place in range(0, rows * 2 * steps, 16):
        store_bf16(get(call, ROUNDED) + 2 * place, load_f32(get(call, X) + 4 * place))
    for start in range(0, rows, _BLOCK):
        stop = min(rows, start + _BLOCK)
        for number in range(panels):
            panel = get(call, WEIGHTS) + 64 * steps * number
            r = start
            while r < stop:
                x, out = get(call, ROUNDED) + r * row, get(call, OUT) + r * stride + 64 * number
                if r + _MOST <= stop:
                    _large(steps, x, row, panel, out, stride)
                    r += _MOST
                elif r + 4 <= stop:
                    _p4(steps, x, row, panel, out, stride)
                    r += 4
                elif r + 2 <= stop:
                    _p2(steps, x, row, panel, out, stride)
                    r += 2
                else:
                    _p1(steps, x, row, panel, out, stride)
                    r += 1
