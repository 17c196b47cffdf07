"""Matrices in eight bits, for what ships: each row has a scale. The bytes are numbers + 128, because deltas hold no signed ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import DeltaError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


def pack_rows(name: str, matrix: Array) -> dict[str, Array]:
    """Return the tensors `NAME.weight` uint8 [rows, columns] and `NAME.scale` float16 [rows]."""
    most = np.abs(matrix).max(axis=1)
    scale = np.where(most > 0, most / 127, 1).astype(np.float16)
    whole = np.clip(np.rint(matrix / scale.astype(np.float32)[:, None]), -127, 127)
    return {f"{name}.weight": (whole + 128).astype(np.uint8), f"{name}.scale": scale}


def unpack_rows(name: str, tensors: Mapping[str, Array]) -> Floats:
    """Return the matrix, float32. Raises DeltaError where it is missing or its parts don't fit."""
    weight, scale = tensors.get(f"{name}.weight"), tensors.get(f"{name}.scale")
    if weight is None or scale is None or weight.ndim != 2 or weight.dtype != np.uint8 or scale.shape != (len(weight),):
        raise DeltaError(f"tensor {name}", "must be rows of bytes with a scale each", "", "The delta is incomplete; make it again.")
    return (weight.astype(np.float32) - 128) * scale.astype(np.float32)[:, None]


def pack_lines(lines: list[str]) -> Array:
    """Return short texts as bytes, a line each."""
    return np.frombuffer("\n".join(lines).encode(), np.uint8).copy()


def unpack_lines(name: str, tensors: Mapping[str, Array], count: int) -> tuple[str, ...]:
    """Return the texts of tensor NAME. Raises DeltaError where there are not as many as `count`."""
    values = tensors.get(name)
    lines = tuple(values.tobytes().decode("utf-8", "replace").split("\n")) if values is not None and values.dtype == np.uint8 else ()
    if len(lines) != count:
        raise DeltaError(f"tensor {name}", f"must hold {count} lines", len(lines), "The delta is incomplete; make it again.")
    return lines
