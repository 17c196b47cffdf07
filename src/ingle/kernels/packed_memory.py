"""Memories of packed documents in one row, forward and backward for training, in float32 (train/forward.py).

The gated delta rule S ← α S (I − β φ φᵀ) + β v φᵀ, y = S φ_q, in chunks of CHUNK tokens (arXiv 2412.06464 eqs. 8 and 9 and appendix),
as model/module_parts.py has it in PyTorch. A *task* is one document of one group: a thread walks through its chunks, there and back,
from the model's rows to the model's rows, and all that a chunk needs stays in the cache. With γ_i the product of all α of the chunk up
to i, Γ_ij = γ_i / γ_j, and S the state before it:

    (I − N) X = [β V, −β γ Φ],  N = −tril(β Γ ∘ Φ Φᵀ, −1);  U = X_v + X_k Sᵀ;
    y = γ Φ_q Sᵀ + (Φ_q Φᵀ ∘ Γ) U;  Sᵀ ← γ_C Sᵀ + (Γ_C Φ)ᵀ U

Forward keeps Sᵀ before each chunk, X, y, and the unit vectors; back, all else is made again. The triangular systems are solved BLOCK rows
at a time. Layouts: below.
"""

import numpy as np
from numba import njit

from ingle.kernels.packed_attention import multiply
from ingle.kernels.rows import exp
from ingle.kernels.simd import (
    add,
    add_scaled,
    dot,
    f32_at,
    fma,
    get,
    load,
    load_f32,
    scale,
    set_f32,
    splat,
    store,
    store_f32,
    total,
    transpose,
    up,
)

# The arguments, scratch and rows of the memory kernels for training.
# Layouts, float32: queries, y and their slopes [G, N, R, D]; keys, values and theirs [G, N, D]; log α, β and theirs, and 1 / ‖·‖ of keys
# [G, N]; shares, and 1 / ‖·‖ of queries [G, N, R]; states [G, chunks, D, D]; X [G, N, 2 D]; maps [G, D, D], also transposed; gates [G, R,
# D] and [G, R], ages [G, R], and their factors (`model.module_parts.log_held`) [N]; slopes at maps, gates and ages the same for each
# document. As the model has them, of ELEMENT bytes a number: q, the window's and the heads' output and their slopes [T, G, R, D]; k, v
# and theirs [T, G, D]. A document is a record of int64: its first of the N tokens, how many, number of its first chunk, and the first of
# the T tokens that enters.


CHUNK, BLOCK = 64, 16
# Bytes from one row of a matrix of CHUNK columns to the next: no power of two, for those share few places of a cache.
LINE = 4 * (CHUNK + 16)
# Fields of a call's record: sizes, and addresses. Behind them come the beginnings of ROOMS in a thread's scratch, in bytes.
FIELDS = (
    "DIM", "GROUPS", "REPEATS", "TOKENS", "CHUNKS", "WINDOW", "ELEMENT", "DOCUMENTS", "RAW_Q", "RAW_K", "RAW_V", "SEEN", "MAP_Q", "MAP_K",
    "MAP_Q_T", "MAP_K_T", "GATE", "GATE_BIAS", "AGE", "HELD", "DECAY", "WRITE", "GIVEN", "Q", "K", "V", "SCALE_Q", "SCALE_K", "SHARE", "Y",
    "STATES", "SOLVED", "TO_GIVEN", "TO_RAW_Q", "TO_RAW_K", "TO_RAW_V", "TO_SEEN", "TO_MAP_Q", "TO_MAP_K", "TO_GATE", "TO_GATE_BIAS",
    "TO_AGE", "TO_DECAY", "TO_WRITE",
)  # fmt: skip
(
    DIM, GROUPS, REPEATS, TOKENS, CHUNKS, WINDOW, ELEMENT, DOCUMENTS, RAW_Q, RAW_K, RAW_V, SEEN, MAP_Q, MAP_K, MAP_Q_T, MAP_K_T, GATE,
    GATE_BIAS, AGE, HELD, DECAY, WRITE, GIVEN, Q, K, V, SCALE_Q, SCALE_K, SHARE, Y, STATES, SOLVED, TO_GIVEN, TO_RAW_Q, TO_RAW_K, TO_RAW_V,
    TO_SEEN, TO_MAP_Q, TO_MAP_K, TO_GATE, TO_GATE_BIAS, TO_AGE, TO_DECAY, TO_WRITE,
) = range(len(FIELDS))  # fmt: skip
ROOMS = (
    "LOGS", "GAMMA", "FADE", "TO_LOGS", "TO_BETA", "RATIO", "SYSTEM", "PAIRS", "TO_PAIRS", "KEYS_T", "FADED", "UPDATE", "TO_UPDATE", "TO_K",
    "UPDATE_T", "SOLVED_T", "TO_SOLVED", "SCORES", "TO_SCORES", "FADED_Q", "RAW", "TO_Y", "TO_Q", "TO_SHARE", "STATE_T", "TO_STATE",
    "TO_STATE_T",
)  # fmt: skip
(
    LOGS, GAMMA, FADE, TO_LOGS, TO_BETA, RATIO, SYSTEM, PAIRS, TO_PAIRS, KEYS_T, FADED, UPDATE, TO_UPDATE, TO_K, UPDATE_T, SOLVED_T,
    TO_SOLVED, SCORES, TO_SCORES, FADED_Q, RAW, TO_Y, TO_Q, TO_SHARE, STATE_T, TO_STATE, TO_STATE_T,
) = range(len(FIELDS), len(FIELDS) + len(ROOMS))  # fmt: skip


