"""Packed matrix products: y = W x (+ bias) for weights in float32, bfloat16, int8, int4 and int3, many rows of x at once.

Weights are packed in *panels* of 16 output rows, so that one vector lane is one output and nothing is ever summed across lanes:

    F32, BF16   [panel, K, 16]                            weights as they are
    INT8        [panel, K/4, 16, 4] bytes w + 128         one scale per row
    INT8_GROUP  the same                                  one float16 scale per 32 columns (GGUF's Q8_0)
    INT4        [panel, K/32, 4, 16, 4] bytes, two        float16 scale and minimum per 32 columns (GGUF's Q4_1, without loss)
                groups of four columns to a byte
    INT5        [panel, K/32, 5, 16, 4] bytes, the fifth  the same, without loss for GGUF's Q5_0 and Q5_1
                bits behind the others as in Q5_K
    INT4_16     as INT4                                   bytes of scale and minimum per 16 columns, [panel, K/32, 16, 2] each,
                                                          scales behind the panel's units (Q4_16: kernels/formats.py)
    INT3_16     [panel, K/32, 3, 16, 4] bytes             the same (Q3_16; which bits are which: kernels/formats.py)
    IQ4_NL      as INT4                                   one float16 scale per 32 columns; weights of codes: `_uneven`
    Q2_K … Q6_K, IQ4_XS                                   GGUF's K-quants: kernels/formats.py

K and rows are padded to 32. For the integer kinds x comes as int8 with one scale per 32 columns (`rows.quantise`), so products
are exact in int32 and the sum is as exact as the rounding of x. Groups of columns with an outlier come in two terms; the second is
multiplied only where a row of the tile has one. No output depends on how many rows there are. A linear and its input are each
described by a few int64.
"""

from llvmlite import ir
from numba import njit
from numba.extending import intrinsic

from ingle.kernels import formats
from ingle.kernels import layout as at
from ingle.kernels.cpu import dot_instruction, features, tile_rows
from ingle.kernels.formats import WEIGHTS
from ingle.kernels.simd import (
    I8,
    I32,
    INTEGERS,
    LANES,
    VI,
    call,
    either,
    field,
    get,
    load_bf16,
    load_bytes,
    load_f16,
    load_f32,
    load_i8,
    load_i32,
    load_pairs,
    numbers,
    raised_field,
    shifted,
    splat,
)
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
    row_halves_i,
    row_splats_i,
    scaled,
    store_tile,
    summed,
    whole_sums,
    zeros_f,
    zeros_i,
)

FLOATS, INTEGER_LINEARS = tile_rows()  # most rows of x in one tile
ONTO = dot_instruction() != "maddubs"  # whether codes can be added to existing sums


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
    """Do `dot_half` for codes in the layout of kernels/formats.py."""
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
    """Make an entry: the product of one panel and all rows of x, in tiles of `most`, 4, 2 and 1 rows.

    It computes outputs 16·index … 16·index + 15. linear, x: addresses of the linear's record and of the input's (see layout.py); out:
    address of the first output, rows `stride` bytes apart; accumulate: 1 adds to the old values.
    """
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


linear_int4 = all_rows(INTEGER_LINEARS, _int4_panel)
linear_int4_16 = all_rows(INTEGER_LINEARS, lambda rows: _sixteens_panel(rows, dot_half, dot_later_half, 4))
linear_int3_16 = all_rows(INTEGER_LINEARS, lambda rows: _sixteens_panel(rows, dot_half_of_three, dot_later_half_of_three, 3))
linear_int8 = all_rows(INTEGER_LINEARS, _int8_panel)
linear_fp32 = all_rows(FLOATS, lambda rows: _float_panel(rows, load_f32, 4))
linear_bf16 = all_rows(FLOATS, lambda rows: _float_panel(rows, load_bf16, 2))


# Codes of four bits whose weights are not evenly apart: GGUF's IQ4_NL and IQ4_XS.
# A code's weight is `k_quants.WEIGHTS[code]` times a scale. Kernels look weights up in a table that lies in a register.


_BYTES = 4 * LANES
_WHOLE = ir.VectorType(I8, _BYTES)
_TABLE = [weight + 128 for weight in WEIGHTS]


