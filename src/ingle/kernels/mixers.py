"""Mixers of tokens beside attention: recurrent memories of streaming groups, the gated short convolution, the gated delta rule."""

import numpy as np
from numba import njit

from ingle.core.state import BLOCK_TOKENS
from ingle.kernels import layout as at
from ingle.kernels import sublayer_layout as sub
from ingle.kernels.attention import block_address, key_at, value_at
from ingle.kernels.rows import exp, quantise, rotate
from ingle.kernels.simd import (
    dot,
    f32_at,
    fma,
    get,
    larger,
    load_f32,
    magnitude,
    matrix_vector,
    scale,
    set_f32,
    set_i64,
    splat,
    store_f32,
    total,
)
from ingle.kernels.step_parts import meet, share_linear, take

# Mixers of tokens beside attention: the gated short convolution, and the gated delta rule (core/spec.py).
# A convolution is led by 16 channels at a time through a segment's rows; the latest inputs lie in the sequence's memory. The delta rule is
# the recurrence of the memories below, S ← α S (I − β φ φᵀ) + β v φᵀ, y = S φ_q, of each value head; 16 rows of S are led through a
# segment's rows, and y is written over v. α = e^(−rate · softplus(a + step)). Source: arXiv 2412.06464 eq. 10; arXiv 2511.23404.


_EPS = np.float32(1e-6)  # added to the squared length of what becomes a unit vector


@njit
def _sigmoid(x):
    return splat(1.0) / (splat(1.0) + exp(splat(0.0) - x))


@njit
def _softplus(x):
    """Return log(1 + e^x): what of x is above 0, and log(1 + e^−|x|) by the series of artanh."""
    small = exp(splat(0.0) - magnitude(x))
    s = small / (small + splat(2.0))
    square = s * s
    p = fma(square, splat(1.0 / 13), splat(1.0 / 11))
    p = fma(p, square, splat(1.0 / 9))
    p = fma(p, square, splat(1.0 / 7))
    p = fma(p, square, splat(1.0 / 5))
    p = fma(p, square, splat(1.0 / 3))
    p = fma(p, square, splat(1.0))
    return fma(p, s + s, larger(x, splat(0.0)))


@njit
def _segment(step, number):
    return get(step, at.SEGMENTS) + 8 * at.SEGMENT * number


@njit
def _input(mixer, step, row):
    """Return the address of what a mixer's first linear gives for a row."""
    return get(step, at.QUERIES) + row * 4 * get(mixer + 8 * sub.IN, at.ROWS)


@njit
def _output(step, row, padded):
    """Return the address of what a mixer's last linear reads of a row."""
    return get(step + 8 * at.ATTENDED, at.VALUES) + row * 4 * padded


@njit
def _check(step, row, sums):
    """Mark a row's segment as broken if these 16 sums are not finite: integer linears would round that away."""
    row_sum = total(sums)
    if row_sum - row_sum != 0:
        set_i64(_segment(step, get(get(step, at.SEGMENT_OF), row)) + 8 * at.BROKEN, 1)


