"""A convolutional network on one picture: its convolutions one after the other, on several threads that wait at barriers.

Numbers are float32, pixels lie row by row, and a pixel's channels side by side, padded with zeros to a multiple of 16. A *dense*
convolution sums over all channels: output pixels side by side are the rows of a register tile, and 16 output channels its columns, so
it is a matrix product whose rows overlap where the filter is wider than a pixel. A *depthwise* one has a filter for each channel.
After the sum: + bias, + the residual where there is one, and where CLIPPED max(0, min(6, x)) (ReLU6, arXiv 1801.04381).

Weights: dense [channels out / 16, size · size · channels in, 16]; depthwise [size · size, channels]. A dense convolution's picture holds
its border, a depthwise one's does not: PAD pixels of zeros stand before its first row and column.
"""

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from ingle.kernels.conv_layout import (
    BIAS,
    CHANNELS,
    CLIPPED,
    COLUMNS,
    DEPTHWISE,
    HEIGHT,
    LINE,
    OUT_CHANNELS,
    PAD,
    PIXEL,
    RECORD,
    RESIDUAL,
    ROWS,
    SIZE,
    SOURCE,
    STEP,
    TARGET,
    WEIGHTS,
    WIDTH,
)  # fmt: skip
from ingle.kernels.cpu import tile_rows
from ingle.kernels.simd import ADDRESS, VECTOR, VF, at_address, call, fma_of, get, load_f32
from ingle.kernels.step_parts import barrier, take
from ingle.kernels.tiles import load_tile, outer, rows_of, store_tile, summed, tile_of, zeros_f

CHUNK = 96  # about how many pixels of a line a task covers: weights are read again for each, so that a line's pixels stay in the cache
PANELS = 2  # sixteens of channels that a task covers


@intrinsic
def finished(_typing, tile, bias, clip):
    """Return tile[r] + bias; where `clip` is not 0 no less than 0 and no more than 6."""

    def emit(_context, b, _sig, args):
        low, high = (ir.Constant(VF, [number] * 16) for number in (0.0, 6.0))
        clipped, rows = b.icmp_signed("!=", args[2], ir.Constant(ir.IntType(64), 0)), []
        for row in rows_of(b, args[0], tile):
            plain = b.fadd(row, args[1])
            kept = call(b, "llvm.minnum.v16f32", VF, call(b, "llvm.maxnum.v16f32", VF, plain, low), high)
            rows.append(b.select(clipped, kept, plain))
        return tile_of(b, rows, tile)

    return tile(tile, VECTOR, types.int64), emit


@intrinsic
def inner(_typing, tile, vector, address, stride):
    """Return tile[r] + vector · (the 16 float32 at address + r · stride)."""

    def emit(_context, b, _sig, args):
        rows = []
        for r, row in enumerate(rows_of(b, args[0], tile)):
            place = b.add(args[2], b.mul(args[3], ir.Constant(ir.IntType(64), r)))
            rows.append(fma_of(b, b.load(at_address(b, place, VF), align=4), args[1], row))
        return tile_of(b, rows, tile)

    return tile(tile, VECTOR, ADDRESS, ADDRESS), emit


def _dense(rows):
    @njit
    def dense(op, source, weights, target, bias, residual):
        """Compute `rows` pixels side by side, 16 channels of each."""
        tile, step, stride = zeros_f(rows), get(op, STEP) * get(op, PIXEL), 4 * get(op, OUT_CHANNELS)
        for line in range(get(op, SIZE)):
            for column in range(get(op, SIZE)):
                start = source + line * get(op, LINE) + column * get(op, PIXEL)
                for address in range(start, start + 4 * get(op, CHANNELS), 4):
                    tile = outer(tile, load_f32(weights), address, step)
                    weights += 64
        if residual != 0:
            tile = summed(tile, load_tile(rows, residual, stride))
        store_tile(finished(tile, load_f32(bias), get(op, CLIPPED)), target, stride)

    return dense


def _depthwise(rows):
    @njit
    def depthwise(op, source, weights, target, bias, first, last, left, right):
        """Compute `rows` pixels side by side, 16 channels of each, from the filter's lines first … last and columns left … right."""
        tile, channels = zeros_f(rows), 4 * get(op, OUT_CHANNELS)
        for line in range(first, last):
            for column in range(left, right):
                place = source + line * get(op, LINE) + column * get(op, PIXEL)
                tile = inner(tile, load_f32(weights + (line * get(op, SIZE) + column) * channels), place, get(op, STEP) * get(op, PIXEL))
        store_tile(finished(tile, load_f32(bias), get(op, CLIPPED)), target, channels)

    return depthwise


