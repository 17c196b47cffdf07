"""Qwen 2 and 2.5: biases of q, k and v, and windows in the upper layers where a file switches them on."""

from ingle.core.errors import CheckpointError
from ingle.core.spec import ModelConfig
from ingle.model.family import Family, Traits, window_table, windows_of
from ingle.model.fields import Fields


def windows(fields: Fields, layers: int) -> tuple[int, ...]:
    """Return each layer's window, by `layer_types` or by where windows begin. Raises CheckpointError for windows that are switched off."""
    on = fields.flag("use_sliding_window", False)
    types = fields.texts("layer_types")
    if types is None:
        first = fields.whole("max_window_layers", 28) if on and fields.table.get("sliding_window") is not None else layers
        types = ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]
    if not on and "sliding_attention" in types:
        rule = "must be full_attention where use_sliding_window is off"
        raise CheckpointError(f"{fields.where}: layer_types", rule, "sliding_attention")
    return windows_of(Fields({**fields.table, "layer_types": types}, fields.where), layers)


def traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    return Traits(qkv_bias=True, windows=windows(fields, layers))


def table(config: ModelConfig) -> dict[str, object]:
    """See `ingle.model.family.Family`."""
    return {} if config.is_transformer else {"use_sliding_window": True, "max_window_layers": 0, **window_table(config)}


FAMILY = Family("Qwen2ForCausalLM", traits, table, gguf="qwen2")
