"""Models of several parts, as Idefics3 and SmolVLM: their language model is read as any other, and their eye's weights are kept apart."""

from collections.abc import Mapping
from typing import Any

from ingle.model.fields import Fields
from ingle.model.tensor import Tensor

COMPOSITES = ("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration")
_TYPES = ("idefics3", "smolvlm")
_TEXT, _EYE = "model.text_model.", ("model.vision_model.", "model.connector.")


def is_composite(table: Mapping[str, Any], where: str = "config.json") -> bool:
    """Return whether a `config.json` is one of these models'."""
    names = Fields(table, where).texts("architectures")
    return any(name in COMPOSITES for name in names) if names else table.get("model_type") in _TYPES


def text_table(table: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], str]:
    """Return the language model's part of a `config.json`, and what to call it in errors; any other model's unchanged."""
    if not is_composite(table, where):
        return table, where
    fields = Fields(table, where)
    # The text part says so too, and transformers doesn't look there; its `architectures` is a class that nobody has.
    tied = {"tie_word_embeddings": fields.flag("tie_word_embeddings", False)}
    text = {key: value for key, value in fields.table_of("text_config").items() if key != "architectures"}
    return {"model_type": "llama", **text, **tied}, f"{where}: text_config"


def parted_tensors(table: Mapping[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the language model's tensors under the usual names, and those of the eye."""
    if not is_composite(table):
        return tensors, {}
    eye = {name: tensor for name, tensor in tensors.items() if name.startswith(_EYE)}
    text = {name: tensor for name, tensor in tensors.items() if name not in eye}
    return {"model." + name.removeprefix(_TEXT) if name.startswith(_TEXT) else name: tensor for name, tensor in text.items()}, eye
