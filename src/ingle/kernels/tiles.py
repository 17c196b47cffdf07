"""Register tiles: outer products for matrix products and attention, and exact sums of byte products."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ingle.kernels.cpu import dot_instruction, features, has_bf16_dot
from ingle.kernels.simd import (
    ADDRESS,
    F32,
    I8,
    I16,
    I32,
    I64,
    INTEGERS,
    LANES,
    VECTOR,
    VF,
    VI,
    Tile,
    at_address,
    call,
    fma_of,
    splat_of,
)


def rows_of(b, tile, ty: Tile):
    return [tile] if ty.rows == 1 else [b.extract_value(tile, r) for r in range(ty.rows)]


def tile_of(b, vectors, ty: Tile):
    if ty.rows == 1:
        return vectors[0]
    tile = ir.Constant(ir.ArrayType(VF if ty.kind == "f" else VI, ty.rows), ir.Undefined)
    for r, vector in enumerate(vectors):
        tile = b.insert_value(tile, vector, r)
    return tile


def _row_splats(b, address, stride, ty: Tile, scalar):
    """Yield for each row of a tile the scalar at address + row · stride, in all lanes."""
    for r in range(ty.rows):
        x = b.load(at_address(b, b.add(address, b.mul(stride, I64(r))), scalar), align=4)
        yield splat_of(b, x, ir.VectorType(scalar, LANES))


def _zeros(kind):
    @intrinsic(prefer_literal=True)
    def zeros(_typing, rows):
        ty = Tile(kind, rows.literal_value)
        return ty(rows), lambda context, _b, _s, _a: ir.Constant(context.get_value_type(ty), None)

    return zeros


zeros_f, zeros_i = _zeros("f"), _zeros("i")


@intrinsic(prefer_literal=True)
def row_splats_i(_typing, rows, address, stride):
    """Return a tile whose row r holds the int32 at address + r · stride in all lanes."""
    ty = Tile("i", rows.literal_value)
    return ty(rows, ADDRESS, ADDRESS), lambda _c, b, _s, args: tile_of(b, list(_row_splats(b, args[1], args[2], ty, I32)), ty)


@intrinsic(prefer_literal=True)
def row_halves_i(_typing, rows, address, stride, shift):
    """Return a tile whose row r holds the int16 at address + r · stride in all lanes, times 2^shift (a literal; below 0: exact halving)."""
    ty, places = Tile("i", rows.literal_value), shift.literal_value

    def emit(_context, b, _sig, args):
        vectors = []
        for r in range(ty.rows):
            x = b.sext(b.load(at_address(b, b.add(args[1], b.mul(args[2], I64(r))), I16), align=2), I32)
            vectors.append(splat_of(b, b.shl(x, I32(places)) if places > 0 else b.ashr(x, I32(-places)), VI))
        return tile_of(b, vectors, ty)

    return ty(rows, ADDRESS, ADDRESS, shift), emit


@intrinsic(prefer_literal=True)
def load_tile(_typing, rows, address, stride):
    """Return a tile whose row r is 16 float32 at address + r · stride."""
    ty = Tile("f", rows.literal_value)

    def emit(_context, b, _sig, args):
        vectors = [b.load(at_address(b, b.add(args[1], b.mul(args[2], I64(r))), VF), align=4) for r in range(ty.rows)]
        return tile_of(b, vectors, ty)

    return ty(rows, ADDRESS, ADDRESS), emit


@intrinsic
def store_tile(_typing, tile, address, stride):
    """Write row r as 16 float32 to address + r · stride."""

    def emit(context, b, _sig, args):
        for r, vector in enumerate(rows_of(b, args[0], tile)):
            b.store(vector, at_address(b, b.add(args[1], b.mul(args[2], I64(r))), VF), align=4)
        return context.get_dummy_value()

    return types.void(tile, ADDRESS, ADDRESS), emit


@intrinsic
def outer(_typing, tile, vector, address, stride):
    """Return tile[r] + vector · (the float32 at address + r · stride): one step of a matrix product."""

    def emit(_context, b, _sig, args):
        scalars = _row_splats(b, args[2], args[3], tile, F32)
        return tile_of(b, [fma_of(b, args[1], x, row) for row, x in zip(rows_of(b, args[0], tile), scalars, strict=True)], tile)

    return tile(tile, VECTOR, ADDRESS, ADDRESS), emit


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite lacks."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _BFloat)

    def __hash__(self):
        return hash(_BFloat)


_PAIRS = ir.VectorType(_BFloat(), 2 * LANES)


@intrinsic
def outer_pairs(_typing, tile, pairs, address, stride):
    """Return tile[r] + the products of 16 pairs of bfloat16 with the pair at address + r · stride, summed by pair: two steps of a matrix
    product, by one instruction where `cpu.has_bf16_dot`."""

    def halves(b, pairs):
        upper = ir.Constant(VI, [0xFFFF0000] * LANES)
        return b.bitcast(b.shl(pairs, ir.Constant(VI, [16] * LANES)), VF), b.bitcast(b.and_(pairs, upper), VF)

    def dot(b, row, pairs, x):
        if has_bf16_dot():
            return call(b, "llvm.x86.avx512bf16.dpbf16ps.512", VF, row, b.bitcast(pairs, _PAIRS), b.bitcast(x, _PAIRS))
        (low, high), (x_low, x_high) = halves(b, pairs), halves(b, x)
        return fma_of(b, high, x_high, fma_of(b, low, x_low, row))

    def emit(_context, b, _sig, args):
        splats = _row_splats(b, args[2], args[3], tile, I32)
        return tile_of(b, [dot(b, row, args[1], x) for row, x in zip(rows_of(b, args[0], tile), splats, strict=True)], tile)

    return tile(tile, INTEGERS, ADDRESS, ADDRESS), emit


@intrinsic
def scaled(_typing, tile, vector):
    """Return tile[r] · vector."""
    return tile(tile, VECTOR), lambda _c, b, _s, args: tile_of(b, [b.fmul(row, args[1]) for row in rows_of(b, args[0], tile)], tile)


@intrinsic
def added(_typing, tile, vector):
    """Return tile[r] + vector."""
    return tile(tile, VECTOR), lambda _c, b, _s, args: tile_of(b, [b.fadd(row, args[1]) for row in rows_of(b, args[0], tile)], tile)


@intrinsic
def summed(_typing, tile, other):
    """Return tile[r] + other[r]."""
    add = "fadd" if tile.kind == "f" else "add"

    def emit(_context, b, _sig, args):
        return tile_of(b, [getattr(b, add)(x, y) for x, y in zip(rows_of(b, args[0], tile), rows_of(b, args[1], tile), strict=True)], tile)

    return tile(tile, tile), emit


@intrinsic(prefer_literal=True)
def any_bits(_typing, rows, address, stride):
    """Return the or of the int32 of `rows` rows at address + r · stride: 0 if all are 0."""

    def emit(_context, b, _sig, args):
        bits = I32(0)
        for r in range(rows.literal_value):
            bits = b.or_(bits, b.load(at_address(b, b.add(args[1], b.mul(args[2], I64(r))), I32), align=4))
        return bits

    return types.int32(rows, ADDRESS, ADDRESS), emit


@intrinsic
def outer_integers(_typing, tile, integers, vector, address, stride):
    """Return tile[r] + float(integers[r]) · vector · (the float32 at address + r · stride): a group's integer sums, scaled and added."""

    def emit(_context, b, _sig, args):
        scalars = _row_splats(b, args[3], args[4], tile, F32)
        triples = zip(rows_of(b, args[0], tile), rows_of(b, args[1], integers), scalars, strict=True)
        return tile_of(b, [fma_of(b, b.sitofp(i, VF), b.fmul(args[2], x), row) for row, i, x in triples], tile)

    return tile(tile, integers, VECTOR, ADDRESS, ADDRESS), emit


