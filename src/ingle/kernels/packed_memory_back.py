"""The backward pass of packed_memory.py, piece by piece, from the last chunk to the first."""

from numba import njit

from ingle.kernels.memory_layout import (
    BLOCK,
    CHUNK,
    DIM,
    DOCUMENTS,
    ELEMENT,
    FADE,
    FADED,
    FADED_Q,
    GAMMA,
    KEYS_T,
    LINE,
    PAIRS,
    RATIO,
    REPEATS,
    SCORES,
    SOLVED,
    SOLVED_T,
    STATE_T,
    SYSTEM,
    TO_BETA,
    TO_DECAY,
    TO_K,
    TO_LOGS,
    TO_PAIRS,
    TO_Q,
    TO_RAW_V,
    TO_SCORES,
    TO_SOLVED,
    TO_STATE,
    TO_STATE_T,
    TO_UPDATE,
    TO_WRITE,
    TO_Y,
    UPDATE,
    UPDATE_T,
    WRITE,
    K,
    Q,
    V,
    outside,
    row_at,
    state_at,
)
from ingle.kernels.memory_rows import back_from_given, back_to_keys, back_to_queries
from ingle.kernels.packed import multiply
from ingle.kernels.packed_memory import make_fading, make_system, make_update
from ingle.kernels.simd import f32_at, fma, get, load_f32, set_f32, splat, store_f32, total
from ingle.kernels.vectors import add, add_scaled, dot, scale, store, transpose


@njit
def _back_from_state(call, room, group, first, count, state):
    """Slopes at U, Φ and γ from those at the state after the chunk, which then become those at the state before it."""
    dim, to_state, to_logs, fade = get(call, DIM), room + get(call, TO_STATE), room + get(call, TO_LOGS), room + get(call, FADE)
    u, to_u, to_k = room + get(call, UPDATE), room + get(call, TO_UPDATE), room + get(call, TO_K)
    last = to_logs + 4 * (count - 1)
    transpose(to_state, 4 * dim, dim, dim, room + get(call, TO_STATE_T), 4 * dim)
    multiply(count, dim, dim, room + get(call, FADED), 4, 4 * dim, to_state, 4 * dim, to_u, 4 * dim, True)
    multiply(count, dim, dim, u, 4, 4 * dim, room + get(call, TO_STATE_T), 4 * dim, to_k, 4 * dim, True)
    for i in range(count):
        of_fade = dot(to_u + 4 * dim * i, u + 4 * dim * i, dim)
        add(to_logs + 4 * i, -of_fade)
        add(last, of_fade)
        scale(to_k + 4 * dim * i, f32_at(fade + 4 * i), to_k + 4 * dim * i, dim)
    kept = f32_at(room + get(call, GAMMA) + 4 * (count - 1))
    add(last, kept * dot(state, to_state, dim * dim))
    scale(to_state, kept, to_state, dim * dim)


@njit
def _back_from_row(room, call, scores, to_scores, i, columns):
    """Turn one row of scores into weights, and the slopes at its weights into those at its scores."""
    to_logs, sums = room + get(call, TO_LOGS), splat(0.0)
    for c in range(0, 4 * columns, 64):
        ratio = load_f32(room + get(call, RATIO) + i * LINE + c)
        weight, slope = load_f32(scores + c) * ratio, load_f32(to_scores + c)
        store_f32(scores + c, weight)
        store_f32(to_scores + c, slope * ratio)
        store_f32(to_logs + c, load_f32(to_logs + c) - weight * slope)
        sums = fma(weight, slope, sums)
    add(to_logs + 4 * i, total(sums))


