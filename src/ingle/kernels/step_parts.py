"""Parts that the sublayers of a step share: its meeting points, its adapters, a model's factors."""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ingle.kernels import layout as at
from ingle.kernels.simd import (
    I64,
    f32_at,
    fma,
    get,
    larger,
    largest,
    load_f32,
    load_i32,
    magnitude,
    numbers,
    rounded,
    set_f32,
    set_i32,
    splat,
    store_f32,
    store_i8,
    total,
)
from ingle.kernels.tiles import dot_bytes, row_splats_i

# Synchronisation of a step's threads in compiled code: a counter, a barrier, and shared work.
# A step of a small model has some two hundred phases of tens of microseconds, so threads spin; after a while they let others run, so that a
# busy machine slows Ingle down and does not stop it.


_PATIENCE = 2000  # turns of the waiting loop (some 20 µs) before the thread yields


@intrinsic
def fetch_add(_typing, address, amount):
    """Add to an int64 that threads share, and return its value before."""

    def emit(_context, b, _sig, args):
        return b.atomic_rmw("add", b.inttoptr(args[0], ir.PointerType(I64)), args[1], "acq_rel")

    return types.int64(types.int64, types.int64), emit


@intrinsic
def load_acquire(_typing, address):
    """Read an int64 that threads share; earlier writes of the thread that set it are then visible."""

    def emit(_context, b, _sig, args):
        return b.load_atomic(b.inttoptr(args[0], ir.PointerType(I64)), "acquire", 8)

    return types.int64(types.int64), emit


@intrinsic
def yield_thread(_typing):
    """Let another thread run on this core."""

    def emit(context, b, _sig, _args):
        b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(ir.IntType(32), []), "ingle_yield"), [])
        return context.get_dummy_value()

    return types.void(), emit


def external(name, arguments):
    """Return a call of another entry of `jit.ENTRIES`, linked by name when both are loaded; all arguments are int64."""
    word = ir.IntType(8).as_pointer()
    prototype = ir.FunctionType(ir.IntType(32), [word.as_pointer(), word.as_pointer(), *[I64] * arguments])

    @intrinsic
    def call(_typing, values):
        def emit(context, b, _sig, args):
            places = [cgutils.alloca_once(b, word), cgutils.alloca_once(b, word)]  # Numba's: the result and an exception, neither used
            function = cgutils.get_or_insert_function(b.module, prototype, name)
            b.call(function, [*places, *cgutils.unpack_tuple(b, args[0], arguments)])
            return context.get_dummy_value()

        return types.void(types.UniTuple(types.int64, arguments)), emit

    return call


