"""From tensors as a family's files have them to those that every model has, and back for export."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CheckpointError
from ingle.core.spec import DeltaRule, ModelConfig
from ingle.model.expected import expected_shapes, turned_order
from ingle.model.family import families
from ingle.model.tensor import Tensor

Array = npt.NDArray[Any]


def parts_of(config: ModelConfig, tensors: Mapping[str, Tensor], offset: float = 0.0) -> dict[str, Tensor]:
    """Return the tensors under our names, with fused linears apart, rows mapped as before, and `offset` added to the weights of norms.

    Raises CheckpointError for fused rows that are not as many as their parts have.
    """
    family, shapes, found = families()[config.family], expected_shapes(config), dict[str, Tensor]()
    fused, ours = family.fused, {theirs: own for own, theirs in family.renamed.items()}
    for theirs, tensor in tensors.items():
        name = _renamed(theirs, ours)
        inner = next((whole for whole in fused if f".{whole}." in name), None)
        if inner is None:
            found[name] = replace(_raised(tensor, offset) if offset and has_offset(name) else tensor, name=name)
            continue
        names = [name.replace(inner, part) for part in fused[inner]]
        ends = np.cumsum([shapes[part][0] if part in shapes else 0 for part in names]).tolist()
        if ends[-1] != tensor.shape[0]:
            raise CheckpointError(name, f"must have {ends[-1]} rows, those of {' and '.join(fused[inner])}", tensor.shape)
        for part, start, end in zip(names, [0, *ends], ends, strict=False):
            found[part] = replace(tensor, name=part, shape=(end - start, *tensor.shape[1:]), data=_rows(tensor, start, end))
    return found


def whole_of(config: ModelConfig, tensor: Callable[[str], Array]) -> dict[str, tuple[tuple[int, ...], Callable[[], Array]]]:
    """Return what a Hugging Face folder of this family holds: each tensor's shape, and how it is made of the model's own."""
    family, shapes, tensor = families()[config.family], expected_shapes(config), partial(as_in_files, config, tensor)
    first = {parts[0]: (whole, parts) for whole, parts in family.fused.items()}
    others = {part for parts in family.fused.values() for part in parts[1:]}
    found: dict[str, tuple[tuple[int, ...], Callable[[], Array]]] = {}
    for name, shape in shapes.items():
        inner = ".".join(name.split(".")[3:-1])
        if inner in others:
            continue
        if inner in first:
            whole, parts = first[inner]
            names = [name.replace(inner, part) for part in parts]
            rows = sum(shapes[part][0] for part in names)
            found[name.replace(inner, whole)] = ((rows, *shape[1:]), partial(_joined, tensor, names))
        else:
            found[name] = (shape, partial(_lowered, tensor, name, family.norm_offset if has_offset(name) else 0.0))
    return {_renamed(name, family.renamed): made for name, made in found.items()}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """Return a tensor's name with its module called otherwise."""
    module, _, ending = name.rpartition(".")
    layer, inner = module.split(".")[:3], ".".join(module.split(".")[3:])
    if module in names:
        return f"{names[module]}.{ending}"
    return ".".join([*layer, names[inner], ending]) if module.startswith("model.layers.") and inner in names else name


def has_offset(name: str) -> bool:
    """Return whether it is the weight of a norm that `Family.norm_offset` is of: the gated delta rule's is not."""
    return "norm" in name and ".linear_attn." not in name


def as_in_files(config: ModelConfig, tensor: Callable[[str], Array], name: str) -> Array:
    """Return a tensor with its rows as Hugging Face has them: see `turned_order`."""
    values = tensor(name)
    if ".linear_attn." in name and config.delta is not None and config.delta.tiled:
        return _side_by_side(config.delta, name, values)
    if (order := turned_order(config, name, len(values))) is None:
        return values
    back = np.empty_like(values)
    back[order] = values
    return back


def _side_by_side(own: DeltaRule, name: str, values: Array) -> Array:
    """Return a tensor with the value heads of one key head side by side, as Hugging Face has them: see `DeltaRule.tiled`."""

    def moved(rows: Array, each: int) -> Array:
        return rows.reshape(-1, own.key_heads, each, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)

    part, keys = name.split(".linear_attn.")[1].partition(".")[0], 2 * own.key_heads * own.dim
    if part in ("in_proj_qkv", "conv1d"):
        return np.concatenate([values[:keys], moved(values[keys:], own.dim)])
    if part == "out_proj":
        return np.ascontiguousarray(moved(values.T, own.dim).T)
    return values if part == "norm" else moved(values, own.dim if part == "in_proj_z" else 1)


def _joined(tensor: Callable[[str], Array], names: list[str]) -> Array:
    return np.concatenate([tensor(name) for name in names])


def _lowered(tensor: Callable[[str], Array], name: str, offset: float) -> Array:
    return tensor(name) - np.float32(offset) if offset else tensor(name)


def _raised(tensor: Tensor, offset: float) -> Tensor:
    values = tensor.to_float32() + np.float32(offset)
    return replace(tensor, kind="F32", data=values.view(np.uint8).reshape(-1))


def _rows(tensor: Tensor, start: int, end: int) -> npt.NDArray[np.uint8]:
    if tensor.raw.ndim == 2:
        return tensor.raw[start:end]
    size = tensor.raw.nbytes // tensor.shape[0]
    return tensor.raw[start * size : end * size]