@njit
def _back_from_y(call, room, group, first, count):
    """Slopes at Φ_q, Φ, U, γ and the state before the chunk, from those at y."""
    dim, repeats, line = get(call, DIM), get(call, REPEATS), 4 * get(call, DIM)
    scores, to_scores, faded, gamma = (
        room + get(call, SCORES), room + get(call, TO_SCORES), room + get(call, FADED_Q), room + get(call, GAMMA),
    )  # fmt: skip
    k, to_k = row_at(call, K, group, first, dim), room + get(call, TO_K)
    for b in range(0, count, BLOCK):
        tokens, columns, steps = min(BLOCK, count - b), b + BLOCK, min(b + BLOCK, count)
        rows, q = tokens * repeats, row_at(call, Q, group, first + b, repeats * dim)
        to_y, to_q = room + get(call, TO_Y) + line * repeats * b, room + get(call, TO_Q) + line * repeats * b
        multiply(rows, columns, dim, q, 4, line, room + get(call, KEYS_T), LINE, scores, LINE, True)
        multiply(rows, columns, dim, to_y, 4, line, room + get(call, UPDATE_T), LINE, to_scores, LINE, True)
        multiply(rows, dim, dim, to_y, 4, line, room + get(call, STATE_T), line, to_q, line, True)
        for r in range(rows):
            i = b + r // repeats
            _back_from_row(room, call, scores + r * LINE, to_scores + r * LINE, i, columns)
            scale(to_q + line * r, f32_at(gamma + 4 * i), to_q + line * r, dim)
            scale(q + line * r, f32_at(gamma + 4 * i), faded + line * r, dim)
            add(room + get(call, TO_LOGS) + 4 * i, dot(q + line * r, to_q + line * r, dim))
        multiply(rows, dim, steps, to_scores, 4, LINE, k, line, to_q, line, False)
        multiply(steps, dim, rows, to_scores, LINE, 4, q, line, to_k, line, False)
        multiply(steps, dim, rows, scores, LINE, 4, to_y, line, room + get(call, TO_UPDATE), line, False)
        multiply(dim, dim, rows, faded, line, 4, to_y, line, room + get(call, TO_STATE), line, False)


