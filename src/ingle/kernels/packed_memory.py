"""Memories of packed documents in one row, forward and backward for training, in float32 (train/kernel_memory.py).

The gated delta rule S ← α S (I − β φ φᵀ) + β v φᵀ, y = S φ_q, in chunks of CHUNK tokens (arXiv 2412.06464 eqs. 8 and 9 and appendix),
as model/memory.py has it in PyTorch. A *task* is one document of one group: a thread walks through its chunks, there and back
(packed_memory_back.py), from the model's rows to the model's rows (memory_rows.py), and all that a chunk needs stays in the cache. With γ_i
the product of all α of the chunk up to i, Γ_ij = γ_i / γ_j, and S the state before it:

    (I − N) X = [β V, −β γ Φ],  N = −tril(β Γ ∘ Φ Φᵀ, −1);  U = X_v + X_k Sᵀ;
    y = γ Φ_q Sᵀ + (Φ_q Φᵀ ∘ Γ) U;  Sᵀ ← γ_C Sᵀ + (Γ_C Φ)ᵀ U

Forward keeps Sᵀ before each chunk, X, y, and the unit vectors; back, all else is made again. The triangular systems are solved BLOCK rows
at a time. Layouts: memory_layout.py.
"""

from numba import njit

from ingle.kernels.memory_layout import (
    BLOCK,
    CHUNK,
    DECAY,
    DIM,
    DOCUMENTS,
    FADE,
    FADED,
    GAMMA,
    KEYS_T,
    LINE,
    LOGS,
    PAIRS,
    RATIO,
    REPEATS,
    SCORES,
    SOLVED,
    SYSTEM,
    UPDATE,
    WRITE,
    K,
    Q,
    V,
    Y,
    row_at,
    state_at,
)
from ingle.kernels.memory_rows import give, take_keys, take_queries
from ingle.kernels.packed import multiply
from ingle.kernels.rows import exp
from ingle.kernels.simd import f32_at, get, load_f32, set_f32, splat, store_f32
from ingle.kernels.vectors import add_scaled, scale, transpose, up


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
