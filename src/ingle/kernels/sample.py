"""The token at a point of the softmax's cumulative distribution, in two passes over all logits."""

import numpy as np
from numba import njit

from ingle.kernels.rows import exp
from ingle.kernels.simd import f32_at, larger, largest, load_f32, set_f32, set_i64, splat, total

_LOWEST = float(np.finfo(np.float32).min)


@njit
def _weights(logits, i, top, inverse):
    return exp((load_f32(logits + 4 * i) - top) * inverse)


def softmax_pick(logits, n, numbers, token):
    """Entry: the smallest token whose cumulative weight exceeds `point` · sum, as int64 in `token`; n is a multiple of 16.

    `numbers`: address of four float32. Read: 1 / temperature, and the point in [0, 1). Written: the largest logit, and Σ e^((x − largest) /
    T).
    """
    best = splat(_LOWEST)
    for i in range(0, n, 16):
        best = larger(best, load_f32(logits + 4 * i))
    top, inverse = splat(largest(best)), splat(f32_at(numbers))
    sums = splat(0.0)
    for i in range(0, n, 16):
        sums = sums + _weights(logits, i, top, inverse)
    mass = total(sums)
    set_f32(numbers + 8, largest(best))
    set_f32(numbers + 12, mass)
    left = f32_at(numbers + 4) * mass
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
    set_i64(token, chosen)
