"""Conversions between a model's rows and the training memories (packed_memory.py): unit vectors of mapped queries and keys, and blends:

    φ_k = unit(k_map k),  φ_q = unit(q_map q),  λ = sigmoid(gate · q + age · held),  given = (1 − λ) · seen + λ · y

and backward. `first` counts the tokens that enter, of all documents; `token` is where that token lies in the row. The one that reads
then lies WINDOW behind it.
"""

import numpy as np
from numba import njit

from ingle.kernels.memory_layout import (
    AGE,
    BLOCK,
    DIM,
    ELEMENT,
    FADED_Q,
    GATE,
    GATE_BIAS,
    GIVEN,
    HELD,
    MAP_K,
    MAP_K_T,
    MAP_Q,
    MAP_Q_T,
    RAW,
    RAW_K,
    RAW_Q,
    RAW_V,
    REPEATS,
    SCALE_K,
    SCALE_Q,
    SEEN,
    SHARE,
    TO_AGE,
    TO_GATE,
    TO_GATE_BIAS,
    TO_GIVEN,
    TO_K,
    TO_MAP_K,
    TO_MAP_Q,
    TO_Q,
    TO_RAW_K,
    TO_RAW_Q,
    TO_SEEN,
    TO_SHARE,
    TO_Y,
    WINDOW,
    K,
    Q,
    V,
    Y,
    outside,
    row_at,
    to_weights,
    weights,
)
from ingle.kernels.packed import multiply
from ingle.kernels.rows import exp
from ingle.kernels.simd import f32_at, fma, get, load_f32, set_f32, splat, store_f32, total
from ingle.kernels.vectors import add, add_scaled, dot, load, scale, store

_EPS = np.float32(1e-6)  # added to the squared length of what becomes a unit vector


@njit
def _widen(call, source, target, floats):
    """Convert so many of the model's numbers to float32."""
    element = get(call, ELEMENT)
    for i in range(0, floats, 16):
        store_f32(target + 4 * i, load(element, source + element * i))


@njit
def _unit(row, scales, dim):
    factor = np.float32(1) / np.sqrt(dot(row, row, dim) + _EPS)
    scale(row, factor, row, dim)
    set_f32(scales, factor)


@njit
def take_keys(call, room, group, first, count, token):
    """Compute φ_k and v of the entering tokens."""
    dim = get(call, DIM)
    for b in range(0, count, BLOCK):
        rows, raw, k = min(BLOCK, count - b), room + get(call, RAW), row_at(call, K, group, first + b, dim)
        for i in range(rows):
            _widen(call, outside(call, RAW_K, group, token + b + i, 1), raw + 4 * dim * i, dim)
            _widen(call, outside(call, RAW_V, group, token + b + i, 1), row_at(call, V, group, first + b + i, dim), dim)
        multiply(rows, dim, dim, raw, 4, 4 * dim, weights(call, MAP_K_T, group, dim * dim), 4 * dim, k, 4 * dim, True)
        for i in range(rows):
            _unit(k + 4 * dim * i, row_at(call, SCALE_K, group, first + b + i, 1), dim)


@njit
def _queries(call, room, group, token, count):
    """Read the raw queries of a block of the reading tokens."""
    floats = get(call, REPEATS) * get(call, DIM)
    for i in range(count):
        _widen(
            call,
            outside(call, RAW_Q, group, token + get(call, WINDOW) + i, get(call, REPEATS)),
            room + get(call, RAW) + 4 * floats * i,
            floats,
        )