_MOST, _ = tile_rows()
_dense_most, _dense_4, _dense_2, _dense_1 = (_dense(rows) for rows in (_MOST, 4, 2, 1))
_depthwise_most, _depthwise_1 = _depthwise(_MOST // 2), _depthwise(1)


@njit
def _chunk(op):
    """Return the pixels of a line that a task covers."""
    pieces = (get(op, COLUMNS) + CHUNK - 1) // CHUNK
    each = (get(op, COLUMNS) + pieces - 1) // pieces
    return (each + _MOST - 1) // _MOST * _MOST


@njit
def _tasks(op):
    """Return the number of a convolution's tasks."""
    if get(op, DEPTHWISE) != 0:
        return get(op, ROWS) * (get(op, OUT_CHANNELS) // 16)
    chunks = (get(op, COLUMNS) + _chunk(op) - 1) // _chunk(op)
    return get(op, ROWS) * chunks * ((get(op, OUT_CHANNELS) // 16 + PANELS - 1) // PANELS)


@njit
def _dense_task(op, task):
    """Compute some pixels of a line, and PANELS · 16 channels of each."""
    channels, panels = get(op, OUT_CHANNELS), get(op, OUT_CHANNELS) // 16
    groups, chunk = (panels + PANELS - 1) // PANELS, _chunk(op)
    chunks = (get(op, COLUMNS) + chunk - 1) // chunk
    group, line, first = task % groups, task // groups // chunks, task // groups % chunks * chunk
    last = min(first + chunk, get(op, COLUMNS))
    depth = get(op, SIZE) * get(op, SIZE) * get(op, CHANNELS)
    lines = get(op, SOURCE) + line * get(op, STEP) * get(op, LINE)
    for panel in range(PANELS * group, min(PANELS * group + PANELS, panels)):
        weights, bias = get(op, WEIGHTS) + 64 * depth * panel, get(op, BIAS) + 64 * panel
        x = first
        while x < last:
            place = 4 * (line * get(op, COLUMNS) + x) * channels + 64 * panel
            source, target = lines + x * get(op, STEP) * get(op, PIXEL), get(op, TARGET) + place
            residual = 0 if get(op, RESIDUAL) == 0 else get(op, RESIDUAL) + place
            if x + _MOST <= last:
                _dense_most(op, source, weights, target, bias, residual)
                x += _MOST
            elif x + 4 <= last:
                _dense_4(op, source, weights, target, bias, residual)
                x += 4
            elif x + 2 <= last:
                _dense_2(op, source, weights, target, bias, residual)
                x += 2
            else:
                _dense_1(op, source, weights, target, bias, residual)
                x += 1


@njit
def _depthwise_task(op, task):
    """Compute a line, 16 channels of it. Where the filter leaves the picture, only its part within is summed."""
    step, size, pad, channels = get(op, STEP), get(op, SIZE), get(op, PAD), get(op, OUT_CHANNELS)
    line, panel = task % get(op, ROWS), task // get(op, ROWS)
    weights, bias = get(op, WEIGHTS) + 64 * panel, get(op, BIAS) + 64 * panel
    top = line * step - pad
    first, last = max(0, -top), min(size, get(op, HEIGHT) - top)
    x, many = 0, _MOST // 2
    while x < get(op, COLUMNS):
        left = x * step - pad
        source = get(op, SOURCE) + top * get(op, LINE) + left * get(op, PIXEL) + 64 * panel
        target = get(op, TARGET) + 4 * (line * get(op, COLUMNS) + x) * channels + 64 * panel
        if left >= 0 and x + many <= get(op, COLUMNS) and left + (many - 1) * step + size <= get(op, WIDTH):
            _depthwise_most(op, source, weights, target, bias, first, last, 0, size)
            x += many
        else:
            _depthwise_1(op, source, weights, target, bias, first, last, max(0, -left), min(size, get(op, WIDTH) - left))
            x += 1


def convolve(program, count, counters, threads):
    """Entry: compute `count` convolutions, the records that lie one after the other at `program`, on so many threads at once.

    counters: int64 [count + 1], all 0: the meeting place, and the next task of each convolution.
    """
    for number in range(count):
        op = program + 8 * RECORD * number
        tasks = _tasks(op)
        task = take(counters + 8, number, 1)
        while task < tasks:
            if get(op, DEPTHWISE) != 0:
                _depthwise_task(op, task)
            else:
                _dense_task(op, task)
            task = take(counters + 8, number, 1)
        barrier(counters, threads)
