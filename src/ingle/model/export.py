"""Write a model as a Hugging Face folder for transformers and `open_checkpoint`."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CheckpointError
from ingle.core.files import atomic_file, write_atomic
from ingle.core.spec import ModelConfig
from ingle.model.config import config_to_hf, config_to_own
from ingle.model.expected import expected_shapes
from ingle.model.fused import whole_of
from ingle.model.tokenizer import TOKENIZER_FILE, Tokenizer

Array = npt.NDArray[Any]
Dtype = Literal["float32", "float16"]
_KINDS: dict[str, str] = {"float32": "F32", "float16": "F16"}  # NumPy's and PyTorch's name → safetensors'


def save_hf(folder: Path, config: ModelConfig, tensors: Mapping[str, Array], tokenizer: Tokenizer | None = None) -> None:
    """Write config.json, model.safetensors and the tokenizer's files.

    `tensors`: float32 or float16 by Hugging Face's name, all of one type. Raises ConfigError where Hugging Face has no class for the
    config, CheckpointError for tensors that do not fit it, HomeError where the folder cannot be written.
    """
    expected = expected_shapes(config)
    for name, shape in expected.items():
        if name not in tensors or tensors[name].shape != shape:
            raise CheckpointError(name, f"must have shape {shape}", tensors[name].shape if name in tensors else "nothing")
    kinds = {str(tensors[name].dtype) for name in expected}
    if len(kinds) != 1 or not kinds <= _KINDS.keys():
        raise CheckpointError("tensors", "must all be float32 or all float16", ", ".join(sorted(kinds)))
    write_hf(folder, config, tensors.__getitem__, "float16" if kinds == {"float16"} else "float32", tokenizer)


def write_hf(
    folder: Path, config: ModelConfig, tensor: Callable[[str], Array], dtype: Dtype, tokenizer: Tokenizer | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None, own: bool = False,
) -> None:  # fmt: skip
    """Do `save_hf` with tensors that are made on demand, one at a time. Raises the same, also for a number that is too large.

    `own`: under Ingle's own architecture, which may be any hybrid.
    """
    table = config_to_own(config, dtype) if own else config_to_hf(config, dtype)
    if tokenizer is not None:
        table |= _special_ids(tokenizer)
        _save_tokenizer(folder, tokenizer)
    whole, header, offset = whole_of(config, tensor), dict[str, Any](), 0
    if own:
        whole = {name: (shape, partial(tensor, name)) for name, shape in expected_shapes(config).items()}
    for name, (shape, _) in whole.items():
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        header[name] = {"dtype": _KINDS[dtype], "shape": list(shape), "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    head = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    head += b" " * (-len(head) % 8)
    with atomic_file(folder / "model.safetensors") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for done, (name, (shape, make)) in enumerate(whole.items()):
            progress(done, len(whole))
            values = narrowed(make(), dtype, name)
            if values.shape != shape:
                raise CheckpointError(name, f"must have shape {shape}", values.shape)
            file.write(np.ascontiguousarray(values).data)
    progress(len(whole), len(whole))
    write_atomic(folder / "config.json", _json(table))


def narrowed(values: Array, dtype: Dtype, name: str) -> Array:
    """Return the numbers in that type. Raises CheckpointError if one is too large for it or not finite."""
    with np.errstate(over="ignore"):
        narrow: Array = values.astype("<f4" if dtype == "float32" else "<f2", copy=False)
    if not np.isfinite(narrow).all():
        cure = "Write it as f32." if dtype == "float16" and np.isfinite(values).all() else "The weights are damaged."
        raise CheckpointError(name, f"must hold finite numbers in {dtype}", "NaN, infinity, or too large a number", cure)
    return narrow


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
