"""Over all logits of a step: the sum of the softmax, and the token at a point of its cumulative distribution."""

import numpy as np
from numba import njit

from ingle.kernels.rows import exp
from ingle.kernels.simd import f32_at, larger, largest, load_f32, set_f32, set_i64, splat, total

_LOWEST = float(np.finfo(np.float32).min)


@njit
def _weights(logits, i, top, inverse):
    return exp((load_f32(logits + 4 * i) - top) * inverse)


def softmax_sum(logits, n, inverse_temperature, out):
    """Entry: out[0] = the largest of n float32 logits, out[1] = Σ e^((x − largest) / T). n is a multiple of 16.

    `inverse_temperature`, `out`: addresses of one and of two float32.
    """
    best = splat(_LOWEST)
    for i in range(0, n, 16):
        best = larger(best, load_f32(logits + 4 * i))
    top = splat(largest(best))
    inverse = splat(f32_at(inverse_temperature))
    sums = splat(0.0)
    for i in range(0, n, 16):
        sums = sums + _weights(logits, i, top, inverse)
    set_f32(out, largest(best))
    set_f32(out + 4, total(sums))


def softmax_pick(logits, n, inverse_temperature, sums, point, out):
    """Entry: the smallest token whose cumulative weight exceeds `point` · sum, as int64 in `out`.

    `sums`: what `softmax_sum` left; `point`: address of one float32 in [0, 1).
    """
    top, inverse = splat(f32_at(sums)), splat(f32_at(inverse_temperature))
    left = f32_at(point) * f32_at(sums + 4)
    chosen = -1
    i = 0
    while i < n and chosen < 0:
        block = total(_weights(logits, i, top, inverse))
        if block > left or i + 16 >= n:
            for lane in range(16):
                weight = largest(exp((splat(f32_at(logits + 4 * (i + lane))) - top) * inverse))
                if chosen < 0 and (weight > left or lane == 15):
                    chosen = i + lane
                left -= weight
        left -= block
        i += 16
    set_i64(out, chosen)
