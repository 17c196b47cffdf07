"""The recurrent memories of streaming groups: S ← α S (I − β φ φᵀ) + β v φᵀ, y = S φ_q (gated delta rule, arXiv 2412.06464 eq. 10).

When the token at position t is read, the one at p = t − window leaves the window and enters: its key, turned back from RoPE, and its value
are read from the ring. First the *features* of every (row, group) are computed: φ of the key, α, β, for each query head φ of the query and
the memory's share λ in its output, from the query and the number of entered tokens (model/memory.py). Then 16 rows of S at a time, by
themselves, walk through a segment's tokens.

Features of a row and group, float32: φ_k [K], v [V], φ_q [R, K], y [R, V], then α, β and λ [R], padded to 16; K and V are padded to
`width`. A map lies as S does, [out/16, in, 16]. Differs from the source: what enters is the key that left the window.
"""

import numpy as np
from numba import njit

from ingle.core.blocks import BLOCK_TOKENS
from ingle.kernels import layout as at
from ingle.kernels.cache import block_address, key_at, value_at
from ingle.kernels.rows import exp, rotate
from ingle.kernels.simd import f32_at, fma, get, load_f32, set_f32, set_i64, splat, store_f32, total
from ingle.kernels.sync import take
from ingle.kernels.vectors import dot, matrix_vector, scale

_EPS = np.float32(1e-6)  # added to the squared length of what becomes a unit vector
_feature_floats, _scratch_floats = njit(at.feature_floats), njit(at.scratch_floats)


@njit
def remembers(layer, step, row):
    """Return whether anything has entered a layer's memories by the time that a row's token is read."""
    return get(get(step, at.POSITIONS), row) - get(layer, at.WINDOW) >= get(layer, at.SINKS)


@njit
def _features(model, step, row, number):
    """Return the address of a row's features for memory number `number` of a layer."""
    shared = get(model, at.HEADS) // get(model, at.GROUPS)
    return get(step, at.FEATURES) + 4 * _feature_floats(get(model, at.WIDTH), shared) * (row * get(model, at.MOST_MEMORIES) + number)


