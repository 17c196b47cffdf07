"""The contract of a family of models. To add one, put a file into model/families: its name is Hugging Face's `model_type`.

The file holds `FAMILY`. A family is a decoder like Llama, but for what its `Traits` say; there are no model classes beside it.
"""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from ingle.core.errors import CheckpointError
from ingle.core.spec import DeltaRule, Experts, Mixer, ModelConfig, ShortConvolution, Ways
from ingle.model.fields import Fields


@dataclass(frozen=True, slots=True)
class Traits:
    """The parts in which models of a family differ, and the family's own ways, from a `config.json`."""

    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    windows: tuple[int, ...] = ()
    """How far each layer looks back, 0 = to the beginning; () = all do that."""
    ways: Ways = Ways()  # noqa: RUF009 - frozen
    mixers: tuple[Mixer, ...] = ()
    """Each layer's mixer; () = attention in all."""
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

    architecture: str
    """Hugging Face's class."""
    traits: Callable[[Fields, int], Traits]
    """From a `config.json` with so many layers. Raises CheckpointError, naming the key, for all that Ingle can't run."""
    table: Callable[[ModelConfig], Mapping[str, Any]]
    """Keys of a `config.json` beside those that all families have."""
    gguf: str = ""
    """Architecture in GGUF; "" = none is read."""
    gguf_traits: Callable[[Fields, int], Traits] = plain
    """From GGUF's metadata, without the architecture's prefix. Biases and norms follow from the tensors."""
    keys: Callable[[Fields], Mapping[str, Any]] = no_keys
    """From a `config.json`: values under the keys that other families have them under."""
    interleaved: bool = False
    """In GGUF rows of q and k are ordered for a RoPE that turns neighbours."""
    head_dim: int = 0
    """Where `config.json` says nothing; 0 = hidden_size / num_attention_heads."""
    tied: bool = False
    """Whether the output matrix is the embedding where `config.json` says nothing."""
    part: float = 0.0
    """Part of each head that RoPE turns where `config.json` says nothing; 0 = it always turns all."""
    norm_offset: float = 0.0
    """Number that is added to the weights of norms in safetensors."""
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Linears of a layer that lie in files as one, the rows of the first one first."""
    gguf_names: Mapping[str, str] = field(default_factory=dict)
    """Names of modules or tensors by GGUF's, beside the usual ones, or instead of them."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Names of modules in files, by ours: of a layer's without `model.layers.N.`, of others whole."""


EXPERTS_IN_GGUF = {
    "ffn_gate_inp": "mlp.gate", "ffn_gate_exps": "mlp.experts.gate_proj", "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}  # fmt: skip
"""Names of a mixture's modules; all experts lie in one tensor there."""


def attention_bias(fields: Fields) -> bool:
    """Whether q, k, v and output carry biases."""
    return fields.flag("attention_bias", False)


@cache
def families() -> Mapping[str, Family]:
    """Return all families by name."""
    import ingle.model.families as folder

    names = sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
    return {name: import_module(f"ingle.model.families.{name}").FAMILY for name in names}


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