def rooms(dim: int, repeats: int) -> list[int]:
    """Return the float32 of each room."""
    row, square, line = CHUNK, CHUNK * LINE // 4, LINE // 4
    return [
        *[row] * 5, *[square] * 4, dim * line, *[row * dim] * 4, dim * line, 2 * dim * line, 2 * row * dim,
        *[BLOCK * repeats * line] * 2, *[BLOCK * repeats * dim] * 2, *[row * repeats * dim] * 2, row * repeats, *[dim * dim] * 3,
    ]  # fmt: skip


@njit
def outside(call, field, group, token, repeats):
    """Return the address of a token's rows of one group in [T, G, repeats, D]."""
    return get(call, field) + get(call, ELEMENT) * get(call, DIM) * repeats * (token * get(call, GROUPS) + group)


@njit
def weights(call, field, group, floats):
    """Return the address of a group's numbers in [G, …]."""
    return get(call, field) + 4 * floats * group


@njit
def to_weights(call, field, document, group, floats):
    """Return the address of a document's slopes at a group's numbers in [documents, G, …]."""
    return get(call, field) + 4 * floats * (document * get(call, GROUPS) + group)


@njit
def row_at(call, field, group, row, floats):
    """Return the address of a row of so many float32 in [G, N, …]."""
    return get(call, field) + 4 * floats * (group * get(call, TOKENS) + row)


@njit
def state_at(call, group, chunk):
    return get(call, STATES) + 4 * get(call, DIM) * get(call, DIM) * (group * get(call, CHUNKS) + chunk)


# Conversions between a model's rows and the training memories (packed_memory.py): unit vectors of mapped queries and keys, and blends:
#     φ_k = unit(k_map k),  φ_q = unit(q_map q),  λ = sigmoid(gate · q + age · held),  given = (1 − λ) · seen + λ · y
# and backward. `first` counts the tokens that enter, of all documents; `token` is where that token lies in the row. The one that reads then
# lies WINDOW behind it.


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


