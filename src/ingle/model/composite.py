"""Models of several parts: their language model is read as any other. The eye of Idefics3 and SmolVLM is kept apart; what other models have
beside words is left out, which `left_out` tells."""

from collections.abc import Iterable, Mapping
from typing import Any

from ingle.model.fields import Fields
from ingle.model.tensor import Tensor

COMPOSITES = ("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration")
_TYPES = ("idefics3", "smolvlm")
WORDS_ONLY = {"Gemma3ForConditionalGeneration": "gemma3_text", "Qwen3_5ForConditionalGeneration": "qwen3_5_text"}
"""Architectures of which the language model alone is run, and its family."""
_WORDS = ("model.language_model.", "language_model.model.")
_HEADS = ("language_model.lm_head.",)
_LEFT_OUT = {"visual": "eyes", "vision_tower": "eyes", "multi_modal_projector": "eyes", "mtp": "guesses of later tokens"}
"""Parts of these that are left out, by the module's name, with or without `model.` before it."""
_TEXT, _EYE = "model.text_model.", ("model.vision_model.", "model.connector.")


def is_composite(table: Mapping[str, Any], where: str = "config.json") -> bool:
    """Return whether a `config.json` is one of these models'."""
    names = Fields(table, where).texts("architectures")
    return any(name in COMPOSITES for name in names) if names else table.get("model_type") in _TYPES


def text_table(table: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], str]:
    """Return the language model's part of a `config.json`, and what to call it in errors; any other model's unchanged."""
    fields = Fields(table, where)
    family = _words_only(table, where)
    if family is not None:
        text = {key: value for key, value in fields.table_of("text_config").items() if key != "architectures"}
        tied = {} if table.get("tie_word_embeddings") is None else {"tie_word_embeddings": table["tie_word_embeddings"]}
        return {**text, **tied, "model_type": family}, f"{where}: text_config"
    if not is_composite(table, where):
        return table, where
    # The text part says so too, and transformers doesn't look there; its `architectures` is a class that nobody has.
    tied = {"tie_word_embeddings": fields.flag("tie_word_embeddings", False)}
    text = {key: value for key, value in fields.table_of("text_config").items() if key != "architectures"}
    return {"model_type": "llama", **text, **tied}, f"{where}: text_config"


def parted_tensors(table: Mapping[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the language model's tensors under the usual names, and those of the eye."""
    if _words_only(table) is not None:
        return {_name(name): tensor for name, tensor in tensors.items() if _part(name) not in _LEFT_OUT}, {}
    if not is_composite(table):
        return tensors, {}
    eye = {name: tensor for name, tensor in tensors.items() if name.startswith(_EYE)}
    text = {name: tensor for name, tensor in tensors.items() if name not in eye}
    return {"model." + name.removeprefix(_TEXT) if name.startswith(_TEXT) else name: tensor for name, tensor in text.items()}, eye


def left_out(table: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return what of a model is not run, in words, by its `config.json` and the names of its tensors; "" = all of it is run."""
    if _words_only(table) is None:
        return ""
    return " and ".join(sorted({_LEFT_OUT[part] for part in map(_part, names) if part in _LEFT_OUT}))


def _words_only(table: Mapping[str, Any], where: str = "config.json") -> str | None:
    """Return the family of a model whose language model alone is run; None for any other."""
    return next((WORDS_ONLY[name] for name in Fields(table, where).texts("architectures") or () if name in WORDS_ONLY), None)


def _part(name: str) -> str:
    return name.removeprefix("model.").partition(".")[0]


def _name(name: str) -> str:
    """Return a tensor's usual name."""
    for prefix in _WORDS:
        if name.startswith(prefix):
            return "model." + name.removeprefix(prefix)
    return name.removeprefix("language_model.") if name.startswith(_HEADS) else name
