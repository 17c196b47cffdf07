"""Rows of K-quants: random bytes with sane scales, as they lie in a file."""

import numpy as np

from ingle.kernels import formats

UNITS = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_XS": (0,)}
"""Where in a block its float16 lie."""


def random_rows(kind: str, rows: int, blocks: int, seed: int, size: float = 1.0) -> np.ndarray:
    """[rows, bytes] of random codes and scales; units are about `size`, of either sign."""
    draw = np.random.default_rng(seed)
    raw = draw.integers(0, 256, (rows, blocks, formats.K_BYTES[kind]), np.uint8)
    for place in UNITS[kind]:
        unit = (size * draw.standard_normal((rows, blocks, 1))).astype(np.float16)
        raw[..., place : place + 2] = unit.view(np.uint8)
    return raw.reshape(rows, -1)
