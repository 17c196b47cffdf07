"""The primitives of kernels: vectors of 16 numbers, register tiles of them, and memory by address.

A `Tile(kind, rows)` is `rows` vectors of 16 float32 (kind "f") or int32 (kind "i") that live in registers. Each function below is a
Numba intrinsic that emits LLVM vector code; wider vectors than the CPU has are split by LLVM, so the same kernel runs on AVX-512,
AVX2 and Arm. Addresses are int64 byte addresses: kernels are called with raw memory that the caller has checked.
"""

import operator

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic, overload

from ingle.kernels.cpu import has_half

# float16 ↔ float32: one instruction where the CPU has it (F16C, Arm), else integer arithmetic with the same results.


_F32, _F16, _I16, _I32 = ir.FloatType(), ir.HalfType(), ir.IntType(16), ir.IntType(32)


def _like(ty, scalar):
    """Return `scalar` itself, or its vector of the length of `ty`."""
    return ir.VectorType(scalar, ty.count) if isinstance(ty, ir.VectorType) else scalar


def _constant(ty, value):
    return ir.Constant(ty, [value] * ty.count) if isinstance(ty, ir.VectorType) else ty(value)


def from_half(b, bits):
    """Convert int16 bits of float16 (one, or a vector) → float32."""
    single, word = _like(bits.type, _F32), _like(bits.type, _I32)
    if has_half():
        return b.fpext(b.bitcast(bits, _like(bits.type, _F16)), single)
    wide = b.zext(bits, word)
    # Exponent and fraction moved to float32's places are 2^112 too small; the product is exact, subnormal numbers included.
    size = b.fmul(b.bitcast(b.shl(b.and_(wide, _constant(word, 0x7FFF)), _constant(word, 13)), single), _constant(single, 2.0**112))
    size = b.bitcast(size, word)
    infinite = b.icmp_unsigned(">=", b.and_(wide, _constant(word, 0x7FFF)), _constant(word, 0x7C00))
    size = b.select(infinite, b.or_(size, _constant(word, 0x7F800000)), size)
    return b.bitcast(b.or_(size, b.shl(b.and_(wide, _constant(word, 0x8000)), _constant(word, 16))), single)


def to_half(b, x):
    """Convert float32 (one, or a vector) → int16 bits of the nearest float16, ties to even; too large becomes infinite."""
    word, short = _like(x.type, _I32), _like(x.type, _I16)
    if has_half():
        return b.bitcast(b.fptrunc(x, _like(x.type, _F16)), short)
    bits = b.bitcast(x, word)
    size = b.and_(bits, _constant(word, 0x7FFFFFFF))
    # Normal: rebase the exponent by −112 and round 13 bits away. Subnormal: adding 0.5 lines the bits up and rounds them.
    odd = b.and_(b.lshr(size, _constant(word, 13)), _constant(word, 1))
    rebased = b.sub(b.add(size, _constant(word, 0x0FFF)), _constant(word, 112 << 23))
    normal = b.lshr(b.add(rebased, odd), _constant(word, 13))
    lined_up = b.bitcast(b.fadd(b.bitcast(size, x.type), _constant(x.type, 0.5)), word)
    small = b.sub(lined_up, _constant(word, 0x3F000000))
    result = b.select(b.icmp_unsigned("<", size, _constant(word, 113 << 23)), small, normal)
    result = b.select(b.icmp_unsigned(">=", size, _constant(word, 143 << 23)), _constant(word, 0x7C00), result)
    result = b.select(b.icmp_unsigned(">", size, _constant(word, 0x7F800000)), _constant(word, 0x7E00), result)
    sign = b.and_(b.lshr(bits, _constant(word, 16)), _constant(word, 0x8000))
    return b.trunc(b.or_(result, sign), short)


LANES = 16
I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32, F16 = ir.FloatType(), ir.HalfType()
VF, VI = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
ADDRESS = types.int64


class Tile(types.Type):
    """`rows` vectors of 16 numbers in registers."""

    def __init__(self, kind: str, rows: int) -> None:
        self.kind, self.rows = kind, rows
        super().__init__(name=f"Tile({kind}, {rows})")


@register_default(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        vector = VF if fe_type.kind == "f" else VI
        super().__init__(dmm, fe_type, vector if fe_type.rows == 1 else ir.ArrayType(vector, fe_type.rows))


VECTOR, INTEGERS = Tile("f", 1), Tile("i", 1)


def at_address(b, address, ty):
    return b.inttoptr(address, ir.PointerType(ty))


def splat_of(b, x, ty):
    one = b.insert_element(ir.Constant(ty, ir.Undefined), x, I32(0))
    return b.shuffle_vector(one, ir.Constant(ty, ir.Undefined), ir.Constant(VI, [I32(0)] * LANES))


def call(b, name, result, *args):
    return b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(result, [a.type for a in args]), name), args)


