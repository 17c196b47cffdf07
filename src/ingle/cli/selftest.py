"""A quick check that the compiled kernels agree with their naive references on this machine, and how fast they read weights."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from threading import Thread
from typing import Any

import numpy as np

from ingle.kernels import layout as at
from ingle.kernels import naive, panels
from ingle.kernels.jit import kernel
from ingle.kernels.panels import unpack

ENTRIES = {name: f"linear_{name}" for name in ("fp32", "bf16", "int8", "int4", "int4_16", "int3_16")}
FASTEST = ENTRIES["int8"]  # the kernel by which the speed of reading is told
_TOLERANCE = 1e-5  # of the sum of magnitudes: float32 sums of 640 products
_WEIGHTS_MB = 64  # more than a core's share of any cache


@dataclass(frozen=True, slots=True)
class Checked:
    """One kernel compared with its naive reference."""

    name: str
    error: float  # largest difference, relative to the sum of the magnitudes that are summed

    @property
    def sound(self) -> bool:
        """Whether the difference is only rounding."""
        return self.error < _TOLERANCE


class _Call:
    """A linear and its input, in the kernels' layout."""

    def __init__(self, packed: panels.PackedLinear, x: Any) -> None:
        rows, columns = packed.padded
        q, scale = naive.quantise(x)
        counts = q.reshape(*scale.shape, 32).astype(np.int32).sum(axis=-1)
        planes = (x, q, scale, (scale * counts).astype(np.float32), (-128 * counts).astype(np.int32), naive.halves(q))
        self._kept = [np.ascontiguousarray(plane) for plane in planes]
        weights = (packed.weights, packed.scales, packed.minima)
        self._packed = packed
        self._activations = np.array([*(plane.ctypes.data for plane in self._kept), 1], np.int64)
        self._record = np.array([packed.kind, rows, columns, *(plane.ctypes.data for plane in weights), 0], np.int64)
        self._tokens, self._rows = len(x), rows
        self.out = np.zeros((len(x), rows), np.float32)
        self.panels = rows // 16

    def run(self, entry: str, first: int, last: int) -> None:
        """Compute panels `first` to `last` - 1."""
        call, record, activations, out = kernel(entry), self._record.ctypes.data, self._activations.ctypes.data, self.out.ctypes.data
        for index in range(first, last):
            call(record, index, activations, self._tokens, out + 64 * index, 4 * self._rows, 0)


def check_linears(compiled: Collection[str]) -> list[Checked]:
    """Check every kind of packed matrix product whose kernel is compiled, on fixed numbers."""
    random = np.random.default_rng(0)
    weight, x = random.normal(size=(64, 640)).astype(np.float32), random.normal(size=(5, 640)).astype(np.float32)
    words = (weight.view(np.uint32) >> 16).astype(np.uint16)
    packs = {"fp32": panels.pack_fp32(weight), "bf16": panels.pack_bf16(words)}
    packs |= {"int8": panels.pack_int8(weight), "int4": panels.pack_int4(weight)}
    packs |= {"int4_16": panels.pack_int4_16(weight), "int3_16": panels.pack_int3_16(weight)}
    results = []
    for name, packed in ((name, packed) for name, packed in packs.items() if ENTRIES[name] in compiled):
        call = _Call(packed, x)
        call.run(ENTRIES[name], 0, call.panels)
        seen = x if packed.kind < at.FLOAT_KINDS else naive.rounded(x)
        matrix = unpack(packed)
        size = naive.linear(np.abs(seen), np.abs(matrix))
        results.append(Checked(name, float((np.abs(call.out - naive.linear(seen, matrix)) / size).max())))
    return results


def read_gb_per_s(threads: int) -> float:
    """Measure the weights read per second in an int8 matrix-vector product on `threads` threads, which bounds the speed of an answer."""
    rows, columns = 512, _WEIGHTS_MB * 2**20 // 512
    values = np.ones((rows, columns), np.int8)
    call = _Call(panels.pack_int8_values(values, np.ones(rows, np.float32)), np.ones((1, columns), np.float32))
    best = float("inf")
    for _ in range(3):
        share = -(-call.panels // threads)
        parts = [(first, min(first + share, call.panels)) for first in range(0, call.panels, share)]
        team = [Thread(target=call.run, args=(FASTEST, *part)) for part in parts]
        start = time.perf_counter()
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()
        best = min(best, time.perf_counter() - start)
    return values.nbytes / best / 1e9
