"""Numbers shared by kernels and their callers: kinds of weights, and the fields of records that are passed by address.

Kept apart from the kernels, because a warmed cache serves without importing them or Numba.
"""

from ingle.core.state import BLOCK_TOKENS

F32, BF16, INT8, INT8_GROUP, INT4, INT5, INT4_16, INT3_16, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS, IQ4_NL = range(15)
FLOAT_KINDS = 2  # kinds below this one multiply float32 input; the others want int8
# Kernels of linears, each with the kinds that it multiplies; the likeliest first.
LINEARS = {
    "linear_int4": (INT4,), "linear_int4_16": (INT4_16,), "linear_int3_16": (INT3_16,), "linear_q4_k": (Q4_K,), "linear_q6_k": (Q6_K,),
    "linear_q5_k": (Q5_K,), "linear_q3_k": (Q3_K,), "linear_iq4_xs": (IQ4_XS,), "linear_iq4_nl": (IQ4_NL,), "linear_int5": (INT5,),
    "linear_q2_k": (Q2_K,), "linear_fp32": (F32,), "linear_bf16": (BF16,), "linear_int8": (INT8, INT8_GROUP),
}  # fmt: skip

KIND, ROWS, COLUMNS, WEIGHTS, SCALES, MINIMA, BIAS = range(7)
DESCRIPTOR = 7  # int64 of a linear: kind, padded rows, padded columns, addresses of weights, scales, minima and bias (0 = none)

VALUES, BYTES, SCALE, TOTAL, OFFSET, HALVES = range(6)
# int64 of an input: addresses of x float32 [T, K], of its two int8 terms [T, 2, K], and per term and 32 columns the scale, scale · Σx, −128
# Σx, and a pair of 16-bit numbers, −16 Σx of either half, each [T, 2, K/32]. The second term is the first one's rounding error; its scale
# is 0 where it is not needed.
ACTIVATIONS = 6

LAYERS, HIDDEN, HIDDEN_PADDED, MLP_PADDED, HEADS, GROUPS, DIM, WIDTH, CACHE, QUANTISED, EMBEDDING, HEAD, NORM, LAYER, FACTORS = range(15)
MOST_MEMORIES, WINDOWS, BLOCK_BYTES, STREAMING, ACTIVATION, APART, WHOLE_NORM, ROPES, OUTPUT_GATED = range(15, 24)
# int64 of a model: counts and sizes; what keys and values are kept in; whether any linear wants int8 input; the addresses of two linears,
# the last norm, the first layer and its factors (float32, see below); the most recurrent memories of any layer, how many different windows
# (with their sinks) layers with memories have, the bytes of a block of keys and values, and how many streaming groups there are; the MLP's
# activation; whether what attention and MLP give is computed apart from the stream, to be normalised or scaled before it is added; whether
# one norm of q and k spans all heads; how many different angles a position has; and whether a head's query is followed by a gate of its
# output (`core.spec.Ways`).
MODEL = 24

# float32 of a model's factors: what is added to the mean square in norms, then those of `core.spec.Ways`.
EPSILON, EMBEDDING_SCALE, RESIDUAL_SCALE, ATTENTION_SCALE, LOGIT_SCALE = range(5)
SILU, GELU = range(2)

CACHE_F32, CACHE_F16, CACHE_INT8 = range(3)  # number types of keys and values, in the order of `core.state.CACHES`

NORM_1, NORM_2, NORM_Q, NORM_K, NORM_O, NORM_DOWN, ROPE, WINDOW, SINKS, SINK_BLOCKS, RING_BLOCKS = range(11)
LINEAR_Q, LINEAR_K, LINEAR_V, LINEAR_O, LINEAR_GATE, LINEAR_UP, LINEAR_DOWN = (11 + DESCRIPTOR * i for i in range(7))
REMEMBERING, WINDOW_NUMBER, QUERY_MAP, KEY_MAP, DECAY, DECAY_BIAS, WRITE, WRITE_BIAS, GATE, GATE_BIAS, AGE = range(60, 71)
MIXER, SUBLAYER, EXPERTS = range(71, 74)
# int64 of a layer: addresses of norms (0 = none; the last two are of what attention and MLP give), which of a position's angles turns its
# heads, how streaming groups look back, seven linears; how many memories there are, which of the different windows is the layer's, and
# where the memories' tensors lie (float32; see mixers.py: two maps for each memory, decay and write [2, width], gate [queries per group,
# width], age [queries per group]); which mixer it has, the address of that mixer's record if it is not attention, and of its mixture of
# experts (0 = the plain MLP; sublayer_layout.py). Then per group its slot in a page (−1 = streaming), its slot in a block of the rings, and
# its memory's number in a state (−1 = none), and per memory its group. A layer takes PLACES + PLACE_KINDS · groups.
PLACES = 11 + DESCRIPTOR * 7 + 14
PLACE_KINDS = 4

