"""A convolutional network over square pictures: the kernel of kernels/conv.py with its weights and pictures laid out for it."""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ShapeError
from ingle.kernels import conv_layout as at
from ingle.kernels.jit import kernel

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
MOST_THREADS = 8
"""More threads wait for each other longer than they work."""


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """One convolution, with a border of zeros as TensorFlow's SAME has it: its larger half lies behind."""

    weight: Floats
    """Dense [channels out, channels in, size, size], depthwise [channels, 1, size, size]."""
    bias: Floats
    """[channels out]."""
    step: int = 1
    """Pixels from one place of the filter to the next."""
    clipped: bool = True
    """Whether outputs are kept between 0 and 6 (ReLU6)."""
    depthwise: bool = False
    skip: int = 0
    """How many convolutions ago the picture was read that is added to the sum; 0 = none is."""


def border(pixels: int, size: int, step: int) -> int:
    """Return the pixels of border before the first one of a side."""
    return max((-(-pixels // step) - 1) * step + size - pixels, 0) // 2


class Network:
    """Convolutions one after the other. Several threads may call it; they wait for each other."""

    def __init__(self, convolutions: Sequence[Convolution], side: int, channels: int, threads: int | None = None) -> None:
        """`side`, `channels`: of the pictures that come in. Only the first convolution may be dense and wider than a pixel.

        Raises ShapeError for another.
        """
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._threads = max(1, min(threads or usable, MOST_THREADS))
        self._side, self._channels, self._lock = side, channels, threading.Lock()
        for number, one in enumerate(convolutions):
            if number and not one.depthwise and one.weight.shape[-1] > 1:
                raise ShapeError(f"convolution {number}", "must be depthwise, or one pixel wide", one.weight.shape)
        self._of = list(convolutions)
        self._records = np.zeros((len(self._of), at.RECORD), np.int64)
        self._pictures = [self._first(self._of[0])]
        self._kept = [self._add(number, *_packed(one, number == 0)) for number, one in enumerate(self._of)]

    def __call__(self, picture: Floats) -> Floats:
        """Return what the last convolution gives: [side, side, channels in] → [side, side, channels out]. Raises KernelError."""
        if picture.shape != (self._side, self._side, self._channels):
            raise ShapeError("picture", f"must have shape ({self._side}, {self._side}, {self._channels})", picture.shape)
        work = kernel("convolve")
        with self._lock:
            size, step = self._of[0].weight.shape[-1], self._of[0].step
            start = 0 if self._of[0].depthwise else border(self._side, size, step)
            self._pictures[0][start : start + self._side, start : start + self._side, : self._channels] = picture
            counters = np.zeros(len(self._records) + 1, np.int64)
            arguments = (self._records.ctypes.data, len(self._records), counters.ctypes.data, self._threads)
            others = [threading.Thread(target=work, args=arguments, daemon=True) for _ in range(self._threads - 1)]
            for other in others:
                other.start()
            work(*arguments)
            for other in others:
                other.join()
            return self._pictures[-1][:, :, : len(self._of[-1].bias)].copy()

    def _first(self, one: Convolution) -> Floats:
        """Make room for the first picture: with its border where it is read by a dense convolution."""
        size, step = one.weight.shape[-1], one.step
        wide = self._side if one.depthwise else max(self._side, (-(-self._side // step) - 1) * step + size)
        return np.zeros((wide, wide, self._channels if size > 1 and not one.depthwise else _up(self._channels)), np.float32)

    def _add(self, number: int, weights: Floats, bias: Floats) -> tuple[Floats, Floats]:
        """Fill in a convolution's record, and make room for its picture. Returns what must stay where it is."""
        one, source, record = self._of[number], self._pictures[-1], self._records[number]
        side = self._side if number == 0 else len(source)
        size, after, pixel = one.weight.shape[-1], -(-side // one.step), source.shape[2] * 4
        target = np.zeros((after, after, len(bias)), np.float32)
        record[at.DEPTHWISE], record[at.SIZE], record[at.STEP] = one.depthwise, size, one.step
        record[at.PAD], record[at.CLIPPED] = border(side, size, one.step), one.clipped
        record[at.CHANNELS], record[at.PIXEL], record[at.LINE] = source.shape[2], pixel, source.shape[1] * pixel
        record[at.HEIGHT], record[at.WIDTH], record[at.ROWS], record[at.COLUMNS] = side, side, after, after
        if size == 1 and one.step == 1 and not one.depthwise:  # one long line
            record[at.ROWS], record[at.COLUMNS] = 1, after * after
        record[at.OUT_CHANNELS] = len(bias)
        record[at.SOURCE], record[at.TARGET] = source.ctypes.data, target.ctypes.data
        record[at.WEIGHTS], record[at.BIAS] = weights.ctypes.data, bias.ctypes.data
        record[at.RESIDUAL] = self._pictures[-one.skip].ctypes.data if one.skip else 0
        self._pictures.append(target)
        return weights, bias


def _up(channels: int) -> int:
    """Return the next multiple of 16."""
    return -(-channels // 16) * 16


def _packed(one: Convolution, first: bool) -> tuple[Floats, Floats]:
    """Lay weights and bias out as kernels/conv.py reads them; channels up to the next 16 are zeros."""
    out, into, size, _ = one.weight.shape
    bias = np.zeros(_up(out), np.float32)
    bias[:out] = one.bias
    if one.depthwise:
        weights = np.zeros((size * size, _up(out)), np.float32)
        weights[:, :out] = one.weight.reshape(out, size * size).T
        return weights, bias
    read = into if first and size > 1 else _up(into)  # a picture's three colours stand alone, what was written before does not
    wide = np.zeros((_up(out), size, size, read), np.float32)
    wide[:out, :, :, :into] = one.weight.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(wide.reshape(_up(out) // 16, 16, -1).transpose(0, 2, 1)), bias
