"""Packed matrix products: y = W x (+ bias) for weights in float32, bfloat16, int8, int4 and int3, many rows of x at once.

Weights are packed in *panels* of 16 output rows, so that one vector lane is one output and nothing is ever summed across lanes:

    F32, BF16   [panel, K, 16]                            weights as they are
    INT8        [panel, K/4, 16, 4] bytes w + 128         one scale per row
    INT8_GROUP  the same                                  one float16 scale per 32 columns (GGUF's Q8_0)
    INT4        [panel, K/32, 4, 16, 4] bytes, two        float16 scale and minimum per 32 columns (GGUF's Q4_1, without loss)
                groups of four columns to a byte
    INT5        [panel, K/32, 5, 16, 4] bytes, the fifth  the same, without loss for GGUF's Q5_0 and Q5_1 (linear_k.py)
                bits behind the others as in Q5_K
    INT4_16     as INT4                                   bytes of scale and minimum per 16 columns, [panel, K/32, 16, 2] each,
                                                          scales behind the panel's units (Q4_16: kernels/blocks_16.py)
    INT3_16     [panel, K/32, 3, 16, 4] bytes             the same (Q3_16; which bits are which: kernels/three_bits.py)
    IQ4_NL      as INT4                                   one float16 scale per 32 columns; weights of codes: uneven.py
    Q2_K … Q6_K, IQ4_XS                                   GGUF's K-quants: kernels/k_quants.py, multiplied in linear_k.py

K and rows are padded to 32. For the integer kinds x comes as int8 with one scale per 32 columns (`rows.quantise`), so products
are exact in int32 and the sum is as exact as the rounding of x. Groups of columns with an outlier come in two terms; the second is
multiplied only where a row of the tile has one. No output depends on how many rows there are. A linear and its input are each
described by a few int64.
"""

from numba import njit

from ingle.kernels import layout as at
from ingle.kernels.cpu import dot_instruction, tile_rows
from ingle.kernels.simd import either, field, get, load_bf16, load_f16, load_f32, load_i32, load_pairs, splat
from ingle.kernels.tiles import (
    added,
    any_bits,
    dot_bytes,
    dot_codes,
    dot_pairs,
    load_tile,
    outer,
    outer_integers,
    paired,
    raised,
    row_splats_i,
    scaled,
    store_tile,
    summed,
    whole_sums,
    zeros_f,
    zeros_i,
)

FLOATS, INTEGERS = tile_rows()
"""Most rows of x in one tile."""
ONTO = dot_instruction() != "maddubs"
"""Whether codes can be added to existing sums."""


@njit(inline="always")
def finish(rows, linear, index, tile, out, stride, accumulate):
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
        finish(rows, linear, index, tile, out, stride, accumulate)

    return panel


@njit(inline="always")
def needed(rows, term, scale, stride):
    """Return whether any row of the tile has this term for this group."""
    return term == 0 or any_bits(rows, scale, stride) != 0


def _int8_panel(rows):
    @njit
    def panel(linear, index, x, first, out, stride, accumulate):
        grouped = get(linear, at.KIND) == at.INT8_GROUP
        K = get(linear, at.COLUMNS)
        groups, line = K // 32, K // 4  # bytes from one row of scales to the next: two terms of K/32 float32
        w = get(linear, at.WEIGHTS) + index * K * 16
        d = get(linear, at.SCALES) + index * (groups * 32 if grouped else 64)
        tile, step = zeros_f(rows), splat(1.0)
        for term in range(2):
            q = get(x, at.BYTES) + (2 * first + term) * K
            scale = get(x, at.SCALE) + (2 * first + term) * groups * 4
            offset = get(x, at.OFFSET) + (2 * first + term) * groups * 4
            for g in range(groups):
                if needed(rows, term, scale + 4 * g, line):
                    sums = row_splats_i(rows, offset + 4 * g, line)  # −128 Σx, since weights are stored as w + 128
                    for j in range(8):
                        sums = dot_bytes(sums, load_i32(w + 512 * g + 64 * j), q + 32 * g + 4 * j, 2 * K)
                    if grouped:
                        step = load_f16(d + 32 * g)
                    tile = outer_integers(tile, sums, step, scale + 4 * g, line)
        if not grouped:
            tile = scaled(tile, load_f32(d))
        finish(rows, linear, index, tile, out, stride, accumulate)

    return panel


