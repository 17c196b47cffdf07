"""Precision: the number format in which a machine multiplies matrices fastest, by its instructions."""

import os
from typing import Literal

import torch

from ingle.core.errors import ConfigError
from ingle.kernels.cpu import features

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
    """Choose the number format. `auto`: bfloat16 where the processor multiplies it, for it costs exactness; the same on every day."""
    if precision != "auto":
        return precision
    return "bf16" if multiplies_bf16(device) else "fp32"


def device_of(name: Device) -> str:
    """Name the device. `auto`: cuda where there is a GPU. Raises ConfigError for a device that isn't there."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("device", "must be there: PyTorch sees no GPU", name, "Set device = auto or cpu.")
    return "cuda" if there and name != "cpu" else "cpu"


def multiplies_bf16(device: torch.device) -> bool:
    """Whether this device has instructions for products in bfloat16. Elsewhere they take many times as long as in float32.

    False for Arm processors: PyTorch's products there have not been measured.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool({"avx512bf16", "amx-bf16"} & features())
