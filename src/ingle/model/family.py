"""The contract of a family of models. To add one, put a file into model/families: its name is Hugging Face's `model_type`.

The file holds `FAMILY`. A family is a decoder like Llama, but for what its `Traits` say; there are no model classes beside it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core import registry
from ingle.core.errors import CheckpointError
from ingle.core.spec import DeltaRule, Experts, Mixer, ModelConfig, ShortConvolution, Ways
from ingle.model.fields import Fields
from ingle.model.tensor import Tensor, expected_shapes, turned_order


@dataclass(frozen=True, slots=True)
class Traits:
    """The parts in which models of a family differ, and the family's own ways, from a `config.json`."""

    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    windows: tuple[int, ...] = ()  # how far each layer looks back, 0 = to the beginning; () = all do that
    ways: Ways = Ways()  # noqa: RUF009 - frozen
    mixers: tuple[Mixer, ...] = ()  # each layer's mixer; () = attention in all
    convolution: ShortConvolution | None = None
    delta: DeltaRule | None = None
    experts: Experts | None = None


def plain(_fields: Fields, _layers: int) -> Traits:
    """A GGUF file of a family without ways of its own."""
    return Traits()


def no_keys(_fields: Fields) -> Mapping[str, Any]:
    """A family that has the usual keys."""
    return {}


@dataclass(frozen=True, slots=True)
class Family:
    """How checkpoints of one family are read and written."""

    architecture: str  # hugging Face's class
    # From a `config.json` with so many layers. Raises CheckpointError, naming the key, for all that Ingle can't run.
    traits: Callable[[Fields, int], Traits]
    table: Callable[[ModelConfig], Mapping[str, Any]]  # keys of a `config.json` beside those that all families have
    gguf: str = ""  # architecture in GGUF; "" = none is read
    # From GGUF's metadata, without the architecture's prefix. Biases and norms follow from the tensors.
    gguf_traits: Callable[[Fields, int], Traits] = plain
    # From a `config.json`: values under the keys that other families have them under.
    keys: Callable[[Fields], Mapping[str, Any]] = no_keys
    interleaved: bool = False  # in GGUF rows of q and k are ordered for a RoPE that turns neighbours
    head_dim: int = 0  # where `config.json` says nothing; 0 = hidden_size / num_attention_heads
    tied: bool = False  # whether the output matrix is the embedding where `config.json` says nothing
    part: float = 0.0  # part of each head that RoPE turns where `config.json` says nothing; 0 = it always turns all
    norm_offset: float = 0.0  # number that is added to the weights of norms in safetensors
    # Linears of a layer that lie in files as one, the rows of the first one first.
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # Names of modules or tensors by GGUF's, beside the usual ones, or instead of them.
    gguf_names: Mapping[str, str] = field(default_factory=dict)
    # Names of modules in files, by ours: of a layer's without `model.layers.N.`, of others whole.
    renamed: Mapping[str, str] = field(default_factory=dict)


# Names of a mixture's modules; all experts lie in one tensor there.
EXPERTS_IN_GGUF = {
    "ffn_gate_inp": "mlp.gate", "ffn_gate_exps": "mlp.experts.gate_proj", "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}  # fmt: skip


def attention_bias(fields: Fields) -> bool:
    """Whether q, k, v and output carry biases."""
    return fields.flag("attention_bias", False)


@cache
def families() -> Mapping[str, Family]:
    """Return all families by name."""
    return {name: file.FAMILY for name, file in registry.modules("ingle.model.families").items()}


def layer_types(fields: Fields, layers: int, usual: str = "full_attention", other: str = "sliding_attention") -> list[str]:
    """Return `layer_types`, checked; where it is not there, `usual` for all. Raises CheckpointError for kinds that there are not."""
    types = fields.texts("layer_types") or [usual] * layers
    if len(types) != layers:
        raise CheckpointError(f"{fields.where}: layer_types", f"must have num_hidden_layers = {layers} entries", len(types))
    if unknown := sorted(set(types) - {"full_attention", other}):
        raise CheckpointError(f"{fields.where}: layer_types", f"must be full_attention or {other}", ", ".join(unknown))
    return types


def mixers_of(fields: Fields, layers: int, other: str, mixer: Mixer) -> tuple[Mixer, ...]:
    """Return each layer's mixer by `layer_types`, in which `mixer` is called `other`. Raises as `layer_types` does."""
    return tuple("attention" if kind == "full_attention" else mixer for kind in layer_types(fields, layers, other=other))


def windows_of(fields: Fields, layers: int, usual: str = "full_attention") -> tuple[int, ...]:
    """Return each layer's window by `layer_types` and `sliding_window`. Raises as `layer_types` does, and for a window below 1."""
    types = layer_types(fields, layers, usual)
    if "sliding_attention" not in types:
        return ()
    window = fields.whole("sliding_window")
    if window < 1:
        raise CheckpointError(f"{fields.where}: sliding_window", "must be at least 1", window)
    return tuple(window if kind == "sliding_attention" else 0 for kind in types)


def no_windows(fields: Fields, layers: int) -> None:
    """Raise CheckpointError for layers with windows, in a family that has none."""
    if "sliding_attention" in layer_types(fields, layers):
        raise CheckpointError(f"{fields.where}: layer_types", "must be full_attention in this family", "sliding_attention")


def window_table(config: ModelConfig) -> dict[str, Any]:
    """Return `layer_types` and `sliding_window` of a config whose layers are whole."""
    windows = [spec.window if not spec.retrieval else 0 for spec in config.layers]
    types = ["sliding_attention" if window else "full_attention" for window in windows]
    return {"layer_types": types} | ({"sliding_window": max(windows)} if any(windows) else {})


# From tensors as a family's files have them to those that every model has, and back for export.


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
