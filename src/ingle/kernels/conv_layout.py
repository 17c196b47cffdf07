"""Fields of the records that kernels/conv.py reads. Kept apart, because a warmed cache serves without importing Numba."""

# Fields of one convolution's record, int64: whether it is depthwise; the filter's size, its step and PAD; channels read of a pixel, and the
# bytes from pixel to pixel and from line to line; lines and pixels of the picture read, and of the one written; its channels, padded;
# whether it is clipped; and addresses (0 = no residual). Where the filter is one pixel wide a picture may be one long line.
FIELDS = (
    "DEPTHWISE", "SIZE", "STEP", "PAD", "CHANNELS", "PIXEL", "LINE", "HEIGHT", "WIDTH", "ROWS", "COLUMNS", "OUT_CHANNELS", "CLIPPED",
    "SOURCE", "WEIGHTS", "BIAS", "RESIDUAL", "TARGET",
)  # fmt: skip
(
    DEPTHWISE, SIZE, STEP, PAD, CHANNELS, PIXEL, LINE, HEIGHT, WIDTH, ROWS, COLUMNS, OUT_CHANNELS, CLIPPED, SOURCE, WEIGHTS, BIAS,
    RESIDUAL, TARGET,
) = range(len(FIELDS))  # fmt: skip
RECORD = len(FIELDS)