ADAPTER_RANK, ADAPTER_COLUMNS, ADAPTER_ROWS, ADAPTER_A, ADAPTER_A_SCALES, ADAPTER_B, ADAPTER_B_SCALES, ADAPTER_BIAS = range(8)
# int64 of a low-rank addition to one linear: rank padded to 16 (0 = there is none), padded columns and rows, addresses of A and B and their
# scales, and of the bias between them, before the rectifier (0 = no bias and no rectifier). An adapter is seven of these for each layer, in
# the order of the layer's linears.
ADAPTER = 8

PAGES, RINGS, FIRST, COUNT, PART, PARTS_EACH, ADAPTED, MEMORIES, BROKEN = range(9)
# int64 of one sequence's share of a step: address of its pages' addresses, address of its rings, first row, rows, its first partial result
# of attention, how many of these each of its queries has, the address of its adapter (0 = none), and of its memories; and, written by the
# step, whether one of these gave NaN or infinity.
SEGMENT = 9

TASK_SEGMENT, TASK_GROUP, TASK_ROW, TASK_ROWS, TASK_FROM, TASK_TO, TASK_PART = range(7)
# int64 of one piece of attention: segment, group, first row (token · queries per group + query) and rows within the step, the splits of
# keys it reads, and which of the queries' partial results that makes.
TASK = 7

BATCH, THREADS, TOKENS, SEGMENT_OF, POSITIONS, COSINE, SINE, SEGMENTS, TASKS, TASK_COUNT, OUTPUTS, OUTPUT_COUNT, LOGITS = range(13)
STREAM, QUERIES, KEYS, VALUES_NEW, ROTATED, PARTS, GATED, LIFTED, SCRATCH, BARRIER, COUNTERS, INNER, INNER_WIDTH = range(13, 26)
SEGMENT_COUNT, FEATURES, BACK_COSINE, BACK_SINE, HELD, VECTORS, OUTCOME, ROUTES = range(26, 34)
NORMED, ATTENDED, MIXED, FINAL = (34 + ACTIVATIONS * i for i in range(4))
# int64 of one step: rows and threads; per row token, segment, position and angles (of each kind, one after the other); segments; attention
# tasks; which rows want logits, and where; then scratch memory, the counters by which threads meet, and what adapters have between A and B:
# for each row three times INNER_WIDTH float32 (see `inner_floats`). For memories: how many segments, features (see mixers.py), and per row
# and different window the angles by which the key that leaves it is turned back, and log(n / (n + window)) for n tokens that have left it.
# VECTORS: float32 [n, HIDDEN], of which row −1 − t stands in the place of a token t below 0. OUTCOME: where attention and MLP write, if not
# into the stream. ROUTES: the record of rows' ways to experts (sublayer_layout.py).
STEP = 34 + ACTIVATIONS * 4

PHASES = 11  # counters of one layer: pieces of work that are shared out

TILE_ROWS = 12
CHUNK_BLOCKS = 16
SPLIT_CHUNKS = 2
# Attention works on up to 12 queries × a chunk of 256 keys at a time; 2 chunks make a split, the least that one thread takes.
SPLIT_TOKENS = SPLIT_CHUNKS * CHUNK_BLOCKS * BLOCK_TOKENS


def inner_floats(rank: int) -> int:
    """Return the float32 of memory for an adapter's intermediate result, of a rank padded to 16: float32 [rank], int8 [2, rank], and 16
    bytes."""
    return 2 * rank


def feature_floats(width: int, shared: int) -> int:
    """Return the float32 of a memory's inputs and outputs for one row: see mixers.py. `shared`: query heads of a group."""
    return 2 * (1 + shared) * width + (2 + shared + 15) // 16 * 16


def scratch_floats(width: int) -> int:
    """Return the float32 of scratch memory for one thread's attention: scores, outputs and tops of a split and of all, addresses and
    numbers of blocks."""
    return TILE_ROWS * (CHUNK_BLOCKS * 16 + 2 * width + 4) + 6 * CHUNK_BLOCKS + 8


def part_floats(width: int) -> int:
    """Return the float32 of one partial result of attention: a row of output, its maximum and its sum, padded to a cache line."""
    return width + 16
