"""Pace of this machine: how fast it multiplies now, by a product that takes a few hundredths of a second."""

import os
import time
from functools import cache

import numpy as np

_SIZE, _TIMES = 640, 4
_LEAST = 1e8


@cache
def pace() -> float:
    """Return float32 operations per second of all threads, the best of a few products. Other programs slow it down, as they do an act."""
    a = np.ones((_SIZE, _SIZE), np.float32)
    best = 0.0
    for _ in range(_TIMES):
        began = time.perf_counter()
        a @ a
        best = max(best, 2 * _SIZE**3 / max(time.perf_counter() - began, 1e-9))
    return max(best, _LEAST)


_SHARES = {1: 0.9, 2: 1.2, 4: 0.7}
"""How fast models are computed beside that product, by the bytes of a number: 1 = served from a pack, 2 = bfloat16, 4 = float32."""


def share_of_pace(threads: int | None, each: int) -> float:
    """Return the share of `pace` at which so many threads (None = all) compute a model in numbers of so many bytes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _SHARES[each] * min(1.0, (threads or cores) / cores)
