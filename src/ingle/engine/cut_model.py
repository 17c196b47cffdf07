"""The kind `shape`: a model with fewer layers, channels of its MLPs or groups of heads. See engine/delta_kinds.py for the others.

| tensor | means |
|---|---|
| shape.layers [l] | the layers that stay, ascending |
| shape.channels [l, c] | of each of them, the channels of the MLP that stay, ascending; without it, all |
| shape.groups [l, g] | of each of them, the key-value groups that stay with their query heads, ascending; without it, all |
| {parameter} | what stands there instead, by the names and shapes of the smaller model |
| {linear}.lora_A.weight [r, K], {linear}.lora_B.weight [N, r] | added to it, in the smaller model |

Numbers of layers, channels and groups are whole, in float32. All layers keep as many channels and groups, so that the smaller model is one
that every backend, and every other program, can run. Rows, and whole blocks of columns, keep the format of the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import DeltaError
from ingle.core.spec import LayerSpec, ModelConfig, Ways
from ingle.engine.adapter import linear_shapes
from ingle.kernels import formats
from ingle.model.checkpoint import Checkpoint
from ingle.model.tensor import Tensor, expected_shapes

# The kind `mask`: weights that are zero. See engine/delta_kinds.py for the others.
# | tensor | means |
# |---|---|
# | {linear}.mask uint8 [N, ⌈K/8⌉] | a bit for each weight, row by row, the highest first: 1 = it stays, 0 = it becomes 0 |
# | {linear}.kept [weights that stay] | the weights that stay, row by row; without it, the original ones |
# | {linear}.lora_A.weight [r, K], {linear}.lora_B.weight [N, r] | added to the weights that stay; 0 stays 0 |
# Together: (W or kept, + B A) where the mask is 1, else 0. So a repair by low rank doesn't fill the holes again.


Array = npt.NDArray[Any]
MASK = "mask"
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
                f"delta {name}, {key}", f"is no part of a change of kind {MASK}", "", f"For example {next(iter(shapes))}.mask."
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


SHAPE = "shape"
LAYERS, CHANNELS, GROUPS = (f"shape.{part}" for part in ("layers", "channels", "groups"))
_BLOCKS = {
    "F32": (1, 4, 0), "F16": (1, 2, 0), "BF16": (1, 2, 0),
    "Q4_0": (32, 18, 0), "Q4_1": (32, 20, 0), "Q8_0": (32, 34, 0),
} | {kind: (32, size, formats.UNIT_BYTES) for kind, size in formats.BYTES_16.items()}  # fmt: skip
# By type: columns that are stored together, their bytes, and the bytes at the beginning of a row.
_BLOCKS |= {kind: (formats.K_COLUMNS, size, 0) for kind, size in formats.K_BYTES.items()}
_PAIR = ("lora_A.weight", "lora_B.weight")


@dataclass(frozen=True, slots=True, eq=False)
class Smaller:
    """The parts of a model that stay."""

    layers: tuple[int, ...]
    channels: Array | None = None  # int [layers, channels]
    groups: Array | None = None  # int [layers, groups]

    def config(self, config: ModelConfig) -> ModelConfig:
        """Return the smaller model's config."""
        specs = tuple(config.layers[i] for i in self.layers)
        config = replace(config, layers=specs, ways=self._ways(config.ways))
        if self.channels is not None:
            config = replace(config, intermediate_size=self.channels.shape[1])
        if self.groups is None:
            return config
        count = self.groups.shape[1]
        specs = (LayerSpec(tuple(range(count))),) * len(specs)  # transformers only; see `smaller_of`
        return replace(config, layers=specs, num_heads=count * config.queries_per_group, num_kv_heads=count)

    def _ways(self, ways: Ways) -> Ways:
        """Return the ways with the numbers that its layers have now."""
        unturned, local = (tuple(new for new, old in enumerate(self.layers) if old in some) for some in (ways.unturned, ways.local))
        return replace(ways, unturned=unturned, local=local)

    def tensors(self) -> dict[str, Array]:
        """Return them as the tensors of a delta."""
        tensors: dict[str, Array] = {LAYERS: np.array(self.layers, np.float32)}
        for name, chosen in ((CHANNELS, self.channels), (GROUPS, self.groups)):
            if chosen is not None:
                tensors[name] = chosen.astype(np.float32)
        return tensors


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Reshaped(Checkpoint):
    """A checkpoint without some of its parts, tensor by tensor on demand."""

    base: Checkpoint
    smaller: Smaller
    values: Mapping[str, Array]  # replaced values, by parameter of the smaller model
    pairs: Mapping[str, tuple[Array, Array]]  # a and B of low-rank additions, by linear of the smaller model

    def tensor(self, name: str) -> Tensor:
        """Return one tensor of the smaller model, as stored where only rows or whole blocks went. Raises as the base does."""
        pair = self.pairs.get(name.removesuffix(".weight"))
        replacement = self.values.get(name)
        if replacement is None:
            stored = self._cut(name)
            if pair is None:
                return stored
            replacement = stored.to_float32()
        values = replacement.astype(np.float32)
        if pair is not None:
            values = values + pair[1].astype(np.float32) @ pair[0].astype(np.float32)
        return plain(name, values)

    def _cut(self, name: str) -> Tensor:
        parts = name.split(".")
        if parts[:2] != ["model", "layers"]:
            return self.base.tensor(name)
        layer, config = int(parts[2]), self.base.config
        tensor = replace(self.base.tensor(".".join([*parts[:2], str(self.smaller.layers[layer]), *parts[3:]])), name=name)
        linear = ".".join(parts[3:5])
        if self.smaller.channels is not None and linear in ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):
            chosen = self.smaller.channels[layer]
            output = linear == "mlp.down_proj"
        elif self.smaller.groups is not None and parts[4] in ("q_proj", "k_proj", "v_proj", "o_proj"):
            width = config.head_dim * (config.queries_per_group if parts[4] in ("q_proj", "o_proj") else 1)
            chosen = (self.smaller.groups[layer][:, None] * width + np.arange(width)).reshape(-1)
            output = parts[4] == "o_proj"
        else:
            return tensor
        if not output:
            return rows_of(tensor, chosen)
        return columns_of(tensor, chosen) if parts[-1] == "weight" else tensor