@njit
def _numbers(model, features):
    """Return the address of α, β and λ [R] within features."""
    return features + 4 * 2 * (1 + get(model, at.HEADS) // get(model, at.GROUPS)) * get(model, at.WIDTH)


@njit
def _unit(mapping, x, out, width):
    """Set out to the unit vector of mapping · x, all [width]."""
    squares = splat(0.0)
    for c in range(0, width, 16):
        y = matrix_vector(mapping + 4 * c * width, x, width)
        squares = fma(y, y, squares)
        store_f32(out + 4 * c, y)
    scale(out, np.float32(1) / np.sqrt(total(squares) + _EPS), out, width)


@njit
def _clear(address, first, width):
    for d in range(first, width):
        set_f32(address + 4 * d, 0.0)


@njit
def _leaving(model, layer, step, row, group, key, value, scratch):
    """Read key before RoPE and value, both [width], of the token that leaves the window of a row."""
    dim, width = get(model, at.DIM), get(model, at.WIDTH)
    segment = get(step, at.SEGMENTS) + 8 * at.SEGMENT * get(get(step, at.SEGMENT_OF), row)
    position = get(get(step, at.POSITIONS), row) - get(layer, at.WINDOW)
    block, column = block_address(model, layer, segment, group, position // BLOCK_TOKENS), position % BLOCK_TOKENS
    for d in range(dim):
        set_f32(scratch + 4 * d, key_at(model, block, column, d))
        set_f32(value + 4 * d, value_at(model, block, column, d))
    angles = (row * get(model, at.WINDOWS) + get(layer, at.WINDOW_NUMBER)) * dim * 2
    rotate(scratch, np.float32(1), get(step, at.BACK_COSINE) + angles, get(step, at.BACK_SINE) + angles, key, dim)
    _clear(key, dim, width)
    _clear(value, dim, width)


@njit
def _find(model, layer, step, row, number, scratch):
    """Compute the features of a row for one memory."""
    dim, width, shared = get(model, at.DIM), get(model, at.WIDTH), get(model, at.HEADS) // get(model, at.GROUPS)
    group = get(layer, at.PLACES + 3 * get(model, at.GROUPS) + number)
    out = _features(model, step, row, number)
    value, numbers = out + 4 * width, _numbers(model, out)
    x, matrix, line = scratch, 4 * width * width * number, 4 * width
    _leaving(model, layer, step, row, group, x, value, scratch + 4 * width)
    _unit(get(layer, at.KEY_MAP) + matrix, x, out, width)
    decay, write = get(layer, at.DECAY) + 2 * line * number, get(layer, at.WRITE) + 2 * line * number
    keep = dot(decay, x, width) + dot(decay + line, value, width) + f32_at(get(layer, at.DECAY_BIAS) + 4 * number)
    strength = dot(write, x, width) + dot(write + line, value, width) + f32_at(get(layer, at.WRITE_BIAS) + 4 * number)
    set_f32(numbers, keep)
    set_f32(numbers + 4, strength)
    held = f32_at(get(step, at.HELD) + 4 * (row * get(model, at.WINDOWS) + get(layer, at.WINDOW_NUMBER)))
    queries = get(step, at.QUERIES) + 4 * (row * get(layer + 8 * at.LINEAR_Q, at.ROWS) + group * shared * dim)
    _clear(x, dim, width)
    for head in range(shared):
        for d in range(dim):
            set_f32(x + 4 * d, f32_at(queries + 4 * (head * dim + d)))
        _unit(get(layer, at.QUERY_MAP) + matrix, x, out + (2 + head) * line, width)
        gate = number * shared + head
        share = dot(get(layer, at.GATE) + gate * line, x, width) + f32_at(get(layer, at.GATE_BIAS) + 4 * gate)
        set_f32(numbers + 4 * (2 + head), share + f32_at(get(layer, at.AGE) + 4 * gate) * held)
    one, zero = splat(1.0), splat(0.0)
    for i in range(0, 4 * (2 + shared), 64):
        store_f32(numbers + i, one / (one + exp(zero - load_f32(numbers + i))))


@njit
def _take_in(memory, features, numbers, part, width):
    """Let 16 rows of S take in a token."""
    key, value = features, load_f32(features + 4 * (width + part))
    keep, strength = splat(f32_at(numbers)), splat(f32_at(numbers + 4))
    change = strength * (value - keep * matrix_vector(memory, key, width))
    for k in range(width):
        place = memory + 64 * k
        store_f32(place, fma(change, splat(f32_at(key + 4 * k)), keep * load_f32(place)))


@njit
def _walk(model, layer, step, segment, number, part, shared):
    """Lead 16 rows of one memory, from number `part`, through the rows of a segment."""
    width = get(model, at.WIDTH)
    place = get(layer, at.PLACES + 2 * get(model, at.GROUPS) + get(layer, at.PLACES + 3 * get(model, at.GROUPS) + number))
    memory = get(segment, at.MEMORIES) + 4 * width * (place * width + part)
    first = get(segment, at.FIRST)
    for row in range(first, first + get(segment, at.COUNT)):
        if remembers(layer, step, row):
            features = _features(model, step, row, number)
            _take_in(memory, features, _numbers(model, features), part, width)
            for head in range(shared):
                y = matrix_vector(memory, features + 4 * (2 + head) * width, width)
                store_f32(features + 4 * ((2 + shared + head) * width + part), y)


def memory_features(model, layer, step, thread):
    """Entry: thread `thread`'s share of the features of a layer's memories. Arguments: addresses of the records (see layout.py)."""
    rows, threads, pairs = get(step, at.BATCH), get(step, at.THREADS), get(step, at.BATCH) * get(layer, at.REMEMBERING)
    scratch = get(step, at.SCRATCH) + thread * 4 * _scratch_floats(get(model, at.WIDTH))
    for pair in range(thread, pairs, threads):  # a group's rows one after the other: its maps stay near
        if remembers(layer, step, pair % rows):
            _find(model, layer, step, pair % rows, pair // rows, scratch)


def memory_walk(model, layer, step, phase):
    """Entry: take pieces of a layer's memories, 16 rows of one, and let them read their segment's tokens in order."""
    shared, parts = get(model, at.HEADS) // get(model, at.GROUPS), get(model, at.WIDTH) // 16
    pieces, each = parts * get(layer, at.REMEMBERING) * get(step, at.SEGMENT_COUNT), parts * get(layer, at.REMEMBERING)
    portion = max(1, min(parts, pieces // (4 * get(step, at.THREADS))))
    first = take(get(step, at.COUNTERS), phase, portion)
    while first < pieces:
        for piece in range(first, min(first + portion, pieces)):
            segment = get(step, at.SEGMENTS) + 8 * at.SEGMENT * (piece // each)
            _walk(model, layer, step, segment, piece % each // parts, piece % parts * 16, shared)
        first = take(get(step, at.COUNTERS), phase, portion)


def memory_blend(model, layer, step, row, number, head, window):
    """Entry: (1 − λ) · window + λ · y of one query head. window: address of float32 [width], read and written.

    Marks the segment as broken where y is not finite: integer linears would round that away, so logits would not show it.
    """
    width, shared = get(model, at.WIDTH), get(model, at.HEADS) // get(model, at.GROUPS)
    features = _features(model, step, row, number)
    share = f32_at(_numbers(model, features) + 4 * (2 + head))
    mine, rest = splat(share), splat(np.float32(1) - share)
    y = features + 4 * (2 + shared + head) * width
    sums = splat(0.0)
    for c in range(0, 4 * width, 64):
        sums = sums + load_f32(y + c)
        store_f32(window + c, fma(load_f32(y + c), mine, load_f32(window + c) * rest))
    row_sum = total(sums)
    if row_sum - row_sum != 0:  # NaN, or infinity
        set_i64(get(step, at.SEGMENTS) + 8 * (at.SEGMENT * get(get(step, at.SEGMENT_OF), row) + at.BROKEN), 1)