@intrinsic
def dot_bytes(_typing, tile, weights, address, stride):
    """Return tile[r, lane] + Σ over 4 of weights[lane, j] · x[r, j]: weights unsigned bytes, x the 4 signed bytes at address + r · stride.

    Exact in int32 on every CPU: VNNI (`vpdpbusd`) and Arm (`usdot`) where available, else 16-bit products summed in pairs.
    """
    return tile(tile, INTEGERS, ADDRESS, ADDRESS), _by_rows(tile, _DOTS[dot_instruction()])


def _by_rows(tile, multiply):
    def emit(_context, b, _sig, args):
        scalars = _row_splats(b, args[2], args[3], tile, I32)
        return tile_of(b, [multiply(b, row, args[1], x) for row, x in zip(rows_of(b, args[0], tile), scalars, strict=True)], tile)

    return emit


@intrinsic
def dot_codes(_typing, tile, weights, address, stride):
    """Do `dot_bytes` for weights below 16, at most eight times before `whole_sums`.

    `vpmaddubsw` leaves pairs of 16-bit sums in each lane: 8 · 2 · 15 · 128 is less than 2¹⁵.
    """
    own = _dot_maddubs if dot_instruction() == "maddubs" else _DOTS[dot_instruction()]
    return tile(tile, INTEGERS, ADDRESS, ADDRESS), _by_rows(tile, own)


