"""Kinds of deltas: each kind's tensors, and their effect on a model's weights. NumPy only.

| kind | tensors | means |
|---|---|---|
| lora | {linear}.lora_A.weight [r, K], {linear}.lora_B.weight [N, r] | W + B A; any scale is within B (arXiv 2106.09685) |
| dora | as lora, and {linear}.lora_magnitude_vector [N] | row n: m_n (W + B A)_n / ‖(W + B A)_n‖ (arXiv 2402.09353) |
| ia3 | {linear}.ia3_l [N, 1] or [1, K] | outputs or inputs multiplied (arXiv 2205.05638) |
| bias | {linear}.bias [N] | added to the bias, which is 0 where there is none (arXiv 2106.10199) |
| full | {parameter}, its shape | added to the parameter |
| layers | see engine/delta_kinds.py | how layers look back, and the memories that this needs |
| mask | see engine/cut_model.py | weights that are zero, and what the others are instead |
| shape | see engine/cut_model.py | fewer layers, channels or groups of heads: a smaller model |
| quantised | see engine/delta_kinds.py | matrices replaced by blocks of few bits |
| bottleneck | {linear}.adapter_down.weight [r, N], .adapter_down.bias [r], .adapter_up.weight [N, r], .adapter_up.bias [N] |
    y + up(relu(down(y))), y the linear's output (arXiv 1902.00751) |
| prefix, prompt | prefix.keys, prefix.values [layers, groups, n, D], keys turned by RoPE for positions 0 … n − 1 |
    n tokens that stand before every text (arXiv 2101.00190, 2104.08691) |
| sight | see media/sight.py | what the model reads in the place of a picture |
| painter | see media/painter.py | how an answer becomes a picture |

{linear} is a linear of a layer, N rows by K columns, for example `model.layers.0.self_attn.q_proj`. `bottleneck`, `prefix` and
`prompt` can't be merged into weights, so they come last in a stack. `sight` and `painter` leave the answers to words as they are, to the
bit, and stand anywhere.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError, DeltaError
from ingle.core.spec import LayerSpec, ModelConfig
from ingle.engine import cut_model
from ingle.engine.adapter import Addition, linear_shapes
from ingle.home.deltas import ABILITIES
from ingle.kernels import formats
from ingle.model.checkpoint import Checkpoint
from ingle.model.tensor import AGE, Tensor, expected_shapes

# The kind `layers`: retrieval and streaming groups of each layer, and their memories. See engine/delta_kinds.py for the others.
# | tensor | means |
# |---|---|
# | layers.retrieval [layers, groups] | 1 = a retrieval group, 0 = a streaming group |
# | layers.window, layers.sinks [layers] | of the streaming groups |
# | layers.memory [layers] | 1 = streaming groups have a recurrent memory |
# | model.layers.i.self_attn.memory.… | the memories' parameters, see model/module_parts.py |
# All are numbers in float32, so that a delta stays what it is: named tensors. It applies to a transformer only; for other retrieval groups,
# make another delta for the original model.


Array = npt.NDArray[Any]
LAYERS_KIND = "layers"
_RETRIEVAL, _WINDOW, _SINKS, _MEMORY = (f"layers.{part}" for part in ("retrieval", "window", "sinks", "memory"))
_MOST = 1 << 20  # tokens of a window; float32 holds them exactly


def spec_tensors(layers: tuple[LayerSpec, ...], kv_groups: int) -> dict[str, Array]:
    """Return these layers' groups, windows, sinks and memories as tensors."""
    retrieval = [[float(group in spec.retrieval) for group in range(kv_groups)] for spec in layers]
    rows = {_RETRIEVAL: retrieval, _WINDOW: [spec.window for spec in layers], _SINKS: [spec.sinks for spec in layers]}
    rows[_MEMORY] = [float(spec.memory != "none") for spec in layers]
    return {name: np.array(values, np.float32) for name, values in rows.items()}


