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


@njit(inline="always")
def matrix_vector(matrix, x, width):
    """Return Σ over k of matrix [K, 16] · x [K]: 16 outputs, four sums at a time, because a single one would wait for itself."""
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    for k in range(0, width, 4):
        a = fma(load_f32(matrix + 64 * k), splat(f32_at(x + 4 * k)), a)
        b = fma(load_f32(matrix + 64 * k + 64), splat(f32_at(x + 4 * k + 4)), b)
        c = fma(load_f32(matrix + 64 * k + 128), splat(f32_at(x + 4 * k + 8)), c)
        d = fma(load_f32(matrix + 64 * k + 192), splat(f32_at(x + 4 * k + 12)), d)
    return (a + b) + (c + d)