@njit
def barrier(counter, threads):
    """Wait until all `threads` have called this as often as this one; `counter` starts at 0 and has no other use."""
    if threads > 1:
        target = (fetch_add(counter, 1) // threads + 1) * threads
        turns = 0
        while load_acquire(counter) < target:
            turns += 1
            if turns > _PATIENCE:
                yield_thread()


@njit
def take(counters, phase, amount):
    """Take the next `amount` tasks of a phase and return the first; `counters` has one int64 a phase, all starting at 0."""
    return fetch_add(counters + 8 * phase, amount)


_adapter_in, _adapter_out = external("adapter_in", 4), external("adapter_out", 3)


@njit
def adapter_of(step, row, index):
    """Return the row's adapter in layer number `index`: address of its seven records; 0 = none."""
    adapted = get(get(step, at.SEGMENTS) + 8 * at.SEGMENT * get(get(step, at.SEGMENT_OF), row), at.ADAPTED)
    return adapted if adapted == 0 else adapted + 8 * 7 * at.ADAPTER * index


@njit
def look(step, adapted, linear, x, row, slot):
    """Compute A x of one linear of a row's adapter. `linear`: its number in the layer; x: activations, rounded; `slot`: which of the row's
    three places gets the result."""
    place = adapted + 8 * at.ADAPTER * linear
    if adapted != 0 and get(place, at.ADAPTER_RANK) != 0:
        inner = get(step, at.INNER) + 4 * get(step, at.INNER_WIDTH) * (3 * row + slot)
        _adapter_in((place, x, row, inner))


@njit
def add_adapter(step, adapted, linear, y, row, slot):
    """Add B (A x) to y, after the linear itself."""
    place = adapted + 8 * at.ADAPTER * linear
    if adapted != 0 and get(place, at.ADAPTER_RANK) != 0:
        inner = get(step, at.INNER) + 4 * get(step, at.INNER_WIDTH) * (3 * row + slot)
        _adapter_out((place, inner, y))


@njit
def meet(step):
    barrier(get(step, at.BARRIER), get(step, at.THREADS))


@njit
def factor_of(model, number):
    return f32_at(get(model, at.FACTORS) + 4 * number)


# One linear of a step, whatever its kind: the threads take its panels in turn.


def _choice(kernels):
    """Make the function that calls the first of these kernels that multiplies a kind; the last one takes all others."""
    (name, (own, *_)), *others = kernels
    run, other = external(name, 7), _choice(others) if others else None

    @njit
    def call(_kind, arguments):
        run(arguments)

    @njit
    def choose(kind, arguments):
        if kind == own:
            run(arguments)
        else:
            other(kind, arguments)

    return choose if others else call


_choose = _choice([*at.LINEARS.items()])


@njit
def multiply_panel(linear, arguments):
    """Compute one panel of a linear, by the kernel of its kind; for the arguments see `linear.all_rows`."""
    _choose(get(linear, at.KIND), arguments)


@njit
def share_linear(linear, x, rows, out, accumulate, step, phase):
    """Compute one linear over all rows; the threads share its panels."""
    panels = get(linear, at.ROWS) // 16
    stride = 4 * get(linear, at.ROWS)
    portion = 1 if rows > 16 else max(1, min(16, panels // (4 * get(step, at.THREADS))))
    first = take(get(step, at.COUNTERS), phase, portion)
    while first < panels:
        for index in range(first, min(first + portion, panels)):
            multiply_panel(linear, (linear, index, x, rows, out + 64 * index, stride, accumulate))
        first = take(get(step, at.COUNTERS), phase, portion)


# Low-rank additions to linears, one row at a time: y += B (A x). Every row of a step may have another adapter.
# With a bias it is a bottleneck of neurons, y += B relu(A x + b) (arXiv 1902.00751).
# A and B are bytes w + 128 with one scale per row, in panels of 16 rows like the linears' (see linear.py): A [panel, K/4, 16, 4], B [panel,
# r/4, 16, 4]. x comes rounded to int8, as for the linears. The intermediate result is rounded to two int8 terms here, which keeps 15 bits.
# So both products are exact in int32, and their order depends on nothing but the sizes. Source: arXiv 2106.09685.


@njit(inline="always")
def _sum(weights, x, row, K):
    """Return Σ over k of row `row` of the activations x · weights [K/4, 16, 4]."""
    groups, result = K // 32, splat(0.0)
    for term in range(2):
        q = get(x, at.BYTES) + (2 * row + term) * K
        scale = get(x, at.SCALE) + (2 * row + term) * groups * 4
        offset = get(x, at.OFFSET) + (2 * row + term) * groups * 4
        for g in range(groups):
            if term == 0 or f32_at(scale + 4 * g) != 0:
                sums = row_splats_i(1, offset + 4 * g, 0)
                for j in range(8):
                    sums = dot_bytes(sums, load_i32(weights + 512 * g + 64 * j), q + 32 * g + 4 * j, 0)
                result = fma(numbers(sums), splat(f32_at(scale + 4 * g)), result)
    return result


@njit(inline="always")
def _round(t, rank):
    """Round float32 [rank] to two terms. Behind them come int8 [2, rank], two scales, and for each term −128 times its sum."""
    most = splat(0.0)
    for i in range(0, 4 * rank, 64):
        most = larger(most, magnitude(load_f32(t + i)))
    top = largest(most)
    step = top / np.float32(127)
    finer = step / np.float32(254)  # what is left over is at most half a step
    inverse = np.float32(127) / top if top > 0 else np.float32(0)
    bytes_, first, second = t + 4 * rank, splat(0.0), splat(0.0)
    for i in range(0, rank, 16):
        values = load_f32(t + 4 * i)
        a = rounded(values * splat(inverse))
        b = rounded(fma(numbers(a), splat(-step), values) * splat(inverse * np.float32(254)))
        store_i8(bytes_ + i, a)
        store_i8(bytes_ + rank + i, b)
        first, second = first + numbers(a), second + numbers(b)
    about = bytes_ + 2 * rank
    set_f32(about, step)
    set_f32(about + 4, finer)
    set_i32(about + 8, np.int32(-128 * total(first)))
    set_i32(about + 12, np.int32(-128 * total(second)))


def adapter_in(place, x, row, t):
    """Entry: t = A x, or relu(A x + b), for one row. place: address of an adapter's record for one linear (layout.py); x: address of the
    activations; t: float32 [rank], written, with room behind it for `adapter_out` (layout.inner_floats)."""
    K, weights, scales = get(place, at.ADAPTER_COLUMNS), get(place, at.ADAPTER_A), get(place, at.ADAPTER_A_SCALES)
    rank, bias = get(place, at.ADAPTER_RANK), get(place, at.ADAPTER_BIAS)
    for panel in range(rank // 16):
        inner = load_f32(scales + 64 * panel) * _sum(weights + 16 * panel * K, x, row, K)
        if bias != 0:
            inner = larger(inner + load_f32(bias + 64 * panel), splat(0.0))
        store_f32(t + 64 * panel, inner)
    _round(t, rank)


def adapter_out(place, t, y):
    """Entry: y += B t, with t from `adapter_in`. y: float32 [rows], read and written."""
    rank, weights, scales = get(place, at.ADAPTER_RANK), get(place, at.ADAPTER_B), get(place, at.ADAPTER_B_SCALES)
    bytes_, about = t + 4 * rank, t + 6 * rank
    step, finer = splat(f32_at(about)), splat(f32_at(about + 4))
    for panel in range(get(place, at.ADAPTER_ROWS) // 16):
        first, second = row_splats_i(1, about + 8, 0), row_splats_i(1, about + 12, 0)
        for j in range(0, rank, 4):
            four = load_i32(weights + 16 * (panel * rank + j))
            first = dot_bytes(first, four, bytes_ + j, 0)
            second = dot_bytes(second, four, bytes_ + rank + j, 0)
        out = y + 64 * panel
        sums = fma(numbers(second), finer, numbers(first) * step)
        store_f32(out, fma(load_f32(scales + 64 * panel), sums, load_f32(out)))
