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
from ingle.core.spec import ModelConfig, Ways
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


def plain(_fields: Fields, _layers: int) -> Ways:
    """A GGUF file of a family without ways of its own."""
    return Ways()


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
    gguf_ways: Callable[[Fields, int], Ways] = plain
    """From GGUF's metadata, without the architecture's prefix."""
    interleaved: bool = False
    """In GGUF rows of q and k are ordered for a RoPE that turns neighbours."""
    head_dim: int = 0
    """Where `config.json` says nothing; 0 = hidden_size / num_attention_heads."""
    tied: bool = False
    """Whether the output matrix is the embedding where `config.json` says nothing."""
    partial: bool = False
    """Whether RoPE may turn only a part of each head."""
    norm_offset: float = 0.0
    """Number that is added to the weights of norms in safetensors."""
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Linears of a layer that lie in files as one, the rows of the first one first."""


def attention_bias(fields: Fields) -> bool:
    """Whether q, k, v and output carry biases."""
    return fields.flag("attention_bias", False)


@cache
def families() -> Mapping[str, Family]:
    """Return all families by name."""
    import ingle.model.families as folder

    names = sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
    return {name: import_module(f"ingle.model.families.{name}").FAMILY for name in names}


def layer_types(fields: Fields, layers: int, usual: str = "full_attention") -> list[str]:
    """Return `layer_types`, checked; where it is not there, `usual` for all. Raises CheckpointError for kinds that there are not."""
    types = fields.texts("layer_types") or [usual] * layers
    if len(types) != layers:
        raise CheckpointError(f"{fields.where}: layer_types", f"must have num_hidden_layers = {layers} entries", len(types))
    if unknown := sorted(set(types) - {"full_attention", "sliding_attention"}):
        raise CheckpointError(f"{fields.where}: layer_types", "must be full_attention or sliding_attention", ", ".join(unknown))
    return types


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
