"""Products with GGUF's K-quants, and with other codes of five bits: panels as in linear.py, codes and scales as in k_quants.py.

Sums of the products with codes are exact; each is then scaled in float32, by d · scale and the scale of the input.
"""

from numba import njit

from ingle.kernels import k_quants
from ingle.kernels import layout as at
from ingle.kernels.linear import (
    INTEGERS,
    ONTO,
    all_rows,
    dot_half,
    dot_half_of_three,
    dot_later_half,
    dot_later_half_of_three,
    finish,
    needed,
    scaled_panel,
)
from ingle.kernels.simd import either, field, get, load_bytes, load_f16, load_i8, load_i32, numbers, raised_field, shifted, splat
from ingle.kernels.tiles import (
    dot_bytes,
    dot_codes,
    outer,
    outer_integers,
    row_halves_i,
    row_splats_i,
    summed,
    whole_sums,
    zeros_f,
    zeros_i,
)
from ingle.kernels.uneven import looked_up


@njit(inline="always")
def _dot_half_of_two(sums, w, q, stride):
    """Do `dot_half` for codes of two bits, four groups of four columns to a byte."""
    pair = load_i32(w)
    sums = dot_codes(sums, field(pair, 0, 3), q, stride)
    sums = dot_codes(sums, field(pair, 2, 3), q + 4, stride)
    sums = dot_codes(sums, field(pair, 4, 3), q + 8, stride)
    return dot_codes(sums, field(pair, 6, 3), q + 12, stride)


@njit(inline="always")
def _dot_later_half_of_two(sums, w, q, stride):
    return _dot_half_of_two(sums, w + 64, q + 16, stride)


@njit(inline="always")
def _dot_half_of_five(sums, w, q, stride):
    """Do `dot_half` for codes with a fifth bit behind the others, 256 bytes on."""
    upper, first, second = load_i32(w + 256), load_i32(w), load_i32(w + 64)
    sums = dot_codes(sums, either(field(first, 0, 15), raised_field(upper, 4, 16)), q, stride)
    sums = dot_codes(sums, either(field(first, 4, 15), raised_field(upper, 3, 16)), q + 4, stride)
    sums = dot_codes(sums, either(field(second, 0, 15), raised_field(upper, 2, 16)), q + 8, stride)
    return dot_codes(sums, either(field(second, 4, 15), raised_field(upper, 1, 16)), q + 12, stride)


@njit(inline="always")
def _dot_later_half_of_five(sums, w, q, stride):
    upper, first, second = load_i32(w + 256), load_i32(w + 128), load_i32(w + 192)
    sums = dot_codes(sums, either(field(first, 0, 15), raised_field(upper, 0, 16)), q + 16, stride)
    sums = dot_codes(sums, either(field(first, 4, 15), raised_field(upper, -1, 16)), q + 20, stride)
    sums = dot_codes(sums, either(field(second, 0, 15), raised_field(upper, -2, 16)), q + 24, stride)
    return dot_codes(sums, either(field(second, 4, 15), raised_field(upper, -3, 16)), q + 28, stride)


def _quarter_of_six(pair, upper, first, second):
    """Make a product of eight columns' codes: their lower bits in a pair of groups, the upper ones in a vector behind all pairs.

    pair, upper: their numbers; first, second: how far either group's upper bits are from where they belong.
    """
    x = 8 * pair

    @njit(inline="always")
    def dot(sums, w, q, stride):
        lower, above = load_i32(w + 64 * pair), load_i32(w + 256 + 64 * upper)
        sums = dot_codes(sums, either(field(lower, 0, 15), raised_field(above, first, 48)), q + x, stride)
        return dot_codes(sums, either(field(lower, 4, 15), raised_field(above, second, 48)), q + x + 4, stride)

    return dot


_HALVES = {
    k_quants.Q2_K: ((_dot_half_of_two,), (_dot_later_half_of_two,)),
    k_quants.Q3_K: ((dot_half_of_three,), (dot_later_half_of_three,)),
    k_quants.Q4_K: ((dot_half,), (dot_later_half,)),
    k_quants.Q5_K: ((_dot_half_of_five,), (_dot_later_half_of_five,)),
    k_quants.Q6_K: (
        (_quarter_of_six(0, 0, 4, 2), _quarter_of_six(1, 0, 0, -2)),
        (_quarter_of_six(2, 1, 4, 2), _quarter_of_six(3, 1, 0, -2)),
    ),
}
"""By kind, what multiplies the first and the last 16 of 32 columns: pieces so small that 16-bit sums hold them (`dot_codes`)."""


def _onto(rows, pieces):
    """Make a function that adds the products of pieces to whole sums."""
    dot, *more = pieces
    rest = _onto(rows, more) if more else None

    @njit(inline="always")
    def run(sums, w, q, stride):
        if ONTO:
            sums = dot(sums, w, q, stride)
        else:
            sums = summed(sums, whole_sums(dot(zeros_i(rows), w, q, stride)))
        return sums

    if rest is None:
        return run

    @njit(inline="always")
    def both(sums, w, q, stride):
        return rest(run(sums, w, q, stride), w, q, stride)

    return both


