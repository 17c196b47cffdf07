"""Attention of a few queries over the cached keys and values of one group: full, or sinks + sliding window.

Online softmax (arXiv 1805.02867) in chunks of 256 keys, as in FlashAttention (arXiv 2205.14135). A *task* is a tile of up to 12
rows — tokens × the queries that share the group, so keys are read once for all — against some splits of 512 keys. Splits of one
tile may go to different threads. Chunks and splits begin at fixed positions and are folded in order, so a query's result does not
depend, to the last bit, on the rest of the step or on its threads. Layout of a block: core/state.py.
"""

import numpy as np
from numba import njit

from ingle.core.state import BLOCK_TOKENS, PAGE_TOKENS
from ingle.kernels import layout as at
from ingle.kernels.cpu import tile_rows
from ingle.kernels.rows import exp
from ingle.kernels.simd import (
    f32_at,
    fma,
    get,
    half_at,
    i8_at,
    i64_at,
    larger,
    largest,
    load_f16,
    load_f32,
    load_i8,
    magnitude,
    prefetch,
    rounded,
    set_f32,
    set_half,
    set_i8,
    set_i64,
    smaller,
    splat,
    store_f16,
    store_f32,
    store_i8,
    total,
    visible,
    whole,
)
from ingle.kernels.tiles import load_tile, outer, store_tile, zeros_f

# The cache of keys and values: the address of a block of 16 tokens, writing a token, and reading one number (see core/state.py).


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


_EVERYTHING = 1 << 60  # a window that reaches back to the start
NOTHING = -1e30  # maximum before any key was seen: finite, so that exp(−∞ − it) is 0 and not NaN
_LINE = at.CHUNK_BLOCKS * 64  # bytes from one row of scores to the next
_part_floats, _scratch_floats = njit(at.part_floats), njit(at.scratch_floats)


def _scaler(element):
    """Make the function that multiplies one row's scores by the keys' scales (part 0), or its weights by the values' (part 1); without
    scales it does nothing."""

    @njit
    def scale(scores, addresses, count, width, part):
        if element == 1:
            for j in range(count):
                place = scores + 64 * j
                store_f32(place, load_f32(place) * load_f16(scale_address(get(addresses, j), 0, width, part)))

    return scale


@njit
def soften(scores, blocks, top, out, width):
    """Turn scores of one row into weights e^(s − maximum), and rescale earlier sums to the new maximum."""
    peak = splat(NOTHING)
    for j in range(0, 64 * blocks, 64):
        peak = larger(peak, load_f32(scores + j))
    before = f32_at(top)
    now = max(before, largest(peak))
    weights = splat(0.0)
    for j in range(0, 64 * blocks, 64):
        p = exp(load_f32(scores + j) - splat(now))
        store_f32(scores + j, p)
        weights = weights + p
    fade = exp(splat(before - now))
    for c in range(0, 4 * width, 64):
        store_f32(out + c, load_f32(out + c) * fade)
    set_f32(top + 4, f32_at(top + 4) * largest(fade) + total(weights))
    set_f32(top, now)


def _tall_tile(rows, load, element):
    """Make scoring and weighted sums for many queries, so many at a time that one block or column keeps the CPU busy."""

    @njit
    def score(width, q, queries, addresses, count, scores):
        for first in range(0, queries, rows):
            for j in range(count):
                keys = get(addresses, j)
                tile = zeros_f(rows)
                for d in range(width):
                    tile = outer(tile, load(keys + d * BLOCK_TOKENS * element), q + 4 * (first * width + d), 4 * width)
                store_tile(tile, scores + first * _LINE + 64 * j, _LINE)

    @njit
    def gather(width, queries, addresses, count, scores, out):
        for first in range(0, queries, rows):
            weights, sums = scores + first * _LINE, out + 4 * first * width
            for c in range(0, width, 16):
                tile = load_tile(rows, sums + 4 * c, 4 * width)
                for j in range(count):
                    values = get(addresses, j) + (BLOCK_TOKENS * width + c) * element
                    for key in range(BLOCK_TOKENS):
                        tile = outer(tile, load(values + key * width * element), weights + 64 * j + 4 * key, _LINE)
                store_tile(tile, sums + 4 * c, 4 * width)

    return score, gather