def hybrid_of(name: str, config: ModelConfig, tensors: Mapping[str, Array]) -> tuple[ModelConfig, dict[str, Array]]:
    """Return the transformer's config changed by these tensors, and the parameters of its memories. `name` is for messages.

    Raises DeltaError for a model that is a hybrid already, and for tensors that are missing, misshapen, unknown, or describe no possible
    layer.
    """
    where = f"delta {name}"
    if not config.is_transformer:
        raise DeltaError(where, "applies to a model with full attention only", "a hybrid", "Make it for the original model.")
    shape = (len(config.layers), config.num_kv_heads)
    columns = {part: _whole(where, part, tensors, shape[:1]) for part in (_WINDOW, _SINKS, _MEMORY)}
    retrieval = _whole(where, _RETRIEVAL, tensors, shape)
    if retrieval.max() > 1 or columns[_MEMORY].max() > 1:
        raise DeltaError(f"{where}, layers", "must hold 0 or 1 for retrieval and memory", "other numbers")
    layers = tuple(
        LayerSpec(
            tuple(np.flatnonzero(retrieval[i]).tolist()),
            int(columns[_WINDOW][i]),
            int(columns[_SINKS][i]),
            "gated_delta" if columns[_MEMORY][i] else "none",
        )
        for i in range(len(config.layers))
    )
    try:
        hybrid = config.with_layers(layers)
    except ConfigError as error:
        raise DeltaError(f"{where}, {error.field}", error.rule, error.got) from error
    new_shapes = {key: size for key, size in expected_shapes(hybrid).items() if key not in expected_shapes(config)}
    for key, size in new_shapes.items():
        if key.endswith(AGE) and key not in tensors:
            continue
        if key not in tensors or tensors[key].shape != size:
            raise DeltaError(f"{where}, {key}", f"must have shape {size}", tensors[key].shape if key in tensors else "nothing")
        if not np.isfinite(tensors[key]).all():
            raise DeltaError(f"{where}, {key}", "must hold finite numbers", "NaN or infinity")
    strangers = [key for key in tensors if key not in new_shapes and not key.startswith("layers.")]
    if strangers:
        raise DeltaError(f"{where}, {strangers[0]}", "is no part of a change of kind layers", "")
    return hybrid, {key: tensors[key] for key in new_shapes if key in tensors}