@njit(inline="always")
def dot_half(sums, w, q, stride):
    """Multiply sixteen columns' codes, two groups of four columns to a byte, by 16 bytes of each row of the tile."""
    for j in range(2):
        pair = load_i32(w + 64 * j)
        sums = dot_codes(sums, field(pair, 0, 15), q + 8 * j, stride)
        sums = dot_codes(sums, field(pair, 4, 15), q + 8 * j + 4, stride)
    return sums


@njit(inline="always")
def dot_later_half(sums, w, q, stride):
    """Do `dot_half` for the other sixteen of the group that begins at w and q."""
    return dot_half(sums, w + 128, q + 16, stride)


@njit(inline="always")
def dot_half_of_three(sums, w, q, stride):
    """Do `dot_half` for codes in the layout of kernels/three_bits.py."""
    a, b = load_i32(w), load_i32(w + 64)
    sums = dot_codes(sums, field(a, 0, 7), q, stride)
    sums = dot_codes(sums, field(a, 3, 7), q + 4, stride)
    sums = dot_codes(sums, field(b, 0, 7), q + 8, stride)
    return dot_codes(sums, field(b, 3, 7), q + 12, stride)


@njit(inline="always")
def dot_later_half_of_three(sums, w, q, stride):
    a, b, c = load_i32(w), load_i32(w + 64), load_i32(w + 128)
    sums = dot_codes(sums, field(c, 0, 7), q + 16, stride)
    sums = dot_codes(sums, field(c, 3, 7), q + 20, stride)
    sums = dot_codes(sums, either(field(a, 6, 3), field(c, 4, 4)), q + 24, stride)
    return dot_codes(sums, either(field(b, 6, 3), field(c, 5, 4)), q + 28, stride)


def _int4_panel(rows):
    """Make a panel for codes of 4 bits, with a scale and a minimum for each group."""

    @njit
    def panel(linear, index, x, first, out, stride, accumulate):
        K = get(linear, at.COLUMNS)
        groups, line = K // 32, K // 4
        w = get(linear, at.WEIGHTS) + index * K * 8
        d = get(linear, at.SCALES) + index * groups * 32
        m = get(linear, at.MINIMA) + index * groups * 32
        tile = zeros_f(rows)
        for term in range(2):
            q = get(x, at.BYTES) + (2 * first + term) * K
            scale = get(x, at.SCALE) + (2 * first + term) * groups * 4
            total = get(x, at.TOTAL) + (2 * first + term) * groups * 4
            for g in range(groups):
                if needed(rows, term, scale + 4 * g, line):
                    sums = dot_half(zeros_i(rows), w + 256 * g, q + 32 * g, 2 * K)
                    sums = dot_later_half(sums, w + 256 * g, q + 32 * g, 2 * K)
                    tile = outer_integers(tile, whole_sums(sums), load_f16(d + 32 * g), scale + 4 * g, line)
                    tile = outer(tile, load_f16(m + 32 * g), total + 4 * g, line)
        finish(rows, linear, index, tile, out, stride, accumulate)

    return panel