@njit
def take_queries(call, room, group, first, count, token):
    """Compute φ_q and λ of the reading tokens."""
    dim, repeats, raw = get(call, DIM), get(call, REPEATS), room + get(call, RAW)
    gate, bias = weights(call, GATE, group, repeats * dim), weights(call, GATE_BIAS, group, repeats)
    age = weights(call, AGE, group, repeats)
    for b in range(0, count, BLOCK):
        rows, q = min(BLOCK, count - b) * repeats, row_at(call, Q, group, first + b, repeats * dim)
        scales, shares = row_at(call, SCALE_Q, group, first + b, repeats), row_at(call, SHARE, group, first + b, repeats)
        _queries(call, room, group, token + b, min(BLOCK, count - b))
        multiply(rows, dim, dim, raw, 4, 4 * dim, weights(call, MAP_Q_T, group, dim * dim), 4 * dim, q, 4 * dim, True)
        for r in range(rows):
            _unit(q + 4 * dim * r, scales + 4 * r, dim)
            head = r % repeats
            logit = dot(raw + 4 * dim * r, gate + 4 * dim * head, dim) + f32_at(bias + 4 * head)
            set_f32(shares + 4 * r, _sigmoid(logit + f32_at(age + 4 * head) * _held(call, first + b + r // repeats)))


@njit
def _held(call, token):
    """Return the log of the share of all tokens that memories hold, once this one of the N has entered."""
    return f32_at(get(call, HELD) + 4 * token)


@njit
def _sigmoid(x):
    """Return the sigmoid of one number, by 16 lanes of it."""
    return total(splat(1.0) / (splat(1.0) + exp(splat(-x)))) / np.float32(16)


@njit
def give(call, group, first, count, token):
    """Write the heads' outputs: their windows and memories, blended."""
    dim, repeats, element = get(call, DIM), get(call, REPEATS), get(call, ELEMENT)
    for i in range(count):
        reading, y = token + get(call, WINDOW) + i, row_at(call, Y, group, first + i, repeats * dim)
        seen, out = outside(call, SEEN, group, reading, repeats), outside(call, GIVEN, group, reading, repeats)
        for head in range(repeats):
            share = splat(f32_at(row_at(call, SHARE, group, first + i, repeats) + 4 * head))
            for c in range(head * dim, (head + 1) * dim, 16):
                window = load(element, seen + element * c)
                store(element, out + element * c, fma(load_f32(y + 4 * c) - window, share, window))


@njit
def back_from_given(call, room, group, first, count, token):
    """Backward of `give`: slopes at windows, y and the shares, from those at heads' outputs."""
    dim, repeats, element = get(call, DIM), get(call, REPEATS), get(call, ELEMENT)
    for i in range(count):
        reading, y, to_y = (
            token + get(call, WINDOW) + i,
            row_at(call, Y, group, first + i, repeats * dim),
            room + get(call, TO_Y) + 4 * repeats * dim * i,
        )
        seen, slopes = outside(call, SEEN, group, reading, repeats), outside(call, TO_GIVEN, group, reading, repeats)
        to_seen = outside(call, TO_SEEN, group, reading, repeats)
        for head in range(repeats):
            share, sums = f32_at(row_at(call, SHARE, group, first + i, repeats) + 4 * head), splat(0.0)
            for c in range(head * dim, (head + 1) * dim, 16):
                slope = load(element, slopes + element * c)
                sums = fma(slope, load_f32(y + 4 * c) - load(element, seen + element * c), sums)
                store_f32(to_y + 4 * c, slope * splat(share))
                store(element, to_seen + element * c, slope * splat(np.float32(1) - share))
            set_f32(room + get(call, TO_SHARE) + 4 * (repeats * i + head), total(sums) * share * (np.float32(1) - share))


@njit
def _back_through_unit(slope, row, factor, dim):
    """Backward of a unit vector, in place."""
    add_scaled(row, -dot(slope, row, dim), slope, dim)
    scale(slope, factor, slope, dim)


@njit
def back_to_queries(call, room, document, group, first, count, token):
    """Backward of `take_queries`: slopes at queries, their map and the gates."""
    dim, repeats, line, raw = get(call, DIM), get(call, REPEATS), 4 * get(call, DIM), room + get(call, RAW)
    gate, to_gate = weights(call, GATE, group, repeats * dim), to_weights(call, TO_GATE, document, group, repeats * dim)
    to_map, to_raw = to_weights(call, TO_MAP_Q, document, group, dim * dim), room + get(call, FADED_Q)
    for b in range(0, count, BLOCK):
        tokens = min(BLOCK, count - b)
        rows, q = tokens * repeats, row_at(call, Q, group, first + b, repeats * dim)
        slopes = room + get(call, TO_Q) + line * repeats * b
        _queries(call, room, group, token + b, tokens)
        for r in range(rows):
            _back_through_unit(slopes + line * r, q + line * r, f32_at(row_at(call, SCALE_Q, group, first + b, repeats) + 4 * r), dim)
        multiply(rows, dim, dim, slopes, 4, line, weights(call, MAP_Q, group, dim * dim), line, to_raw, line, True)
        multiply(dim, dim, rows, slopes, line, 4, raw, line, to_map, line, False)
        for r in range(rows):
            of_gate, head = f32_at(room + get(call, TO_SHARE) + 4 * (repeats * b + r)), r % repeats
            add_scaled(gate + line * head, of_gate, to_raw + line * r, dim)
            add_scaled(raw + line * r, of_gate, to_gate + line * head, dim)
            add(to_weights(call, TO_GATE_BIAS, document, group, repeats) + 4 * head, of_gate)
            add(to_weights(call, TO_AGE, document, group, repeats) + 4 * head, of_gate * _held(call, first + b + r // repeats))
        for i in range(tokens):
            _narrow(
                call, to_raw + line * repeats * i, outside(call, TO_RAW_Q, group, token + get(call, WINDOW) + b + i, repeats), repeats * dim
            )


@njit
def _narrow(call, source, target, floats):
    """Convert so many float32 to the model's numbers."""
    element = get(call, ELEMENT)
    for i in range(0, floats, 16):
        store(element, target + element * i, load_f32(source + 4 * i))


@njit
def back_to_keys(call, room, document, group, first, count, token):
    """Backward of `take_keys`: slopes at keys and their map."""
    dim, line, raw, to_raw = get(call, DIM), 4 * get(call, DIM), room + get(call, RAW), room + get(call, FADED_Q)
    to_map = to_weights(call, TO_MAP_K, document, group, dim * dim)
    for b in range(0, count, BLOCK):
        rows, k, slopes = min(BLOCK, count - b), row_at(call, K, group, first + b, dim), room + get(call, TO_K) + line * b
        for i in range(rows):
            _widen(call, outside(call, RAW_K, group, token + b + i, 1), raw + line * i, dim)
            _back_through_unit(slopes + line * i, k + line * i, f32_at(row_at(call, SCALE_K, group, first + b + i, 1)), dim)
        multiply(rows, dim, dim, slopes, 4, line, weights(call, MAP_K, group, dim * dim), line, to_raw, line, True)
        multiply(dim, dim, rows, slopes, line, 4, raw, line, to_map, line, False)
        for i in range(rows):
            _narrow(call, to_raw + line * i, outside(call, TO_RAW_K, group, token + b + i, 1), dim)