@intrinsic
def whole_sums(_typing, tile):
    """Return the sums of `dot_codes` as int32."""
    if dot_instruction() != "maddubs":
        return tile(tile), lambda _c, _b, _s, args: args[0]
    ones = ir.Constant(VI, [0x10001] * LANES)
    return tile(tile), lambda _c, b, _s, args: tile_of(b, [_madd(b, row, ones) for row in rows_of(b, args[0], tile)], tile)


@intrinsic
def raised(_typing, tile):
    """Move 16-bit sums to the upper halves of their lanes, over 2¹⁵ in the lower: room for other sums, which must not borrow from above."""

    def emit(_context, b, _sig, args):
        places, room = (ir.Constant(VI, [n] * LANES) for n in (16, 1 << 15))
        return tile_of(b, [b.or_(b.shl(row, places), room) for row in rows_of(b, args[0], tile)], tile)

    return tile(tile), emit


@intrinsic
def paired(_typing, tile):
    """Finish a `raised` tile to which other sums were added: pairs of 16-bit sums, the later ones below."""
    room = ir.Constant(VI, [1 << 15] * LANES)
    return tile(tile), lambda _c, b, _s, args: tile_of(b, [b.xor(row, room) for row in rows_of(b, args[0], tile)], tile)


@intrinsic
def dot_pairs(_typing, tile, weights, values):
    """Return tile[r, lane] + Σ over 2 of weights[lane, j] · values[r, lane, j]: pairs of signed 16-bit numbers, exact in int32."""
    instruction = dot_instruction()
    multiply = _madd if "avx2" in features() else _pairs

    def emit(_context, b, _sig, args):
        rows = zip(rows_of(b, args[0], tile), rows_of(b, args[2], values), strict=True)
        if instruction == "vnni512":
            return tile_of(b, [call(b, "llvm.x86.avx512.vpdpwssd.512", VI, row, args[1], x) for row, x in rows], tile)
        return tile_of(b, [b.add(row, multiply(b, args[1], x)) for row, x in rows], tile)

    return tile(tile, INTEGERS, values), emit


def _pairs(b, weights, x):
    """Sum each pair, where there is no instruction for it."""
    places = ir.Constant(VI, [16] * LANES)
    (low, high), (x_low, x_high) = ((b.ashr(b.shl(v, places), places), b.ashr(v, places)) for v in (weights, x))
    return b.add(b.mul(low, x_low), b.mul(high, x_high))


def _dot_vnni512(b, accumulator, weights, x):
    return call(b, "llvm.x86.avx512.vpdpbusd.512", VI, accumulator, weights, x)