@njit
def _solve_back(call, room, count):
    """Solve (I − Nᵀ) Y = right side, in place."""
    dim, system, y = get(call, DIM), room + get(call, SYSTEM), room + get(call, TO_SOLVED)
    for b in range((count - 1) // BLOCK * BLOCK, -1, -BLOCK):
        stop = min(b + BLOCK, count)
        later = system + stop * LINE + 4 * b
        multiply(stop - b, 2 * dim, count - stop, later, LINE, 4, y + 8 * dim * stop, 8 * dim, y + 8 * dim * b, 8 * dim, False)
        for i in range(stop - 1, b - 1, -1):
            for j in range(b, i):
                add_scaled(y + 8 * dim * i, f32_at(system + i * LINE + 4 * j), y + 8 * dim * j, 2 * dim)


@njit
def _back_from_update(call, room, group, first, count):
    """Slopes at X and the state before the chunk, from those at U; TO_SOLVED then holds the slopes at the right side of X's system."""
    dim, line = get(call, DIM), 4 * get(call, DIM)
    x, to_x, to_u = row_at(call, SOLVED, group, first, 2 * dim), room + get(call, TO_SOLVED), room + get(call, TO_UPDATE)
    for i in range(count):
        scale(to_u + line * i, 1.0, to_x + 2 * line * i, dim)
    multiply(count, dim, dim, to_u, 4, line, room + get(call, STATE_T), line, to_x + line, 2 * line, True)
    multiply(dim, dim, count, x + line, 2 * line, 4, to_u, line, room + get(call, TO_STATE), line, False)
    _solve_back(call, room, count)


@njit
def _back_from_system(call, room, group, first, count):
    """Slopes at Φ, β and γ, from those at N."""
    dim, line = get(call, DIM), 4 * get(call, DIM)
    k, to_k, write = row_at(call, K, group, first, dim), room + get(call, TO_K), row_at(call, WRITE, group, first, 1)
    to_pairs, to_logs = room + get(call, TO_PAIRS), room + get(call, TO_LOGS)
    transpose(row_at(call, SOLVED, group, first, 2 * dim), 2 * line, count, 2 * dim, room + get(call, SOLVED_T), LINE)
    for b in range(0, count, BLOCK):
        rows, columns, steps = min(BLOCK, count - b), b + BLOCK, min(b + BLOCK, count)
        y, mine = room + get(call, TO_SOLVED) + 2 * line * b, to_pairs + b * LINE
        multiply(rows, columns, 2 * dim, y, 4, 2 * line, room + get(call, SOLVED_T), LINE, mine, LINE, True)
        for i in range(b, b + rows):
            strength, sums = -f32_at(write + 4 * i), splat(0.0)
            for c in range(0, 4 * columns, 64):
                place = i * LINE + c
                slope = load_f32(to_pairs + place)
                moved = slope * load_f32(room + get(call, PAIRS) + place)
                sums = sums + moved
                store_f32(to_logs + c, load_f32(to_logs + c) - moved * splat(strength))
                store_f32(to_pairs + place, slope * load_f32(room + get(call, RATIO) + place) * splat(strength))
            set_f32(to_pairs + i * LINE + 4 * i, 0.0)
            whole = total(sums)
            add(to_logs + 4 * i, strength * whole)
            add(room + get(call, TO_BETA) + 4 * i, -whole)
        multiply(rows, dim, steps, mine, 4, LINE, k, line, to_k + line * b, line, False)
        multiply(steps, dim, rows, mine, LINE, 4, k + line * b, line, to_k, line, False)


@njit
def _back_from_sides(call, room, group, first, count, token):
    """Slopes at v from those at [β V, −β γ Φ]; they complete the slopes at β and log α."""
    dim, line = get(call, DIM), 4 * get(call, DIM)
    k, v, write = row_at(call, K, group, first, dim), row_at(call, V, group, first, dim), row_at(call, WRITE, group, first, 1)
    to_k, to_decay, element = room + get(call, TO_K), row_at(call, TO_DECAY, group, first, 1), get(call, ELEMENT)
    later = f32_at(write) - f32_at(write)
    for i in range(count - 1, -1, -1):
        y, strength, gamma = room + get(call, TO_SOLVED) + 2 * line * i, f32_at(write + 4 * i), f32_at(room + get(call, GAMMA) + 4 * i)
        of_key = gamma * dot(y + line, k + line * i, dim)
        of_write = f32_at(room + get(call, TO_BETA) + 4 * i) + dot(y, v + line * i, dim) - of_key
        set_f32(row_at(call, TO_WRITE, group, first, 1) + 4 * i, of_write)
        for c in range(0, dim, 16):
            store(element, outside(call, TO_RAW_V, group, token + i, 1) + element * c, load_f32(y + 4 * c) * splat(strength))
        add_scaled(y + line, -strength * gamma, to_k + line * i, dim)
        later = later + f32_at(room + get(call, TO_LOGS) + 4 * i) - strength * of_key
        set_f32(to_decay + 4 * i, later)


def memory_backward(call, tasks, count, room):
    """Entry: slopes at all inputs. tasks: pairs (document, group). Rows that no memory touches are left unchanged."""
    dim = get(call, DIM)
    for task in range(count):
        number, group = get(tasks, 2 * task), get(tasks, 2 * task + 1)
        document = get(call, DOCUMENTS) + 32 * number
        length = get(document, 1)
        for c in range(0, 4 * dim * dim, 64):
            store_f32(room + get(call, TO_STATE) + c, splat(0.0))
        for chunk in range((length - 1) // CHUNK, -1, -1):
            first, tokens, token = get(document, 0) + chunk * CHUNK, min(CHUNK, length - chunk * CHUNK), get(document, 3) + chunk * CHUNK
            state = state_at(call, group, get(document, 2) + chunk)
            for c in range(0, 4 * CHUNK, 64):
                store_f32(room + get(call, TO_LOGS) + c, splat(0.0))
                store_f32(room + get(call, TO_BETA) + c, splat(0.0))
            make_fading(call, room, group, first, tokens)
            make_system(call, room, group, first, tokens)
            make_update(call, room, group, first, tokens, state)
            transpose(room + get(call, UPDATE), 4 * dim, tokens, dim, room + get(call, UPDATE_T), LINE)
            transpose(state, 4 * dim, dim, dim, room + get(call, STATE_T), 4 * dim)
            back_from_given(call, room, group, first, tokens, token)
            _back_from_state(call, room, group, first, tokens, state)
            _back_from_y(call, room, group, first, tokens)
            _back_from_update(call, room, group, first, tokens)
            _back_from_system(call, room, group, first, tokens)
            _back_from_sides(call, room, group, first, tokens, token)
            back_to_queries(call, room, number, group, first, tokens, token)
            back_to_keys(call, room, number, group, first, tokens, token)
