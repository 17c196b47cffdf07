"""A mixture of experts in the place of the MLP: the router, then each expert's gate, up and down over the rows that chose it.

Rows are sorted by expert, so that an expert's matrices are read once a step, however many rows chose it. A row's result is the same
whatever other rows there are, for every row of a product is computed by itself, and its experts are summed in the order of their shares.
"""

import numpy as np
from numba import njit

from ingle.kernels import layout as at
from ingle.kernels import sublayer_layout as sub
from ingle.kernels.rows import add_scaled, exp, gelu_product, quantise, silu_product
from ingle.kernels.simd import f32_at, get, set_f32, set_i64, splat, store_f32, total
from ingle.kernels.step_parts import meet, multiply_panel, share_linear, take


@njit
def _choose(experts, step, row):
    """Choose a row's experts: those with the largest scores, the first one of equals. Their shares are softmax's."""
    routes, count, chosen = get(step, at.ROUTES), get(experts, sub.COUNT), get(experts, sub.CHOSEN)
    scores = get(routes, sub.ROUTED) + 4 * row * get(experts + 8 * sub.ROUTER, at.ROWS)
    picked, shares = get(routes, sub.SLOTS) + 8 * row * chosen, get(routes, sub.SHARES) + 4 * row * chosen
    for place in range(chosen):
        best, found = np.float32(-np.inf), 0
        for expert in range(count):
            score = f32_at(scores + 4 * expert)
            if score > best:
                taken = False
                for earlier in range(place):
                    taken = taken or get(picked, earlier) == expert
                if not taken:
                    best, found = score, expert
        set_i64(picked + 8 * place, found)
        set_f32(shares + 4 * place, best)
    top, all_, some = f32_at(shares), np.float32(0), np.float32(0)
    for expert in range(count):
        all_ += _exp(f32_at(scores + 4 * expert) - top)
    for place in range(chosen):
        share = _exp(f32_at(shares + 4 * place) - top)
        some += share
        set_f32(shares + 4 * place, share)
    whole = some if get(experts, sub.NORMED) != 0 else all_
    for place in range(chosen):
        set_f32(shares + 4 * place, f32_at(shares + 4 * place) / whole)


@njit
def _exp(x):
    """Return e^x of one number, by 16 lanes of it."""
    return total(exp(splat(x))) / np.float32(16)


