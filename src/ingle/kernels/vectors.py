"""Operations on rows of numbers at an address, 16 at a time."""

from numba import njit

from ingle.kernels.simd import f32_at, fma, load_bf16, load_f32, set_f32, splat, store_bf16, store_f32, total


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
