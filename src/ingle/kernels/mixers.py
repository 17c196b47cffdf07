"""Mixers of tokens beside attention: the gated short convolution, and the gated delta rule (core/sublayers.py).

A convolution is led by 16 channels at a time through a segment's rows; the latest inputs lie in the sequence's memory. The delta rule is
the recurrence of memory.py, S ← α S (I − β φ φᵀ) + β v φᵀ, y = S φ_q, of each value head; 16 rows of S are led through a segment's rows,
and y is written over v. α = e^(−rate · softplus(a + step)). Source: arXiv 2412.06464 eq. 10; arXiv 2511.23404.
"""

import numpy as np
from numba import njit

from ingle.kernels import layout as at
from ingle.kernels import sublayer_layout as sub
from ingle.kernels.rows import exp, quantise
from ingle.kernels.simd import f32_at, fma, get, larger, load_f32, magnitude, set_f32, set_i64, splat, store_f32, total
from ingle.kernels.step_linear import share_linear
from ingle.kernels.step_parts import meet
from ingle.kernels.sync import take
from ingle.kernels.vectors import matrix_vector, scale

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
def _unit(x, factor, width):
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
        _unit(q + 4 * dim * head, np.float32(1) / np.sqrt(np.float32(dim)), dim)
        _unit(q + 4 * dim * (keys + head), 1.0, dim)
    fading = get(step, at.LIFTED) + row * 4 * get(mixer + 8 * sub.FADING, at.ROWS)
    writing = get(step, at.VALUES_NEW) + row * 4 * get(mixer + 8 * sub.WRITING, at.ROWS)
    for c in range(0, 4 * heads, 64):  # both are padded to 32
        steps = _softplus(load_f32(fading + c) + load_f32(get(mixer, sub.STEPS) + c))
        store_f32(fading + c, exp(splat(0.0) - exp(load_f32(get(mixer, sub.RATES) + c)) * steps))
        store_f32(writing + c, _sigmoid(load_f32(writing + c)))


@njit
def _walk(mixer, step, segment, head, part):
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
            _walk(mixer, step, _segment(step, piece // each), piece % each // parts, piece % parts * 16)
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