def _by_parts(b, vectors, lanes, multiply):
    """Apply `multiply` to the vectors, so many lanes at a time."""
    undefined = ir.Constant(VI, ir.Undefined)
    parts = []
    for start in range(0, LANES, lanes):
        pick = ir.Constant(ir.VectorType(I32, lanes), [I32(start + i) for i in range(lanes)])
        parts.append(multiply(*(b.shuffle_vector(v, undefined, pick) for v in vectors)))
    while len(parts) > 1:
        width = parts[0].type.count * 2
        join = ir.Constant(ir.VectorType(I32, width), [I32(i) for i in range(width)])
        parts = [b.shuffle_vector(low, high, join) for low, high in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _dot_vnni256(b, accumulator, weights, x):
    half = ir.VectorType(I32, 8)
    return _by_parts(b, (accumulator, weights, x), 8, lambda a, w, v: call(b, "llvm.x86.avx512.vpdpbusd.256", half, a, w, v))


def _dot_usdot(b, accumulator, weights, x):
    quarter, bytes16 = ir.VectorType(I32, 4), ir.VectorType(I8, 16)

    def multiply(a, w, v):
        return call(b, "llvm.aarch64.neon.usdot.v4i32.v16i8", quarter, a, b.bitcast(w, bytes16), b.bitcast(v, bytes16))

    return _by_parts(b, (accumulator, weights, x), 4, multiply)


def _words(b, narrow, wide, vectors, source, result):
    """Call an instruction that makes 16-bit numbers or sums of them, in the CPU's width: its names, and element types."""
    lanes, name = (LANES, f"llvm.x86.avx512.{wide}.512") if "avx512bw" in features() else (LANES // 2, f"llvm.x86.avx2.{narrow}")
    whole, source, result = (ir.VectorType(ty, 32 * lanes // ty.width) for ty in (I32, source, result))
    return _by_parts(b, vectors, lanes, lambda *v: b.bitcast(call(b, name, result, *(b.bitcast(one, source) for one in v)), whole))


def _madd(b, weights, x):
    """Sum each pair of products of signed 16-bit numbers."""
    return _words(b, "pmadd.wd", "pmaddw.d", (weights, x), I16, I32)


def _dot_maddubs(b, accumulator, weights, x):
    words = ir.VectorType(I16, 2 * LANES)
    sums = _words(b, "pmadd.ub.sw", "pmaddubs.w", (weights, x), I8, I16)
    return b.bitcast(b.add(b.bitcast(accumulator, words), b.bitcast(sums, words)), VI)


def _dot_portable(b, accumulator, weights, x):
    """Multiply even and odd bytes as 16-bit numbers; LLVM turns product and pairwise sum into `vpmaddwd` where the CPU has it."""
    words = ir.VectorType(I16, 2 * LANES)
    wide = ir.VectorType(I32, 2 * LANES)
    eight = ir.Constant(words, [8] * 2 * LANES)
    w, x = b.bitcast(weights, words), b.bitcast(x, words)
    pairs = [
        (b.and_(w, ir.Constant(words, [0xFF] * 2 * LANES)), b.ashr(b.shl(x, eight), eight)),
        (b.lshr(w, eight), b.ashr(x, eight)),
    ]
    for weight, value in pairs:
        product = b.mul(b.sext(weight, wide), b.sext(value, wide))
        even, odd = (
            b.shuffle_vector(product, ir.Constant(wide, ir.Undefined), ir.Constant(VI, [I32(2 * i + k) for i in range(LANES)]))
            for k in (0, 1)
        )
        accumulator = b.add(accumulator, b.add(even, odd))
    return accumulator


# By instruction, for bytes of any size; `maddubs` itself holds codes below 16 only.
_DOTS = {
    "vnni512": _dot_vnni512, "vnni256": _dot_vnni256, "usdot": _dot_usdot, "maddubs": _dot_portable, "portable": _dot_portable,
}  # fmt: skip
