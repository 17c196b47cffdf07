"""Write a model as a GGUF file for llama.cpp and `open_checkpoint`: the mirror of `from_gguf`.

GGUF's `llama` files hold the rows of q and k, and their biases, in the order in which llama.cpp's RoPE turns neighbours. Matrices are F32,
F16, Q8_0, or blocks as the model has them; vectors are always F32, as llama.cpp wants them.
Source: llama.cpp's `convert_hf_to_gguf.py` and `llama-model.cpp`.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError
from ingle.core.files import os_errors, sync_file, sync_folder
from ingle.core.spec import ModelConfig, Rope, Ways
from ingle.kernels import formats
from ingle.model.expected import expected_shapes
from ingle.model.export import narrowed
from ingle.model.from_gguf import INNER, OUTER
from ingle.model.rope import inverse_frequencies, yarn_attention
from ingle.model.tensor import Tensor

Array = npt.NDArray[Any]
GGUFKind = Literal["f16", "f32", "q8_0", "q4_1"]
"""`q4_1`: the linears of layers in Q4_1, the vocabulary in Q8_0, and the model's own blocks unchanged."""
_FILE_TYPES = {"f32": 0, "f16": 1, "q4_1": 3, "q8_0": 7}  # llama.cpp's llama_ftype
BLOCKS = ("Q4_0", "Q4_1", "Q8_0")
"""Block formats that are copied unchanged. GGUF has none for our own formats: they become Q8_0, so that they are not rounded to few bits
again."""
_PARTS = {theirs: ours for ours, theirs in (OUTER | INNER).items()}
_BIASES = {"llama": ("qkv_bias", "output_bias", "mlp_bias"), "qwen2": ("qkv_bias",), "qwen3": ()}
"""Biases that llama.cpp reads, by architecture."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tensor of the file."""

    name: str
    """GGUF's name."""
    shape: tuple[int, ...]
    kind: str
    """GGML's name for its type."""
    make: Callable[[], Array]
    """Returns the numbers, float32 of `shape`; for copied blocks, uint8 [rows, bytes]."""


def write_gguf(
    path: Path, config: ModelConfig, tensor: Callable[[str], Array], kind: GGUFKind, words: Mapping[str, Any], name: str,
    progress: Callable[[int, int], None] = lambda _done, _all: None, stored: Callable[[str], Tensor | None] = lambda _name: None,
) -> None:  # fmt: skip
    """Write the file, whole or not at all. `tensor` returns float32 by Hugging Face's name, one at a time; `words` are the tokenizer's
    keys. `stored`: the model's own tensor, which `q4_1` copies if its format is in `BLOCKS`.

    Raises ConfigError for a model that llama.cpp would run as another, CheckpointError for numbers that don't fit, HomeError.
    """
    import gguf

    check_config(config)
    entries = _entries(config, tensor, kind, stored)
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
    writer = gguf.GGUFWriter(temporary, config.family)
    try:
        with os_errors(path):
            _metadata(writer, config, kind, words, name)
            for entry in entries:
                _announce(writer, entry)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for done, entry in enumerate(entries):
                progress(done, len(entries))
                writer.write_tensor_data(_packed(entry))
            writer.close()
            sync_file(Path(temporary))
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
            sync_folder(path.parent)
        progress(len(entries), len(entries))
    finally:
        writer.close()
        Path(temporary).unlink(missing_ok=True)


def check_config(config: ModelConfig) -> None:
    """Raise ConfigError for a model that llama.cpp has no architecture for."""
    if not config.is_transformer:
        raise ConfigError("layers", "must all have full attention in a GGUF file", "a hybrid", "Serve it with Ingle.")
    if config.family not in _BIASES or config.ways != Ways():
        cure = "Write it as a Hugging Face folder."
        raise ConfigError("family", f"must be one of {', '.join(_BIASES)} in a GGUF file", config.family, cure)
    flags = {"qkv_bias": "q, k and v", "output_bias": "the attention's output", "mlp_bias": "the MLP"}
    for flag, what in flags.items():
        if getattr(config, flag) and flag not in _BIASES[config.family]:
            rule = f"of {what} are not read by llama.cpp in {config.family} files, so the model would answer differently"
            raise ConfigError("biases", rule, "", "Serve it with Ingle, or write it as a Hugging Face folder.")
    if config.qk_norm != (config.family == "qwen3"):
        raise ConfigError("qk_norm", f"is not what llama.cpp expects of {config.family}", config.qk_norm)


