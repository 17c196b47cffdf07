"""The kind `quantised`: matrices replaced by blocks, which the kernels multiply as they are. See engine/delta_kinds.py for the others.

| tensor | means |
|---|---|
| {parameter}, uint8 [N, 4 + K/32 · 20] | the matrix [N, K] as Q4_16: scales and minima for 16 columns, 4-bit codes (kernels/formats.py) |
| {parameter}, uint8 [N, 4 + K/32 · 16] | the matrix [N, K] as Q3_16: the same, codes of 3 bits |
| {parameter}, uint8 [N, K/32 · 20] | the matrix [N, K] as Q4_1: float16 scale and minimum, 32 codes of 4 bits |
| {parameter}, uint8 [N, K/32 · 34] | the matrix as Q8_0: float16 scale, 32 signed bytes |
| {parameter}, float32 or float16, its shape | the parameter itself: a norm or a bias that scales were folded into |

Parameters are replaced, not added to; those that it doesn't name stay. Only the linears of layers can be blocks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import DeltaError
from ingle.core.spec import ModelConfig
from ingle.engine.adapter import linear_shapes
from ingle.kernels import formats
from ingle.model.expected import expected_shapes
from ingle.model.tensor import Tensor

Array = npt.NDArray[Any]
KIND = "quantised"
GROUP = 32
"""Columns of a block."""
_BYTES = {"Q4_1": (0, 20), "Q8_0": (0, 34)} | {kind: (formats.UNIT_BYTES, size) for kind, size in formats.BYTES_16.items()}
"""Bytes by type: at the beginning of a row, and of a block."""


def replaced(name: str, config: ModelConfig, tensors: Mapping[str, Array]) -> dict[str, Tensor]:
    """Return the new parameters by name. `name` is the delta's, for messages.

    Raises DeltaError for tensors that name nothing in the model or don't fit its shapes, and numbers that are not finite.
    """
    shapes, linears = expected_shapes(config), linear_shapes(config)
    parameters = {}
    for key, values in tensors.items():
        where = f"delta {name}, {key}"
        if key not in shapes:
            raise DeltaError(where, "must name a parameter of this model", "", f"For example {next(iter(shapes))}.")
        if values.dtype == np.uint8 and key.removesuffix(".weight") not in linears:
            raise DeltaError(where, "must not be blocks: only the linears of layers can be", values.shape)
        parameters[key] = stored(key, shapes[key], values)
        if parameters[key].kind == "F32" and values.shape != shapes[key]:
            raise DeltaError(where, f"must have shape {shapes[key]}", values.shape)
        if not all(np.isfinite(rows).all() for rows in parameters[key].row_chunks()):
            raise DeltaError(where, "must hold finite numbers", "NaN or infinity")
    return parameters


def stored(name: str, shape: tuple[int, ...], values: Array) -> Tensor:
    """Return a tensor of the delta as a parameter [N, K] or [n]. Raises DeltaError for blocks that don't fit these rows."""
    if values.dtype != np.uint8:
        raw = np.ascontiguousarray(values, np.float32).view(np.uint8)
        return Tensor(name, shape, "F32", raw.reshape(shape[0], -1) if len(shape) == 2 else raw)
    blocks = shape[1] // GROUP if shape[1] % GROUP == 0 else 0
    allowed = {(shape[0], head + blocks * size): kind for kind, (head, size) in _BYTES.items() if blocks}
    if values.shape not in allowed:
        text = " or ".join(f"{size} as {kind}" for size, kind in allowed.items()) or f"a multiple of {GROUP} columns"
        raise DeltaError(f"blocks of {name}", f"must have shape {text}", values.shape)
    return Tensor(name, shape, allowed[values.shape], values)
