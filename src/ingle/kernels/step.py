"""One step of the decoder: any rows of any sequences through all layers, on several threads that wait at barriers.

A row is one token of one sequence; prefill is many rows of one sequence, batched decoding one row of each of many. Every thread
runs `decoder_step`; linears and attention are cut into small pieces, and a free thread takes the next.
"""

import numpy as np
from numba import njit

from ingle.core.state import BLOCK_TOKENS
from ingle.kernels import layout as at
from ingle.kernels import sublayer_layout as sub
from ingle.kernels.attention import block_address, clear_part, fold, put, sees
from ingle.kernels.mixers import remembers
from ingle.kernels.rows import (
    add_scaled,
    embed,
    gelu_product,
    place_vector,
    quantise,
    rms_norm,
    rotate,
    scale_row,
    sigmoid_product,
    silu_product,
)
from ingle.kernels.simd import f32_at, get, load_f32, set_f32, splat, store_f32
from ingle.kernels.step_parts import adapter_of, add_adapter, external, factor_of, look, meet, share_linear, take

# Attention of one layer of a step: heads are made and kept, look back, and are combined.


_attention_f16, _attention_f32 = external("attention_f16", 5), external("attention_f32", 5)
_attention_int8 = external("attention_int8", 5)
_memory_features, _memory_walk = external("memory_features", 4), external("memory_walk", 4)
_memory_blend = external("memory_blend", 7)
_part_floats, _scratch_floats = njit(at.part_floats), njit(at.scratch_floats)