def _short_tile(rows, load, element):
    """Make scoring and weighted sums for few queries, two blocks or columns at a time: a single sum would wait for itself. Memory is
    prefetched."""

    @njit
    def score(width, q, addresses, count, scores):
        values = BLOCK_TOKENS * width * element
        for j in range(0, count, 2):
            one, two = get(addresses, j), get(addresses, min(j + 1, count - 1))
            ahead, far = get(addresses, min(j + 2, count - 1)), get(addresses, min(j + 3, count - 1))
            tile, other = zeros_f(rows), zeros_f(rows)
            for d in range(width):
                at_d = d * BLOCK_TOKENS * element
                if d * element % 4 == 0:  # once a cache line: keys of the next two blocks, and values of these
                    prefetch(ahead + at_d)
                    prefetch(far + at_d)
                    prefetch(one + values + at_d)
                    prefetch(two + values + at_d)
                tile = outer(tile, load(one + at_d), q + 4 * d, 4 * width)
                other = outer(other, load(two + at_d), q + 4 * d, 4 * width)
            store_tile(tile, scores + 64 * j, _LINE)
            store_tile(other, scores + 64 * min(j + 1, count - 1), _LINE)

    @njit
    def gather(width, addresses, count, scores, out, later):
        for c in range(0, width, 32):
            second = c + 16 if c + 16 < width else c
            tile, other = load_tile(rows, out + 4 * c, 4 * width), load_tile(rows, out + 4 * second, 4 * width)
            for j in range(count):
                values, keys = get(addresses, j) + BLOCK_TOKENS * width * element, get(later, j) + 32 * c
                for key in range(BLOCK_TOKENS):
                    prefetch(keys + 64 * key)  # over all c, in float16: keys of a block of the next chunk
                    row, weights = values + key * width * element, scores + 64 * j + 4 * key
                    tile = outer(tile, load(row + c * element), weights, _LINE)
                    other = outer(other, load(row + second * element), weights, _LINE)
            store_tile(tile, out + 4 * c, 4 * width)
            store_tile(other, out + 4 * second, 4 * width)

    return score, gather


@njit
def sees(layer, group, position, split):
    """Return whether a query at a position sees any key of a split: streaming groups see the sinks, and few others."""
    if get(layer, at.PLACES + group) >= 0:
        return True
    return split * at.SPLIT_TOKENS < get(layer, at.SINKS) or (split + 1) * at.SPLIT_TOKENS > position - get(layer, at.WINDOW) + 1


@njit
def _collect(model, layer, segment, group, chunk, end, low, addresses, numbers):
    """Collect the blocks of a chunk that some row of the tile may see; return how many."""
    sinks = 0 if get(layer, at.PLACES + group) >= 0 else get(layer, at.SINK_BLOCKS)
    count = 0
    for block in range(chunk * at.CHUNK_BLOCKS, min((chunk + 1) * at.CHUNK_BLOCKS, end)):
        if block < sinks or block >= low:
            set_i64(addresses + 8 * count, block_address(model, layer, segment, group, block))
            set_i64(numbers + 8 * count, block)
            count += 1
    return count


@njit
def _later(model, layer, step, segment, group, chunk, end, addresses, places):
    """Return the addresses of as many blocks as a chunk has that this thread will probably read next; this chunk's if it is the last."""
    chunk += 1
    if chunk % at.SPLIT_CHUNKS == 0:
        chunk += (get(step, at.THREADS) - 1) * at.SPLIT_CHUNKS  # the splits between are taken by the other threads
    if (chunk + 1) * at.CHUNK_BLOCKS > end:
        return addresses
    for i in range(at.CHUNK_BLOCKS):
        set_i64(places + 8 * i, block_address(model, layer, segment, group, chunk * at.CHUNK_BLOCKS + i))
    return places


@njit
def _mask(scores, numbers, count, query, window, sinks):
    """Set scores to −∞ where the row's query must not look."""
    for j in range(count):
        start = get(numbers, j) * BLOCK_TOKENS
        if start + BLOCK_TOKENS > query or start <= query - window:
            store_f32(scores + 64 * j, visible(load_f32(scores + 64 * j), start, query, window, sinks))


@njit
def clear_part(out, top, width):
    """Initialise a partial result without keys: outputs 0, maximum −10³⁰, sum 0."""
    for c in range(0, 4 * width, 64):
        store_f32(out + c, splat(0.0))
    set_f32(top, NOTHING)
    set_f32(top + 4, 0.0)


@njit
def fold(out, top, part, part_top, width):
    """Fold a partial result into one of earlier keys: each is weighted by e^(its maximum − the larger maximum)."""
    most = max(f32_at(top), f32_at(part_top))
    old, new = exp(splat(f32_at(top) - most)), exp(splat(f32_at(part_top) - most))
    for c in range(0, 4 * width, 64):
        store_f32(out + c, fma(load_f32(part + c), new, load_f32(out + c) * old))
    set_f32(top + 4, f32_at(top + 4) * largest(old) + f32_at(part_top + 4) * largest(new))
    set_f32(top, most)