def fma_of(b, x, y, z):
    return call(b, "llvm.fma.v16f32", VF, x, y, z)


def _memory(scalar, result, ty):
    """Make intrinsics that read and write one scalar at an address."""

    @intrinsic
    def read(_typing, address):
        return result(ADDRESS), lambda _c, b, _s, args: b.load(at_address(b, args[0], scalar), align=ty)

    @intrinsic
    def write(_typing, address, value):
        def emit(context, b, _sig, args):
            b.store(args[1], at_address(b, args[0], scalar), align=ty)
            return context.get_dummy_value()

        return types.void(ADDRESS, result), emit

    return read, write


f32_at, set_f32 = _memory(F32, types.float32, 4)
i64_at, set_i64 = _memory(I64, types.int64, 8)
_, set_i32 = _memory(I32, types.int32, 4)
u8_at, _ = _memory(I8, types.uint8, 1)
i8_at, set_i8 = _memory(I8, types.int8, 1)


@intrinsic
def get(_typing, record, index):
    """Return the int64 number `index` of a record (see layout.py)."""

    def emit(_context, b, _sig, args):
        return b.load(at_address(b, b.add(args[0], b.mul(args[1], I64(8))), I64), align=8)

    return types.int64(ADDRESS, types.int64), emit


@intrinsic
def half_at(_typing, address):
    """Return the float16 at an address."""
    return types.float32(ADDRESS), lambda _c, b, _s, args: from_half(b, b.load(at_address(b, args[0], I16), align=2))


@intrinsic
def bfloat_at(_typing, address):
    """Return the bfloat16 at an address: the upper half of a float32."""

    def emit(_context, b, _sig, args):
        return b.bitcast(b.shl(b.zext(b.load(at_address(b, args[0], I16), align=2), I32), I32(16)), F32)

    return types.float32(ADDRESS), emit


@intrinsic
def set_half(_typing, address, value):
    """Write a float32 as float16."""

    def emit(context, b, _sig, args):
        b.store(to_half(b, args[1]), at_address(b, args[0], I16), align=2)
        return context.get_dummy_value()

    return types.void(ADDRESS, types.float32), emit


def _loader(memory, widen):
    ty, align = ir.VectorType(memory, LANES), 1 if memory is I8 else 2

    @intrinsic
    def load(_typing, address):
        return VECTOR(ADDRESS), lambda _c, b, _s, args: widen(b, b.load(at_address(b, args[0], ty), align=align))

    return load


def _from_bf16(b, v):
    return b.bitcast(b.shl(b.zext(v, VI), ir.Constant(VI, [16] * LANES)), VF)


def _to_bf16(b, v):
    """Round to the nearest, ties to even."""
    bits, sixteen = b.bitcast(v, VI), ir.Constant(VI, [16] * LANES)
    odd = b.and_(b.lshr(bits, sixteen), ir.Constant(VI, [1] * LANES))
    return b.trunc(b.lshr(b.add(b.add(bits, ir.Constant(VI, [0x7FFF] * LANES)), odd), sixteen), ir.VectorType(I16, LANES))


load_f32 = _loader(F32, lambda _b, v: v)
load_f16 = _loader(I16, from_half)
load_bf16 = _loader(I16, _from_bf16)
load_i8 = _loader(I8, lambda b, v: b.sitofp(b.sext(v, VI), VF))


@intrinsic
def load_bytes(_typing, address):
    """Load 16 unsigned bytes as int32."""
    bytes_ = ir.VectorType(I8, LANES)
    return INTEGERS(ADDRESS), lambda _c, b, _s, args: b.zext(b.load(at_address(b, args[0], bytes_), align=1), VI)


@intrinsic
def load_i32(_typing, address):
    """Load 16 int32 (or 64 bytes)."""
    return INTEGERS(ADDRESS), lambda _c, b, _s, args: b.load(at_address(b, args[0], VI), align=4)


@intrinsic
def load_pairs(_typing, address):
    """Load 32 unsigned bytes as 16 pairs of 16-bit numbers."""

    def emit(_context, b, _sig, args):
        bytes_, words = ir.VectorType(I8, 2 * LANES), ir.VectorType(I16, 2 * LANES)
        return b.bitcast(b.zext(b.load(at_address(b, args[0], bytes_), align=1), words), VI)

    return INTEGERS(ADDRESS), emit


def _storer(source, memory, narrow):
    @intrinsic
    def store(_typing, address, vector):
        def emit(context, b, _sig, args):
            b.store(narrow(b, args[1]), at_address(b, args[0], ir.VectorType(memory, LANES)), align=1 if memory is I8 else 2)
            return context.get_dummy_value()

        return types.void(ADDRESS, source), emit

    return store


