"""Pace of this machine: how fast it multiplies now, by a product that takes a few hundredths of a second."""

import os
import time
from functools import cache

import numpy as np

_SIZE = 64
"""Small enough that the library gives it one thread: several would wait for whichever another program has put aside."""
_TIMES, _ROUNDS = 200, 8
_LEAST = 1e8


@cache
def pace() -> float:
    """Return float32 operations per second of one thread, the best of a few rounds of small products."""
    a = np.ones((_SIZE, _SIZE), np.float32)
    out, best = np.empty_like(a), 0.0
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for _ in range(_TIMES):
            np.matmul(a, a, out)
        best = max(best, 2 * _SIZE**3 * _TIMES / max(time.perf_counter() - began, 1e-9))
    return max(best, _LEAST)


_SHARES = {1: 1.2, 2: 1.1, 4: 0.55}
"""How fast a thread computes a model beside that product, by the bytes of a number: 1 = served from a pack, 2 = bfloat16, 4 = float32."""


def speed(threads: int | None, each: int) -> float:
    """Return the operations per second of so many threads (None = all) that compute a model in numbers of so many bytes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return pace() * _SHARES[each] * min(threads or cores, cores)