def smaller_of(name: str, config: ModelConfig, tensors: Mapping[str, Array]) -> Smaller:
    """Return the parts of a model that these tensors leave. `name` is for messages. Raises DeltaError for an impossible model."""
    where = f"delta {name}"
    layers = _chosen(f"{where}, {LAYERS}", tensors.get(LAYERS), None, len(config.layers))
    if layers is None:
        raise DeltaError(f"{where}, {LAYERS}", "is missing", "", "The delta is incomplete; make it again.")
    channels = _chosen(f"{where}, {CHANNELS}", tensors.get(CHANNELS), len(layers), config.intermediate_size)
    groups = _chosen(f"{where}, {GROUPS}", tensors.get(GROUPS), len(layers), config.num_kv_heads)
    if groups is not None and not config.is_transformer:
        raise DeltaError(f"{where}, {GROUPS}", "can be left out of a model with full attention only", "a hybrid", "Do it before.")
    return Smaller(tuple(layers.tolist()), channels, groups)


def reshaped(checkpoint: Checkpoint, name: str, tensors: Mapping[str, Array]) -> Reshaped:
    """Return the smaller checkpoint; nothing is read before it is asked for. Raises DeltaError for tensors that don't fit it."""
    where, smaller = f"delta {name}", smaller_of(name, checkpoint.config, tensors)
    config = smaller.config(checkpoint.config)
    shapes, linears = expected_shapes(config), linear_shapes(config)
    values, halves = dict[str, Array](), dict[str, dict[str, Array]]()
    for key, parameter in tensors.items():
        if key in (LAYERS, CHANNELS, GROUPS):
            continue
        linear, part = next(((key.removesuffix(f".{part}"), part) for part in _PAIR if key.endswith(f".{part}")), ("", ""))
        if part and linear in linears:
            halves.setdefault(linear, {})[part] = parameter
        elif key not in shapes:
            raise DeltaError(f"{where}, {key}", f"is no part of a change of kind {SHAPE}", "", "It names a parameter of the smaller model.")
        elif parameter.shape != shapes[key]:
            raise DeltaError(f"{where}, {key}", f"must have shape {shapes[key]}", parameter.shape)
        elif not np.isfinite(parameter).all():
            raise DeltaError(f"{where}, {key}", "must hold finite numbers", "NaN or infinity")
        else:
            values[key] = parameter
    for linear, half in halves.items():
        check_pair(f"{where}, {linear}", half.get(_PAIR[0]), half.get(_PAIR[1]), linears[linear])
    pairs = {linear: (half[_PAIR[0]], half[_PAIR[1]]) for linear, half in halves.items()}
    of = checkpoint
    return Reshaped(config, of.files, of.stored, of.interleaved, of.metadata, base=checkpoint, smaller=smaller, values=values, pairs=pairs)


def rows_of(tensor: Tensor, chosen: Array) -> Tensor:
    """Return rows of a matrix, or numbers of a vector, as they are stored."""
    raw = np.asarray(tensor.raw).reshape(tensor.shape[0], -1)[chosen]
    return Tensor(tensor.name, (len(chosen), *tensor.shape[1:]), tensor.kind, raw if len(tensor.shape) == 2 else raw.reshape(-1))


def columns_of(tensor: Tensor, chosen: Array) -> Tensor:
    """Return columns of a matrix: as stored where whole blocks are chosen, else float32."""
    size, nbytes, head = _BLOCKS.get(tensor.kind, (0, 0, 0))
    if size and len(chosen) % size == 0:
        blocks = chosen.reshape(-1, size)
        if (blocks[:, 0] % size == 0).all() and (np.diff(blocks, axis=1) == 1).all():
            rows = np.asarray(tensor.raw).reshape(tensor.shape[0], -1)
            parts = rows[:, head:].reshape(len(rows), -1, nbytes)[:, blocks[:, 0] // size].reshape(len(rows), -1)
            return Tensor(tensor.name, (len(rows), len(chosen)), tensor.kind, np.concatenate([rows[:, :head], parts], axis=1))
    return plain(tensor.name, tensor.to_float32()[:, chosen])


def plain(name: str, values: Array) -> Tensor:
    """Return values as a tensor in float32."""
    raw = np.ascontiguousarray(values, np.float32).view(np.uint8)
    return Tensor(name, values.shape, "F32", raw.reshape(len(values), -1) if values.ndim == 2 else raw)


def _chosen(where: str, values: Array | None, rows: int | None, of: int) -> Array | None:
    """Return whole numbers below `of`, ascending along the last side, as int64; None if `values` is None."""
    if values is None:
        return None
    if values.ndim != (1 if rows is None else 2) or rows not in (None, len(values)) or not values.size:
        rule = "must have a number for each that stays" + ("" if rows is None else f" in each of {rows} layers")
        raise DeltaError(where, rule, values.shape)
    numbers = values.astype(np.float64)
    whole = np.isfinite(numbers).all() and (numbers == np.rint(numbers)).all()
    if not whole or numbers.min() < 0 or numbers.max() >= of or (np.diff(numbers, axis=-1) <= 0).any():
        raise DeltaError(where, f"must hold whole numbers below {of}, ascending", "others")
    return numbers.astype(np.int64)
