"""Packed matrix products: y = W x (+ bias) for weights in float32, bfloat16, int8 and int4, many rows of x at once.

Weights are packed in *panels* of 16 output rows, so that one vector lane is one output and nothing is ever summed across lanes:

    F32, BF16   [panel, K, 16]                            weights as they are
    INT8        [panel, K/4, 16, 4] bytes w + 128         one scale per row
    INT8_GROUP  the same                                  one float16 scale per 32 columns (GGUF's Q8_0)
    INT4        [panel, K/32, 4, 16, 4] bytes, two        float16 scale and minimum per 32 columns (GGUF's Q4_1, without loss)
                groups of four columns to a byte

K and rows are padded to 32. For the integer kinds x comes as int8 with one scale per 32 columns (`norm.quantise`), so products
are exact in int32 and the sum is as exact as the rounding of x. Input that needs more than 8 bits comes in two terms, which share
a tile. No output depends on how many rows there are. A linear and its input are each described by a few int64.
"""

from numba import njit

from ingle.kernels import layout as at
from ingle.kernels.simd import get, high_nibbles, load_bf16, load_f16, load_f32, load_i32, low_nibbles, splat
from ingle.kernels.tiles import (
    added,
    dot_bytes,
    load_tile,
    outer,
    outer_integers,
    pairs_summed,
    row_splats_i,
    scaled,
    store_tile,
    summed,
    zeros_f,
    zeros_i,
)

TILES = (12, 4, 2, 1)  # rows of x that one tile holds; 12 fill 24 of the 32 registers of AVX-512


@njit(inline="always")
def _finish(rows, linear, index, tile, out, stride, accumulate):
    bias = get(linear, at.BIAS)
    if bias != 0:
        tile = added(tile, load_f32(bias + index * 64))
    if accumulate != 0:
        tile = summed(tile, load_tile(rows, out, stride))
    store_tile(tile, out, stride)


def _float_panel(rows, load, element_bytes):
    @njit
    def panel(linear, index, x, first, out, stride, accumulate):
        K = get(linear, at.COLUMNS)
        w = get(linear, at.WEIGHTS) + index * K * 16 * element_bytes
        values = get(x, at.VALUES) + first * K * 4
        tile = zeros_f(rows)
        for k in range(K):
            tile = outer(tile, load(w + k * 16 * element_bytes), values + 4 * k, 4 * K)
        _finish(rows, linear, index, tile, out, stride, accumulate)

    return panel


def _int8_panel(rows, terms):
    tokens = rows // terms

    @njit
    def panel(linear, index, x, first, out, stride, accumulate):
        grouped = get(linear, at.KIND) == at.INT8_GROUP
        K = get(linear, at.COLUMNS)
        groups = K // 32
        w = get(linear, at.WEIGHTS) + index * K * 16
        d = get(linear, at.SCALES) + index * (groups * 32 if grouped else 64)
        q = get(x, at.BYTES) + first * K
        scale = get(x, at.SCALE) + first * groups * 4
        offset = get(x, at.OFFSET) + first * groups * 4
        tile = zeros_f(rows)
        step = splat(1.0)
        for g in range(groups):
            sums = row_splats_i(rows, offset + 4 * g, 4 * groups)  # −128 Σx, since weights are stored as w + 128
            for j in range(8):
                sums = dot_bytes(sums, load_i32(w + 64 * j), q + 32 * g + 4 * j, K)
            if grouped:
                step = load_f16(d + 32 * g)
            tile = outer_integers(tile, sums, step, scale + 4 * g, 4 * groups)
            w += 512
        if not grouped:
            tile = scaled(tile, load_f32(d))
        _finish(tokens, linear, index, pairs_summed(tile) if terms == 2 else tile, out, stride, accumulate)

    return panel


def _int4_panel(rows, terms):
    tokens = rows // terms

    @njit
    def panel(linear, index, x, first, out, stride, accumulate):
        K = get(linear, at.COLUMNS)
        groups = K // 32
        w = get(linear, at.WEIGHTS) + index * K * 8
        d = get(linear, at.SCALES) + index * groups * 32
        m = get(linear, at.MINIMA) + index * groups * 32
        q = get(x, at.BYTES) + first * K
        scale = get(x, at.SCALE) + first * groups * 4
        total = get(x, at.TOTAL) + first * groups * 4
        tile = zeros_f(rows)
        for g in range(groups):
            sums = zeros_i(rows)
            for j in range(4):
                pair = load_i32(w + 64 * j)
                sums = dot_bytes(sums, low_nibbles(pair), q + 32 * g + 8 * j, K)
                sums = dot_bytes(sums, high_nibbles(pair), q + 32 * g + 8 * j + 4, K)
            tile = outer_integers(tile, sums, load_f16(d + 32 * g), scale + 4 * g, 4 * groups)
            tile = outer(tile, load_f16(m + 32 * g), total + 4 * g, 4 * groups)
            w += 256
        _finish(tokens, linear, index, pairs_summed(tile) if terms == 2 else tile, out, stride, accumulate)

    return panel


def _all_rows(panels, terms):
    """One panel against all rows of x: in tiles of the tallest, the next, … and single rows."""
    tallest, tall, short, single = panels
    most, more, some = 12 // terms, 4 // terms, 2 // terms

    @njit
    def run(linear, index, x, rows, out, stride, accumulate):
        t = 0
        while t + most <= rows:
            tallest(linear, index, x, t * terms, out + t * stride, stride, accumulate)
            t += most
        while t + more <= rows:
            tall(linear, index, x, t * terms, out + t * stride, stride, accumulate)
            t += more
        while t + some <= rows:
            short(linear, index, x, t * terms, out + t * stride, stride, accumulate)
            t += some
        while t < rows:
            single(linear, index, x, t * terms, out + t * stride, stride, accumulate)
            t += 1

    return run


def _panels(make):
    """Runs over rows of one term and of two, whose smallest tile is one row of two."""
    tall = [make(rows, 2) for rows in TILES[:-1]]
    return _all_rows([make(rows, 1) for rows in TILES], 1), _all_rows([*tall, tall[-1]], 2)


_int4, _int4_twice = _panels(_int4_panel)
_int8, _int8_twice = _panels(_int8_panel)
_fp32 = _all_rows([_float_panel(rows, load_f32, 4) for rows in TILES], 1)
_bf16 = _all_rows([_float_panel(rows, load_bf16, 2) for rows in TILES], 1)


def linear_int4(linear, index, x, rows, out, stride, accumulate):
    """Entry: outputs 16·index … 16·index + 15 of an INT4 linear for `rows` rows.

    linear, x: addresses of its record and of the input's (see layout.py); out: address of the first output, rows `stride` bytes
    apart; accumulate: 1 adds to what is there.
    """
    if get(x, at.TERMS) == 2:
        _int4_twice(linear, index, x, rows, out, stride, accumulate)
    else:
        _int4(linear, index, x, rows, out, stride, accumulate)


def linear_int8(linear, index, x, rows, out, stride, accumulate):
    """Entry: the same for INT8 and INT8_GROUP."""
    if get(x, at.TERMS) == 2:
        _int8_twice(linear, index, x, rows, out, stride, accumulate)
    else:
        _int8(linear, index, x, rows, out, stride, accumulate)


def linear_fp32(linear, index, x, rows, out, stride, accumulate):
    """Entry: the same for F32."""
    _fp32(linear, index, x, rows, out, stride, accumulate)


def linear_bf16(linear, index, x, rows, out, stride, accumulate):
    """Entry: the same for BF16."""
    _bf16(linear, index, x, rows, out, stride, accumulate)