@njit
def _tap(mixer, tail, channel, x):
    """Return the convolution at a token whose inputs of 16 channels are x, and keep them."""
    length, line = get(mixer, sub.LENGTH), 4 * ((get(mixer, sub.CHANNELS) + 31) // 32 * 32)
    taps = get(mixer, sub.TAPS) + 4 * channel
    y = splat(0.0)
    if get(mixer, sub.TAP_BIAS) != 0:
        y = load_f32(get(mixer, sub.TAP_BIAS) + 4 * channel)
    for j in range(length - 1):
        y = fma(load_f32(taps + j * line), load_f32(tail + 64 * j), y)
    for j in range(length - 2):
        store_f32(tail + 64 * j, load_f32(tail + 64 * (j + 1)))
    store_f32(tail + 64 * (length - 2), x)
    return fma(load_f32(taps + (length - 1) * line), x, y)


@njit
def _convolve(mixer, step, segment, channel, gated):
    """Lead 16 channels through a segment's rows: of a short convolution (`gated`) into its output, of the delta rule in place."""
    channels, first = get(mixer, sub.CHANNELS), get(segment, at.FIRST)
    tail = get(segment, at.MEMORIES) + 4 * (get(mixer, sub.TAIL) + channel * (get(mixer, sub.LENGTH) - 1))
    padded = get(mixer + 8 * sub.OUT, at.COLUMNS)
    for row in range(first, first + get(segment, at.COUNT)):
        place = _input(mixer, step, row) + 4 * channel
        if gated:
            y = _tap(mixer, tail, channel, load_f32(place) * load_f32(place + 8 * channels))
            store_f32(_output(step, row, padded) + 4 * channel, load_f32(place + 4 * channels) * y)
        else:
            y = _tap(mixer, tail, channel, load_f32(place))
            store_f32(place, y * _sigmoid(y))


@njit
def _share_channels(mixer, step, phase, gated):
    """Lead all channels of all segments; the threads share them."""
    each = get(mixer, sub.CHANNELS) // 16
    pieces = each * get(step, at.SEGMENT_COUNT)
    portion = max(1, min(16, pieces // (4 * get(step, at.THREADS))))
    first = take(get(step, at.COUNTERS), phase, portion)
    while first < pieces:
        for piece in range(first, min(first + portion, pieces)):
            _convolve(mixer, step, _segment(step, piece // each), piece % each * 16, gated)
        first = take(get(step, at.COUNTERS), phase, portion)


@njit
def _finish(model, step, row, width, padded):
    """Pad what the last linear reads of a row with zeros, and round it."""
    out, sums = _output(step, row, padded), splat(0.0)
    for c in range(0, 4 * width, 64):
        sums = sums + load_f32(out + c)
    _check(step, row, sums)
    for c in range(width, padded):
        set_f32(out + 4 * c, 0.0)
    if get(model, at.QUANTISED) != 0:
        quantise(step + 8 * at.ATTENDED, row, padded)


@njit
def _result(model, mixer, step, phase):
    """Multiply by the last linear, into the stream or what is added to it."""
    apart = get(model, at.APART) != 0
    out = get(step, at.OUTCOME) if apart else get(step, at.STREAM)
    share_linear(mixer + 8 * sub.OUT, step + 8 * at.ATTENDED, get(step, at.BATCH), out, 0 if apart else 1, step, phase)


def short_convolution(model, mixer, step, thread, phase):
    """Entry: thread `thread`'s share of a gated short convolution. Arguments: addresses of the records; the layer's first counter."""
    rows, threads, padded = get(step, at.BATCH), get(step, at.THREADS), get(mixer + 8 * sub.OUT, at.COLUMNS)
    share_linear(mixer + 8 * sub.IN, step + 8 * at.NORMED, rows, get(step, at.QUERIES), 0, step, phase)
    meet(step)
    _share_channels(mixer, step, phase + 1, True)
    meet(step)
    for row in range(thread, rows, threads):
        _finish(model, step, row, get(mixer, sub.CHANNELS), padded)
    meet(step)
    _result(model, mixer, step, phase + 4)


@njit
def _unit_length(x, factor, width):
    """Make x a vector of length `factor`, in place."""
    squares = splat(0.0)
    for c in range(0, 4 * width, 64):
        squares = fma(load_f32(x + c), load_f32(x + c), squares)
    scale(x, np.float32(factor) / np.sqrt(total(squares) + _EPS), x, width)


@njit
def _prepare(mixer, step, row):
    """Compute φ of a row's queries and keys, α and β, in place."""
    dim, keys, heads = get(mixer, sub.HEAD), get(mixer, sub.KEY_HEADS), get(mixer, sub.VALUE_HEADS)
    q = _input(mixer, step, row)
    for head in range(keys):
        _unit_length(q + 4 * dim * head, np.float32(1) / np.sqrt(np.float32(dim)), dim)
        _unit_length(q + 4 * dim * (keys + head), 1.0, dim)
    fading = get(step, at.LIFTED) + row * 4 * get(mixer + 8 * sub.FADING, at.ROWS)
    writing = get(step, at.VALUES_NEW) + row * 4 * get(mixer + 8 * sub.WRITING, at.ROWS)
    for c in range(0, 4 * heads, 64):  # both are padded to 32
        steps = _softplus(load_f32(fading + c) + load_f32(get(mixer, sub.STEPS) + c))
        store_f32(fading + c, exp(splat(0.0) - exp(load_f32(get(mixer, sub.RATES) + c)) * steps))
        store_f32(writing + c, _sigmoid(load_f32(writing + c)))


@njit
def _walk_delta(mixer, step, segment, head, part):
    """Lead 16 rows of one head's S, from number `part`, through the rows of a segment; y is written over v."""
    dim, keys, heads = get(mixer, sub.HEAD), get(mixer, sub.KEY_HEADS), get(mixer, sub.VALUE_HEADS)
    group = head % keys if get(mixer, sub.TILED) != 0 else head // (heads // keys)
    state = get(segment, at.MEMORIES) + 4 * (get(mixer, sub.DELTA_STATE) + dim * (head * dim + part))
    first = get(segment, at.FIRST)
    for row in range(first, first + get(segment, at.COUNT)):
        q = _input(mixer, step, row) + 4 * dim * group
        key, place = q + 4 * dim * keys, _input(mixer, step, row) + 4 * (dim * (2 * keys + head) + part)
        keep = splat(f32_at(get(step, at.LIFTED) + 4 * (row * get(mixer + 8 * sub.FADING, at.ROWS) + head)))
        strength = splat(f32_at(get(step, at.VALUES_NEW) + 4 * (row * get(mixer + 8 * sub.WRITING, at.ROWS) + head)))
        change = strength * (load_f32(place) - keep * matrix_vector(state, key, dim))
        for k in range(dim):
            store_f32(state + 64 * k, fma(change, splat(f32_at(key + 4 * k)), keep * load_f32(state + 64 * k)))
        store_f32(place, matrix_vector(state, q, dim))


@njit
def _share_heads(mixer, step, phase):
    """Lead all heads' S of all segments; the threads share them."""
    parts = get(mixer, sub.HEAD) // 16
    each = parts * get(mixer, sub.VALUE_HEADS)
    pieces = each * get(step, at.SEGMENT_COUNT)
    portion = max(1, min(parts, pieces // (4 * get(step, at.THREADS))))
    first = take(get(step, at.COUNTERS), phase, portion)
    while first < pieces:
        for piece in range(first, min(first + portion, pieces)):
            _walk_delta(mixer, step, _segment(step, piece // each), piece % each // parts, piece % parts * 16)
        first = take(get(step, at.COUNTERS), phase, portion)


@njit
def _give(model, mixer, step, row):
    """Write norm(y) · silu(z) of a row's heads to what the last linear reads."""
    dim, keys, heads = get(mixer, sub.HEAD), get(mixer, sub.KEY_HEADS), get(mixer, sub.VALUE_HEADS)
    padded = get(mixer + 8 * sub.OUT, at.COLUMNS)
    y, z = _input(mixer, step, row) + 8 * dim * keys, get(step, at.KEYS) + row * 4 * get(mixer + 8 * sub.GATING, at.ROWS)
    out, eps = _output(step, row, padded), f32_at(get(model, at.FACTORS) + 4 * at.EPSILON)
    for head in range(heads):
        line, squares = 4 * dim * head, splat(0.0)
        for c in range(line, line + 4 * dim, 64):
            squares = fma(load_f32(y + c), load_f32(y + c), squares)
        factor = splat(np.float32(1) / np.sqrt(total(squares) / np.float32(dim) + eps))
        for c in range(0, 4 * dim, 64):
            gate = load_f32(z + line + c)
            normed = load_f32(y + line + c) * factor * load_f32(get(mixer, sub.GATE_NORM) + c)
            store_f32(out + line + c, normed * gate * _sigmoid(gate))
    _finish(model, step, row, heads * dim, padded)


def gated_delta(model, mixer, step, thread, phase):
    """Entry: thread `thread`'s share of a gated delta rule. Arguments: as of `short_convolution`."""
    rows, threads, normed = get(step, at.BATCH), get(step, at.THREADS), step + 8 * at.NORMED
    share_linear(mixer + 8 * sub.IN, normed, rows, get(step, at.QUERIES), 0, step, phase)
    share_linear(mixer + 8 * sub.GATING, normed, rows, get(step, at.KEYS), 0, step, phase + 1)
    share_linear(mixer + 8 * sub.WRITING, normed, rows, get(step, at.VALUES_NEW), 0, step, phase + 2)
    share_linear(mixer + 8 * sub.FADING, normed, rows, get(step, at.LIFTED), 0, step, phase + 9)
    meet(step)
    _share_channels(mixer, step, phase + 3, False)
    meet(step)
    for row in range(thread, rows, threads):
        _prepare(mixer, step, row)
    meet(step)
    _share_heads(mixer, step, phase + 8)
    meet(step)
    for row in range(thread, rows, threads):
        _give(model, mixer, step, row)
    meet(step)
    _result(model, mixer, step, phase + 4)


# The recurrent memories of streaming groups: S ← α S (I − β φ φᵀ) + β v φᵀ, y = S φ_q (gated delta rule, arXiv 2412.06464 eq. 10).
# When the token at position t is read, the one at p = t − window leaves the window and enters: its key, turned back from RoPE, and its
# value are read from the ring. First the *features* of every (row, group) are computed: φ of the key, α, β, for each query head φ of the
# query and the memory's share λ in its output, from the query and the number of entered tokens (model/module_parts.py). Then 16 rows of
# S at a time, by themselves, walk through a segment's tokens.
# Features of a row and group, float32: φ_k [K], v [V], φ_q [R, K], y [R, V], then α, β and λ [R], padded to 16; K and V are padded to
# `width`. A map lies as S does, [out/16, in, 16]. Differs from the source: what enters is the key that left the window.


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