@njit
def _save(step, segment, task, shared, rows, width, out, tops):
    """Write the tile's rows as partial results."""
    each = get(segment, at.PARTS_EACH)
    local = get(task, at.TASK_ROW) - get(segment, at.FIRST) * shared
    part = get(segment, at.PART) + (get(task, at.TASK_GROUP) * get(segment, at.COUNT) * shared + local) * each + get(task, at.TASK_PART)
    for r in range(rows):
        place = get(step, at.PARTS) + (part + r * each) * 4 * _part_floats(width)
        for c in range(0, 4 * width, 64):
            store_f32(place + c, load_f32(out + r * width * 4 + c))
        set_f32(place + 4 * width, f32_at(tops + 8 * r))
        set_f32(place + 4 * width + 4, f32_at(tops + 8 * r + 4))


def _task(load, element):
    score_4, gather_4 = _short_tile(4, load, element)
    score_many, gather_many = _tall_tile(tile_rows()[0], load, element)
    scale = _scaler(element)

    @njit
    def attend(width, q, rows, keys, scores, step, row, shared, window, sinks, out, tops):
        """Add one chunk to the tile's partial results of this split. `keys`: its blocks, and those that will be read later."""
        addresses, numbers, count, later = keys
        if rows <= 4:
            score_4(width, q, addresses, count, scores)
        else:
            score_many(width, q, rows, addresses, count, scores)
        for r in range(rows):
            line = scores + r * _LINE
            scale(line, addresses, count, width, 0)
            _mask(line, numbers, count, get(get(step, at.POSITIONS), (row + r) // shared), window, sinks)
            soften(line, count, tops + 8 * r, out + r * width * 4, width)
            scale(line, addresses, count, width, 1)
        if rows <= 4:
            gather_4(width, addresses, count, scores, out, later)
        else:
            gather_many(width, rows, addresses, count, scores, out)

    @njit
    def run(model, layer, step, task, thread):
        width, shared = get(model, at.WIDTH), get(model, at.HEADS) // get(model, at.GROUPS)
        group, row, rows = get(task, at.TASK_GROUP), get(task, at.TASK_ROW), get(task, at.TASK_ROWS)
        segment = get(step, at.SEGMENTS) + 8 * at.SEGMENT * get(task, at.TASK_SEGMENT)
        q = get(step, at.ROTATED) + (group * (get(step, at.BATCH) * shared + at.TILE_ROWS) + row) * width * 4
        scores = get(step, at.SCRATCH) + thread * 4 * _scratch_floats(width)
        out = scores + at.TILE_ROWS * _LINE
        split_out = out + at.TILE_ROWS * width * 4
        tops = split_out + at.TILE_ROWS * width * 4
        split_tops = tops + at.TILE_ROWS * 8
        addresses = split_tops + at.TILE_ROWS * 8
        numbers = addresses + 8 * at.CHUNK_BLOCKS

        full = get(layer, at.PLACES + group) >= 0
        window, sinks = _EVERYTHING if full else get(layer, at.WINDOW), 0 if full else get(layer, at.SINKS)
        start, last = get(get(step, at.POSITIONS), row // shared), get(get(step, at.POSITIONS), (row + rows - 1) // shared)
        low, end = max(start - window + 1, 0) // BLOCK_TOKENS, last // BLOCK_TOKENS + 1
        first, stop = get(task, at.TASK_FROM), get(task, at.TASK_TO)
        if stop - first == 1 and not sees(layer, group, start, first):
            return  # nobody folds it in
        for r in range(rows):
            clear_part(out + r * width * 4, tops + 8 * r, width)
        for split in range(first, stop):
            if not sees(layer, group, start, split):
                continue
            for r in range(at.TILE_ROWS):
                clear_part(split_out + r * width * 4, split_tops + 8 * r, width)
            for chunk in range(split * at.SPLIT_CHUNKS, (split + 1) * at.SPLIT_CHUNKS):
                count = _collect(model, layer, segment, group, chunk, end, low, addresses, numbers)
                if count > 0:
                    spare = numbers + 8 * at.CHUNK_BLOCKS
                    keys = addresses, numbers, count, _later(model, layer, step, segment, group, chunk, end, addresses, spare)
                    attend(width, q, rows, keys, scores, step, row, shared, window, sinks, split_out, split_tops)
            for r in range(rows):
                fold(out + r * width * 4, tops + 8 * r, split_out + r * width * 4, split_tops + 8 * r, width)
        _save(step, segment, task, shared, rows, width, out, tops)

    return run


_half_task, _single_task, _byte_task = _task(load_f16, 2), _task(load_f32, 4), _task(load_i8, 1)


def attention_f16(model, layer, step, task, thread):
    """Entry: one attention task over a float16 cache. Arguments: addresses of model, layer, step and task, and the thread's number."""
    _half_task(model, layer, step, task, thread)


def attention_f32(model, layer, step, task, thread):
    """Entry: one attention task over a float32 cache; arguments as `attention_f16`."""
    _single_task(model, layer, step, task, thread)


def attention_int8(model, layer, step, task, thread):
    """Entry: one attention task over an int8 cache, whose bytes are widened in registers; scores and weights are scaled once a token."""
    _byte_task(model, layer, step, task, thread)
