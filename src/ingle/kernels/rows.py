"""What happens to each row of activations by itself: embedding, RMSNorm, rounding to int8, rotary positions, the gated MLP's product."""

from numba import njit

from ingle.kernels import layout as at
from ingle.kernels.simd import (
    bfloat_at,
    f32_at,
    fma,
    get,
    half_at,
    integer_total,
    larger,
    largest,
    load_f32,
    magnitude,
    numbers,
    power_of_two,
    rounded,
    set_f32,
    set_i32,
    smaller,
    splat,
    store_f32,
    store_i8,
    total,
    u8_at,
    whole,
    zero_if_faint,
)

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4


@njit(inline="always")
def exp(x):
    """e^x of 16 numbers, within 2 units in the last place; exactly 0 below −87.3 (Cephes' expf: 2^n · e^r with |r| ≤ ln 2 / 2)."""
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
def quantise(x, row, K):
    """Rounds row `row` of x float32 [T, K] to int8 with one scale per 32 columns: scale = max |x| / 127.

    x is the address of activations; fills BYTES, SCALE, TOTAL and OFFSET. With two terms the rest is rounded once more, so that
    x is kept to 15 bits; VALUES are then what is left over after that.
    """
    groups, terms = K // 32, get(x, at.TERMS)
    values = get(x, at.VALUES) + row * K * 4
    for term in range(terms):
        line = row * terms + term
        bytes_ = get(x, at.BYTES) + line * K
        scale, sums = get(x, at.SCALE) + line * groups * 4, get(x, at.TOTAL) + line * groups * 4
        offset = get(x, at.OFFSET) + line * groups * 4
        for g in range(groups):
            low, high = load_f32(values + 128 * g), load_f32(values + 128 * g + 64)
            most = largest(larger(magnitude(low), magnitude(high)))
            step = most / 127.0
            inverse = splat(127.0 / most if most > 0.0 else 0.0)
            a, b = rounded(low * inverse), rounded(high * inverse)
            store_i8(bytes_ + 32 * g, a)
            store_i8(bytes_ + 32 * g + 16, b)
            n = integer_total(a) + integer_total(b)
            set_f32(scale + 4 * g, step)
            set_f32(sums + 4 * g, step * n)
            set_i32(offset + 4 * g, -128 * n)
            if term + 1 < terms:
                store_f32(values + 128 * g, fma(numbers(a), splat(-step), low))
                store_f32(values + 128 * g + 64, fma(numbers(b), splat(-step), high))


@njit
def rms_norm(source, weight, out, width, padded, eps):
    """out = x / sqrt(mean(x²) + eps) · weight, over `width` numbers in rows padded to `padded` (a multiple of 16)."""
    squares = splat(0.0)
    for i in range(0, 4 * padded, 64):
        v = load_f32(source + i)
        squares = fma(v, v, squares)
    factor = splat(1.0 / (total(squares) / width + eps) ** 0.5)
    for i in range(0, 4 * padded, 64):
        store_f32(out + i, load_f32(source + i) * factor * load_f32(weight + i))


@njit
def silu_product(gate, up, out, padded):
    """out = gate · sigmoid(gate) · up."""
    one, zero = splat(1.0), splat(0.0)
    for i in range(0, 4 * padded, 64):
        g = load_f32(gate + i)
        store_f32(out + i, g / (one + exp(zero - g)) * load_f32(up + i))


@njit
def rotate(head, cosine, sine, dim):
    """Rotary position on one head in place: pairs (i, i + dim/2) turn by the angle of `cosine`, `sine` [dim/2]."""
    half = 2 * dim  # bytes of half a head
    for i in range(0, half, 4):
        a, b = f32_at(head + i), f32_at(head + half + i)
        c, s = f32_at(cosine + i), f32_at(sine + i)
        set_f32(head + i, a * c - b * s)
        set_f32(head + half + i, b * c + a * s)


@njit
def embed(linear, token, out, width):
    """The float32 row `token` of a packed matrix: what `linear_panel` would multiply by a one."""
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
        elif kind == at.F32:
            value = f32_at(weights + 4 * ((panel * K + k) * 16 + lane))
        elif kind == at.BF16:
            value = bfloat_at(weights + 2 * ((panel * K + k) * 16 + lane))
        elif kind == at.INT8:
            value = (u8_at(weights + cell) - 128.0) * f32_at(scales + 4 * (panel * 16 + lane))
        else:
            value = (u8_at(weights + cell) - 128.0) * half_at(scales + 2 * group)
        set_f32(out + 4 * k, value)
