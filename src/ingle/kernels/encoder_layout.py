"""Fields of the records of encoder.py. Kept apart from it, because a warmed cache serves without importing Numba."""

from ingle.kernels import layout as at

LAYERS, HIDDEN, HIDDEN_PADDED, HEADS, DIM, WIDTH, EPS, NORM, NORM_BIAS, LAYER, NORM_BEHIND = range(11)
# int64 of an encoder: its sizes (WIDTH: a head's DIM padded to 16), the addresses of the norms' epsilon (float32), of the last norm's
# weight and bias, and of the first layer; whether norms stand behind attention and MLP (there is no last one then).
TOWER = 11

NORM_1, NORM_1_BIAS, NORM_2, NORM_2_BIAS = range(4)
LINEAR_Q, LINEAR_K, LINEAR_V, LINEAR_O, LINEAR_UP, LINEAR_DOWN = (4 + at.DESCRIPTOR * i for i in range(6))
# int64 of a layer: addresses of its norms' weights and biases, padded with zeros to HIDDEN_PADDED; six linears.
ENCODER_LAYER = 4 + at.DESCRIPTOR * 6

ROWS, BLOCK_ROWS, THREADS, STREAM, OUT, Q, K_TRANSPOSED, V, ATTENDED, LINE, CALL, TASKS, BARRIER, COUNTERS, DESKS = range(15)
# int64 of one pass over a sequence: rows, rows of a block, threads; addresses of the stream and the output [ROWS, HIDDEN_PADDED], of
# queries, values and heads' outputs [HEADS, ROWS, WIDTH], and of keys [HEADS, WIDTH, LINE]; attention's call and its tasks by block
# (kernels/packed_attention.py); the threads' meeting, two counters a layer, and the threads' desks.
PASS = 15

SOURCE, SOURCE_BYTES, COLUMNS = range(2, 5)
PROJECTED, ONTO, COUNTER, PROJECT_DESKS = range(5, 9)
# int64 of a linear over many rows: ROWS and BLOCK_ROWS as above; the address of the input float32, the bytes from a row to the next, and
# its columns; the address of the output [ROWS, padded rows of the linear]; whether it is added to; a counter; the threads' desks.
PROJECTION = 9

WIDE, SCORES = at.ACTIVATIONS, at.ACTIVATIONS + 1
# int64 of a thread's working memory for one block: activations of as many columns as any linear has, float32 [BLOCK_ROWS, most rows of a
# linear], and the scratch of attention.
DESK = at.ACTIVATIONS + 2
MOST_ROWS = 132  # rows of a block at the most: eleven register tiles, whose activations stay in a core's own cache


def block_rows(rows: int, threads: int) -> int:
    """Return the rows of a block, such that each thread gets as many blocks as the others."""
    rounds = -(-rows // (threads * MOST_ROWS))
    return min(MOST_ROWS, -(-rows // (threads * rounds * 12)) * 12)
