"""Operations on single rows of activations: embedding, RMSNorm, rounding to int8, rotary positions, the gated MLP's product."""

import numpy as np
from numba import njit

from ingle.kernels import layout as at
from ingle.kernels.formats import WEIGHTS
from ingle.kernels.simd import (
    bfloat_at,
    clear_32,
    f32_at,
    fma,
    get,
    half_at,
    i8_at,
    larger,
    largest,
    load_f32,
    magnitude,
    numbers,
    power_of_two,
    rounded,
    set_f32,
    set_i32,
    set_i64,
    smaller,
    splat,
    store_f32,
    store_i8,
    total,
    u8_at,
    whole,
    zero_if_faint,
)

OUTLIER = np.float32(6)
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4


@njit(inline="always")
def exp(x):
    """Return e^x of 16 numbers, within 2 units in the last place; exactly 0 below −87.3 (Cephes' expf: 2^n · e^r with |r| ≤ ln 2 / 2)."""
    z = smaller(larger(x, splat(-87.3)), splat(88.0))
    n = whole(z * splat(_LOG2_E))
    r = fma(n, splat(-_LN2_HIGH), z)
    r = fma(n, splat(-_LN2_LOW), r)
    p = fma(r, splat(1.9875691500e-4), splat(1.3981999507e-3))
    p = fma(p, r, splat(8.3334519073e-3))
    p = fma(p, r, splat(4.1665795894e-2))
    p = fma(p, r, splat(1.6666665459e-1))
    p = fma(p, r, splat(5.0000001201e-1))
    return zero_if_faint(fma(p, r * r, r + splat(1.0)) * power_of_two(n), x)


@njit
def _round_group(low, high, bytes_, scale, sums, offset, halves):
    """Round 32 numbers to int8 with the scale max |x| / 127; return the remainders."""
    most = largest(larger(magnitude(low), magnitude(high)))
    step = most / np.float32(127)
    inverse = splat(np.float32(127) / most if most > 0 else np.float32(0))
    a, b = rounded(low * inverse), rounded(high * inverse)
    store_i8(bytes_, a)
    store_i8(bytes_ + 16, b)
    of_low, of_high = total(numbers(a)), total(numbers(b))  # exact: 16 whole numbers below 128
    set_f32(scale, step)
    set_f32(sums, step * (of_low + of_high))
    set_i32(offset, np.int32(-128 * (of_low + of_high)))
    set_i32(halves, np.int32((np.int32(-16 * of_low) & 0xFFFF) | (np.int32(-16 * of_high) << 16)))
    return fma(numbers(a), splat(-step), low), fma(numbers(b), splat(-step), high)


@njit
def quantise(x, row, K):
    """Round row `row` of x float32 [T, K] to int8 with one scale per 32 columns. x: address of activations, whose other fields are filled.

    A number above OUTLIER · rms(row) leaves too few of 8 bits for the rest of its group, so such a group keeps its rounding error as a
    second term. That is one group in ten, and brings the bits per byte within a few hundredths of a percent of float32 input
    (bench/quality.py).
    """
    groups = K // 32
    values = get(x, at.VALUES) + row * K * 4
    squares = splat(0.0)
    for i in range(0, 4 * K, 64):
        v = load_f32(values + i)
        squares = fma(v, v, squares)
    bound = OUTLIER * np.sqrt(total(squares) / np.float32(K))
    bytes_ = get(x, at.BYTES) + 2 * row * K
    scale, sums = get(x, at.SCALE) + 8 * row * groups, get(x, at.TOTAL) + 8 * row * groups
    offset, halves = get(x, at.OFFSET) + 8 * row * groups, get(x, at.HALVES) + 8 * row * groups
    for g in range(groups):
        low, high = load_f32(values + 128 * g), load_f32(values + 128 * g + 64)
        rest_low, rest_high = _round_group(low, high, bytes_ + 32 * g, scale + 4 * g, sums + 4 * g, offset + 4 * g, halves + 4 * g)
        second = 4 * (groups + g)
        if f32_at(scale + 4 * g) * np.float32(127) > bound:
            _round_group(rest_low, rest_high, bytes_ + K + 32 * g, scale + second, sums + second, offset + second, halves + second)
        else:
            clear_32(bytes_ + K + 32 * g)
            set_f32(scale + second, 0.0)
            set_f32(sums + second, 0.0)
            set_i32(offset + second, 0)
            set_i32(halves + second, 0)