@njit
def _norm_heads(model, source, norm, heads):
    """Normalise all heads of a row together, in place."""
    width = heads * get(model, at.DIM)
    rms_norm(source, norm, source, width, (width + 31) // 32 * 32, factor_of(model, at.EPSILON), np.float32(1))


@njit
def _head(model, source, norm, cosine, sine, factor, out, keep):
    """Make one head from a row of projections: per-head norm (Qwen3), rotary position, times `factor`, padded with zeros. `keep`: whether
    `source` must be the normed head afterwards."""
    dim, width = get(model, at.DIM), get(model, at.WIDTH)
    length = np.float32(1)
    if norm != 0:
        squares = np.float32(0)
        for i in range(dim):
            squares += f32_at(source + 4 * i) ** 2
        length = np.sqrt(squares / np.float32(dim) + factor_of(model, at.EPSILON))
        factor = factor / length
        for i in range(dim):
            set_f32(source + 4 * i, f32_at(source + 4 * i) * f32_at(norm + 4 * i))
    rotate(source, factor, cosine, sine, out, dim)
    for i in range(dim, width):
        set_f32(out + 4 * i, 0.0)
    if norm != 0 and keep:
        for i in range(dim):
            set_f32(source + 4 * i, f32_at(source + 4 * i) / length)


@njit
def _place_row(model, layer, step, row, scratch, adapted):
    """Rotate a row's queries into their tiles and its keys into the cache, with the values unchanged."""
    dim, width, groups, heads = get(model, at.DIM), get(model, at.WIDTH), get(model, at.GROUPS), get(model, at.HEADS)
    shared, rows = heads // groups, get(step, at.BATCH)
    position = get(get(step, at.POSITIONS), row)
    angles = (row * get(model, at.ROPES) + get(layer, at.ROPE)) * dim * 2
    cosine, sine = get(step, at.COSINE) + angles, get(step, at.SINE) + angles
    queries = get(step, at.QUERIES) + row * 4 * get(layer + 8 * at.LINEAR_Q, at.ROWS)
    keys = get(step, at.KEYS) + row * 4 * get(layer + 8 * at.LINEAR_K, at.ROWS)
    values = get(step, at.VALUES_NEW) + row * 4 * get(layer + 8 * at.LINEAR_V, at.ROWS)
    segment = get(step, at.SEGMENTS) + 8 * at.SEGMENT * get(get(step, at.SEGMENT_OF), row)
    add_adapter(step, adapted, 0, queries, row, 0)
    add_adapter(step, adapted, 1, keys, row, 1)
    add_adapter(step, adapted, 2, values, row, 2)
    norm_q, norm_k = get(layer, at.NORM_Q), get(layer, at.NORM_K)
    if get(model, at.WHOLE_NORM) != 0:
        _norm_heads(model, queries, norm_q, heads)
        _norm_heads(model, keys, norm_k, groups)
        norm_q, norm_k = 0, 0
    factor, apart = factor_of(model, at.ATTENTION_SCALE), 4 * dim * (1 + get(model, at.OUTPUT_GATED))
    for head in range(heads):
        line = head // shared * (rows * shared + at.TILE_ROWS) + row * shared + head % shared
        out = get(step, at.ROTATED) + line * width * 4
        keep = get(layer, at.REMEMBERING) != 0
        _head(model, queries + head * apart, norm_q, cosine, sine, factor, out, keep)
    for group in range(groups):
        block = block_address(model, layer, segment, group, position // BLOCK_TOKENS)
        _head(model, keys + group * dim * 4, norm_k, cosine, sine, np.float32(1), scratch, False)
        put(model, block, position % BLOCK_TOKENS, scratch, values + group * dim * 4)


@njit
def _attend(model, layer, step, thread, phase):
    """Run the attention tasks of one layer; threads share them."""
    task, kind = take(get(step, at.COUNTERS), phase, 1), get(model, at.CACHE)
    while task < get(step, at.TASK_COUNT):
        place = get(step, at.TASKS) + 8 * at.TASK * task
        arguments = (model, layer, step, place, thread)
        if get(layer, at.WINDOW) == 0 and get(layer, at.PLACES + get(place, at.TASK_GROUP)) < 0:
            pass  # a memory alone
        elif kind == at.CACHE_F16:
            _attention_f16(arguments)
        elif kind == at.CACHE_INT8:
            _attention_int8(arguments)
        else:
            _attention_f32(arguments)
        task = take(get(step, at.COUNTERS), phase, 1)


@njit
def _window(model, layer, step, segment, row, group, line, scratch, width):
    """Fold the parts of one query's attention into scratch, with their divisor behind them."""
    each, size, top = get(segment, at.PARTS_EACH), 4 * _part_floats(width), scratch + 4 * width
    parts = get(step, at.PARTS) + (get(segment, at.PART) + line * each) * size
    position = get(get(step, at.POSITIONS), row)
    for i in range(each):
        if each == 1 or sees(layer, group, position, i):
            fold(scratch, top, parts + i * size, parts + i * size + 4 * width, width)


@njit
def _blend(model, layer, step, row, group, head, scratch):
    """Blend a streaming group's memory into a head's output; scratch is as `_window` leaves it, or cleared without a window."""
    width, places = get(model, at.WIDTH), at.PLACES + 2 * get(model, at.GROUPS)
    top = scratch + 4 * width
    if get(layer, at.WINDOW) > 0:
        for c in range(0, 4 * width, 64):
            store_f32(scratch + c, load_f32(scratch + c) / splat(f32_at(top + 4)))
    number = get(layer, places + group) - get(layer, places + get(layer, places + get(model, at.GROUPS)))
    if remembers(layer, step, row):
        _memory_blend((model, layer, step, row, number, head, scratch))
    set_f32(top + 4, 1.0)


@njit
def _combine(model, layer, step, row, scratch, adapted):
    """Write a row's head outputs to the activations ATTENDED."""
    dim, width, groups, heads = get(model, at.DIM), get(model, at.WIDTH), get(model, at.GROUPS), get(model, at.HEADS)
    shared = heads // groups
    segment = get(step, at.SEGMENTS) + 8 * at.SEGMENT * get(get(step, at.SEGMENT_OF), row)
    tokens = get(segment, at.COUNT)
    x = step + 8 * at.ATTENDED
    padded = (heads * dim + 31) // 32 * 32
    out = get(x, at.VALUES) + row * padded * 4
    top = scratch + 4 * width
    for head in range(heads):
        group = head // shared
        line = (group * tokens + row - get(segment, at.FIRST)) * shared + head % shared
        clear_part(scratch, top, width)
        if get(layer, at.WINDOW) > 0 or get(layer, at.PLACES + group) >= 0:
            _window(model, layer, step, segment, row, group, line, scratch, width)
        if get(layer, at.REMEMBERING) > 0 and get(layer, at.PLACES + 2 * groups + group) >= 0:
            _blend(model, layer, step, row, group, head % shared, scratch)
        whole = dim // 16 * 16
        for d in range(0, whole, 16):
            store_f32(out + (head * dim + d) * 4, load_f32(scratch + 4 * d) / splat(f32_at(top + 4)))
        for d in range(whole, dim):
            set_f32(out + (head * dim + d) * 4, f32_at(scratch + 4 * d) / f32_at(top + 4))
        if get(model, at.OUTPUT_GATED) != 0:
            gate = get(step, at.QUERIES) + 4 * (row * get(layer + 8 * at.LINEAR_Q, at.ROWS) + (2 * head + 1) * dim)
            sigmoid_product(gate, out + head * dim * 4, scratch, dim)
    for i in range(heads * dim, padded):  # another mixer may have written there
        set_f32(out + 4 * i, 0.0)
    if get(model, at.QUANTISED) != 0 or adapted != 0:
        quantise(x, row, padded)
    look(step, adapted, 3, x, row, 0)


@njit
def attention(model, layer, step, thread, index):
    rows, threads, phase = get(step, at.BATCH), get(step, at.THREADS), index * at.PHASES
    scratch = get(step, at.SCRATCH) + thread * 4 * _scratch_floats(get(model, at.WIDTH))
    normed = step + 8 * at.NORMED
    share_linear(layer + 8 * at.LINEAR_Q, normed, rows, get(step, at.QUERIES), 0, step, phase)
    share_linear(layer + 8 * at.LINEAR_K, normed, rows, get(step, at.KEYS), 0, step, phase + 1)
    share_linear(layer + 8 * at.LINEAR_V, normed, rows, get(step, at.VALUES_NEW), 0, step, phase + 2)
    meet(step)
    for row in range(thread, rows, threads):
        _place_row(model, layer, step, row, scratch, adapter_of(step, row, index))
    meet(step)
    if get(layer, at.REMEMBERING) > 0:
        _memory_features((model, layer, step, thread))
    _attend(model, layer, step, thread, phase + 3)
    meet(step)
    if get(layer, at.REMEMBERING) > 0:
        _memory_walk((model, layer, step, phase + 8))
        meet(step)
    for row in range(thread, rows, threads):
        _combine(model, layer, step, row, scratch, adapter_of(step, row, index))
    meet(step)
    apart = get(model, at.APART) != 0
    out = get(step, at.OUTCOME) if apart else get(step, at.STREAM)
    share_linear(layer + 8 * at.LINEAR_O, step + 8 * at.ATTENDED, rows, out, 0 if apart else 1, step, phase + 4)


_short_convolution, _gated_delta, _mixture = external("short_convolution", 5), external("gated_delta", 5), external("mixture", 5)


@njit
def _normalise(model, weight, source, x, row, adapted, factor):
    """Normalise one row (RMSNorm, times `factor`) into activations `x`, rounded too if any linear or the row's adapter needs that.
    Without a weight the row is taken as it is."""
    padded = get(model, at.HIDDEN_PADDED)
    out = get(x, at.VALUES) + row * padded * 4
    if weight != 0:
        rms_norm(source, weight, out, get(model, at.HIDDEN), padded, factor_of(model, at.EPSILON), factor)
    else:
        for i in range(0, 4 * padded, 64):
            store_f32(out + i, load_f32(source + i))
    if get(model, at.QUANTISED) != 0 or adapted != 0:
        quantise(x, row, padded)


@njit
def _settle(model, layer, step, row, adapted, linear):
    """Finish what a layer's attention (`linear` 3) or MLP (6) gives for a row: the adapter's part, and where it was computed apart, its
    norm and its way into the stream."""
    padded, attention = get(model, at.HIDDEN_PADDED), linear == 3
    stream, slot = get(step, at.STREAM) + row * 4 * padded, 0 if attention else 2
    if get(model, at.APART) == 0:
        add_adapter(step, adapted, linear, stream, row, slot)
        return
    outcome, norm = get(step, at.OUTCOME) + row * 4 * padded, get(layer, at.NORM_O if attention else at.NORM_DOWN)
    add_adapter(step, adapted, linear, outcome, row, slot)
    if norm != 0:
        rms_norm(outcome, norm, outcome, get(model, at.HIDDEN), padded, factor_of(model, at.EPSILON), np.float32(1))
    add_scaled(outcome, factor_of(model, at.RESIDUAL_SCALE), stream, padded)


@njit
def _mlp_row(model, layer, step, row, adapted):
    """Write activation(gate) · up of a row to the activations MIXED."""
    x, padded = step + 8 * at.MIXED, get(model, at.MLP_PADDED)
    gate = get(step, at.GATED) + row * 4 * get(layer + 8 * at.LINEAR_GATE, at.ROWS)
    up = get(step, at.LIFTED) + row * 4 * get(layer + 8 * at.LINEAR_UP, at.ROWS)
    add_adapter(step, adapted, 4, gate, row, 0)
    add_adapter(step, adapted, 5, up, row, 1)
    out, width = get(x, at.VALUES) + row * padded * 4, get(layer + 8 * at.LINEAR_GATE, at.ROWS)
    if get(model, at.ACTIVATION) == at.GELU:
        gelu_product(gate, up, out, width)
    else:
        silu_product(gate, up, out, width)
    if get(model, at.QUANTISED) != 0 or adapted != 0:
        quantise(x, row, padded)
    look(step, adapted, 6, x, row, 2)


@njit
def _layer_bytes(model):
    return 8 * (at.PLACES + at.PLACE_KINDS * get(model, at.GROUPS))


@njit
def _mlp(model, layer, step, thread, index):
    rows, threads, phase, normed = get(step, at.BATCH), get(step, at.THREADS), index * at.PHASES, step + 8 * at.NORMED
    share_linear(layer + 8 * at.LINEAR_GATE, normed, rows, get(step, at.GATED), 0, step, phase + 5)
    share_linear(layer + 8 * at.LINEAR_UP, normed, rows, get(step, at.LIFTED), 0, step, phase + 6)
    meet(step)
    for row in range(thread, rows, threads):
        _mlp_row(model, layer, step, row, adapter_of(step, row, index))
    meet(step)
    apart = get(model, at.APART) != 0
    out = get(step, at.OUTCOME) if apart else get(step, at.STREAM)
    share_linear(layer + 8 * at.LINEAR_DOWN, step + 8 * at.MIXED, rows, out, 0 if apart else 1, step, phase + 7)


@njit
def _layer(model, layer, step, thread, index):
    rows, threads, stream = get(step, at.BATCH), get(step, at.THREADS), get(step, at.STREAM)
    width, phase = 4 * get(model, at.HIDDEN_PADDED), index * at.PHASES
    normed, one = step + 8 * at.NORMED, np.float32(1)
    for row in range(thread, rows, threads):
        if index > 0:
            _settle(model, layer - _layer_bytes(model), step, row, adapter_of(step, row, index - 1), 6)
        adapted = adapter_of(step, row, index)
        _normalise(model, get(layer, at.NORM_1), stream + row * width, normed, row, adapted, one)
        for linear in range(3):
            look(step, adapted, linear, normed, row, linear)
    meet(step)
    if get(layer, at.MIXER) == sub.CONVOLUTION:
        _short_convolution((model, get(layer, at.SUBLAYER), step, thread, phase))
    elif get(layer, at.MIXER) == sub.DELTA:
        _gated_delta((model, get(layer, at.SUBLAYER), step, thread, phase))
    else:
        attention(model, layer, step, thread, index)
    meet(step)
    for row in range(thread, rows, threads):
        adapted = adapter_of(step, row, index)
        _settle(model, layer, step, row, adapted, 3)
        _normalise(model, get(layer, at.NORM_2), stream + row * width, normed, row, adapted, one)
        look(step, adapted, 4, normed, row, 0)
        look(step, adapted, 5, normed, row, 1)
    meet(step)
    if get(layer, at.EXPERTS) != 0:
        _mixture((model, get(layer, at.EXPERTS), step, thread, phase))
    else:
        _mlp(model, layer, step, thread, index)
    meet(step)


def decoder_step(model, step, thread):
    """Entry: thread `thread`'s share of a step. Arguments: addresses of the model's and the step's records (see layout.py)."""
    rows, threads, stream = get(step, at.BATCH), get(step, at.THREADS), get(step, at.STREAM)
    width, layers = 4 * get(model, at.HIDDEN_PADDED), get(model, at.LAYERS)
    size, scale = _layer_bytes(model), factor_of(model, at.EMBEDDING_SCALE)
    for row in range(thread, rows, threads):
        token, hidden = get(get(step, at.TOKENS), row), get(model, at.HIDDEN)
        if token < 0:
            place_vector(get(step, at.VECTORS) + (-1 - token) * 4 * hidden, stream + row * width, hidden, width)
        else:
            embed(get(model, at.EMBEDDING), token, stream + row * width, hidden)
            if scale != 1:
                scale_row(stream + row * width, scale, get(model, at.HIDDEN_PADDED))
    meet(step)
    for i in range(layers):
        _layer(model, get(model, at.LAYER) + i * size, step, thread, i)
    outputs, final = get(step, at.OUTPUT_COUNT), step + 8 * at.FINAL
    for i in range(thread, outputs, threads):
        row = get(get(step, at.OUTPUTS), i)
        _settle(model, get(model, at.LAYER) + (layers - 1) * size, step, row, adapter_of(step, row, layers - 1), 6)
        _normalise(model, get(model, at.NORM), stream + row * width, final, i, 0, factor_of(model, at.LOGIT_SCALE))
    meet(step)
    share_linear(get(model, at.HEAD), final, outputs, get(step, at.LOGITS), 0, step, layers * at.PHASES)
    meet(step)
