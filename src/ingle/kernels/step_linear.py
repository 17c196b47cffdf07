"""One linear of a step, whatever its kind: the threads take its panels in turn."""

from numba import njit

from ingle.kernels import layout as at
from ingle.kernels.simd import get
from ingle.kernels.sync import external, take

_linear_int4, _linear_int8 = external("linear_int4", 7), external("linear_int8", 7)
_linear_int4_16, _linear_int3_16 = external("linear_int4_16", 7), external("linear_int3_16", 7)
_linear_iq4_xs, _linear_iq4_nl = external("linear_iq4_xs", 7), external("linear_iq4_nl", 7)
_linear_int5, _linear_q2_k = external("linear_int5", 7), external("linear_q2_k", 7)
_linear_q3_k, _linear_q4_k = external("linear_q3_k", 7), external("linear_q4_k", 7)
_linear_q5_k, _linear_q6_k = external("linear_q5_k", 7), external("linear_q6_k", 7)
_linear_fp32, _linear_bf16 = external("linear_fp32", 7), external("linear_bf16", 7)


@njit
def multiply_panel(linear, arguments):
    """Compute one panel of a linear, by the kernel of its kind; for the arguments see `linear.linear_int4`."""
    kind = get(linear, at.KIND)
    if kind == at.INT4:
        _linear_int4(arguments)
    elif kind == at.INT4_16:
        _linear_int4_16(arguments)
    elif kind == at.INT3_16:
        _linear_int3_16(arguments)
    elif kind == at.Q4_K:
        _linear_q4_k(arguments)
    elif kind == at.Q6_K:
        _linear_q6_k(arguments)
    elif kind == at.Q5_K:
        _linear_q5_k(arguments)
    elif kind == at.Q3_K:
        _linear_q3_k(arguments)
    elif kind == at.IQ4_XS:
        _linear_iq4_xs(arguments)
    elif kind == at.IQ4_NL:
        _linear_iq4_nl(arguments)
    elif kind == at.INT5:
        _linear_int5(arguments)
    elif kind == at.Q2_K:
        _linear_q2_k(arguments)
    elif kind == at.F32:
        _linear_fp32(arguments)
    elif kind == at.BF16:
        _linear_bf16(arguments)
    else:
        _linear_int8(arguments)


@njit
def share_linear(linear, x, rows, out, accumulate, step, phase):
    """Compute one linear over all rows; the threads share its panels."""
    panels = get(linear, at.ROWS) // 16
    stride = 4 * get(linear, at.ROWS)
    portion = 1 if rows > 16 else max(1, min(16, panels // (4 * get(step, at.THREADS))))
    first = take(get(step, at.COUNTERS), phase, portion)
    while first < panels:
        for index in range(first, min(first + portion, panels)):
            multiply_panel(linear, (linear, index, x, rows, out + 64 * index, stride, accumulate))
        first = take(get(step, at.COUNTERS), phase, portion)
