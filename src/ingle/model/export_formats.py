"""Write a model as a Hugging Face folder for transformers and `open_checkpoint`."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CheckpointError, ConfigError
from ingle.core.files import atomic_file, os_errors, sync_file, sync_folder, write_atomic
from ingle.core.progress import Counted, silent
from ingle.core.spec import ModelConfig, Rope, Ways
from ingle.kernels import formats
from ingle.model.family import whole_of
from ingle.model.gguf import INNER, OUTER
from ingle.model.hf_config import config_to_hf, config_to_own, inverse_frequencies, yarn_attention
from ingle.model.tensor import Tensor, expected_shapes
from ingle.model.tokenizer import PRE_TOKENIZERS, TOKENIZER_FILE, Tokenizer, tokenizer_from_gguf

Array = npt.NDArray[Any]
Dtype = Literal["float32", "float16"]
_KINDS: dict[str, str] = {"float32": "F32", "float16": "F16"}  # NumPy's and PyTorch's name → safetensors'


def write_hf(
    folder: Path, config: ModelConfig, tensor: Callable[[str], Array], dtype: Dtype, tokenizer: Tokenizer | None = None,
    progress: Counted = silent, own: bool = False,
) -> None:  # fmt: skip
    """Write config.json, model.safetensors and the tokenizer's files. `tensor` makes a tensor by Hugging Face's name, one at a time.

    `own`: under Ingle's own architecture, which may be any hybrid.
    Raises ConfigError where Hugging Face has no class for the config, CheckpointError for a tensor that doesn't fit it or a number that is
    too large, HomeError where the folder can't be written.
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


# Write a model as a GGUF file for llama.cpp and `open_checkpoint`: the mirror of `from_gguf`.
# GGUF's `llama` files hold the rows of q and k, and their biases, in the order in which llama.cpp's RoPE turns neighbours. Matrices are
# F32, F16, Q8_0, or blocks as the model has them; vectors are always F32, as llama.cpp wants them. Source: llama.cpp's
# `convert_hf_to_gguf.py` and `llama-model.cpp`.


# `q4_1`: the linears of layers in Q4_1, the vocabulary in Q8_0, and the model's own blocks unchanged.
GGUFKind = Literal["f16", "f32", "q8_0", "q4_1"]
_FILE_TYPES = {"f32": 0, "f16": 1, "q4_1": 3, "q8_0": 7}  # llama.cpp's llama_ftype
# Block formats that are copied unchanged. GGUF has none for our own formats: they become Q8_0, so that they are not rounded to few bits
# again.
BLOCKS = ("Q4_0", "Q4_1", "Q8_0")
_PARTS = {theirs: ours for ours, theirs in (OUTER | INNER).items()}
# Biases that llama.cpp reads, by architecture.
_BIASES = {"llama": ("qkv_bias", "output_bias", "mlp_bias"), "qwen2": ("qkv_bias",), "qwen3": ()}


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tensor of the file."""

    name: str  # GGUF's name
    shape: tuple[int, ...]
    kind: str  # GGML's name for its type
    make: Callable[[], Array]  # returns the numbers, float32 of `shape`; for copied blocks, uint8 [rows, bytes]


def write_gguf(
    path: Path, config: ModelConfig, tensor: Callable[[str], Array], kind: GGUFKind, words: Mapping[str, Any], name: str,
    progress: Counted = silent, stored: Callable[[str], Tensor | None] = lambda _name: None,
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


# A tokenizer as GGUF's metadata: the mirror of `tokenizer_gguf`.
# GGUF has no room for a pre-tokenizer's pattern, only for a name that llama.cpp knows. The right name is found by trying: the metadata are
# read back under each known name, and must split test texts exactly as the tokenizer does. A tokenizer without such a name is refused,
# because llama.cpp would read other tokens than the model was trained on.


_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)  # llama.cpp's llama_token_type
_TEXTS = (
    "Hello, WORLD! it's 12345 o'clock; we'LL see 3.14 and 1234567890.", "  leading and   multiple  spaces\n\n\ttabs ", "\r\n\r\n a\r\nb ",
    "Grüße aus München, où l'été naïf 日本語テキスト 中文字符 это текст 한국어 שלום 🎉 👩‍👩‍👧",
    "camelCase snake_case x=[1,22,333]; //!?--\n}",
    "½ ² Ⅷ ٣ e\u0301 \u0301 zero\u200bwidth $100 50% a^b <b>|x|~", "ALLCAPS'S don't DON'T 'tis ''", "",
)  # fmt: skip
_CURE = "Write a Hugging Face folder, and convert that with llama.cpp's own script."


def words_of(tokenizer: Tokenizer, vocab_size: int, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `tokenizer.*` keys of a GGUF file: those of `metadata` where the model came from one, else made from the tokenizer.

    Raises CheckpointError for a tokenizer that llama.cpp has no name for.
    """
    existing = {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}
    if existing:
        return existing
    table = json.loads(tokenizer.fast.to_str())
    words = _vocabulary(tokenizer, table, vocab_size)
    for more in _candidates(tokenizer, table, words["tokenizer.ggml.tokens"], words["tokenizer.ggml.token_type"]):
        candidate = {**words, **more}
        if _same(tokenizer, candidate):
            return candidate
    raise CheckpointError("tokenizer", "must be one that llama.cpp knows by name", "another way to split texts", _CURE)


