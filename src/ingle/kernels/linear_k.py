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


def _by_groups(code_bytes, scale_bytes, make):
    """Make panels for codes with scales of their own for each 32 columns, a *group*: so many bytes of either.

    make: makes, for a number of rows, a function that adds a group's products to a tile: (tile, number, codes, scales, minima, x, stride,
    line) → tile. codes, minima and x are the group's, scales the panel's; x: addresses of bytes, scale, total, offset and halves, rows of
    bytes `stride` apart, of the others `line`.
    """

    def of_rows(rows):
        add_group = make(rows)

        @njit
        def panel(linear, index, x, first, out, stride, accumulate):
            K = get(linear, at.COLUMNS)
            groups, line = K // 32, K // 4
            w = get(linear, at.WEIGHTS) + index * groups * code_bytes
            scales = get(linear, at.SCALES) + index * groups * scale_bytes
            minima = get(linear, at.MINIMA) + index * groups * 32
            tile = zeros_f(rows)
            for term in range(2):
                row = 2 * first + term
                q, scale = get(x, at.BYTES) + row * K, get(x, at.SCALE) + row * groups * 4
                total, offset = get(x, at.TOTAL) + row * groups * 4, get(x, at.OFFSET) + row * groups * 4
                halves = get(x, at.HALVES) + row * groups * 4
                for g in range(groups):
                    if needed(rows, term, scale + 4 * g, line):
                        inputs = (q + 32 * g, scale + 4 * g, total + 4 * g, offset + 4 * g, halves + 4 * g)
                        tile = add_group(tile, g, w + code_bytes * g, scales, minima + 32 * g, inputs, 2 * K, line)
            finish(rows, linear, index, tile, out, stride, accumulate)

        return panel

    return of_rows


def _thirty_twos(kind):
    """Codes with a scale and a minimum for each 32 columns."""

    def make(rows):
        first, later = (_onto(rows, pieces) for pieces in _HALVES[kind])

        @njit(inline="always")
        def add_group(tile, g, w, scales, _minima, x, stride, line):
            block, number = scales + g // 8 * 256, g % 8
            lower = load_bytes(block + 64 + 16 * number)
            upper = shifted(load_bytes(block + 192 + number // 2 * 16), 4 * (number % 2))
            step = load_f16(block) * numbers(either(field(lower, 0, 15), raised_field(upper, 4, 48)))
            least = load_f16(block + 32) * numbers(either(field(lower, 4, 15), raised_field(upper, 2, 48)))
            tile = outer_integers(tile, later(first(zeros_i(rows), w, x[0], stride), w, x[0], stride), step, x[1], line)
            return outer(tile, splat(0.0) - least, x[2], line)

        return add_group

    return make


def _sixteens(kind):
    """Codes around a middle, with a signed scale for each 16 columns."""
    places = {4: -2, 32: 1}[k_quants.MIDDLE[kind]]  # the input has −16 Σx: −middle · Σx is that many places from it

    def make(rows):
        first, later = (_onto(rows, pieces) for pieces in _HALVES[kind])

        @njit(inline="always")
        def add_group(tile, g, w, scales, _minima, x, stride, line):
            block = scales + g // 8 * 288
            unit, each = load_f16(block), block + 32 + g % 8 * 32
            sums = first(row_halves_i(rows, x[4], line, places), w, x[0], stride)
            tile = outer_integers(tile, sums, unit * load_i8(each), x[1], line)
            sums = later(row_halves_i(rows, x[4] + 2, line, places), w, x[0], stride)
            return outer_integers(tile, sums, unit * load_i8(each + 16), x[1], line)

        return add_group

    return make


def _pairs(rows):
    """Codes with a scale and a minimum for each 16 columns, both of four bits."""
    first, later = (_onto(rows, pieces) for pieces in _HALVES[k_quants.Q2_K])

    @njit(inline="always")
    def add_group(tile, g, w, scales, _minima, x, stride, line):
        block = scales + g // 8 * 320
        both, after = load_bytes(block + 64 + g % 8 * 32), load_bytes(block + 64 + g % 8 * 32 + 16)
        unit, least = load_f16(block), load_f16(block + 32)
        tile = outer_integers(tile, first(zeros_i(rows), w, x[0], stride), unit * numbers(field(both, 0, 15)), x[1], line)
        tile = outer_integers(tile, later(zeros_i(rows), w, x[0], stride), unit * numbers(field(after, 0, 15)), x[1], line)
        sums = row_halves_i(rows, x[4], line, -4)  # the input has −16 Σx
        tile = outer_integers(tile, sums, least * numbers(field(both, 4, 15)), x[1], line)
        return outer_integers(tile, row_halves_i(rows, x[4] + 2, line, -4), least * numbers(field(after, 4, 15)), x[1], line)

    return add_group


def _fives(rows):
    """Codes of five bits, with a float16 scale and minimum for each 32 columns."""
    first, later = (_onto(rows, pieces) for pieces in _HALVES[k_quants.Q5_K])

    @njit(inline="always")
    def add_group(tile, g, w, scales, minima, x, stride, line):
        sums = later(first(zeros_i(rows), w, x[0], stride), w, x[0], stride)
        tile = outer_integers(tile, sums, load_f16(scales + 32 * g), x[1], line)
        return outer(tile, load_f16(minima), x[2], line)

    return add_group


def _uneven(kind):
    """Codes whose weights are looked up: scaled for each 32 columns by a float16, or by d · scale."""
    blocks = kind == at.IQ4_XS

    def make(rows):
        @njit(inline="always")
        def add_group(tile, g, w, scales, _minima, x, stride, line):
            sums = row_splats_i(rows, x[3], line)  # −128 Σx, since weights that are looked up are 128 too much
            for j in range(4):
                pair = load_i32(w + 64 * j)
                sums = dot_bytes(sums, looked_up(field(pair, 0, 15)), x[0] + 8 * j, stride)
                sums = dot_bytes(sums, looked_up(field(pair, 4, 15)), x[0] + 8 * j + 4, stride)
            if blocks:
                block = scales + g // 8 * 160
                step = load_f16(block) * load_i8(block + 32 + g % 8 * 16)
            else:
                step = load_f16(scales + 32 * g)
            return outer_integers(tile, sums, step, x[1], line)

        return add_group

    return make


def _blocks(kind, make):
    """Make the product of a kind whose scales lie in blocks of 256 columns."""
    return all_rows(INTEGERS, _by_groups(k_quants.CODE_BYTES[kind], k_quants.SCALE_BYTES[kind] // 8, make))


_int5 = all_rows(INTEGERS, _by_groups(320, 32, _fives))
_iq4_nl = all_rows(INTEGERS, _by_groups(256, 32, _uneven(at.IQ4_NL)))
_iq4_xs = _blocks(k_quants.IQ4_XS, _uneven(at.IQ4_XS))
_q2_k = _blocks(k_quants.Q2_K, _pairs)
_q3_k = _blocks(k_quants.Q3_K, _sixteens(k_quants.Q3_K))
_q4_k = _blocks(k_quants.Q4_K, _thirty_twos(k_quants.Q4_K))
_q5_k = _blocks(k_quants.Q5_K, _thirty_twos(k_quants.Q5_K))
_q6_k = _blocks(k_quants.Q6_K, _sixteens(k_quants.Q6_K))


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
