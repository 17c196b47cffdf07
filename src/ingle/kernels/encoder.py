"""An encoder: every row sees every other; LayerNorm, biases, GELU. As in ViT (arXiv 2010.11929) and SigLIP (arXiv 2303.15343), or with
its norms behind attention and MLP, as in BERT (arXiv 1810.04805).

Rows are cut into blocks. A thread takes a block through all of a layer's linears, so that its activations stay in the core's own cache;
threads meet twice a layer, because attention needs the keys and values of all rows. No row's result depends on blocks or threads.
"""

import numpy as np
from numba import njit

from ingle.kernels import encoder_layout as to
from ingle.kernels import layout as at
from ingle.kernels.rows import exp, quantise
from ingle.kernels.simd import f32_at, fma, get, load_f32, set_f32, splat, store_f32, total
from ingle.kernels.step_parts import barrier, external, take

_linear_int8, _linear_fp32, _linear_bf16 = external("linear_int8", 7), external("linear_fp32", 7), external("linear_bf16", 7)
_packed_forward = external("packed_forward", 4)
_TWICE_ROOT = 1.5957691216057308  # 2 · sqrt(2 / π)


@njit
def layer_norm(source, weight, bias, out, width, padded, eps):
    """Set out = (x − mean) / sqrt(variance + eps) · weight + bias, over `width` numbers in rows padded with zeros to `padded`."""
    sums = splat(0.0)
    for i in range(0, 4 * padded, 64):
        sums = sums + load_f32(source + i)
    mean = total(sums) / np.float32(width)
    squares = splat(0.0)
    for i in range(0, 4 * padded, 64):
        v = load_f32(source + i) - splat(mean)
        squares = fma(v, v, squares)
    spread = total(squares) - np.float32(padded - width) * mean * mean  # without what the padding added
    factor = splat(1.0 / np.sqrt(spread / np.float32(width) + eps))
    for i in range(0, 4 * padded, 64):
        store_f32(out + i, fma((load_f32(source + i) - splat(mean)) * factor, load_f32(weight + i), load_f32(bias + i)))


@njit
def gelu(source, out, padded):
    """Set out = x · (1 + tanh(sqrt(2/π) · (x + 0.044715 x³))) / 2 = x / (1 + e^(−2 · sqrt(2/π) · (x + 0.044715 x³)))."""
    one = splat(1.0)
    for i in range(0, 4 * padded, 64):
        x = load_f32(source + i)
        inner = x * fma(x * x, splat(0.044715), one)
        store_f32(out + i, x / (one + exp(inner * splat(-_TWICE_ROOT))))


@njit
def _linear(linear, x, rows, out, stride, accumulate):
    """Compute a linear for a block of rows, whose float32 values are in x; they are rounded first, where its weights are integers."""
    kind = get(linear, at.KIND)
    if kind >= at.FLOAT_KINDS:
        for row in range(rows):
            quantise(x, row, get(linear, at.COLUMNS))
    _panels(linear, x, rows, out, stride, accumulate)


