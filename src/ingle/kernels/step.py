"""One step of the decoder: any rows of any sequences through all layers, on several threads that wait at barriers.

A row is one token of one sequence; prefill is many rows of one sequence, batched decoding one row of each of many. Every thread
runs `decoder_step`; linears and attention are cut into small pieces, and a free thread takes the next.
"""

import numpy as np
from numba import njit

from ingle.kernels import layout as at
from ingle.kernels import sublayer_layout as sub
from ingle.kernels.rows import add_scaled, embed, gelu_product, place_vector, quantise, rms_norm, scale_row, silu_product
from ingle.kernels.simd import get, load_f32, store_f32
from ingle.kernels.step_attention import attention
from ingle.kernels.step_linear import share_linear
from ingle.kernels.step_parts import adapter_of, add_adapter, factor_of, look, meet
from ingle.kernels.sync import external

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
