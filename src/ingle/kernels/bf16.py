"""Matrix products for learning: float32 rows by weights that are kept as pairs of bfloat16, summed in float32.

Rows are rounded to bfloat16 on the way. Weights W [N, K] are kept once, as *panels* of 16 rows: int32 [N / 16, K / 2, 16], each a pair of
neighbouring numbers of a row. x Wᵀ reads them as they lie. g W wants pairs of neighbouring rows: a panel's squares of 16 by 16 are turned
in registers, some rows of W at a time, into scratch that stays in the cache. The naive reference is the float32 product of both, rounded
(train as PyTorch's bfloat16 does, but for the sums' order).
"""

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from ingle.kernels.cpu import has_bf16_tiles, tile_rows
from ingle.kernels.simd import ADDRESS, I8, I16, I32, I64, LANES, VI, at_address, call, get, load_f32, load_i32, store_bf16
from ingle.kernels.tiles import load_tile, outer_pairs, store_tile, zeros_f

# Products of bfloat16 by AMX, where the processor has it: one instruction sums 32 products into each of 16 rows by 16 columns.
# Tiles 0 to 3 are the sums of 16 rows each; tile 4 is a panel's next 16 pairs of rows, tile 5 the same places of 16 rows of x. A thread
# says what its tiles look like before it uses them, and frees them.


# Blocks of 16 rows that are summed together, and the six tiles' look: 16 rows of 64 bytes each.
MOST_BLOCKS, CONFIG = 4, bytes([1, *[0] * 15, *[64, 0] * 6, *[0] * 20, *[16] * 6, *[0] * 10])
_PANEL, _ROWS = 4, 5


def _tile(b, name, *arguments):
    """Emit one of LLVM's calls for AMX: numbers of tiles are int, addresses and strides values."""
    values = [I8(one) if isinstance(one, int) else one for one in arguments]
    call(b, f"llvm.x86.{name}", ir.VoidType(), *values)


def _op(arguments, emit):
    """Make an intrinsic of so many int64 from what emits it."""

    def code(context, b, _sig, args):
        emit(b, *args)
        return context.get_dummy_value()

    def none(_typing):
        return types.void(), code

    def one(_typing, _address):
        return types.void(ADDRESS), code

    def two(_typing, _address, _stride):
        return types.void(ADDRESS, ADDRESS), code

    def three(_typing, _x, _row, _panel):
        return types.void(ADDRESS, ADDRESS, ADDRESS), code

    return intrinsic((none, one, two, three)[arguments])


begin_tiles = _op(1, lambda b, address: _tile(b, "ldtilecfg", at_address(b, address, I8)))
end_tiles = _op(0, lambda b: _tile(b, "tilerelease"))


def _tile_product(blocks):
    def zero(b):
        for t in range(blocks):
            _tile(b, "tilezero", t)

    def each(name):
        def emit(b, out, stride):
            for t in range(blocks):
                _tile(b, name, t, at_address(b, b.add(out, b.mul(stride, I64(16 * t))), I8), stride)

        return emit

    def step(b, x, row, panel):
        _tile(b, "tileloadd64", _PANEL, at_address(b, panel, I8), I64(64))
        for t in range(blocks):
            _tile(b, "tileloadd64", _ROWS, at_address(b, b.add(x, b.mul(row, I64(16 * t))), I8), row)
            _tile(b, "tdpbf16ps", t, _ROWS, _PANEL)

    zeros, load, store, add = _op(0, zero), _op(2, each("tileloadd64")), _op(2, each("tilestored64")), _op(3, step)

    @njit
    def product(begun, steps, x, row, panel, out, stride):
        if begun:
            load(out, stride)
        else:
            zeros()
        for i in range(0, steps, 16):
            add(x + 4 * i, row, panel + 64 * i)
        store(out, stride)

    return product


_t1, _t2, _p3, _t4 = (_tile_product(blocks) for blocks in (1, 2, 3, 4))


@njit
def add_by_tiles(begun, rows, steps, x, row, panel, out, stride):
    """Add to 16 columns of `rows` rows of the outcome the products of x's rows with a panel; rows up to the next 16 are written, too."""
    r = 0
    while r < rows:
        at, to = x + r * row, out + r * stride
        if rows - r > 48:
            _t4(begun, steps, at, row, panel, to, stride)
        elif rows - r > 32:
            _p3(begun, steps, at, row, panel, to, stride)
        elif rows - r > 16:
            _t2(begun, steps, at, row, panel, to, stride)
        else:
            _t1(begun, steps, at, row, panel, to, stride)
        r += 64


# Fields of a call's record: x float32 [rows, sum over]; rows; the sum's length / 2; panels of the outcome, 16 columns each; weights; out
# float32 [rows, 16 · panels]; scratch bfloat16 like x; scratch of TURNED_BYTES for g W; and the bytes that say how AMX's tiles look. Out
# and the scratch like x have room for rows up to the next 16.
FIELDS = ("X", "ROWS", "STEPS", "PANELS", "WEIGHTS", "OUT", "ROUNDED", "TURNED", "TILES")
X, ROWS, STEPS, PANELS, WEIGHTS, OUT, ROUNDED, TURNED, TILES = range(len(FIELDS))
_BLOCK = 96  # rows whose rounded numbers stay in the cache beside a panel
_STRETCH = 512  # pairs of rows of W that are turned at a time
TURNED_BYTES = 64 * _STRETCH


