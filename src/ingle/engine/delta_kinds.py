"""What deltas mean: each kind's tensors, and what they make of a model's weights. NumPy only.

| kind | tensors | means |
|---|---|---|
| lora | {linear}.lora_A.weight [r, K], {linear}.lora_B.weight [N, r] | W + B A; any scale is within B (arXiv 2106.09685) |
| dora | as lora, and {linear}.lora_magnitude_vector [N] | row n: m_n (W + B A)_n / ‖(W + B A)_n‖ (arXiv 2402.09353) |
| ia3 | {linear}.ia3_l [N, 1] or [1, K] | outputs or inputs multiplied (arXiv 2205.05638) |
| bias | {linear}.bias [N] | added to the bias, which is 0 where there is none (arXiv 2106.10199) |
| full | {parameter}, its shape | added to the parameter |
| layers | see engine/hybrid.py | how layers look back, and the memories that this needs |
| mask | see engine/masking.py | weights that are zero, and what the others are instead |
| shape | see engine/shape.py | fewer layers, channels or groups of heads: a smaller model |
| quantised | see engine/quantised.py | matrices replaced by blocks of few bits |
| bottleneck | {linear}.adapter_down.weight [r, N], .adapter_down.bias [r], .adapter_up.weight [N, r], .adapter_up.bias [N] |
    y + up(relu(down(y))), y the linear's output (arXiv 1902.00751) |
| prefix, prompt | prefix.keys, prefix.values [layers, groups, n, D], keys turned by RoPE for positions 0 … n − 1 |
    n tokens that stand before every text (arXiv 2101.00190, 2104.08691) |

{linear} is a linear of a layer, N rows by K columns, for example `model.layers.0.self_attn.q_proj`. The last three can't be merged
into weights, so they come last in a stack.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import DeltaError
from ingle.core.spec import ModelConfig
from ingle.engine import hybrid, masking, quantised, shape
from ingle.engine.adapter import Addition, linear_shapes
from ingle.model.checkpoint import Checkpoint, expected_shapes
from ingle.model.tensor import Tensor

Array = npt.NDArray[Any]
_PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "lora": {"lora_A.weight": ("rK",), "lora_B.weight": ("Nr",)},
    "dora": {"lora_A.weight": ("rK",), "lora_B.weight": ("Nr",), "lora_magnitude_vector": ("N",)},
    "ia3": {"ia3_l": ("N1", "1K")},
    "bias": {"bias": ("N",)},
    "bottleneck": {
        "adapter_down.weight": ("rN",), "adapter_down.bias": ("r",), "adapter_up.weight": ("Nr",), "adapter_up.bias": ("N",),
    },
}  # fmt: skip
"""Kinds that belong to linears: their parts, and the shapes that each may have, one letter a side: r is any rank."""
MERGED = ("lora", "dora", "ia3", "bias", "full", hybrid.KIND, quantised.KIND, masking.KIND, shape.KIND)
"""Kinds that can become part of the weights."""
VIRTUAL = ("prefix", "prompt")
"""Kinds that are tokens before every text."""
KINDS = (*MERGED, "bottleneck", *VIRTUAL)
"""Every kind."""
_BY_PARAMETER = ("full", hybrid.KIND)
_BIASES = {"self_attn.o_proj": "output_bias", "self_attn": "qkv_bias", "mlp": "mlp_bias"}
"""The flag of the config that gives a linear a bias, by the beginning of its name; the first that fits."""


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """A delta that is about to be applied."""

    name: str
    """For messages."""
    kind: str
    tensors: Mapping[str, Array]
    """float32 or float16, of `quantised` and `mask` uint8 too, by name."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Merged(Checkpoint):
    """A checkpoint with changes made to it, each tensor when it is asked for. What no change touches stays as it is stored."""

    base: Checkpoint
    steps: tuple["_Step", ...]

    def tensor(self, name: str) -> Tensor:
        """One tensor, float32 if a change touches it, but blocks where the last that does quantised it. Raises CheckpointError for a name
        that is not among `names`.
        """
        touching = [step for step in self.steps if step.touches(name)]
        if touching and touching[-1].replacing:
            return touching[-1].replacing[name]
        shape = expected_shapes(self.config).get(name, ())
        missing = bool(shape) and name not in expected_shapes(self.base.config)  # a bias or a memory that the base does without
        if not touching and not missing:
            return self.base.tensor(name)
        values: Array = np.zeros(shape, np.float32) if missing else self.base.tensor(name).to_float32()
        for step in touching:
            values = step.apply(name, values)
        raw = np.ascontiguousarray(values, np.float32).view(np.uint8)
        return Tensor(name, shape, "F32", raw.reshape(shape[0], -1) if len(shape) == 2 else raw)


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A change, its tensors sorted by what they belong to."""

    kind: str
    parts: Mapping[str, Mapping[str, Array]]
    """By linear, then by part, float32; of `full` and `layers`, the values by parameter, then the empty name."""
    replacing: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))
    """Of `quantised`: what parameters become, by name."""

    def touches(self, name: str) -> bool:
        """Whether it changes the parameter of that name."""
        if self.kind in _BY_PARAMETER:
            return name in self.parts
        if self.kind == quantised.KIND:
            return name in self.replacing
        linear, _, part = name.rpartition(".")
        found = self.parts.get(linear)
        if found is None:
            return False
        if part == "bias":
            return self.kind == "bias" or (self.kind == "ia3" and _on_outputs(found["ia3_l"]))
        return self.kind != "bias"

    def apply(self, name: str, values: Array) -> Array:
        """What it makes of these values (float32) of a parameter that it touches."""
        if self.replacing:
            return self.replacing[name].to_float32()
        if self.kind in _BY_PARAMETER:  # a memory's parameters are added to nothing
            added: Array = values + self.parts[name][""].astype(np.float32)
            return added
        linear, _, part = name.rpartition(".")
        if self.kind == masking.KIND:
            return masking.masked(values, self.parts[linear])
        parts = {key: value.astype(np.float32) for key, value in self.parts[linear].items()}
        if self.kind in ("lora", "dora"):
            values = values + parts["lora_B.weight"] @ parts["lora_A.weight"]
        if self.kind == "dora":
            lengths = np.linalg.norm(values, axis=1, keepdims=True)
            values = values * (parts["lora_magnitude_vector"][:, None] / np.where(lengths > 0, lengths, 1))
        elif self.kind == "ia3":
            values = values * (parts["ia3_l"][:, 0] if part == "bias" else parts["ia3_l"])
        elif self.kind == "bias":
            values = values + parts["bias"]
        return values


def merged(checkpoint: Checkpoint, changes: Sequence[Change]) -> Checkpoint:
    """The checkpoint with these changes made to it, in their order and in float32; nothing is read before it is asked for.

    A bias where the base has none sets the config's flag, and all other biases of that flag are 0.
    Raises DeltaError for tensors that name nothing in the model, wrong shapes, numbers that are not finite, and kinds that can't be merged.
    """
    config, steps = checkpoint.config, list[_Step]()
    for change in changes:
        if change.kind in KINDS and change.kind not in MERGED:
            rule = f"is of the kind {change.kind}, which can't become part of the weights"
            raise DeltaError(f"delta {change.name}", rule, "", "Serve it with Ingle: there it works beside the weights.")
        if change.kind == hybrid.KIND:
            config, memories = hybrid.hybrid_of(change.name, config, change.tensors)
            steps.append(_Step(change.kind, {name: {"": values} for name, values in memories.items()}))
            continue
        if change.kind == quantised.KIND:
            steps.append(_Step(change.kind, {}, quantised.replaced(change.name, config, change.tensors)))
            continue
        if change.kind == shape.KIND:
            checkpoint = shape.reshaped(_stepped(checkpoint, config, steps), change.name, change.tensors)
            config, steps = checkpoint.config, []
            continue
        steps.append(_Step(change.kind, _parts_of(config, change)))
        if change.kind == "bias":
            flags: dict[str, Any] = {_bias_flag(linear): True for linear in steps[-1].parts}
            config = replace(config, **flags)
    return _stepped(checkpoint, config, steps)


def _stepped(of: Checkpoint, config: ModelConfig, steps: Sequence[_Step]) -> Checkpoint:
    return Merged(config, of.files, of.stored, of.interleaved, of.metadata, base=of, steps=tuple(steps)) if steps else of


def _parts_of(config: ModelConfig, change: Change) -> dict[str, dict[str, Array]]:
    """See `_Step.parts`; of a mask, bool [N, K]."""
    if change.kind == masking.KIND:
        return masking.mask_parts(change.name, linear_shapes(config), change.tensors)
    return _parameters(config, change) if change.kind == "full" else linears_of(config, change)


def parted(name: str, kinds: Sequence[str]) -> tuple[int, int]:
    """How a stack of changes of these kinds is served: so many are merged into the weights, so many after these stay beside them (one
    bottleneck, or any number of `lora`), and what is left, one at the most, is tokens before every text. `name` is for messages.

    Raises DeltaError if one that can't be merged is not the last.
    """
    real = len(kinds) - (1 if kinds and kinds[-1] in VIRTUAL else 0)
    if real and kinds[real - 1] == "bottleneck":
        first = real - 1
    else:
        first = real
        while first and kinds[first - 1] == "lora":
            first -= 1
    stuck = next((kind for kind in kinds[:first] if kind in KINDS and kind not in MERGED), None)
    if stuck is not None:
        rule = f"has a delta of the kind {stuck} that is not the last, and that can't become part of the weights"
        raise DeltaError(f"model {name}", rule, ", ".join(kinds), "Make the later delta for the model without it.")
    return first, real - first


def additions_of(config: ModelConfig, changes: Sequence[Change], checkpoint: Checkpoint | None = None) -> dict[str, Addition]:
    """What changes that stay beside the weights (see `parted`) add to each linear. `checkpoint`: what a bottleneck was made for.

    Low-rank additions are set side by side: their ranks add up. A bottleneck after y = W x + c, y + U relu(D y + d) + u, is seen from
    x: A = D W, its bias D c + d, B = U; and u is one more inner unit that is always 1. Raises DeltaError as `merged` does.
    """
    found: dict[str, list[Addition]] = {}
    for change in changes:
        for linear, parts in linears_of(config, change).items():
            part = {name: values.astype(np.float32) for name, values in parts.items()}
            if change.kind == "lora":
                added = Addition(part["lora_A.weight"], part["lora_B.weight"])
            elif change.kind == "bottleneck" and len(changes) == 1 and checkpoint is not None:
                added = _seen_from_input(checkpoint, linear, part)
            else:
                raise DeltaError(f"delta {change.name}", "can't stay beside the weights, with others", change.kind)
            found.setdefault(linear, []).append(added)
    return {
        linear: several[0]
        if len(several) == 1
        else Addition(np.concatenate([added.a for added in several]), np.concatenate([added.b for added in several], axis=1))
        for linear, several in found.items()
    }


def _seen_from_input(checkpoint: Checkpoint, linear: str, part: Mapping[str, Array]) -> Addition:
    down, up = part["adapter_down.weight"], part["adapter_up.weight"]
    a, bias = down @ checkpoint.tensor(f"{linear}.weight").to_float32(), part["adapter_down.bias"]
    if f"{linear}.bias" in expected_shapes(checkpoint.config):
        bias = bias + down @ checkpoint.tensor(f"{linear}.bias").to_float32()
    if not part["adapter_up.bias"].any():
        return Addition(a, up, bias)
    always = np.zeros((1, a.shape[1]), np.float32), np.ones(1, np.float32), part["adapter_up.bias"][:, None]
    return Addition(np.concatenate([a, always[0]]), np.concatenate([up, always[2]], axis=1), np.concatenate([bias, always[1]]))


def virtual_of(config: ModelConfig, change: Change) -> tuple[Array, Array]:
    """Keys and values of a prefix or prompt, float32 [layers, groups, n, D]. Raises DeltaError for tensors that don't fit."""
    found = []
    for part in ("prefix.keys", "prefix.values"):
        where = f"delta {change.name}, {part}"
        if part not in change.tensors:
            raise DeltaError(where, "is missing", "", "The delta is incomplete; make it anew.")
        values = change.tensors[part].astype(np.float32)
        outer = (len(config.layers), config.num_kv_heads)
        if values.ndim != 4 or (*values.shape[:2], values.shape[3]) != (*outer, config.head_dim):
            raise DeltaError(where, f"must have shape ({outer[0]}, {outer[1]}, tokens, {config.head_dim})", values.shape)
        if not 0 < values.shape[2] < config.context_length:
            raise DeltaError(where, f"must hold 1 to {config.context_length - 1} tokens", values.shape[2])
        _check_finite(where, values)
        found.append(values)
    if found[0].shape != found[1].shape:
        raise DeltaError(f"delta {change.name}", "must have as many keys as values", f"{found[0].shape[2]} and {found[1].shape[2]}")
    return found[0], found[1]