@njit
def make_fading(call, room, group, first, count):
    """Compute log γ and γ of each token of a chunk, Γ_Cj, Γ_ij for j ≤ i, zeros behind it up to the next 16, and Φᵀ and Γ_C Φ."""
    dim, logs, gamma, fade = get(call, DIM), room + get(call, LOGS), room + get(call, GAMMA), room + get(call, FADE)
    decay, k = row_at(call, DECAY, group, first, 1), row_at(call, K, group, first, dim)
    so_far = f32_at(decay) - f32_at(decay)
    for i in range(count):
        so_far = so_far + f32_at(decay + 4 * i)
        set_f32(logs + 4 * i, so_far)
    for i in range(count, up(count)):
        set_f32(logs + 4 * i, so_far)
    for c in range(0, 4 * up(count), 64):
        store_f32(gamma + c, exp(load_f32(logs + c)))
        store_f32(fade + c, exp(splat(so_far) - load_f32(logs + c)))
    for i in range(count):
        row = room + get(call, RATIO) + i * LINE
        mine = splat(f32_at(logs + 4 * i))
        for c in range(0, 4 * (i // 16 + 1) * 16, 64):
            store_f32(row + c, exp(mine - load_f32(logs + c)))
        for j in range(i + 1, (i // 16 + 1) * 16):
            set_f32(row + 4 * j, 0.0)
        scale(k + 4 * dim * i, f32_at(fade + 4 * i), room + get(call, FADED) + 4 * dim * i, dim)
    transpose(k, 4 * dim, count, dim, room + get(call, KEYS_T), LINE)


@njit
def make_system(call, room, group, first, count):
    """Compute Γ ∘ Φ Φᵀ below the diagonal, and N = −β of it; zeros from the diagonal up to the next 16."""
    dim, pairs, system = get(call, DIM), room + get(call, PAIRS), room + get(call, SYSTEM)
    k, write = row_at(call, K, group, first, dim), row_at(call, WRITE, group, first, 1)
    for b in range(0, count, BLOCK):
        rows, columns = min(BLOCK, count - b), b + BLOCK
        multiply(rows, columns, dim, k + 4 * dim * b, 4, 4 * dim, room + get(call, KEYS_T), LINE, pairs + b * LINE, LINE, True)
        for i in range(b, b + rows):
            strength = splat(-f32_at(write + 4 * i))
            for c in range(i * LINE, i * LINE + 4 * columns, 64):
                product = load_f32(pairs + c) * load_f32(room + get(call, RATIO) + c)
                store_f32(pairs + c, product)
                store_f32(system + c, product * strength)
            set_f32(pairs + i * LINE + 4 * i, 0.0)
            set_f32(system + i * LINE + 4 * i, 0.0)


@njit
def _solve(call, room, group, first, count):
    """Solve (I − N) X = [β V, −β γ Φ]."""
    dim, system, x = get(call, DIM), room + get(call, SYSTEM), row_at(call, SOLVED, group, first, 2 * get(call, DIM))
    k, v, write = row_at(call, K, group, first, dim), row_at(call, V, group, first, dim), row_at(call, WRITE, group, first, 1)
    for i in range(count):
        strength = f32_at(write + 4 * i)
        scale(v + 4 * dim * i, strength, x + 8 * dim * i, dim)
        scale(k + 4 * dim * i, -strength * f32_at(room + get(call, GAMMA) + 4 * i), x + 8 * dim * i + 4 * dim, dim)
    for b in range(0, count, BLOCK):
        stop = min(b + BLOCK, count)
        multiply(stop - b, 2 * dim, b, system + b * LINE, 4, LINE, x, 8 * dim, x + 8 * dim * b, 8 * dim, False)
        for i in range(b, stop):
            for j in range(b, i):
                add_scaled(x + 8 * dim * j, f32_at(system + i * LINE + 4 * j), x + 8 * dim * i, 2 * dim)


@njit
def make_update(call, room, group, first, count, state):
    """Compute U = X_v + X_k Sᵀ."""
    dim, u, x = get(call, DIM), room + get(call, UPDATE), row_at(call, SOLVED, group, first, 2 * get(call, DIM))
    for i in range(count):
        scale(x + 8 * dim * i, 1.0, u + 4 * dim * i, dim)
    multiply(count, dim, dim, x + 4 * dim, 4, 8 * dim, state, 4 * dim, u, 4 * dim, False)


@njit
def _read(call, room, group, first, count, state):
    """Compute y of a chunk, BLOCK tokens at a time."""
    dim, repeats, scores = get(call, DIM), get(call, REPEATS), room + get(call, SCORES)
    for b in range(0, count, BLOCK):
        tokens, columns = min(BLOCK, count - b), b + BLOCK
        rows, q = tokens * repeats, row_at(call, Q, group, first + b, repeats * dim)
        y = row_at(call, Y, group, first + b, repeats * dim)
        multiply(rows, dim, dim, q, 4, 4 * dim, state, 4 * dim, y, 4 * dim, True)
        multiply(rows, columns, dim, q, 4, 4 * dim, room + get(call, KEYS_T), LINE, scores, LINE, True)
        for r in range(rows):
            i = b + r // repeats
            scale(y + 4 * dim * r, f32_at(room + get(call, GAMMA) + 4 * i), y + 4 * dim * r, dim)
            for c in range(0, 4 * columns, 64):
                store_f32(scores + r * LINE + c, load_f32(scores + r * LINE + c) * load_f32(room + get(call, RATIO) + i * LINE + c))
        multiply(rows, dim, min(columns, count), scores, 4, LINE, room + get(call, UPDATE), 4 * dim, y, 4 * dim, False)


def memory_forward(call, tasks, count, room):
    """Entry: the heads' outputs where memories are read, and the values for the backward pass. tasks: pairs (document, group)."""
    dim = get(call, DIM)
    for task in range(count):
        document, group = get(call, DOCUMENTS) + 32 * get(tasks, 2 * task), get(tasks, 2 * task + 1)
        length, chunk = get(document, 1), get(document, 2)
        for c in range(0, 4 * dim * dim, 64):
            store_f32(state_at(call, group, chunk) + c, splat(0.0))
        for start in range(0, length, CHUNK):
            first, tokens, token = get(document, 0) + start, min(CHUNK, length - start), get(document, 3) + start
            state = state_at(call, group, chunk)
            take_keys(call, room, group, first, tokens, token)
            take_queries(call, room, group, first, tokens, token)
            make_fading(call, room, group, first, tokens)
            make_system(call, room, group, first, tokens)
            _solve(call, room, group, first, tokens)
            make_update(call, room, group, first, tokens, state)
            _read(call, room, group, first, tokens, state)
            give(call, group, first, tokens, token)
            if start + CHUNK < length:
                following = state + 4 * dim * dim
                scale(state, f32_at(room + get(call, GAMMA) + 4 * (tokens - 1)), following, dim * dim)
                u = room + get(call, UPDATE)
                multiply(dim, dim, tokens, room + get(call, FADED), 4 * dim, 4, u, 4 * dim, following, 4 * dim, False)
            chunk += 1


# The backward pass of packed_memory.py, piece by piece, from the last chunk to the first.


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