def gguf_name(name: str) -> str:
    """Return GGUF's name: `model.layers.3.self_attn.q_proj.weight` → `blk.3.attn_q.weight`."""
    stem, _, ending = name.rpartition(".")
    if stem in _PARTS:
        return f"{_PARTS[stem]}.{ending}"
    _, _, number, part = stem.split(".", 3)
    return f"blk.{number}.{_PARTS[part]}.{ending}"


def _entries(
    config: ModelConfig, tensor: Callable[[str], Array], kind: GGUFKind, stored: Callable[[str], Tensor | None]
) -> list[_Entry]:  # fmt: skip
    def make_values(name: str, blocks: Tensor | None) -> Array:
        values = np.asarray(tensor(name), np.float32) if blocks is None else np.asarray(blocks.raw)
        if config.family == "llama":
            for part, heads in ((".q_proj.", config.num_heads), (".k_proj.", config.num_kv_heads)):
                if part in name:
                    values = _interleaved(values, heads)
        return values

    entries = []
    for name, shape in expected_shapes(config).items():
        blocks = stored(name) if kind == "q4_1" else None
        stored_kind = blocks.kind if blocks is not None else ""
        blocks = blocks if blocks is not None and blocks.kind in BLOCKS else None
        theirs = blocks.kind if blocks is not None else _kind_of(name, shape, "q8_0" if stored_kind in formats.BYTES_16 else kind)
        entries.append(_Entry(gguf_name(name), shape, theirs, partial(make_values, name, blocks)))
    if config.rope.kind == "llama3":  # llama.cpp reads the divisors, not the rule that they follow
        plain = inverse_frequencies(replace(config, rope=Rope(config.rope.theta)))[0]
        divisors = (plain / inverse_frequencies(config)[0]).astype(np.float32)
        entries.append(_Entry("rope_freqs.weight", divisors.shape, "F32", lambda: divisors))
    return entries


def _kind_of(name: str, shape: tuple[int, ...], kind: GGUFKind) -> str:
    """Return GGML's name for a tensor's new type."""
    if len(shape) != 2:
        return "F32"
    if kind in ("f16", "f32"):
        return kind.upper()
    if shape[1] % 32:
        return "F16"
    return "Q8_0" if kind == "q8_0" or ".layers." not in name else "Q4_1"


def _interleaved(values: Array, heads: int) -> Array:
    """Move rows i and i + head_dim/2 of a head to 2i and 2i+1, as llama.cpp's `permute` does; for weights and biases alike."""
    shape = values.shape
    return values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def _announce(writer: Any, entry: _Entry) -> None:
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import quant_shape_to_byte_shape

    member = GGMLQuantizationType[entry.kind]
    if entry.kind in BLOCKS:
        shape = quant_shape_to_byte_shape(entry.shape, member)
        writer.add_tensor_info(entry.name, shape, np.dtype(np.uint8), int(np.prod(shape)), raw_dtype=member)
        return
    dtype = np.dtype(np.float32 if entry.kind == "F32" else np.float16)
    writer.add_tensor_info(entry.name, entry.shape, dtype, int(np.prod(entry.shape)) * dtype.itemsize, raw_dtype=member)


def _packed(entry: _Entry) -> Array:
    values_or_blocks = entry.make()
    if values_or_blocks.dtype == np.uint8:
        return np.ascontiguousarray(values_or_blocks)
    values = narrowed(values_or_blocks, "float16" if entry.kind == "F16" else "float32", entry.name)
    if entry.kind not in BLOCKS:
        return np.ascontiguousarray(values)
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import quantize

    packed: Array = quantize(values, GGMLQuantizationType[entry.kind])
    return packed


def _metadata(writer: Any, config: ModelConfig, kind: GGUFKind, words: Mapping[str, Any], name: str) -> None:
    from gguf.constants import RopeScalingType

    writer.add_name(name)
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_block_count(len(config.layers))
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    rope = config.rope
    writer.add_rope_freq_base(rope.theta)
    if rope.kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(rope.kind))
        writer.add_rope_scaling_factor(rope.factor)
    if rope.kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope.original_context)
        writer.add_rope_scaling_yarn_beta_fast(rope.beta_fast)
        writer.add_rope_scaling_yarn_beta_slow(rope.beta_slow)
        writer.add_rope_scaling_attn_factors(rope.attention_factor / yarn_attention(rope.factor))
    for key, value in words.items():
        _add(writer, key, value)


def _add(writer: Any, key: str, value: Any) -> None:
    """Add one of the tokenizer's keys, in its value's type."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif len(value):  # the library can't tell what an empty list is of
        writer.add_array(key, value.tolist() if isinstance(value, np.ndarray) else list(value))