def _sixteens_panel(rows, dot_half, dot_later_half, bits):
    """Make a panel for codes with a scale and a minimum for each half of a group: sums of both halves in 16 bits, then all in whole
    numbers."""

    @njit
    def panel(linear, index, x, first, out, stride, accumulate):
        K = get(linear, at.COLUMNS)
        groups, line = K // 32, K // 4
        w = get(linear, at.WEIGHTS) + index * K * 2 * bits
        units = get(linear, at.SCALES) + index * (64 + groups * 32)
        m = get(linear, at.MINIMA) + index * groups * 32
        tile, one = zeros_f(rows), splat(1.0)
        for term in range(2):
            q = get(x, at.BYTES) + (2 * first + term) * K
            scale = get(x, at.SCALE) + (2 * first + term) * groups * 4
            halves = get(x, at.HALVES) + (2 * first + term) * groups * 4
            for g in range(groups):
                if needed(rows, term, scale + 4 * g, line):
                    sums = raised(whole_sums(dot_later_half(zeros_i(rows), w + 64 * bits * g, q + 32 * g, 2 * K)))
                    if ONTO:
                        sums = dot_half(sums, w + 64 * bits * g, q + 32 * g, 2 * K)
                    else:
                        sums = summed(sums, whole_sums(dot_half(zeros_i(rows), w + 64 * bits * g, q + 32 * g, 2 * K)))
                    sums = paired(sums)
                    whole = dot_pairs(zeros_i(rows), load_pairs(units + 64 + 32 * g), sums)
                    whole = dot_pairs(whole, load_pairs(m + 32 * g), row_splats_i(rows, halves + 4 * g, line))
                    tile = outer_integers(tile, whole, one, scale + 4 * g, line)
        finish(rows, linear, index, scaled(tile, load_f32(units)), out, stride, accumulate)

    return panel


def all_rows(most, make):
    """Make a product of one panel and all rows of x, in tiles of `most`, 4, 2 and 1 rows."""
    large, p4, p2, p1 = (make(rows) for rows in (most, 4, 2, 1))

    @njit
    def run(linear, index, x, rows, out, stride, accumulate):
        t = 0
        while t + most <= rows:
            large(linear, index, x, t, out + t * stride, stride, accumulate)
            t += most
        while t + 4 <= rows:
            p4(linear, index, x, t, out + t * stride, stride, accumulate)
            t += 4
        while t + 2 <= rows:
            p2(linear, index, x, t, out + t * stride, stride, accumulate)
            t += 2
        while t < rows:
            p1(linear, index, x, t, out + t * stride, stride, accumulate)
            t += 1

    return run


_int4 = all_rows(INTEGERS, _int4_panel)
_int4_16 = all_rows(INTEGERS, lambda rows: _sixteens_panel(rows, dot_half, dot_later_half, 4))
_int3_16 = all_rows(INTEGERS, lambda rows: _sixteens_panel(rows, dot_half_of_three, dot_later_half_of_three, 3))
_int8 = all_rows(INTEGERS, _int8_panel)
_fp32 = all_rows(FLOATS, lambda rows: _float_panel(rows, load_f32, 4))
_bf16 = all_rows(FLOATS, lambda rows: _float_panel(rows, load_bf16, 2))


def linear_int4(linear, index, x, rows, out, stride, accumulate):
    """Entry: outputs 16·index … 16·index + 15 of an INT4 linear for `rows` rows.

    linear, x: addresses of its record and of the input's (see layout.py); out: address of the first output, rows `stride` bytes
    apart; accumulate: 1 adds to the old values.
    """
    _int4(linear, index, x, rows, out, stride, accumulate)


def linear_int4_16(linear, index, x, rows, out, stride, accumulate):
    """Entry: `linear_int4` for INT4_16."""
    _int4_16(linear, index, x, rows, out, stride, accumulate)


def linear_int3_16(linear, index, x, rows, out, stride, accumulate):
    """Entry: `linear_int4` for INT3_16."""
    _int3_16(linear, index, x, rows, out, stride, accumulate)


def linear_int8(linear, index, x, rows, out, stride, accumulate):
    """Entry: `linear_int4` for INT8 and INT8_GROUP."""
    _int8(linear, index, x, rows, out, stride, accumulate)


def linear_fp32(linear, index, x, rows, out, stride, accumulate):
    """Entry: `linear_int4` for F32."""
    _fp32(linear, index, x, rows, out, stride, accumulate)


def linear_bf16(linear, index, x, rows, out, stride, accumulate):
    """Entry: `linear_int4` for BF16."""
    _bf16(linear, index, x, rows, out, stride, accumulate)
