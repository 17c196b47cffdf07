"""EfficientNet-Lite0 (arXiv 1905.11946, its `lite` variant: ReLU6, no squeeze-and-excitation), trained on ImageNet: 4.7 M parameters.

A picture becomes 7 × 7 places of 1,280 numbers. Batch norm is folded into the convolutions (eps 1e-3), borders are TensorFlow's (where
a border is uneven its larger part lies behind), pixels are (x − 127) / 128. The convolutions are kernels/conv.py.
"""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_file
from ingle.core.errors import CheckpointError
from ingle.kernels import conv_layout as at
from ingle.kernels.jit import kernel
from ingle.media.state_dict import read_state_dict

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
SIDE, PLACES, FEATURES, CLASSES = 224, 7, 1280, 1000
"""Pixels of a side; places of a side at the end, and the numbers of each; ImageNet's classes."""
FEWEST, MOST_THREADS = 1, 8
_EPS = 1e-3
_STEPS = {1: 2, 3: 2, 5: 2, 11: 2}
"""Blocks that halve the picture."""
_BLOCKS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """One convolution with its batch norm folded in."""

    weight: Floats
    """Dense [out, in, size, size], depthwise [channels, 1, size, size]."""
    bias: Floats
    step: int = 1
    clipped: bool = True
    depthwise: bool = False
    skip: int = 0
    """How many convolutions earlier the residual came in; 0 = there is none."""


def border(pixels: int, size: int, step: int) -> int:
    """Return the pixels of border before the first one, as TensorFlow's SAME has it."""
    return max((-(-pixels // step) - 1) * step + size - pixels, 0) // 2


def convolutions(tensors: Mapping[str, Array]) -> list[Convolution]:
    """Return the network's convolutions in order. Raises CheckpointError for tensors of another network."""

    def folded(conv: str, norm: str, step: int = 1, clipped: bool = True, depthwise: bool = False, skip: int = 0) -> Convolution:
        weight, gain, shift, mean, variance = (
            tensors[name].astype(np.float64)
            for name in (f"{conv}.weight", *(f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")))
        )
        factor = gain / np.sqrt(variance + _EPS)
        return Convolution(
            (weight * factor[:, None, None, None]).astype(np.float32), (shift - mean * factor).astype(np.float32),
            step, clipped, depthwise, skip,
        )  # fmt: skip

    try:
        found, channels = [folded("_conv_stem", "_bn0", 2)], 32
        for i in range(_BLOCKS):
            name, step = f"_blocks.{i}", _STEPS.get(i, 1)
            if i:
                found.append(folded(f"{name}._expand_conv", f"{name}._bn0"))
            found.append(folded(f"{name}._depthwise_conv", f"{name}._bn1", step, depthwise=True))
            out = len(tensors[f"{name}._project_conv.weight"])
            skip = 3 if step == 1 and out == channels else 0
            found.append(folded(f"{name}._project_conv", f"{name}._bn2", clipped=False, skip=skip))
            channels = out
        return [*found, folded("_conv_head", "_bn1")]
    except (KeyError, ValueError) as error:
        raise CheckpointError("EfficientNet-Lite0", "must hold its own tensors", error, "Fetch it again: `ingle pull sight`.") from error


class Eye:
    """The network, ready to look. Several threads may ask it; they wait for each other."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Read the weights (20 ms) and lay them out. Raises CheckpointError, HomeError."""
        tensors = read_state_dict(path)
        self.digest = digest_file(path)
        self.head: tuple[Floats, Floats] = tensors["_fc.weight"], tensors["_fc.bias"]
        """ImageNet's classifier: [1000, 1280] and [1000]."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._threads = max(1, min(threads or usable, MOST_THREADS))
        self._packed = [_packed(one) for one in convolutions(tensors)]
        self._lock = threading.Lock()

    @cached_property
    def _program(self) -> tuple[npt.NDArray[np.int64], Floats, Floats, list[Array]]:
        """The records, the first picture and the last, and all that must stay where it is."""
        return _program(self._packed)

    def look(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """Return the features of a picture: uint8 [224, 224, 3] → float32 [7, 7, 1280]. Raises KernelError."""
        work = kernel("convolve")
        with self._lock:
            records, first, last, _ = self._program
            first[:SIDE, :SIDE] = (pixels.astype(np.float32) - 127) / 128
            counters = np.zeros(len(records) + 1, np.int64)
            arguments = (records.ctypes.data, len(records), counters.ctypes.data, self._threads)
            others = [threading.Thread(target=work, args=arguments, daemon=True) for _ in range(self._threads - 1)]
            for other in others:
                other.start()
            work(*arguments)
            for other in others:
                other.join()
            return last.reshape(PLACES, PLACES, FEATURES).copy()


@dataclass(frozen=True, slots=True, eq=False)
class _Packed:
    of: Convolution
    weights: Floats
    bias: Floats
    out: int
    """Channels that are written: a multiple of 16."""


def _packed(one: Convolution) -> _Packed:
    """Lay weights out as kernels/conv.py reads them; channels up to the next 16 are zeros."""
    out, into, size, _ = one.weight.shape
    width = -(-out // 16) * 16
    bias = np.zeros(width, np.float32)
    bias[:out] = one.bias
    if one.depthwise:
        weights = np.zeros((size * size, width), np.float32)
        weights[:, :out] = one.weight.reshape(out, size * size).T
        return _Packed(one, weights, bias, width)
    read = into if size > 1 else -(-into // 16) * 16  # the stem reads a picture's three colours, all others what was written before
    wide = np.zeros((width, size, size, read), np.float32)
    wide[:out, :, :, :into] = one.weight.transpose(0, 2, 3, 1)
    return _Packed(one, np.ascontiguousarray(wide.reshape(width // 16, 16, -1).transpose(0, 2, 1)), bias, width)


def _program(packed: list[_Packed]) -> tuple[npt.NDArray[np.int64], Floats, Floats, list[Array]]:
    """Return the records of all convolutions in order, the picture that the first reads, the one that the last writes, and all of them."""
    side, records = SIDE, np.zeros((len(packed), at.RECORD), np.int64)
    first = np.zeros((SIDE + 1, SIDE + 1, 3), np.float32)  # with its border, which lies behind it
    pictures: list[Array] = [first]
    for number, one in enumerate(packed):
        size, step, source = one.of.weight.shape[-1], one.of.step, pictures[-1]
        after = -(-side // step)
        target = np.zeros((after, after, one.out), np.float32)
        pixel = source.shape[2] * 4
        record = records[number]
        record[at.DEPTHWISE], record[at.SIZE], record[at.STEP] = one.of.depthwise, size, step
        record[at.PAD] = border(side, size, step)
        record[at.CHANNELS], record[at.PIXEL], record[at.LINE] = source.shape[2], pixel, source.shape[1] * pixel
        record[at.HEIGHT], record[at.WIDTH], record[at.ROWS], record[at.COLUMNS] = side, side, after, after
        if size == 1:  # one long line
            record[at.ROWS], record[at.COLUMNS] = 1, after * after
        record[at.OUT_CHANNELS], record[at.CLIPPED] = one.out, one.of.clipped
        record[at.SOURCE], record[at.TARGET] = source.ctypes.data, target.ctypes.data
        record[at.WEIGHTS], record[at.BIAS] = one.weights.ctypes.data, one.bias.ctypes.data
        record[at.RESIDUAL] = pictures[-one.of.skip].ctypes.data if one.of.skip else 0
        pictures.append(target)
        side = after
    return records, first, pictures[-1], pictures