@intrinsic
def _turn(_typing, source, target):
    """Turn a square of 16 by 16: 8 vectors of 16 pairs at `source`, vector j of numbers 2j and 2j + 1 of 16 rows, into 8 at `target`,
    vector j of rows 2j and 2j + 1 at 16 places."""

    def emit(context, b, _sig, args):
        halves, longs = ir.VectorType(I16, 2 * LANES), ir.VectorType(I64, LANES // 2)
        inner = ir.Constant(ir.VectorType(I32, 2 * LANES), [I32(4 * (i // 4) + (0, 2, 1, 3)[i % 4]) for i in range(2 * LANES)])
        vectors = []
        for j in range(8):
            one = b.bitcast(b.load(at_address(b, b.add(args[0], I64(64 * j)), VI), align=4), halves)
            vectors.append(b.bitcast(b.shuffle_vector(one, ir.Constant(halves, ir.Undefined), inner), longs))
        for span in (1, 2, 4):
            low, high = ([k if k & span == 0 else 8 + k - span for k in range(8)], [k + span if k & span == 0 else 8 + k for k in range(8)])
            masks = [ir.Constant(ir.VectorType(I32, 8), [I32(k) for k in mask]) for mask in (low, high)]
            for i in (i for i in range(8) if i & span == 0):
                pair = vectors[i], vectors[i + span]
                vectors[i], vectors[i + span] = (b.shuffle_vector(*pair, mask) for mask in masks)
        for j, vector in enumerate(vectors):
            b.store(b.bitcast(vector, VI), at_address(b, b.add(args[1], I64(64 * j)), VI), align=4)
        return context.get_dummy_value()

    return types.void(ADDRESS, ADDRESS), emit


def _product(rows):
    @njit
    def product(begun, steps, x, row, panel, out, stride):
        tile = zeros_f(rows)
        if begun:
            tile = load_tile(rows, out, stride)
        for i in range(steps):
            tile = outer_pairs(tile, load_i32(panel + 64 * i), x + 4 * i, row)
        store_tile(tile, out, stride)

    return product


_MOST, _ = tile_rows()
_large, _p4, _p2, _p1 = (_product(rows) for rows in (_MOST, 4, 2, 1))


@njit
def _add_by_rows(begun, rows, steps, x, row, panel, out, stride):
    """Add to 16 columns of `rows` rows of the outcome the products of x's rows with a panel; unless `begun`, the sums begin anew."""
    r = 0
    while r < rows:
        at, to = x + r * row, out + r * stride
        if r + _MOST <= rows:
            _large(begun, steps, at, row, panel, to, stride)
            r += _MOST
        elif r + 4 <= rows:
            _p4(begun, steps, at, row, panel, to, stride)
            r += 4
        elif r + 2 <= rows:
            _p2(begun, steps, at, row, panel, to, stride)
            r += 2
        else:
            _p1(begun, steps, at, row, panel, to, stride)
            r += 1


@njit
def _begin_nothing(_address):
    pass


@njit
def _end_nothing():
    pass


_begin, _end = (begin_tiles, end_tiles) if has_bf16_tiles() else (_begin_nothing, _end_nothing)
_add_by_most = add_by_tiles if has_bf16_tiles() else _add_by_rows


@njit
def _add(call, number, start, stop, first, steps, panel):
    """Add to panel `number` of the outcome the products of rows start … stop − 1 with a panel: of so many pairs, from number `first`."""
    row, stride = 4 * get(call, STEPS), 64 * get(call, PANELS)
    x, out = get(call, ROUNDED) + start * row + 4 * first, get(call, OUT) + start * stride + 64 * number
    if steps % 16 == 0:
        _add_by_most(first > 0, stop - start, steps, x, row, panel, out, stride)
    else:
        _add_by_rows(first > 0, stop - start, steps, x, row, panel, out, stride)


@njit
def _round(call):
    for place in range(0, get(call, ROWS) * 2 * get(call, STEPS), 16):
        store_bf16(get(call, ROUNDED) + 2 * place, load_f32(get(call, X) + 4 * place))


def bf16_times(call):
    """Entry: out = x Wᵀ."""
    rows, steps = get(call, ROWS), get(call, STEPS)
    _round(call)
    _begin(get(call, TILES))
    for start in range(0, rows, _BLOCK):
        for number in range(get(call, PANELS)):
            _add(call, number, start, min(rows, start + _BLOCK), 0, steps, get(call, WEIGHTS) + 64 * steps * number)
    _end()


def bf16_back(call):
    """Entry: out = g W, x being g."""
    rows, steps, panels, turned = get(call, ROWS), get(call, STEPS), get(call, PANELS), get(call, TURNED)
    _round(call)
    _begin(get(call, TILES))
    for first in range(0, steps, _STRETCH):
        pairs = min(_STRETCH, steps - first)
        for number in range(panels):
            for pair in range(0, pairs, 8):
                _turn(get(call, WEIGHTS) + 512 * ((first + pair) // 8 * panels + number), turned + 64 * pair)
            _add(call, number, 0, rows, first, pairs, turned)
    _end()
