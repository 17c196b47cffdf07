"""Codes of four bits whose weights are not evenly apart: GGUF's IQ4_NL and IQ4_XS.

A code's weight is `k_quants.WEIGHTS[code]` times a scale. Kernels look weights up in a table that lies in a register.
"""

from llvmlite import ir
from numba.extending import intrinsic

from ingle.kernels.cpu import features
from ingle.kernels.k_quants import WEIGHTS
from ingle.kernels.simd import I8, I32, INTEGERS, LANES, VI, call

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
