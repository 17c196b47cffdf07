"""Writing a model as a Hugging Face folder that transformers, and `open_checkpoint`, open again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CheckpointError
from ingle.core.files import os_errors, sync_folder, write_atomic
from ingle.core.spec import ModelConfig
from ingle.model.checkpoint import expected_shapes
from ingle.model.config import config_to_hf
from ingle.model.tokenizer import TOKENIZER_FILE, Tokenizer

_DTYPES = {"float32": "float32", "float16": "float16"}  # NumPy's name → PyTorch's


def save_hf(folder: Path, config: ModelConfig, tensors: Mapping[str, npt.NDArray[Any]], tokenizer: Tokenizer | None = None) -> None:
    """Writes config.json, model.safetensors and the tokenizer's files.

    `tensors`: float32 or float16 by Hugging Face's name, all of one type. Raises ConfigError where Hugging Face has no class for the
    config, CheckpointError for tensors that do not fit it, HomeError where the folder cannot be written.
    """
    from safetensors.numpy import save_file

    expected = expected_shapes(config)
    for name, shape in expected.items():
        if name not in tensors or tensors[name].shape != shape:
            raise CheckpointError(name, f"must have shape {shape}", tensors[name].shape if name in tensors else "nothing")
    kinds = {str(tensors[name].dtype) for name in expected}
    if len(kinds) != 1 or not kinds <= _DTYPES.keys():
        raise CheckpointError("tensors", "must all be float32 or all float16", ", ".join(sorted(kinds)))
    table = config_to_hf(config, _DTYPES[kinds.pop()])
    if tokenizer is not None:
        table |= _special_ids(tokenizer)
        _save_tokenizer(folder, tokenizer)
    target, temporary = folder / "model.safetensors", folder / ".model.safetensors.part"
    with os_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: np.ascontiguousarray(tensors[name]) for name in expected}, temporary, {"format": "pt"})
        temporary.replace(target)
        sync_folder(folder)
    write_atomic(folder / "config.json", _json(table))


def _save_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers.processors import TemplateProcessing

    facts, name_of = tokenizer.facts, tokenizer.fast.id_to_token
    fast = FastTokenizer.from_str(tokenizer.fast.to_str())
    if facts.add_bos and facts.bos_id is not None and fast.post_processor is None:
        begin = name_of(facts.bos_id)
        fast.post_processor = TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, facts.bos_id)])
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    ids = {"bos_token": facts.bos_id, "eos_token": facts.eos_ids[0] if facts.eos_ids else None, "unk_token": facts.unknown_id}
    settings |= {name: name_of(token) for name, token in ids.items() if token is not None}
    settings["add_bos_token"] = facts.add_bos
    if facts.chat_template:
        settings["chat_template"] = facts.chat_template
    write_atomic(folder / TOKENIZER_FILE, fast.to_str(pretty=False).encode())
    write_atomic(folder / "tokenizer_config.json", _json(settings))
    write_atomic(folder / "generation_config.json", _json(_special_ids(tokenizer)))


def _special_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    ids: dict[str, Any] = {"bos_token_id": tokenizer.bos_id, "eos_token_id": list(tokenizer.facts.eos_ids) or None}
    return {name: value for name, value in ids.items() if value is not None}


def _json(table: Mapping[str, Any]) -> bytes:
    return json.dumps(table, indent=2, ensure_ascii=False).encode()