@njit
def _sort(experts, step):
    """Number the rows of each expert one after the other, and write the entries of experts that have any."""
    routes, count, chosen = get(step, at.ROUTES), get(experts, sub.COUNT), get(experts, sub.CHOSEN)
    slots, owners, table = get(routes, sub.SLOTS), get(routes, sub.OWNERS), get(routes, sub.ENTRIES)
    pairs, entries, first = get(step, at.BATCH) * chosen, 0, 0
    for expert in range(count):
        following = first
        for pair in range(pairs):
            if get(slots, pair) == expert:
                set_i64(owners + 8 * following, pair)
                following += 1
        if following > first:
            entry = table + 8 * (1 + entries * sub.ENTRY)
            set_i64(entry + 8 * sub.NUMBER, expert)
            set_i64(entry + 8 * sub.FIRST, first)
            set_i64(entry + 8 * sub.ROWS, following - first)
            _begin_at(routes + 8 * sub.SORTED, entry + 8 * sub.INPUT, first, get(experts + 8 * sub.FIRST_EXPERT, at.COLUMNS))
            _begin_at(step + 8 * at.MIXED, entry + 8 * sub.INNER, first, get(experts, sub.PADDED))
            entries += 1
        first = following
    set_i64(table, entries)
    for slot in range(pairs):
        pair = get(owners, slot)
        set_i64(slots + 8 * pair, slot)
        set_i64(owners + 8 * slot, pair // chosen)


@njit
def _begin_at(x, out, row, columns):
    """Write the record of activations x of so many columns that begins at a row of theirs."""
    set_i64(out + 8 * at.VALUES, get(x, at.VALUES) + 4 * row * columns)
    set_i64(out + 8 * at.BYTES, get(x, at.BYTES) + 2 * row * columns)
    for plane in range(at.SCALE, at.ACTIVATIONS):
        set_i64(out + 8 * plane, get(x, plane) + row * columns // 4)


@njit
def _copy(source, target, bytes_):
    for i in range(0, bytes_, 8):
        set_i64(target + i, get(source + i, 0))


@njit
def _gather(model, experts, step, slot):
    """Copy the activations of a sorted row from those of its owner."""
    routes, columns = get(step, at.ROUTES), get(experts + 8 * sub.FIRST_EXPERT, at.COLUMNS)
    row, x, out = get(get(routes, sub.OWNERS), slot), step + 8 * at.NORMED, routes + 8 * sub.SORTED
    _copy(get(x, at.VALUES) + 4 * row * columns, get(out, at.VALUES) + 4 * slot * columns, 4 * columns)
    if get(model, at.QUANTISED) != 0:
        _copy(get(x, at.BYTES) + 2 * row * columns, get(out, at.BYTES) + 2 * slot * columns, 2 * columns)
        for plane in range(at.SCALE, at.ACTIVATIONS):
            _copy(get(x, plane) + row * columns // 4, get(out, plane) + slot * columns // 4, columns // 4)


@njit
def _share_experts(experts, step, which, out, phase):
    """Compute one of the experts' linears (0 gate, 1 up, 2 down) over their rows; the threads share the panels of all of them."""
    table, linears = get(get(step, at.ROUTES), sub.ENTRIES), experts + 8 * (sub.FIRST_EXPERT + which * at.DESCRIPTOR)
    each, stride = get(linears, at.ROWS) // 16, 4 * get(linears, at.ROWS)
    pieces = each * get(table, 0)
    portion = max(1, min(8, pieces // (4 * get(step, at.THREADS))))
    first = take(get(step, at.COUNTERS), phase, portion)
    while first < pieces:
        for piece in range(first, min(first + portion, pieces)):
            entry, index = table + 8 * (1 + piece // each * sub.ENTRY), piece % each
            linear = linears + 8 * sub.EXPERT * get(entry, sub.NUMBER)
            x = entry + 8 * (sub.INNER if which == 2 else sub.INPUT)
            place = out + get(entry, sub.FIRST) * stride + 64 * index
            multiply_panel(linear, (linear, index, x, get(entry, sub.ROWS), place, stride, 0))
        first = take(get(step, at.COUNTERS), phase, portion)


@njit
def _activate(model, experts, step, slot):
    """Write activation(gate) · up of a sorted row to what its expert's last linear reads."""
    width, padded = get(experts + 8 * sub.FIRST_EXPERT, at.ROWS), get(experts, sub.PADDED)
    gate, up = get(step, at.GATED) + 4 * slot * width, get(step, at.LIFTED) + 4 * slot * width
    out = get(step + 8 * at.MIXED, at.VALUES) + 4 * slot * padded
    if get(model, at.ACTIVATION) == at.GELU:
        gelu_product(gate, up, out, width)
    else:
        silu_product(gate, up, out, width)
    if get(model, at.QUANTISED) != 0:
        quantise(step + 8 * at.MIXED, slot, padded)


@njit
def _sum(model, experts, step, row):
    """Add a row's experts, times their shares, to the stream, or write them to what is added to it."""
    routes, chosen, padded = get(step, at.ROUTES), get(experts, sub.CHOSEN), get(model, at.HIDDEN_PADDED)
    out = get(step, at.STREAM) + 4 * row * padded
    if get(model, at.APART) != 0:
        out = get(step, at.OUTCOME) + 4 * row * padded
        for c in range(0, 4 * padded, 64):
            store_f32(out + c, splat(0.0))
    for place in range(row * chosen, (row + 1) * chosen):
        given = get(routes, sub.EXPERT_OUT) + 4 * padded * get(get(routes, sub.SLOTS), place)
        add_scaled(given, f32_at(get(routes, sub.SHARES) + 4 * place), out, padded)


def mixture(model, experts, step, thread, phase):
    """Entry: thread `thread`'s share of a layer's experts. Arguments: addresses of the records; the layer's first counter."""
    rows, threads, routes = get(step, at.BATCH), get(step, at.THREADS), get(step, at.ROUTES)
    slots = rows * get(experts, sub.CHOSEN)
    share_linear(experts + 8 * sub.ROUTER, step + 8 * at.NORMED, rows, get(routes, sub.ROUTED), 0, step, phase + 5)
    meet(step)
    for row in range(thread, rows, threads):
        _choose(experts, step, row)
    meet(step)
    if thread == 0:
        _sort(experts, step)
    meet(step)
    for slot in range(thread, slots, threads):
        _gather(model, experts, step, slot)
    meet(step)
    _share_experts(experts, step, 0, get(step, at.GATED), phase + 6)
    _share_experts(experts, step, 1, get(step, at.LIFTED), phase + 7)
    meet(step)
    for slot in range(thread, slots, threads):
        _activate(model, experts, step, slot)
    meet(step)
    _share_experts(experts, step, 2, get(routes, sub.EXPERT_OUT), phase + 10)
    meet(step)
    for row in range(thread, rows, threads):
        _sum(model, experts, step, row)
