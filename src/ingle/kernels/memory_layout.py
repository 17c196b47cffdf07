"""The arguments, scratch and rows of the memory kernels for training (packed_memory.py says what is computed).

Layouts, float32: queries, y and their slopes [G, N, R, D]; keys, values and theirs [G, N, D]; log α, β and theirs, and 1 / ‖·‖ of keys
[G, N]; shares, and 1 / ‖·‖ of queries [G, N, R]; states [G, chunks, D, D]; X [G, N, 2 D]; maps [G, D, D], also transposed; gates [G, R, D]
and [G, R], ages [G, R], and their factors (`model.memory.log_held`) [N]; slopes at maps, gates and ages the same for each
document. As the model has them, of ELEMENT bytes a number: q, the window's and the heads' output and their slopes [T, G, R, D]; k, v and
theirs [T, G, D]. A document is a record of int64: its first of the N tokens, how many, number of its first chunk, and the first of the T
tokens that enters.
"""

from numba import njit

from ingle.kernels.simd import get

CHUNK, BLOCK = 64, 16
LINE = 4 * (CHUNK + 16)
"""Bytes from one row of a matrix of CHUNK columns to the next: no power of two, for those share few places of a cache."""
FIELDS = (
    "DIM", "GROUPS", "REPEATS", "TOKENS", "CHUNKS", "WINDOW", "ELEMENT", "DOCUMENTS", "RAW_Q", "RAW_K", "RAW_V", "SEEN", "MAP_Q", "MAP_K",
    "MAP_Q_T", "MAP_K_T", "GATE", "GATE_BIAS", "AGE", "HELD", "DECAY", "WRITE", "GIVEN", "Q", "K", "V", "SCALE_Q", "SCALE_K", "SHARE", "Y",
    "STATES", "SOLVED", "TO_GIVEN", "TO_RAW_Q", "TO_RAW_K", "TO_RAW_V", "TO_SEEN", "TO_MAP_Q", "TO_MAP_K", "TO_GATE", "TO_GATE_BIAS",
    "TO_AGE", "TO_DECAY", "TO_WRITE",
)  # fmt: skip
"""Fields of a call's record: sizes, and addresses. Behind them come the beginnings of ROOMS in a thread's scratch, in bytes."""
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