store_f32 = _storer(VECTOR, F32, lambda _b, v: v)
store_f16 = _storer(VECTOR, I16, to_half)
store_bf16 = _storer(VECTOR, I16, _to_bf16)
store_i8 = _storer(INTEGERS, I8, lambda b, v: b.trunc(v, ir.VectorType(I8, LANES)))


@intrinsic
def prefetch(_typing, address):
    """Prefetch the cache line at an address."""

    def emit(context, b, _sig, args):
        prototype = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), I32, I32, I32])
        function = cgutils.get_or_insert_function(b.module, prototype, "llvm.prefetch.p0")
        b.call(function, [at_address(b, args[0], I8), I32(0), I32(3), I32(1)])
        return context.get_dummy_value()

    return types.void(ADDRESS), emit


@intrinsic
def clear_32(_typing, address):
    """Set 32 bytes to 0."""

    def emit(context, b, _sig, args):
        ty = ir.VectorType(I8, 32)
        b.store(ir.Constant(ty, None), at_address(b, args[0], ty), align=1)
        return context.get_dummy_value()

    return types.void(ADDRESS), emit


@intrinsic
def splat(_typing, x):
    """Return a float32 in all lanes."""
    return VECTOR(types.float32), lambda _c, b, _s, args: splat_of(b, args[0], VF)


def _unary(result, emit):
    source = VECTOR

    @intrinsic
    def op(_typing, v):
        return result(source), lambda _c, b, _s, args: emit(b, args[0])

    return op


def _reduce(name):
    def emit(b, v):
        start = [F32(-0.0)] if name == "fadd" else []
        prototype = ir.FunctionType(F32, [a.type for a in (*start, v)])
        function = cgutils.get_or_insert_function(b.module, prototype, f"llvm.vector.reduce.{name}.v16f32")
        return b.call(function, [*start, v], fastmath=("reassoc",) if start else ())

    return emit


total = _unary(types.float32, _reduce("fadd"))
largest = _unary(types.float32, _reduce("fmax"))
magnitude = _unary(VECTOR, lambda b, v: call(b, "llvm.fabs.v16f32", VF, v))
rounded = _unary(INTEGERS, lambda b, v: b.fptosi(call(b, "llvm.roundeven.v16f32", VF, v), VI))
whole = _unary(VECTOR, lambda b, v: call(b, "llvm.roundeven.v16f32", VF, v))
power_of_two = _unary(  # 2^n of whole n in −126 … 127, by building the exponent bits
    VECTOR, lambda b, v: b.bitcast(b.shl(b.add(b.fptosi(v, VI), ir.Constant(VI, [127] * LANES)), ir.Constant(VI, [23] * LANES)), VF)
)


def _binary(emit):
    @intrinsic
    def op(_typing, x, y):
        return VECTOR(VECTOR, VECTOR), lambda _c, b, _s, args: emit(b, *args)

    return op


def _operator(symbol, emit):
    op = _binary(emit)

    @overload(symbol)
    def typed(x, y):
        return (lambda x, y: op(x, y)) if x == VECTOR and y == VECTOR else None  # noqa: PLW0108 - Numba wants a plain function

    return op


_operator(operator.add, lambda b, x, y: b.fadd(x, y))
_operator(operator.sub, lambda b, x, y: b.fsub(x, y))
_operator(operator.mul, lambda b, x, y: b.fmul(x, y))
_operator(operator.truediv, lambda b, x, y: b.fdiv(x, y))
larger = _binary(lambda b, x, y: call(b, "llvm.maxnum.v16f32", VF, x, y))
smaller = _binary(lambda b, x, y: call(b, "llvm.minnum.v16f32", VF, x, y))

_FAINTEST = -87.3


@intrinsic
def zero_if_faint(_typing, power, exponent):
    """Return `power` where exponent ≥ −87.3, else exactly 0: masked values must not count at all."""

    def emit(_context, b, _sig, args):
        faint = b.fcmp_ordered("<", args[1], ir.Constant(VF, [_FAINTEST] * LANES))
        return b.select(faint, ir.Constant(VF, None), args[0])

    return VECTOR(VECTOR, VECTOR), emit


@intrinsic
def fma(_typing, x, y, z):
    """Return x · y + z, rounded once."""
    return VECTOR(VECTOR, VECTOR, VECTOR), lambda _c, b, _s, args: fma_of(b, *args)


@intrinsic
def numbers(_typing, v):
    """Convert 16 int32 to float32."""
    return VECTOR(INTEGERS), lambda _c, b, _s, args: b.sitofp(args[0], VF)