@njit
def rms_norm(source, weight, out, width, padded, eps, factor):
    """Set out = factor · x / sqrt(mean(x²) + eps) · weight, over `width` numbers in rows padded to `padded` (a multiple of 16)."""
    squares = splat(0.0)
    for i in range(0, 4 * padded, 64):
        v = load_f32(source + i)
        squares = fma(v, v, squares)
    scale = splat(factor / (total(squares) / width + eps) ** 0.5)
    for i in range(0, 4 * padded, 64):
        store_f32(out + i, load_f32(source + i) * scale * load_f32(weight + i))


@njit
def silu_product(gate, up, out, padded):
    """Set out = gate · sigmoid(gate) · up."""
    one, zero = splat(1.0), splat(0.0)
    for i in range(0, 4 * padded, 64):
        g = load_f32(gate + i)
        store_f32(out + i, g / (one + exp(zero - g)) * load_f32(up + i))


@njit
def gelu_product(gate, up, out, padded):
    """Set out = gelu(gate) · up, in the form with tanh: gate / (1 + e^(−2z)), z = √(2/π) · (gate + 0.044715 gate³)."""
    one = splat(1.0)
    for i in range(0, 4 * padded, 64):
        g = load_f32(gate + i)
        z = g * fma(g * g, splat(-0.0713548162726), splat(-1.5957691216057308))
        store_f32(out + i, g / (one + exp(z)) * load_f32(up + i))


@njit
def sigmoid_product(gate, x, spare, width):
    """Set x = x · sigmoid(gate), of `width` float32. spare: 16 float32 to write to."""
    one, zero, whole = splat(1.0), splat(0.0), width // 16 * 16
    for i in range(0, 4 * whole, 64):
        store_f32(x + i, load_f32(x + i) / (one + exp(zero - load_f32(gate + i))))
    for i in range(whole, width):
        store_f32(spare, one / (one + exp(splat(-f32_at(gate + 4 * i)))))
        set_f32(x + 4 * i, f32_at(x + 4 * i) * f32_at(spare))


@njit
def scale_row(x, factor, width):
    """Multiply `width` float32 (a multiple of 16) by a factor."""
    for i in range(0, 4 * width, 64):
        store_f32(x + i, load_f32(x + i) * splat(factor))


@njit
def add_scaled(source, factor, out, width):
    """Set out = out + factor · source, of `width` float32 (a multiple of 16)."""
    for i in range(0, 4 * width, 64):
        store_f32(out + i, fma(load_f32(source + i), splat(factor), load_f32(out + i)))


@njit
def rotate(source, factor, cosine, sine, out, dim):
    """Apply rotary positions to one head, times `factor`: pairs (i, i + dim/2) turn by the angle of `cosine`, `sine` [dim/2]."""
    half = 2 * dim  # bytes of half a head
    whole = half // 64 * 64
    for i in range(0, whole, 64):
        a, b = load_f32(source + i) * splat(factor), load_f32(source + half + i) * splat(factor)
        c, s = load_f32(cosine + i), load_f32(sine + i)
        store_f32(out + i, a * c - b * s)
        store_f32(out + half + i, b * c + a * s)
    for i in range(whole, half, 4):
        a, b = f32_at(source + i) * factor, f32_at(source + half + i) * factor
        c, s = f32_at(cosine + i), f32_at(sine + i)
        set_f32(out + i, a * c - b * s)
        set_f32(out + half + i, b * c + a * s)