def _thirty_twos_panel(kind):
    """Make a panel for codes with a scale and a minimum for each 32 columns."""
    bytes_ = k_quants.CODE_BYTES[kind]

    def make(rows):
        first, later = (_onto(rows, pieces) for pieces in _HALVES[kind])

        @njit
        def panel(linear, index, x, first_row, out, stride, accumulate):
            K = get(linear, at.COLUMNS)
            groups, line = K // 32, K // 4
            w = get(linear, at.WEIGHTS) + index * groups * bytes_
            scales = get(linear, at.SCALES) + index * K
            tile = zeros_f(rows)
            for term in range(2):
                q = get(x, at.BYTES) + (2 * first_row + term) * K
                scale = get(x, at.SCALE) + (2 * first_row + term) * groups * 4
                total = get(x, at.TOTAL) + (2 * first_row + term) * groups * 4
                for g in range(groups):
                    if needed(rows, term, scale + 4 * g, line):
                        block, number = scales + g // 8 * 256, g % 8
                        lower = load_bytes(block + 64 + 16 * number)
                        upper = shifted(load_bytes(block + 192 + number // 2 * 16), 4 * (number % 2))
                        step = load_f16(block) * numbers(either(field(lower, 0, 15), raised_field(upper, 4, 48)))
                        least = load_f16(block + 32) * numbers(either(field(lower, 4, 15), raised_field(upper, 2, 48)))
                        sums = later(first(zeros_i(rows), w + bytes_ * g, q + 32 * g, 2 * K), w + bytes_ * g, q + 32 * g, 2 * K)
                        tile = outer_integers(tile, sums, step, scale + 4 * g, line)
                        tile = outer(tile, splat(0.0) - least, total + 4 * g, line)
            finish(rows, linear, index, tile, out, stride, accumulate)

        return panel

    return make


def _sixteens_panel(kind):
    """Make a panel for codes around a middle, with a signed scale for each 16 columns."""
    bytes_ = k_quants.CODE_BYTES[kind]
    places = {4: -2, 32: 1}[k_quants.MIDDLE[kind]]  # the input has −16 Σx: −middle · Σx is that many places from it

    def make(rows):
        first, later = (_onto(rows, pieces) for pieces in _HALVES[kind])

        @njit
        def panel(linear, index, x, first_row, out, stride, accumulate):
            K = get(linear, at.COLUMNS)
            groups, line = K // 32, K // 4
            w = get(linear, at.WEIGHTS) + index * groups * bytes_
            scales = get(linear, at.SCALES) + index * groups * 36
            tile = zeros_f(rows)
            for term in range(2):
                q = get(x, at.BYTES) + (2 * first_row + term) * K
                scale = get(x, at.SCALE) + (2 * first_row + term) * groups * 4
                halves = get(x, at.HALVES) + (2 * first_row + term) * groups * 4
                for g in range(groups):
                    if needed(rows, term, scale + 4 * g, line):
                        block = scales + g // 8 * 288
                        unit, each = load_f16(block), block + 32 + g % 8 * 32
                        sums = first(row_halves_i(rows, halves + 4 * g, line, places), w + bytes_ * g, q + 32 * g, 2 * K)
                        tile = outer_integers(tile, sums, unit * load_i8(each), scale + 4 * g, line)
                        sums = later(row_halves_i(rows, halves + 4 * g + 2, line, places), w + bytes_ * g, q + 32 * g, 2 * K)
                        tile = outer_integers(tile, sums, unit * load_i8(each + 16), scale + 4 * g, line)
            finish(rows, linear, index, tile, out, stride, accumulate)

        return panel

    return make


def _pairs_panel(rows):
    """Make a panel for codes with a scale and a minimum for each 16 columns, both of four bits."""
    bytes_ = k_quants.CODE_BYTES[k_quants.Q2_K]
    first, later = (_onto(rows, pieces) for pieces in _HALVES[k_quants.Q2_K])

    @njit
    def panel(linear, index, x, first_row, out, stride, accumulate):
        K = get(linear, at.COLUMNS)
        groups, line = K // 32, K // 4
        w = get(linear, at.WEIGHTS) + index * groups * bytes_
        scales = get(linear, at.SCALES) + index * groups * 40
        tile = zeros_f(rows)
        for term in range(2):
            q = get(x, at.BYTES) + (2 * first_row + term) * K
            scale = get(x, at.SCALE) + (2 * first_row + term) * groups * 4
            halves = get(x, at.HALVES) + (2 * first_row + term) * groups * 4
            for g in range(groups):
                if needed(rows, term, scale + 4 * g, line):
                    block = scales + g // 8 * 320
                    both, after = load_bytes(block + 64 + g % 8 * 32), load_bytes(block + 64 + g % 8 * 32 + 16)
                    unit, least = load_f16(block), load_f16(block + 32)
                    sums = first(zeros_i(rows), w + bytes_ * g, q + 32 * g, 2 * K)
                    tile = outer_integers(tile, sums, unit * numbers(field(both, 0, 15)), scale + 4 * g, line)
                    sums = later(zeros_i(rows), w + bytes_ * g, q + 32 * g, 2 * K)
                    tile = outer_integers(tile, sums, unit * numbers(field(after, 0, 15)), scale + 4 * g, line)
                    sums = row_halves_i(rows, halves + 4 * g, line, -4)  # the input has −16 Σx
                    tile = outer_integers(tile, sums, least * numbers(field(both, 4, 15)), scale + 4 * g, line)
                    sums = row_halves_i(rows, halves + 4 * g + 2, line, -4)
                    tile = outer_integers(tile, sums, least * numbers(field(after, 4, 15)), scale + 4 * g, line)
        finish(rows, linear, index, tile, out, stride, accumulate)

    return panel


def _fives(rows):
    first, later = (_onto(rows, pieces) for pieces in _HALVES[k_quants.Q5_K])

    @njit(inline="always")
    def multiplied(w, q, stride):
        return later(first(zeros_i(rows), w, q, stride), w, q, stride)

    return multiplied


def _uneven_panel(kind):
    """Make a panel for codes whose weights are looked up: scaled for each 32 columns by a float16, or by d · scale."""
    blocks = kind == at.IQ4_XS

    def make(rows):
        @njit
        def panel(linear, index, x, first, out, stride, accumulate):
            K = get(linear, at.COLUMNS)
            groups, line = K // 32, K // 4
            w = get(linear, at.WEIGHTS) + index * K * 8
            scales = get(linear, at.SCALES) + index * groups * (20 if blocks else 32)
            tile = zeros_f(rows)
            for term in range(2):
                q = get(x, at.BYTES) + (2 * first + term) * K
                scale = get(x, at.SCALE) + (2 * first + term) * groups * 4
                offset = get(x, at.OFFSET) + (2 * first + term) * groups * 4
                for g in range(groups):
                    if needed(rows, term, scale + 4 * g, line):
                        sums = row_splats_i(rows, offset + 4 * g, line)  # −128 Σx, since what is looked up is 128 too much
                        for j in range(4):
                            pair = load_i32(w + 256 * g + 64 * j)
                            sums = dot_bytes(sums, looked_up(field(pair, 0, 15)), q + 32 * g + 8 * j, 2 * K)
                            sums = dot_bytes(sums, looked_up(field(pair, 4, 15)), q + 32 * g + 8 * j + 4, 2 * K)
                        if blocks:
                            block = scales + g // 8 * 160
                            step = load_f16(block) * load_i8(block + 32 + g % 8 * 16)
                        else:
                            step = load_f16(scales + 32 * g)
                        tile = outer_integers(tile, sums, step, scale + 4 * g, line)
            finish(rows, linear, index, tile, out, stride, accumulate)

        return panel

    return make


_iq4_xs = all_rows(INTEGERS, _uneven_panel(at.IQ4_XS))
_iq4_nl = all_rows(INTEGERS, _uneven_panel(at.IQ4_NL))
_int5 = all_rows(INTEGERS, scaled_panel(_fives, 320))
_q2_k = all_rows(INTEGERS, _pairs_panel)
_q3_k = all_rows(INTEGERS, _sixteens_panel(k_quants.Q3_K))
_q4_k = all_rows(INTEGERS, _thirty_twos_panel(k_quants.Q4_K))
_q5_k = all_rows(INTEGERS, _thirty_twos_panel(k_quants.Q5_K))
_q6_k = all_rows(INTEGERS, _sixteens_panel(k_quants.Q6_K))


def linear_iq4_xs(linear, index, x, rows, out, stride, accumulate):
    """Entry: `linear_int4` for IQ4_XS."""
    _iq4_xs(linear, index, x, rows, out, stride, accumulate)


def linear_iq4_nl(linear, index, x, rows, out, stride, accumulate):
    """Entry: `linear_int4` for IQ4_NL."""
    _iq4_nl(linear, index, x, rows, out, stride, accumulate)


def linear_int5(linear, index, x, rows, out, stride, accumulate):
    """Entry: `linear_int4` for INT5."""
    _int5(linear, index, x, rows, out, stride, accumulate)


def linear_q2_k(linear, index, x, rows, out, stride, accumulate):
    """Entry: `linear_int4` for Q2_K."""
    _q2_k(linear, index, x, rows, out, stride, accumulate)


def linear_q3_k(linear, index, x, rows, out, stride, accumulate):
    """Entry: `linear_int4` for Q3_K."""
    _q3_k(linear, index, x, rows, out, stride, accumulate)


def linear_q4_k(linear, index, x, rows, out, stride, accumulate):
    """Entry: `linear_int4` for Q4_K."""
    _q4_k(linear, index, x, rows, out, stride, accumulate)


def linear_q5_k(linear, index, x, rows, out, stride, accumulate):
    """Entry: `linear_int4` for Q5_K."""
    _q5_k(linear, index, x, rows, out, stride, accumulate)


def linear_q6_k(linear, index, x, rows, out, stride, accumulate):
    """Entry: `linear_int4` for Q6_K."""
    _q6_k(linear, index, x, rows, out, stride, accumulate)
