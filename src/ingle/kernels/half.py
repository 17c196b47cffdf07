"""float16 ↔ float32: one instruction where the CPU has it (F16C, Arm), else integer arithmetic with the same results."""

from llvmlite import ir

from ingle.kernels.cpu import has_half

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
