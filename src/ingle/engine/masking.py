"""The kind `mask`: weights that are zero. See engine/delta_kinds.py for the others.

| tensor | means |
|---|---|
| {linear}.mask uint8 [N, ⌈K/8⌉] | a bit for each weight, row by row, the highest first: 1 = it stays, 0 = it becomes 0 |
| {linear}.kept [weights that stay] | the weights that stay, row by row; without it, the original ones |
| {linear}.lora_A.weight [r, K], {linear}.lora_B.weight [N, r] | added to the weights that stay; 0 stays 0 |

Together: (W or kept, + B A) where the mask is 1, else 0. So a repair by low rank doesn't fill the holes again.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import DeltaError

Array = npt.NDArray[Any]
KIND = "mask"
_PARTS = ("mask", "kept", "lora_A.weight", "lora_B.weight")


def pack_mask(mask: Array) -> Array:
    """bool [N, K] → uint8 [N, ⌈K/8⌉]."""
    return np.packbits(mask, axis=1)


def masks_of(shapes: Mapping[str, tuple[int, int]], tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Return bool [N, K] by linear, from the tensors of a change that was checked."""
    return {
        linear: np.unpackbits(tensors[f"{linear}.mask"], axis=1, count=columns).astype(bool)
        for linear, (_, columns) in shapes.items()
        if f"{linear}.mask" in tensors
    }


def mask_parts(name: str, shapes: Mapping[str, tuple[int, int]], tensors: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Check the tensors of a change and return them by linear, then by part, the mask as bool [N, K]. `shapes`: (N, K) of all linears.

    Raises DeltaError for tensors that belong to no linear, are missing, misshapen, or not finite. `name` is for messages.
    """
    by_linear: dict[str, dict[str, Array]] = {}
    for key, values in tensors.items():
        linear, part = next(((key.removesuffix(f".{part}"), part) for part in _PARTS if key.endswith(f".{part}")), ("", ""))
        if linear not in shapes:
            raise DeltaError(
                f"delta {name}, {key}", f"is no part of a change of kind {KIND}", "", f"For example {next(iter(shapes))}.mask."
            )
        by_linear.setdefault(linear, {})[part] = values
    for linear, parts in by_linear.items():
        where, (rows, columns) = f"delta {name}, {linear}", shapes[linear]
        bits = parts.get("mask")
        if bits is None or bits.dtype != np.uint8 or bits.shape != (rows, -(-columns // 8)):
            got = "nothing" if bits is None else f"{bits.dtype} {bits.shape}"
            raise DeltaError(f"{where}.mask", f"must be uint8 of shape {(rows, -(-columns // 8))}", got)
        parts["mask"] = np.unpackbits(bits, axis=1, count=columns).astype(bool)
        _check(f"{where}.kept", parts.get("kept"), (int(parts["mask"].sum()),))
        check_pair(where, parts.get("lora_A.weight"), parts.get("lora_B.weight"), (rows, columns))
    return by_linear


def masked(values: Array, parts: Mapping[str, Array]) -> Array:
    """Return the masked weights of a linear, float32 [N, K]; `parts` as from `mask_parts`."""
    mask = parts["mask"]
    if "kept" in parts:
        values = np.zeros_like(values)
        values[mask] = parts["kept"]
    if "lora_B.weight" in parts:
        values = values + parts["lora_B.weight"].astype(np.float32) @ parts["lora_A.weight"].astype(np.float32)
    return np.where(mask, values, np.float32(0))


def check_pair(where: str, a: Array | None, b: Array | None, shape: tuple[int, int]) -> None:
    """Raise DeltaError unless both or neither are there, and B A has that shape."""
    if a is None and b is None:
        return
    if a is None or b is None:
        raise DeltaError(where, "must have both lora_A.weight and lora_B.weight", "one", "The delta is incomplete; make it again.")
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or (b.shape[0], a.shape[1]) != shape or not a.shape[0]:
        raise DeltaError(where, f"must have lora_B · lora_A of shape {shape}", f"{b.shape} · {a.shape}")
    _check(f"{where}.lora_A", a, a.shape)
    _check(f"{where}.lora_B", b, b.shape)


def _check(where: str, values: Array | None, shape: tuple[int, ...]) -> None:
    if values is None:
        return
    if values.shape != shape:
        raise DeltaError(where, f"must have shape {shape}", values.shape)
    if not np.isfinite(values).all():
        raise DeltaError(where, "must hold finite numbers", "NaN or infinity")