def _way() -> tuple[str, int] | None:
    """Return LLVM's name of the instruction that looks bytes up, and how many at once; None = there is none."""
    has = features()
    if "avx512bw" in has:
        return "llvm.x86.avx512.pshuf.b.512", 64
    if "avx2" in has:
        return "llvm.x86.avx2.pshuf.b", 32
    if "ssse3" in has:
        return "llvm.x86.ssse3.pshuf.b.128", 16
    return ("llvm.aarch64.neon.tbl1.v16i8", 16) if "neon" in has else None


def _joined(b, parts):
    """Join vectors of equal length to one of all bytes, two at a time."""
    while len(parts) > 1:
        both = [ir.Constant(I32, i) for i in range(2 * parts[0].type.count)]
        mask = ir.VectorType(I32, len(both))
        parts = [b.shuffle_vector(one, other, ir.Constant(mask, both)) for one, other in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


@intrinsic
def looked_up(_typing, codes):
    """Return the weight + 128 of each of 64 codes, bytes below 16."""

    def emit(_context, b, _sig, args):
        whole, way = b.bitcast(args[0], _WHOLE), _way()
        if way is None:
            found = ir.Constant(_WHOLE, [_TABLE[0]] * _BYTES)
            for code, weight in enumerate(_TABLE[1:], 1):
                same = b.icmp_unsigned("==", whole, ir.Constant(_WHOLE, [code] * _BYTES))
                found = b.select(same, ir.Constant(_WHOLE, [weight] * _BYTES), found)
            return b.bitcast(found, VI)
        name, width = way
        vector, mask = ir.VectorType(I8, width), ir.VectorType(I32, width)
        table, parts = ir.Constant(vector, _TABLE * (width // 16)), []
        for first in range(0, _BYTES, width):
            places = ir.Constant(mask, [I32(first + i) for i in range(width)])
            part = b.shuffle_vector(whole, ir.Constant(_WHOLE, ir.Undefined), places) if width < _BYTES else whole
            parts.append(call(b, name, vector, table, part))
        return b.bitcast(_joined(b, parts), VI)

    return INTEGERS(INTEGERS), emit


# Products with GGUF's K-quants, and with other codes of five bits: panels as above, codes and scales as in formats.py.
# Sums of the products with codes are exact; each is then scaled in float32, by d · scale and the scale of the input.


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


# By kind, what multiplies the first and the last 16 of 32 columns: pieces so small that 16-bit sums hold them (`dot_codes`).
_HALVES = {
    formats.Q2_K: ((_dot_half_of_two,), (_dot_later_half_of_two,)),
    formats.Q3_K: ((dot_half_of_three,), (dot_later_half_of_three,)),
    formats.Q4_K: ((dot_half,), (dot_later_half,)),
    formats.Q5_K: ((_dot_half_of_five,), (_dot_later_half_of_five,)),
    formats.Q6_K: (
        (_quarter_of_six(0, 0, 4, 2), _quarter_of_six(1, 0, 0, -2)),
        (_quarter_of_six(2, 1, 4, 2), _quarter_of_six(3, 1, 0, -2)),
    ),
}


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
    places = {4: -2, 32: 1}[formats.MIDDLE[kind]]  # the input has −16 Σx: −middle · Σx is that many places from it

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
    first, later = (_onto(rows, pieces) for pieces in _HALVES[formats.Q2_K])

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
    first, later = (_onto(rows, pieces) for pieces in _HALVES[formats.Q5_K])

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
    return all_rows(INTEGER_LINEARS, _by_groups(formats.CODE_BYTES[kind], formats.SCALE_BYTES[kind] // 8, make))


linear_int5 = all_rows(INTEGER_LINEARS, _by_groups(320, 32, _fives))
linear_iq4_nl = all_rows(INTEGER_LINEARS, _by_groups(256, 32, _uneven(at.IQ4_NL)))
linear_iq4_xs = _blocks(formats.IQ4_XS, _uneven(at.IQ4_XS))
linear_q2_k = _blocks(formats.Q2_K, _pairs)
linear_q3_k = _blocks(formats.Q3_K, _sixteens(formats.Q3_K))
linear_q4_k = _blocks(formats.Q4_K, _thirty_twos(formats.Q4_K))
linear_q5_k = _blocks(formats.Q5_K, _thirty_twos(formats.Q5_K))
linear_q6_k = _blocks(formats.Q6_K, _sixteens(formats.Q6_K))