def _vocabulary(tokenizer: Tokenizer, table: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    facts = tokenizer.facts
    added = {token["id"]: token for token in table["added_tokens"]}
    tokens, kinds = [], []
    for i in range(vocab_size):
        token = tokenizer.fast.id_to_token(i)
        tokens.append(f"[PAD{i}]" if token is None else token)
        kinds.append(_UNUSED if token is None else _kind(token, added.get(i), facts.kind == "pieces", i == facts.unknown_id))
    words: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2" if facts.kind == "bytes" else "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.add_bos_token": facts.add_bos,
    }
    ids = {"bos": facts.bos_id, "eos": facts.eos_ids[0] if facts.eos_ids else None, "unknown": facts.unknown_id}
    words |= {f"tokenizer.ggml.{name}_token_id": token for name, token in ids.items() if token is not None}
    if facts.chat_template:
        words["tokenizer.chat_template"] = facts.chat_template
    return words


def _kind(token: str, added: Mapping[str, Any] | None, pieces: bool, unknown: bool) -> int:
    if unknown and pieces:
        return _UNKNOWN
    if added is not None:
        return _CONTROL if added["special"] else _USER
    is_byte = pieces and len(token) == 6 and token.startswith("<0x") and token.endswith(">")
    return _BYTE if is_byte else _NORMAL


def _candidates(tokenizer: Tokenizer, table: Mapping[str, Any], tokens: list[str], kinds: list[int]) -> Iterator[dict[str, Any]]:
    """Yield every possible set of keys beside the vocabulary."""
    merges = [merge.split(" ", 1) if isinstance(merge, str) else list(merge) for merge in table["model"]["merges"]]
    if tokenizer.facts.kind == "bytes":
        merge_keys = {"tokenizer.ggml.merges": [" ".join(merge) for merge in merges]}
        yield from ({"tokenizer.ggml.pre": name, **merge_keys} for name in PRE_TOKENIZERS)
        return
    rank: dict[str, int] = {}
    for i, (left, right) in enumerate(merges):
        rank.setdefault(left + right, i)
    last = len(merges)
    scores = [-float(rank.get(token, last)) if kind == _NORMAL else 0.0 for token, kind in zip(tokens, kinds, strict=True)]
    yield {
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.add_space_prefix": tokenizer.facts.space_prefix,
    }


def _same(tokenizer: Tokenizer, words: Mapping[str, Any]) -> bool:
    numbers = ("tokenizer.ggml.token_type", "tokenizer.ggml.scores")
    typed = {key: np.asarray(value) if key in numbers else value for key, value in words.items()}
    try:
        other = tokenizer_from_gguf(typed)
    except CheckpointError:
        return False
    return all(tokenizer.encode(text) == other.encode(text) for text in _TEXTS)
