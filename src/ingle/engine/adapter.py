"""Adapters beside packed weights, one for each sequence or none. LoRA: y = W x + B A x (arXiv 2106.09685). Bottleneck adapters (arXiv
1902.00751) become y = W x + B relu(A x + b); see engine/delta_kinds.py.
A and B are rounded to int8 with one scale per row. Every sequence reads its own adapter again, so the cost is its bytes. The rounding
moves logits less than the 4 bits of the base do. An adapter lies in one piece of memory, in the order in which a step reads it, so that
the processor can prefetch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import DeltaError
from ingle.core.spec import ModelConfig
from ingle.kernels import layout as at
from ingle.model.tensor import expected_shapes

Array = npt.NDArray[Any]

# Linears that can be adapted without merging, in the order of a layer's records. Other mixers and experts have none of them.
LINEARS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
_TOGETHER = ((0, 1, 2), (3,), (4, 5), (6,))  # numbers of the linears that read the same input


@dataclass(frozen=True, slots=True, eq=False)
class Addition:
    """One linear's adapter: it adds B A x, or with a bias B relu(A x + bias)."""

    a: Array  # [rank, K]
    b: Array  # [N, rank]; includes any common factor
    bias: Array | None = None  # [rank]


Additions = Mapping[str, Addition]  # by the name of a linear: `model.layers.0.self_attn.q_proj`


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter in the layout of the decoder step."""

    digest: str
    record: Array
    width: int  # largest rank, padded to 16
    nbytes: int
    memory: Array = field(repr=False)  # the memory that the record's addresses point to


def linear_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Return (outputs N, inputs K) of every linear that can be adapted."""
    names, shapes = (f"model.layers.{i}.{name}" for i in range(len(config.layers)) for name in LINEARS), expected_shapes(config)
    found = ((name, shapes.get(f"{name}.weight")) for name in names)
    return {name: (shape[0], shape[1]) for name, shape in found if shape is not None}


def check_additions(config: ModelConfig, additions: Additions) -> None:
    """Raise DeltaError for no additions, a linear that the model doesn't have, or shapes that don't fit."""
    shapes = linear_shapes(config)
    if not additions:
        raise DeltaError("adapter", "must touch at least one linear", "none")
    for name, addition in additions.items():
        if name not in shapes:
            raise DeltaError("adapter", "must name linears of this model's layers", name, f"For example {next(iter(shapes))}.")
        outputs, inputs = shapes[name]
        a, b, bias = addition.a, addition.b, addition.bias
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != inputs or b.shape != (outputs, a.shape[0]) or not a.shape[0]:
            rule = f"must have A of (rank, {inputs}) and B of ({outputs}, rank)"
            raise DeltaError(f"adapter, {name}", rule, f"{a.shape} and {b.shape}")
        if bias is not None and bias.shape != (a.shape[0],):
            raise DeltaError(f"adapter, {name}", f"must have a bias of ({a.shape[0]},), as its rank is", bias.shape)
        if not all(np.isfinite(values).all() for values in (a, b, bias) if values is not None):
            raise DeltaError(f"adapter, {name}", "must hold finite numbers", "NaN or infinity")


def pack_adapter(config: ModelConfig, additions: Additions, digest: str) -> Adapter:
    """Return the packed adapter. Raises DeltaError for additions that don't fit."""
    check_additions(config, additions)
    record = np.zeros((len(config.layers), len(LINEARS), at.ADAPTER), np.int64)
    planes: list[tuple[tuple[int, int, int], Array]] = []
    for i in range(len(config.layers)):
        for together in _TOGETHER:
            planes_of = {j: _planes(additions.get(f"model.layers.{i}.{LINEARS[j]}"), record[i, j]) for j in together}
            for half in (0, 1):  # what goes in, of all that are read together, and then what comes out
                planes += [((i, j, field), plane) for j in together for field, plane in planes_of[j][half]]
    memory = np.zeros(sum(_up(plane.nbytes, 64) for _, plane in planes) + 64, np.uint8)
    offset = -memory.ctypes.data % 64
    for place, plane in planes:
        memory[offset : offset + plane.nbytes] = plane.reshape(-1).view(np.uint8)
        record[place] = memory.ctypes.data + offset
        offset += _up(plane.nbytes, 64)
    width = int(record[..., at.ADAPTER_RANK].max())
    return Adapter(digest, record, width, memory.nbytes, memory)


def _planes(addition: Addition | None, record: Array) -> tuple[list[tuple[int, Array]], list[tuple[int, Array]]]:
    """Return the arrays read before and after the linear, each with its field of the record. Sizes are written to the record here."""
    if addition is None:
        return [], []
    rank = _up(len(addition.a), 16)
    record[:3] = rank, _up(addition.a.shape[1], 32), _up(len(addition.b), 16)
    first = list(zip((at.ADAPTER_A, at.ADAPTER_A_SCALES), _rounded(addition.a, 16, 32), strict=True))
    if addition.bias is not None:
        first.append((at.ADAPTER_BIAS, np.pad(addition.bias.astype(np.float32), (0, rank - len(addition.bias)))))
    return first, list(zip((at.ADAPTER_B, at.ADAPTER_B_SCALES), _rounded(addition.b, 16, 16), strict=True))


def _rounded(matrix: Array, rows_to: int, columns_to: int) -> tuple[Array, Array]:
    """Round [N, K] to bytes w + 128 in panels [N/16, K/4, 16, 4] and float32 scales [N], both padded with zeros."""
    whole = np.zeros((_up(matrix.shape[0], rows_to), _up(matrix.shape[1], columns_to)), np.float32)
    whole[: matrix.shape[0], : matrix.shape[1]] = matrix
    scale = np.abs(whole).max(axis=1) / 127
    q = np.rint(whole / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
    panels = (q.view(np.uint8) ^ 128).reshape(-1, 16, whole.shape[1] // 4, 4).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(panels), scale.astype(np.float32)


def _up(n: int, to: int) -> int:
    return -(-n // to) * to
