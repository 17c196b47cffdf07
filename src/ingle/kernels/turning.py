"""Rows of heads between PyTorch's layout and that of kernels/packed_attention.py, turned by RoPE on the way.

PyTorch's [n, G · R, D], float32 or bfloat16, has rows STEP bytes apart; ours is float32 [G, n, R, D], D a multiple of 32. A head's pair
(i, i + D/2) turns by its angle; cos and sin are float32 [n, D], and may be scaled. On the way back PARTS copies are summed first.
"""

from numba import njit

from ingle.kernels.simd import fma, get, load, load_f32, splat, store, store_f32

# Fields of a call's record: addresses, bytes, counts. COS 0: nothing is turned.
FIELDS = ("OUTSIDE", "STEP", "ELEMENT", "ROWS", "GROUPS", "REPEATS", "DIM", "COS", "SIN", "INSIDE", "PARTS", "PART_STEP")
OUTSIDE, STEP, ELEMENT, ROWS, GROUPS, REPEATS, DIM, COS, SIN, INSIDE, PARTS, PART_STEP = range(len(FIELDS))


@njit
def _sum(call, address):
    """Return 16 numbers at an address, summed over the parts."""
    vector = load_f32(address)
    for part in range(1, get(call, PARTS)):
        vector = vector + load_f32(address + part * get(call, PART_STEP))
    return vector


@njit
def _outside(call, row, group, repeat):
    return get(call, OUTSIDE) + row * get(call, STEP) + (group * get(call, REPEATS) + repeat) * get(call, DIM) * get(call, ELEMENT)


@njit
def _inside(call, row, group, repeat):
    return get(call, INSIDE) + 4 * get(call, DIM) * ((group * get(call, ROWS) + row) * get(call, REPEATS) + repeat)


@njit
def _turned(a, b, cos, sin, half):
    """Return both halves of 16 pairs, turned."""
    first = fma(splat(-1.0) * b, load_f32(sin), a * load_f32(cos))
    second = fma(a, load_f32(sin + 4 * half), b * load_f32(cos + 4 * half))
    return first, second


def turn_in(call, start, stop):
    """Entry: copy rows start … stop − 1 from outside to inside."""
    element, dim = get(call, ELEMENT), get(call, DIM)
    half = dim // 2
    for group in range(get(call, GROUPS)):
        for row in range(start, stop):
            for repeat in range(get(call, REPEATS)):
                source, target = _outside(call, row, group, repeat), _inside(call, row, group, repeat)
                for i in range(0, half, 16):
                    first, second = load(element, source + i * element), load(element, source + (half + i) * element)
                    if get(call, COS) != 0:
                        at = 4 * (row * dim + i)
                        first, second = _turned(first, second, get(call, COS) + at, get(call, SIN) + at, half)
                    store_f32(target + 4 * i, first)
                    store_f32(target + 4 * (half + i), second)


def turn_out(call, start, stop):
    """Entry: copy rows start … stop − 1 from inside, summed over the parts, to outside."""
    element, dim = get(call, ELEMENT), get(call, DIM)
    half = dim // 2
    for group in range(get(call, GROUPS)):
        for row in range(start, stop):
            for repeat in range(get(call, REPEATS)):
                source, target = _inside(call, row, group, repeat), _outside(call, row, group, repeat)
                for i in range(0, half, 16):
                    first, second = _sum(call, source + 4 * i), _sum(call, source + 4 * (half + i))
                    if get(call, COS) != 0:
                        at = 4 * (row * dim + i)
                        first, second = _turned(first, second, get(call, COS) + at, get(call, SIN) + at, half)
                    store(element, target + i * element, first)
                    store(element, target + (half + i) * element, second)