@njit
def _panels(linear, x, rows, out, stride, accumulate):
    kind = get(linear, at.KIND)
    for index in range(get(linear, at.ROWS) // 16):
        arguments = (linear, index, x, rows, out + 64 * index, stride, accumulate)
        if kind == at.F32:
            _linear_fp32(arguments)
        elif kind == at.BF16:
            _linear_bf16(arguments)
        else:
            _linear_int8(arguments)


@njit
def _normalise(tower, weight, bias, source, out, rows):
    padded, eps = get(tower, to.HIDDEN_PADDED), f32_at(get(tower, to.EPS))
    for row in range(rows):
        place = 4 * padded * row
        layer_norm(source + place, weight, bias, out + place, get(tower, to.HIDDEN), padded, eps)


@njit
def _copy(tower, source, out, rows):
    for i in range(0, 4 * get(tower, to.HIDDEN_PADDED) * rows, 64):
        store_f32(out + i, load_f32(source + i))


@njit
def _heads(tower, source, stride, rows, out, step, first, factor):
    """Deal out a block's projections to its heads, times `factor`: [HEADS, ROWS, WIDTH], zeros behind each."""
    dim, width = get(tower, to.DIM), get(tower, to.WIDTH)
    for head in range(get(tower, to.HEADS)):
        for row in range(rows):
            place = out + 4 * width * (head * get(step, to.ROWS) + first + row)
            for d in range(dim):
                set_f32(place + 4 * d, f32_at(source + stride * row + 4 * (head * dim + d)) * factor)


@njit
def _keys(tower, source, stride, rows, step, first):
    """Deal out a block's keys, transposed: [HEADS, WIDTH, LINE]."""
    dim, width, line = get(tower, to.DIM), get(tower, to.WIDTH), get(step, to.LINE)
    for head in range(get(tower, to.HEADS)):
        for d in range(dim):
            place = get(step, to.K_TRANSPOSED) + 4 * ((head * width + d) * line + first)
            for row in range(rows):
                set_f32(place + 4 * row, f32_at(source + stride * row + 4 * (head * dim + d)))


@njit
def _before(tower, layer, step, desk, first, rows):
    """Compute queries, keys and values of a block."""
    wide, stride = get(desk, to.WIDE), 4 * get(layer + 8 * to.LINEAR_Q, at.ROWS)
    source = get(step, to.STREAM) + 4 * get(tower, to.HIDDEN_PADDED) * first
    if get(tower, to.NORM_BEHIND):
        _copy(tower, source, get(desk, at.VALUES), rows)
    else:
        _normalise(tower, get(layer, to.NORM_1), get(layer, to.NORM_1_BIAS), source, get(desk, at.VALUES), rows)
    _linear(layer + 8 * to.LINEAR_Q, desk, rows, wide, stride, 0)
    _heads(tower, wide, stride, rows, get(step, to.Q), step, first, np.float32(1 / np.sqrt(get(tower, to.DIM))))
    _panels(layer + 8 * to.LINEAR_K, desk, rows, wide, stride, 0)
    _keys(tower, wide, stride, rows, step, first)
    _panels(layer + 8 * to.LINEAR_V, desk, rows, wide, stride, 0)
    _heads(tower, wide, stride, rows, get(step, to.V), step, first, np.float32(1))


@njit
def _gather(tower, step, desk, first, rows):
    """Collect the heads' outputs of a block into rows."""
    dim, width, padded, values = get(tower, to.DIM), get(tower, to.WIDTH), get(tower, to.HIDDEN_PADDED), get(desk, at.VALUES)
    for head in range(get(tower, to.HEADS)):
        for row in range(rows):
            place = get(step, to.ATTENDED) + 4 * width * (head * get(step, to.ROWS) + first + row)
            for d in range(dim):
                set_f32(values + 4 * (padded * row + head * dim + d), f32_at(place + 4 * d))
    for row in range(rows):
        for column in range(get(tower, to.HIDDEN), padded):
            set_f32(values + 4 * (padded * row + column), 0.0)


@njit
def _after(tower, layer, step, desk, block, first, rows):
    """Do all of a layer that comes after its keys and values, for a block."""
    heads, stride, wide = get(tower, to.HEADS), 4 * get(tower, to.HIDDEN_PADDED), get(desk, to.WIDE)
    source = get(step, to.STREAM) + stride * first
    _packed_forward((get(step, to.CALL), get(step, to.TASKS) + 16 * heads * block, heads, get(desk, to.SCORES)))
    _gather(tower, step, desk, first, rows)
    _linear(layer + 8 * to.LINEAR_O, desk, rows, source, stride, 1)
    if get(tower, to.NORM_BEHIND):
        _normalise(tower, get(layer, to.NORM_1), get(layer, to.NORM_1_BIAS), source, source, rows)
        _copy(tower, source, get(desk, at.VALUES), rows)
    else:
        _normalise(tower, get(layer, to.NORM_2), get(layer, to.NORM_2_BIAS), source, get(desk, at.VALUES), rows)
    middle = get(layer + 8 * to.LINEAR_UP, at.ROWS)
    _linear(layer + 8 * to.LINEAR_UP, desk, rows, wide, 4 * middle, 0)
    for row in range(rows):
        gelu(wide + 4 * middle * row, get(desk, at.VALUES) + 4 * middle * row, middle)
    _linear(layer + 8 * to.LINEAR_DOWN, desk, rows, source, stride, 1)
    if get(tower, to.NORM_BEHIND):
        _normalise(tower, get(layer, to.NORM_2), get(layer, to.NORM_2_BIAS), source, source, rows)


def encoder_pass(tower, step, thread):
    """Entry: thread `thread`'s share of all layers and the last norm. Arguments: addresses of the records (see encoder_layout.py)."""
    size, rows, padded = get(step, to.BLOCK_ROWS), get(step, to.ROWS), get(tower, to.HIDDEN_PADDED)
    desk, counters, layers = get(step, to.DESKS) + 8 * to.DESK * thread, get(step, to.COUNTERS), get(tower, to.LAYERS)
    for i in range(layers):
        layer = get(tower, to.LAYER) + 8 * to.ENCODER_LAYER * i
        block = take(counters, 2 * i, 1)
        while block * size < rows:
            _before(tower, layer, step, desk, block * size, min(size, rows - block * size))
            block = take(counters, 2 * i, 1)
        barrier(get(step, to.BARRIER), get(step, to.THREADS))
        block = take(counters, 2 * i + 1, 1)
        while block * size < rows:
            _after(tower, layer, step, desk, block, block * size, min(size, rows - block * size))
            block = take(counters, 2 * i + 1, 1)
        barrier(get(step, to.BARRIER), get(step, to.THREADS))
    for row in range(thread, rows, get(step, to.THREADS)):
        source, out = get(step, to.STREAM) + 4 * padded * row, get(step, to.OUT) + 4 * padded * row
        if get(tower, to.NORM_BEHIND):
            _copy(tower, source, out, 1)
        else:
            _normalise(tower, get(tower, to.NORM), get(tower, to.NORM_BIAS), source, out, 1)


def encoder_project(linear, projection, thread):
    """Entry: thread `thread`'s share of a linear over any number of rows. Arguments: addresses of the records (see encoder_layout.py)."""
    size, rows, columns = get(projection, to.BLOCK_ROWS), get(projection, to.ROWS), get(projection, to.COLUMNS)
    desk, padded = get(projection, to.PROJECT_DESKS) + 8 * to.DESK * thread, get(linear, at.COLUMNS)
    stride = 4 * get(linear, at.ROWS)
    block = take(get(projection, to.COUNTER), 0, 1)
    while block * size < rows:
        first = block * size
        count = min(size, rows - first)
        for row in range(count):
            source = get(projection, to.SOURCE) + get(projection, to.SOURCE_BYTES) * (first + row)
            place = get(desk, at.VALUES) + 4 * padded * row
            for column in range(columns):
                set_f32(place + 4 * column, f32_at(source + 4 * column))
            for column in range(columns, padded):
                set_f32(place + 4 * column, 0.0)
        _linear(linear, desk, count, get(projection, to.PROJECTED) + stride * first, stride, get(projection, to.ONTO))
        block = take(get(projection, to.COUNTER), 0, 1)
