"""Records of sublayers that stand in the place of attention or of the plain MLP (core/spec.py); see layout.py for the others."""

from ingle.kernels.layout import ACTIVATIONS, DESCRIPTOR

ATTENTION, CONVOLUTION, DELTA = range(3)  # mixers, in a layer's record

(
    LENGTH, CHANNELS, TAPS, TAP_BIAS, TAIL, DELTA_STATE, KEY_HEADS, VALUE_HEADS, HEAD, TILED, RATES, STEPS, GATE_NORM,
) = range(13)  # fmt: skip
IN, GATING, WRITING, FADING, OUT = (13 + DESCRIPTOR * i for i in range(5))
# int64 of a mixer: tokens that its convolution sees, its channels, address of its taps (float32 [length, channels], padded to 32) and of
# their bias (0 = none), and where its state begins among a sequence's memories (float32): the latest inputs of the convolution
# [channels/16, length − 1, 16], and S of each value head [dim/16, dim, 16]. Of the delta rule also: heads, their width, whether value heads
# are tiled, addresses of the logarithms of its rates, of its steps' biases and of its norm, and linears: qkv, z, b, a. The first and the
# last linear are of both.
MIXER = 13 + DESCRIPTOR * 5

COUNT, CHOSEN, NORMED, PADDED = range(4)
ROUTER = 4
FIRST_EXPERT = 4 + DESCRIPTOR
# int64 of a mixture of experts: experts, how many of them a row gets, whether these shares are made to sum to 1, their padded inner width,
# the router's linear; then of each expert gate, up and down.
EXPERT = 3 * DESCRIPTOR

NUMBER, FIRST, ROWS = range(3)
INPUT, INNER = 3, 3 + ACTIVATIONS
# int64 of an expert that has rows in this step: its number, the first of its rows among all sorted ones, how many, and the activations that
# begin there: its input, and what its last linear reads.
ENTRY = 3 + 2 * ACTIVATIONS

ROUTED, SHARES, SLOTS, OWNERS, ENTRIES, EXPERT_OUT, SORTED = *range(6), 6
# int64 of a step's routes: addresses of the router's output float32 [rows, experts], of the shares float32 [rows, chosen], of the sorted
# rows' numbers int64 [rows, chosen], of the rows that these are int64, of a number of entries with the entries behind it, of what experts
# give, float32 [sorted rows, hidden]; and the activations of sorted rows.
ROUTES = 6 + ACTIVATIONS
