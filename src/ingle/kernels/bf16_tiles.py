"""Products of bfloat16 by AMX, where the processor has it: one instruction sums 32 products into each of 16 rows by 16 columns.

Tiles 0 to 3 are the sums of 16 rows each; tile 4 is a panel's next 16 pairs of rows, tile 5 the same places of 16 rows of x. A thread
says what its tiles look like before it uses them, and frees them.
"""

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from ingle.kernels.simd import ADDRESS, I8, I64, at_address, call

MOST_BLOCKS, CONFIG = 4, bytes([1, *[0] * 15, *[64, 0] * 6, *[0] * 20, *[16] * 6, *[0] * 10])
"""Blocks of 16 rows that are summed together, and the six tiles' look: 16 rows of 64 bytes each."""
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


def _product(blocks):
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


_p1, _p2, _p3, _p4 = (_product(blocks) for blocks in (1, 2, 3, 4))


@njit
def add_by_tiles(begun, rows, steps, x, row, panel, out, stride):
    """Add to 16 columns of `rows` rows of the outcome the products of x's rows with a panel; rows up to the next 16 are written, too."""
    r = 0
    while r < rows:
        at, to = x + r * row, out + r * stride
        if rows - r > 48:
            _p4(begun, steps, at, row, panel, to, stride)
        elif rows - r > 32:
            _p3(begun, steps, at, row, panel, to, stride)
        elif rows - r > 16:
            _p2(begun, steps, at, row, panel, to, stride)
        else:
            _p1(begun, steps, at, row, panel, to, stride)
        r += 64