@intrinsic(prefer_literal=True)
def field(_typing, v, shift, mask):
    """Return (byte >> shift) & mask of each of 64 bytes; shift and mask are literals in the kernel."""
    places, bits = shift.literal_value, mask.literal_value * 0x01010101

    def emit(_context, b, _sig, args):
        moved = b.lshr(args[0], ir.Constant(VI, [places] * LANES)) if places else args[0]
        return b.and_(moved, ir.Constant(VI, [bits] * LANES))

    return INTEGERS(INTEGERS, shift, mask), emit


@intrinsic(prefer_literal=True)
def raised_field(_typing, v, shift, mask):
    """Return (byte << shift) & mask of each of 64 bytes, or (byte >> −shift) & mask; shift and mask are literals in the kernel."""
    places, bits = shift.literal_value, mask.literal_value * 0x01010101

    def emit(_context, b, _sig, args):
        amount = ir.Constant(VI, [abs(places)] * LANES)
        moved = b.shl(args[0], amount) if places > 0 else b.lshr(args[0], amount)
        return b.and_(moved, ir.Constant(VI, [bits] * LANES))

    return INTEGERS(INTEGERS, shift, mask), emit


@intrinsic
def shifted(_typing, v, places):
    """Return v >> places, of int32 that are not below 0."""

    def emit(_context, b, _sig, args):
        return b.lshr(args[0], splat_of(b, b.trunc(args[1], I32), VI))

    return INTEGERS(INTEGERS, types.int64), emit


@intrinsic
def either(_typing, v, w):
    """Return v | w."""
    return INTEGERS(INTEGERS, INTEGERS), lambda _c, b, _s, args: b.or_(*args)


@intrinsic
def visible(_typing, scores, first, query, window, sinks):
    """Return scores of keys at positions first … first + 15, with −∞ where the query at position `query` must not look."""

    def emit(_context, b, _sig, args):
        scores, first, query, window, sinks = args
        vector = ir.VectorType(I64, LANES)
        position = b.add(splat_of(b, first, vector), ir.Constant(vector, list(range(LANES))))
        near = b.icmp_signed(">", position, splat_of(b, b.sub(query, window), vector))
        seen = b.or_(near, b.icmp_signed("<", position, splat_of(b, sinks, vector)))
        seen = b.and_(seen, b.icmp_signed("<=", position, splat_of(b, query, vector)))
        return b.select(seen, scores, ir.Constant(VF, [float("-inf")] * LANES))

    return VECTOR(VECTOR, types.int64, types.int64, types.int64, types.int64), emit


# Operations on rows of numbers at an address, 16 at a time.


@njit
def load(element, address):
    """Load 16 numbers of `element` bytes: bfloat16 or float32."""
    return load_bf16(address) if element == 2 else load_f32(address)


@njit
def store(element, address, vector):
    """Store 16 numbers as `element` bytes each."""
    if element == 2:
        store_bf16(address, vector)
    else:
        store_f32(address, vector)


@njit
def scale(source, factor, target, floats):
    """Set target = source · factor, for so many numbers."""
    for c in range(0, 4 * floats, 64):
        store_f32(target + c, load_f32(source + c) * splat(factor))


@njit
def add_scaled(source, factor, target, floats):
    """Set target += source · factor."""
    for c in range(0, 4 * floats, 64):
        store_f32(target + c, fma(load_f32(source + c), splat(factor), load_f32(target + c)))


@njit
def dot(a, b, floats):
    """Return Σ a · b."""
    sums = splat(0.0)
    for c in range(0, 4 * floats, 64):
        sums = fma(load_f32(a + c), load_f32(b + c), sums)
    return total(sums)


@njit
def add(address, x):
    """Add x to one float32."""
    set_f32(address, f32_at(address) + x)


@njit
def up(count):
    """Return the next multiple of 16."""
    return (count + 15) // 16 * 16


@njit
def transpose(source, stride, rows, columns, target, line):
    """Set target[c, r] = source[r, c]; zeros up to the next 16 rows."""
    for c in range(columns):
        for r in range(rows):
            set_f32(target + c * line + 4 * r, f32_at(source + r * stride + 4 * c))
        for r in range(rows, up(rows)):
            set_f32(target + c * line + 4 * r, 0.0)


@njit(inline="always")
def matrix_vector(matrix, x, width):
    """Return Σ over k of matrix [K, 16] · x [K]: 16 outputs, four sums at a time, because a single one would wait for itself."""
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    for k in range(0, width, 4):
        a = fma(load_f32(matrix + 64 * k), splat(f32_at(x + 4 * k)), a)
        b = fma(load_f32(matrix + 64 * k + 64), splat(f32_at(x + 4 * k + 4)), b)
        c = fma(load_f32(matrix + 64 * k + 128), splat(f32_at(x + 4 * k + 8)), c)
        d = fma(load_f32(matrix + 64 * k + 192), splat(f32_at(x + 4 * k + 12)), d)
    return (a + b) + (c + d)
