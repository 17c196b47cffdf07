"""SmolLM3: Llama with layers that know no positions, every fourth."""

from typing import Any

from ingle.core.errors import CheckpointError
from ingle.core.spec import ModelConfig, Ways
from ingle.model.family import Family, Traits, attention_bias, windows_of
from ingle.model.fields import Fields

_EVERY = 4


def unturned(layers: int, every: int = _EVERY) -> tuple[int, ...]:
    """Return every n-th layer."""
    return tuple(range(every - 1, layers, every))


def traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    said = fields.table.get("no_rope_layers")  # 1 = with positions
    every = fields.whole("no_rope_layer_interval", _EVERY)
    if every < 1:
        raise CheckpointError(f"{fields.where}: no_rope_layer_interval", "must be at least 1", every)
    without = unturned(layers, every)
    if said:
        if not isinstance(said, list) or len(said) != layers or not all(one in (0, 1) for one in said):
            raise CheckpointError(f"{fields.where}: no_rope_layers", f"must be {layers} numbers, 0 or 1", repr(said)[:80])
        without = tuple(i for i, turned in enumerate(said) if not turned)
    bias, sliding = attention_bias(fields), fields.flag("use_sliding_window", False)
    windows = windows_of(fields, layers) if sliding else ()
    return Traits(bias, bias, fields.flag("mlp_bias", False), windows=windows, ways=Ways(unturned=without))


def table(config: ModelConfig) -> dict[str, Any]:
    """See `ingle.model.family.Family`."""
    turned = [int(i not in config.ways.unturned) for i in range(len(config.layers))]
    biases = {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}
    return {**biases, "no_rope_layers": turned, "pad_token_id": None}  # transformers' own id lies beyond a small vocabulary


def gguf_traits(_fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`; llama.cpp knows every fourth layer only."""
    return Traits(ways=Ways(unturned=unturned(layers)))


FAMILY = Family("SmolLM3ForCausalLM", traits, table, "smollm3", gguf_traits, interleaved=True, tied=True)