def linears_of(config: ModelConfig, change: Change) -> dict[str, dict[str, Array]]:
    """The tensors of a change that belongs to linears: by linear, then by part (`lora_A.weight`).

    Raises DeltaError for a kind that doesn't, for parts that are unknown, missing, of wrong shapes or not finite, and unknown linears.
    """
    known = _PARTS.get(change.kind)
    if known is None:
        raise DeltaError(f"delta {change.name}", f"must be of a known kind: {', '.join(KINDS)}", change.kind, "Update Ingle.")
    shapes, found = linear_shapes(config), dict[str, dict[str, Array]]()
    for key, values in change.tensors.items():
        linear, part = next(((key.removesuffix(f".{part}"), part) for part in known if key.endswith(f".{part}")), ("", ""))
        if linear not in shapes:
            wanted = f"{next(iter(shapes))}.{next(iter(known))}"
            raise DeltaError(f"delta {change.name}, {key}", f"is no part of a change of kind {change.kind}", "", f"For example {wanted}.")
        found.setdefault(linear, {})[part] = values
    for linear, parts in found.items():
        _check_parts(f"delta {change.name}, {linear}", change.kind, shapes[linear], parts)
    return found


def _check_parts(where: str, kind: str, shape: tuple[int, int], parts: Mapping[str, Array]) -> None:
    rank: int | None = None
    for part, patterns in _PARTS[kind].items():
        if part not in parts:
            raise DeltaError(f"{where}.{part}", "is missing", "", "The delta is incomplete; make it anew.")
        got = parts[part].shape
        if "r" in patterns[0]:
            at = patterns[0].index("r")
            rank = got[at] if rank is None and len(got) == len(patterns[0]) else rank
        sizes = {"N": shape[0], "K": shape[1], "1": 1, "r": rank}
        allowed = [tuple(sizes[side] for side in pattern) for pattern in patterns]
        if got not in allowed or 0 in got:
            text = " or ".join(str(tuple(size or "rank" for size in sides)).replace("'", "") for sides in allowed)
            raise DeltaError(f"{where}.{part}", f"must have shape {text}", got)
        _check_finite(f"{where}.{part}", parts[part])


def _check_finite(where: str, values: Array) -> None:
    if not np.isfinite(values).all():
        raise DeltaError(where, "must hold finite numbers", "NaN or infinity")


def _parameters(config: ModelConfig, change: Change) -> dict[str, dict[str, Array]]:
    """Values by parameter, checked; see `_Step.parts`."""
    shapes = expected_shapes(config)
    for name, values in change.tensors.items():
        if name not in shapes:
            raise DeltaError(
                f"delta {change.name}, {name}", "must name a parameter of this model", "", f"For example {next(iter(shapes))}."
            )
        if values.shape != shapes[name]:
            raise DeltaError(f"delta {change.name}, {name}", f"must have shape {shapes[name]}", values.shape)
        _check_finite(f"delta {change.name}, {name}", values)
    return {name: {"": values} for name, values in change.tensors.items()}


def _bias_flag(linear: str) -> str:
    place = linear.split(".", 3)[3]  # after model.layers.i
    return next(flag for beginning, flag in _BIASES.items() if place.startswith(beginning))


def _on_outputs(vector: Array) -> bool:
    return int(vector.shape[1]) == 1