def _whole(where: str, part: str, tensors: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
    """Return non-negative whole numbers as int64. Raises DeltaError for others."""
    values = tensors.get(part)
    if values is None or values.shape != shape:
        raise DeltaError(f"{where}, {part}", f"must have shape {shape}", "nothing" if values is None else values.shape)
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all() or (numbers != np.rint(numbers)).any() or numbers.min() < 0 or numbers.max() > _MOST:
        raise DeltaError(f"{where}, {part}", f"must hold whole numbers from 0 to {_MOST}", "others")
    return numbers.astype(np.int64)


# The kind `quantised`: matrices replaced by blocks, which the kernels multiply as they are. See engine/delta_kinds.py for the others.
# | tensor | means |
# |---|---|
# | {parameter}, uint8 [N, 4 + K/32 · 20] | the matrix [N, K] as Q4_16: scales and minima for 16 columns, 4-bit codes (kernels/formats.py) |
# | {parameter}, uint8 [N, 4 + K/32 · 16] | the matrix [N, K] as Q3_16: the same, codes of 3 bits |
# | {parameter}, uint8 [N, K/32 · 20] | the matrix [N, K] as Q4_1: float16 scale and minimum, 32 codes of 4 bits |
# | {parameter}, uint8 [N, K/32 · 34] | the matrix as Q8_0: float16 scale, 32 signed bytes |
# | {parameter}, float32 or float16, its shape | the parameter itself: a norm or a bias that scales were folded into |
# Parameters are replaced, not added to; those that it doesn't name stay. Only the linears of layers can be blocks.


QUANTISED = "quantised"
GROUP = 32  # columns of a block
# Bytes by type: at the beginning of a row, and of a block.
_BYTES = {"Q4_1": (0, 20), "Q8_0": (0, 34)} | {kind: (formats.UNIT_BYTES, size) for kind, size in formats.BYTES_16.items()}


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


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """A delta with its tensors, ready to be applied."""

    name: str  # name for messages
    kind: str
    tensors: Mapping[str, Array]  # tensors by name: float32 or float16, for `quantised` and `mask` also uint8


Parts = Mapping[str, Array]  # tensors of one linear, by part: `lora_A.weight`
Effect = Callable[[Array], Array]  # a parameter's values, float32, to those with a change


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Merged(Checkpoint):
    """A checkpoint with a change merged in, tensor by tensor on demand. Untouched tensors stay as they are stored."""

    base: Checkpoint
    effects: Mapping[str, Effect]  # by parameter
    replaced: Mapping[str, Tensor]  # new parameters by name
    new: Mapping[str, tuple[int, ...]]  # shapes of parameters that the base does without: biases and memories, 0 but for their effects

    def tensor(self, name: str) -> Tensor:
        """Return one tensor: float32 if the change touches it, blocks if it quantised it. Raises CheckpointError for an unknown name."""
        effect = self.effects.get(name)
        if name in self.replaced:
            return self.replaced[name]
        if effect is None and name not in self.new:
            return self.base.tensor(name)
        values: Array = np.zeros(self.new[name], np.float32) if name in self.new else self.base.tensor(name).to_float32()
        return cut_model.plain(name, values if effect is None else effect(values))


def merged(checkpoint: Checkpoint, changes: Sequence[Change]) -> Checkpoint:
    """Return the checkpoint with these changes merged in order, in float32. Nothing is read before it is asked for.

    A bias where the base has none sets the config's flag; all other biases of that flag are 0.
    Raises DeltaError for tensors that name nothing in the model, wrong shapes, numbers that are not finite, and kinds that can't be merged.
    """
    for change in changes:
        merge = _kind(change).merge
        if merge is None:
            rule = f"is of the kind {change.kind}, which can't become part of the weights"
            raise DeltaError(f"delta {change.name}", rule, "", "Serve it with Ingle: there it works beside the weights.")
        checkpoint = merge(checkpoint, change)
    return checkpoint


def _merged(
    of: Checkpoint, effects: Mapping[str, Effect], config: ModelConfig | None = None, replaced: Mapping[str, Tensor] = MappingProxyType({})
) -> Checkpoint:  # fmt: skip
    """Return a checkpoint with these effects. `config`: its own, where it has parameters that the base lacks."""
    before = expected_shapes(of.config)
    new = {} if config is None else {name: shape for name, shape in expected_shapes(config).items() if name not in before}
    whole = config or of.config
    return Merged(whole, of.files, of.stored, of.interleaved, of.metadata, base=of, effects=effects, replaced=replaced, new=new)


def _merge_weights(effect: Callable[[Parts, Array], Array], checkpoint: Checkpoint, change: Change) -> Checkpoint:
    parts_of = linears_of(checkpoint.config, change)
    return _merged(checkpoint, {f"{linear}.weight": partial(effect, parts) for linear, parts in parts_of.items()})


def _with_low_rank(parts: Parts, values: Array) -> Array:
    added: Array = values + parts["lora_B.weight"].astype(np.float32) @ parts["lora_A.weight"].astype(np.float32)
    return added


def _with_magnitude(parts: Parts, values: Array) -> Array:
    values = _with_low_rank(parts, values)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    scaled: Array = values * (parts["lora_magnitude_vector"].astype(np.float32)[:, None] / np.where(lengths > 0, lengths, 1))
    return scaled


def _merge_ia3(checkpoint: Checkpoint, change: Change) -> Checkpoint:
    effects = dict[str, Effect]()
    for linear, parts in linears_of(checkpoint.config, change).items():
        factors = parts["ia3_l"]
        effects[f"{linear}.weight"] = partial(_multiplied, factors)
        if factors.shape[1] == 1:  # of the outputs
            effects[f"{linear}.bias"] = partial(_multiplied, factors[:, 0])
    return _merged(checkpoint, effects)


def _merge_bias(checkpoint: Checkpoint, change: Change) -> Checkpoint:
    parts_of = linears_of(checkpoint.config, change)
    flags: dict[str, Any] = {_bias_flag(linear): True for linear in parts_of}
    effects = {f"{linear}.bias": partial(_added, parts["bias"]) for linear, parts in parts_of.items()}
    return _merged(checkpoint, effects, replace(checkpoint.config, **flags))


def _merge_full(checkpoint: Checkpoint, change: Change) -> Checkpoint:
    _check_parameters(checkpoint.config, change)
    return _merged(checkpoint, {name: partial(_added, values) for name, values in change.tensors.items()})


def _merge_layers(checkpoint: Checkpoint, change: Change) -> Checkpoint:
    config, memories = hybrid_of(change.name, checkpoint.config, change.tensors)
    return _merged(checkpoint, {name: partial(_added, values) for name, values in memories.items()}, config)


def _merge_mask(checkpoint: Checkpoint, change: Change) -> Checkpoint:
    parts_of = cut_model.mask_parts(change.name, linear_shapes(checkpoint.config), change.tensors)
    return _merged(checkpoint, {f"{linear}.weight": partial(cut_model.masked, parts=parts) for linear, parts in parts_of.items()})


def _added(own: Array, values: Array) -> Array:
    added: Array = values + own.astype(np.float32)
    return added


def _multiplied(own: Array, values: Array) -> Array:
    multiplied: Array = values * own.astype(np.float32)
    return multiplied


@dataclass(frozen=True, slots=True)
class DeltaKind:
    merge: Callable[[Checkpoint, Change], Checkpoint] | None = None  # merges a change into the weights; None where that can't be
    # Tensors of each linear that it changes, with the allowed shapes, one letter a side: r is any rank.
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_LORA = {"lora_A.weight": ("rK",), "lora_B.weight": ("Nr",)}
# Every kind, by name.
KINDS: Mapping[str, DeltaKind] = {
    "lora": DeltaKind(partial(_merge_weights, _with_low_rank), _LORA),
    "dora": DeltaKind(partial(_merge_weights, _with_magnitude), {**_LORA, "lora_magnitude_vector": ("N",)}),
    "ia3": DeltaKind(_merge_ia3, {"ia3_l": ("N1", "1K")}),
    "bias": DeltaKind(_merge_bias, {"bias": ("N",)}),
    "full": DeltaKind(_merge_full),
    LAYERS_KIND: DeltaKind(_merge_layers),
    QUANTISED: DeltaKind(lambda of, change: _merged(of, {}, replaced=replaced(change.name, of.config, change.tensors))),
    cut_model.MASK: DeltaKind(_merge_mask),
    cut_model.SHAPE: DeltaKind(lambda of, change: cut_model.reshaped(of, change.name, change.tensors)),
    "bottleneck": DeltaKind(
        parts={"adapter_down.weight": ("rN",), "adapter_down.bias": ("r",), "adapter_up.weight": ("Nr",), "adapter_up.bias": ("N",)}
    ),
    "prefix": DeltaKind(),
    "prompt": DeltaKind(),
    **dict.fromkeys(ABILITIES, DeltaKind(lambda of, _: of)),
}
# Kinds that can be merged into the weights.
MERGED = tuple(name for name, kind in KINDS.items() if kind.merge is not None and name not in ABILITIES)
VIRTUAL = ("prefix", "prompt")  # kinds that put virtual tokens before every text
# The config flag that gives a linear a bias, by the beginning of its name; the first match counts.
_BIASES = {"self_attn.o_proj": "output_bias", "self_attn": "qkv_bias", "mlp": "mlp_bias"}


def _kind(change: Change) -> DeltaKind:
    if change.kind not in KINDS:
        raise DeltaError(f"delta {change.name}", f"must be of a known kind: {', '.join(KINDS)}", change.kind, "Update Ingle.")
    return KINDS[change.kind]


def parted(name: str, kinds: Sequence[str]) -> tuple[int, int]:
    """Return how a stack of these kinds is served: the number merged into the weights, and the number after these that stay beside them
    (one bottleneck, or any number of `lora`). One more may follow: virtual tokens. `name` is for messages.

    Raises DeltaError if a kind that can't be merged is not the last.
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
    """Return what changes beside the weights (see `parted`) add to each linear. `checkpoint`: the model that a bottleneck was made for.

    Low-rank additions are concatenated: their ranks add up. A bottleneck after y = W x + c, y + U relu(D y + d) + u, is rewritten in terms
    of x: A = D W, its bias D c + d, B = U; u becomes one more inner unit that is always 1. Raises DeltaError as `merged` does.
    """
    by_linear: dict[str, list[Addition]] = {}
    for change in changes:
        for linear, parts in linears_of(config, change).items():
            part = {name: values.astype(np.float32) for name, values in parts.items()}
            if change.kind == "lora":
                added = Addition(part["lora_A.weight"], part["lora_B.weight"])
            elif change.kind == "bottleneck" and len(changes) == 1 and checkpoint is not None:
                added = _seen_from_input(checkpoint, linear, part)
            else:
                raise DeltaError(f"delta {change.name}", "can't stay beside the weights, with others", change.kind)
            by_linear.setdefault(linear, []).append(added)
    return {
        linear: several[0]
        if len(several) == 1
        else Addition(np.concatenate([added.a for added in several]), np.concatenate([added.b for added in several], axis=1))
        for linear, several in by_linear.items()
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
    """Return the keys and values of a prefix or prompt, float32 [layers, groups, n, D]. Raises DeltaError for tensors that don't fit."""
    pair = []
    for part in ("prefix.keys", "prefix.values"):
        where = f"delta {change.name}, {part}"
        if part not in change.tensors:
            raise DeltaError(where, "is missing", "", "The delta is incomplete; make it again.")
        values = change.tensors[part].astype(np.float32)
        outer = (len(config.layers), config.num_kv_heads)
        if values.ndim != 4 or (*values.shape[:2], values.shape[3]) != (*outer, config.head_dim):
            raise DeltaError(where, f"must have shape ({outer[0]}, {outer[1]}, tokens, {config.head_dim})", values.shape)
        if not 0 < values.shape[2] < config.context_length:
            raise DeltaError(where, f"must hold 1 to {config.context_length - 1} tokens", values.shape[2])
        _check_finite(where, values)
        pair.append(values)
    if pair[0].shape != pair[1].shape:
        raise DeltaError(f"delta {change.name}", "must have as many keys as values", f"{pair[0].shape[2]} and {pair[1].shape[2]}")
    return pair[0], pair[1]


def linears_of(config: ModelConfig, change: Change) -> dict[str, dict[str, Array]]:
    """Return the tensors of a change to linears: by linear, then by part (`lora_A.weight`).

    Raises DeltaError for a kind that changes no linears, for unknown, missing, misshapen or non-finite parts, and for unknown linears.
    """
    part_names = _kind(change).parts
    if not part_names:
        raise DeltaError(f"delta {change.name}", f"must be of a known kind: {', '.join(KINDS)}", change.kind, "Update Ingle.")
    shapes, by_linear = linear_shapes(config), dict[str, dict[str, Array]]()
    for key, values in change.tensors.items():
        linear, part = next(((key.removesuffix(f".{part}"), part) for part in part_names if key.endswith(f".{part}")), ("", ""))
        if linear not in shapes:
            example = f"{next(iter(shapes))}.{next(iter(part_names))}"
            raise DeltaError(f"delta {change.name}, {key}", f"is no part of a change of kind {change.kind}", "", f"For example {example}.")
        by_linear.setdefault(linear, {})[part] = values
    for linear, parts in by_linear.items():
        _check_parts(f"delta {change.name}, {linear}", change.kind, shapes[linear], parts)
    return by_linear


def _check_parts(where: str, kind: str, shape: tuple[int, int], parts: Mapping[str, Array]) -> None:
    rank: int | None = None
    for part, patterns in KINDS[kind].parts.items():
        if part not in parts:
            raise DeltaError(f"{where}.{part}", "is missing", "", "The delta is incomplete; make it again.")
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


def _check_parameters(config: ModelConfig, change: Change) -> None:
    shapes = expected_shapes(config)
    for name, values in change.tensors.items():
        if name not in shapes:
            raise DeltaError(
                f"delta {change.name}, {name}", "must name a parameter of this model", "", f"For example {next(iter(shapes))}."
            )
        if values.shape != shapes[name]:
            raise DeltaError(f"delta {change.name}, {name}", f"must have shape {shapes[name]}", values.shape)
        _check_finite(f"delta {change.name}, {name}", values)


def _bias_flag(linear: str) -> str:
    place = linear.split(".", 3)[3]  # after model.layers.i
    return next(flag for beginning, flag in _BIASES.items() if place.startswith(beginning))
