"""The cache of keys and values: the address of a block of 16 tokens, writing a token, and reading one number (see core/blocks.py)."""

import numpy as np
from numba import njit

from ingle.core.blocks import BLOCK_TOKENS
from ingle.core.state_layout import PAGE_TOKENS
from ingle.kernels import layout as at
from ingle.kernels.simd import (
    f32_at,
    get,
    half_at,
    i8_at,
    i64_at,
    larger,
    largest,
    load_f32,
    magnitude,
    rounded,
    set_f32,
    set_half,
    set_i8,
    smaller,
    splat,
    store_f16,
    store_f32,
    store_i8,
    total,
    whole,
)

_PAGE_BLOCKS = PAGE_TOKENS // BLOCK_TOKENS
_LARGEST = np.float32(65504)  # of float16: larger scales would be infinite


@njit
def block_address(model, layer, segment, group, block):
    """Return the address of the keys of a block of 16 positions. The values follow after 16 · width numbers, and in int8 the scales after
    both."""
    size = get(model, at.BLOCK_BYTES)
    slot = get(layer, at.PLACES + group)
    if slot >= 0:
        page = i64_at(get(segment, at.PAGES) + 8 * (block // _PAGE_BLOCKS))
        return page + (slot * _PAGE_BLOCKS + block % _PAGE_BLOCKS) * size
    sinks = get(layer, at.SINK_BLOCKS)
    ring = get(layer, (at.PLACES + get(model, at.GROUPS) + group))
    place = block if block < sinks else sinks + (block - sinks) % get(layer, at.RING_BLOCKS)
    return get(segment, at.RINGS) + (place * get(model, at.STREAMING) + ring) * size


@njit
def scale_address(block, column, width, part):
    """Return the address of the scale of a token's key (part 0) or value (part 1) in an int8 block."""
    return block + 2 * BLOCK_TOKENS * width + 2 * (BLOCK_TOKENS * part + column)


@njit
def _store(half, address, place, value):
    if half:
        set_half(address + 2 * place, value)
    else:
        set_f32(address + 4 * place, value)


@njit
def _put_float(half, block, column, key, value, dim, width):
    for d in range(dim):
        _store(half, block, d * BLOCK_TOKENS + column, f32_at(key + 4 * d))
    row = (BLOCK_TOKENS + column) * width
    vectors = dim // 16 * 16
    for d in range(0, vectors, 16):
        if half:
            store_f16(block + 2 * (row + d), load_f32(value + 4 * d))
        else:
            store_f32(block + 4 * (row + d), load_f32(value + 4 * d))
    for d in range(vectors, dim):
        _store(half, block, row + d, f32_at(value + 4 * d))


@njit
def _to_bytes(x, scale, width):
    """Round float32 x [width] to whole numbers −127 … 127, still float32, and write their float16 unit to `scale`: max |x| / 127."""
    most, sums = splat(0.0), splat(0.0)
    for c in range(0, 4 * width, 64):
        most = larger(most, magnitude(load_f32(x + c)))
        sums = sums + load_f32(x + c)
    row_sum = total(sums)
    if row_sum - row_sum != 0:  # NaN, or infinity: whoever looks at this token shall know
        set_half(scale, np.float32(np.nan))
    else:
        set_half(scale, min(largest(most) / np.float32(127), _LARGEST))
    step = half_at(scale)
    divisor = splat(step if step > 0 else np.float32(1))
    for c in range(0, 4 * width, 64):
        q = whole(load_f32(x + c) / divisor)
        store_f32(x + c, larger(smaller(q, splat(127.0)), splat(-127.0)))


@njit
def _put_int8(block, column, key, value, dim, width):
    """Write a token. `key` [width] is overwritten; behind it there is room for the value, padded."""
    spare = key + 4 * width
    for d in range(dim):
        set_f32(spare + 4 * d, f32_at(value + 4 * d))
    for d in range(dim, width):
        set_f32(spare + 4 * d, 0.0)
    _to_bytes(key, scale_address(block, column, width, 0), width)
    _to_bytes(spare, scale_address(block, column, width, 1), width)
    for d in range(dim):
        set_i8(block + d * BLOCK_TOKENS + column, np.int8(f32_at(key + 4 * d)))
    row = block + (BLOCK_TOKENS + column) * width
    for d in range(0, width, 16):
        store_i8(row + d, rounded(load_f32(spare + 4 * d)))


@njit
def put(model, block, column, key, value):
    """Write one token's key [width, and as much room behind it] and value [dim] of one group into its block."""
    dim, width, kind = get(model, at.DIM), get(model, at.WIDTH), get(model, at.CACHE)
    if kind == at.CACHE_INT8:
        _put_int8(block, column, key, value, dim, width)
    else:
        _put_float(kind == at.CACHE_F16, block, column, key, value, dim, width)


@njit
def _number(model, block, place, column, part):
    kind = get(model, at.CACHE)
    if kind == at.CACHE_INT8:
        return np.float32(i8_at(block + place)) * half_at(scale_address(block, column, get(model, at.WIDTH), part))
    return half_at(block + 2 * place) if kind == at.CACHE_F16 else f32_at(block + 4 * place)


@njit
def key_at(model, block, column, d):
    """Return number d of a token's key."""
    return _number(model, block, d * BLOCK_TOKENS + column, column, 0)


@njit
def value_at(model, block, column, d):
    """Return number d of a token's value."""
    return _number(model, block, (BLOCK_TOKENS + column) * get(model, at.WIDTH) + d, column, 1)