@njit
def _of_block(linear, kind, group, lane, k):
    """Return one number of a K-quant: column k of a group of 32, which is number `group` of all panels (kernels/formats.py)."""
    quad, place = k // 4, lane * 4 + k % 4
    scales, number = get(linear, at.SCALES), group % 8
    if kind == at.IQ4_XS:
        code = (u8_at(get(linear, at.WEIGHTS) + group * 256 + quad // 2 * 64 + place) >> (4 * (quad % 2))) & 15
        block = scales + group // 8 * 160
        return half_at(block + 2 * lane) * i8_at(block + 32 + 16 * number + lane) * np.float32(WEIGHTS[code])
    if kind == at.Q2_K:
        code = (u8_at(get(linear, at.WEIGHTS) + group * 128 + quad // 4 * 64 + place) >> (2 * (quad % 4))) & 3
    elif kind == at.Q3_K:
        codes = get(linear, at.WEIGHTS) + group * 192 + place
        code = (u8_at(codes + quad // 2 * 64) >> (3 * (quad % 2))) & 7
        if quad >= 6:
            last = u8_at(codes + 128)
            code = (u8_at(codes + (quad - 6) * 64) >> 6) | ((last >> quad) & 1) << 2
    else:
        codes = get(linear, at.WEIGHTS) + group * (256 if kind == at.Q4_K else (320 if kind == at.Q5_K else 384)) + place
        code = (u8_at(codes + quad // 2 * 64) >> (4 * (quad % 2))) & 15
        if kind == at.Q5_K:
            code |= ((u8_at(codes + 256) >> quad) & 1) << 4
        elif kind == at.Q6_K:
            code |= ((u8_at(codes + 256 + quad // 4 * 64) >> (2 * (quad % 4))) & 3) << 4
    if kind in (at.Q3_K, at.Q6_K):
        block = scales + group // 8 * 288
        step = half_at(block + 2 * lane) * i8_at(block + 32 + 16 * (2 * number + k // 16) + lane)
        return step * np.float32(code - (4 if kind == at.Q3_K else 32))
    if kind == at.Q2_K:
        block = scales + group // 8 * 320
        both = u8_at(block + 64 + 16 * (2 * number + k // 16) + lane)
        step = half_at(block + 2 * lane) * np.float32(both & 15)
        return step * np.float32(code) - half_at(block + 32 + 2 * lane) * np.float32(both >> 4)
    block = scales + group // 8 * 256
    lower, upper = u8_at(block + 64 + 16 * number + lane), u8_at(block + 192 + number // 2 * 16 + lane) >> (4 * (number % 2))
    step = half_at(block + 2 * lane) * np.float32((lower & 15) | (upper & 3) << 4)
    return step * np.float32(code) - half_at(block + 32 + 2 * lane) * np.float32((lower >> 4) | (upper & 12) << 2)


@njit
def embed(linear, token, out, width):
    """Write the float32 row `token` of a packed matrix, as the linear kernels see it, and zeros behind it."""
    kind = get(linear, at.KIND)
    K = get(linear, at.COLUMNS)
    groups = K // 32
    panel, lane = token // 16, token % 16
    weights, scales = get(linear, at.WEIGHTS), get(linear, at.SCALES)
    for k in range(width):
        cell = panel * K * 16 + (k // 4) * 64 + lane * 4 + k % 4  # of a byte of the integer kinds
        group = (panel * groups + k // 32) * 16 + lane
        if kind == at.INT4:
            pair = panel * K * 8 + (k // 8) * 64 + lane * 4 + k % 4
            nibble = (u8_at(weights + pair) >> (4 * (k // 4 % 2))) & 15
            minimum = half_at(get(linear, at.MINIMA) + 2 * group)
            value = nibble * half_at(scales + 2 * group) + minimum
        elif kind == at.INT5:
            quad, codes = k % 32 // 4, weights + (panel * groups + k // 32) * 320 + lane * 4 + k % 4
            code = (u8_at(codes + quad // 2 * 64) >> (4 * (quad % 2))) & 15 | ((u8_at(codes + 256) >> quad) & 1) << 4
            value = np.float32(code) * half_at(scales + 2 * group) + half_at(get(linear, at.MINIMA) + 2 * group)
        elif kind == at.IQ4_NL:
            code = (u8_at(weights + panel * K * 8 + (k // 8) * 64 + lane * 4 + k % 4) >> (4 * (k // 4 % 2))) & 15
            value = np.float32(WEIGHTS[code]) * half_at(scales + 2 * group)
        elif kind >= at.Q2_K:
            value = _of_block(linear, kind, panel * groups + k // 32, lane, k % 32)
        elif kind == at.F32:
            value = f32_at(weights + 4 * ((panel * K + k) * 16 + lane))
        elif kind == at.BF16:
            value = bfloat_at(weights + 2 * ((panel * K + k) * 16 + lane))
        elif kind == at.INT8:
            value = (u8_at(weights + cell) - 128.0) * f32_at(scales + 4 * (panel * 16 + lane))
        else:
            value = (u8_at(weights + cell) - 128.0) * half_at(scales + 2 * group)
        set_f32(out + 4 * k, value)
    for k in range(width, K):
        set_f32(out + 4 * k, 0.0)  # where somebody's NaN may have been added to it


@njit
def place_vector(vector, out, width, row_bytes):
    """Write a vector float32 [width] in the place of an embedding's row of `row_bytes`, with zeros behind it."""
    for k in range(width):
        set_f32(out + 4 * k, f32_at(vector + 4 * k))
    for k in range(4 * width, row_bytes, 4):
        set_f32(out + k, 0.0)


# The token at a point of the softmax's cumulative distribution, in two passes over all logits.


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
