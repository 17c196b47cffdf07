"""Mistral 7B and its like: Llama, in the first version with one window for all layers. GGUF files call it llama."""

from typing import Any

from ingle.core.spec import ModelConfig
from ingle.model.family import Family, Traits, window_table, windows_of
from ingle.model.fields import Fields


def traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    usual = "full_attention" if fields.table.get("sliding_window") is None else "sliding_attention"
    return Traits(windows=windows_of(fields, layers, usual))


def table(config: ModelConfig) -> dict[str, Any]:
    """See `ingle.model.family.Family`."""
    windows = window_table(config)
    return {"sliding_window": windows.get("sliding_window")} | ({} if len(set(windows["layer_types"])) == 1 else windows)


FAMILY = Family("MistralForCausalLM", traits, table)
