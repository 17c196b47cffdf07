"""Precision: the number format in which a machine multiplies matrices fastest, measured once."""

import os
import time
from functools import cache
from typing import Literal

import torch

from ingle.core.errors import ConfigError

Precision = Literal["auto", "bf16", "fp32"]
Device = Literal["auto", "cpu", "cuda"]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


PROGRAMS = "64"


def keep_few_programs() -> None:
    """Let PyTorch's library (oneDNN) keep the programs of the last 64 kinds of product, not of 1,024, unless its variable is set.

    They and their memory came to 200 MB in 16 rows; a row takes some 30, and rows have few lengths (see `packing.ROUND`).
    Call this before the first product of the process.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", PROGRAMS)


def choose(precision: Precision, device: torch.device) -> Literal["bf16", "fp32"]:
    """Choose the number format. `auto`: bfloat16 where it is at least a third faster than float32, for it costs exactness."""
    if precision != "auto":
        return precision
    seconds = {name: _seconds(dtype, str(device)) for name, dtype in DTYPES.items()}
    return "bf16" if seconds["bf16"] * 4 / 3 < seconds["fp32"] else "fp32"


def device_of(name: Device) -> str:
    """Name the device. `auto`: cuda where there is a GPU. Raises ConfigError for a device that isn't there."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("device", "must be there: PyTorch sees no GPU", name, "Set device = auto or cpu.")
    return "cuda" if there and name != "cpu" else "cpu"


def slowness(name: Literal["bf16", "fp32"], device: torch.device) -> float:
    """Time of a product in this format, as a multiple of the faster format's."""
    return _seconds(DTYPES[name], str(device)) / min(_seconds(dtype, str(device)) for dtype in DTYPES.values())


@cache
def _seconds(dtype: torch.dtype, device: str) -> float:
    """Seconds for a product of 512 tokens with a matrix of 576 × 1,536: the fastest of several, so that other programs disturb less."""
    x, weight = torch.ones(512, 576, dtype=dtype, device=device), torch.ones(1536, 576, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        float(torch.nn.functional.linear(x, weight)[0, 0])  # reading a number waits for the device
        best = min(best, time.perf_counter() - start)
    return best
