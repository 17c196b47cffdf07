"""Convert GGUF to a `ModelConfig` and tensors with Hugging Face's names.

GGUF's `llama` files store the rows of q and k so that RoPE turns neighbours (2i, 2i+1); Hugging Face's turns (i, i + d/2). The rows
are put back as raw bytes, so quantised blocks, which lie along the columns, stay as they are. `qwen2` and `qwen3` are not permuted.
Source: llama.cpp's `convert_hf_to_gguf.py` (`permute`, `rope_freqs`), `gguf-py/gguf/constants.py`.
"""

import itertools
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CheckpointError
from ingle.core.spec import LayerSpec, ModelConfig, Rope
from ingle.model.family import families, parts_of
from ingle.model.fields import Fields
from ingle.model.hf_config import blame_checkpoint, check_rope, full_layers, llama3_from_factors, mixing, norm_eps, yarn_attention
from ingle.model.tensor import Tensor, decode, expected_shapes

# The header of a GGUF file, read without the weights and without trusting any length in it.
# The gguf library's own reader makes a NumPy object for each of 100,000 token strings (2.4 s for SmolLM2) and lets struct and NumPy errors
# out on damaged files; this one takes 0.1 s and raises CheckpointError. Sizes of quantised blocks are the library's. Source: ggml's
# docs/gguf.md, versions 2 and 3, little-endian.


_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_CURE = "The file is damaged or incomplete; pull it again."


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """One tensor's place. `shape` is (rows, columns) or (n,): GGUF writes it the other way round."""

    shape: tuple[int, ...]
    # GGML's name for its type, e.g. `Q4_1`.
    kind: str
    data: npt.NDArray[np.uint8]  # its bytes, memory-mapped: [rows, bytes per row], or [bytes]
    begin: int  # its first byte in the file


@dataclass(frozen=True, slots=True)
class GGUF:
    """A GGUF file's metadata (numbers, strings, lists of strings, arrays of numbers) and tensors, by GGUF's names."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]


class Stored(Protocol):
    """The bytes of a GGUF file, wherever they lie."""

    path: Path  # for messages
    head: mmap.mmap  # the file from its first byte, at least as far as its header goes
    nbytes: int  # of the whole file

    def span(self, begin: int, size: int) -> npt.NDArray[np.uint8]:
        """Return bytes of the file, which are within it."""


class Mapped:
    """A file as it lies on disk."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError if it can't be read."""
        self.path = path
        try:
            with path.open("rb") as file:
                self.head = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file can't be mapped
            raise CheckpointError(str(path), "must be a readable GGUF file", error, _CURE) from error
        self.nbytes = len(self.head)

    def span(self, begin: int, size: int) -> npt.NDArray[np.uint8]:
        """Return bytes of the file."""
        return np.frombuffer(self.head, np.uint8, size, begin)


def read_gguf(stored: Stored) -> GGUF:
    """Read the header and map the tensors. Raises CheckpointError for whatever is wrong; the file may be hostile."""
    path, buffer = stored.path, stored.head
    cursor = _Cursor(path, buffer)
    if bytes(buffer[:4]) != b"GGUF":
        cure = "Name a GGUF file, or a folder with config.json and safetensors."
        raise CheckpointError(str(path), "must begin with GGUF's magic bytes", bytes(buffer[:4]), cure)
    cursor.at = 4
    version = cursor.scalar("<I", "version")
    if version not in (2, 3):
        raise CheckpointError(f"{path}: version", "must be 2 or 3, little-endian", version, "Convert the file with a current llama.cpp.")
    tensor_count, key_count = cursor.count("tensor count", 24), cursor.count("key count", 13)
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.string("key")
        if key in metadata:
            raise CheckpointError(f"{path}: {key}", "must not be there twice", "", _CURE)
        metadata[key] = cursor.value(cursor.scalar("<I", key), key)
    infos = [_tensor_info(cursor) for _ in range(tensor_count)]
    return GGUF(path, metadata, _map_tensors(stored, cursor.at, infos, metadata.get("general.alignment", 32)))


class _Cursor:
    """A position in the header. Each method reads one thing and moves on; none reads past the end of the file."""

    def __init__(self, path: Path, buffer: mmap.mmap) -> None:
        self.path, self.buffer, self.at = path, buffer, 0

    def need(self, size: int, what: str) -> None:
        if size > len(self.buffer) - self.at:
            rule = f"needs {size} bytes at {self.at}, but the file ends at {len(self.buffer)}"
            raise CheckpointError(f"{self.path}: {what}", rule, "", _CURE)

    def scalar(self, form: str, what: str) -> Any:
        size = struct.calcsize(form)
        self.need(size, what)
        (value,) = struct.unpack_from(form, self.buffer, self.at)
        self.at += size
        return value

    def count(self, what: str, least_bytes: int) -> int:
        """Return a number of things of at least `least_bytes` each, which must fit into the rest of the file."""
        number: int = self.scalar("<Q", what)
        self.need(number * least_bytes, f"{what} {number}")
        return number

    def string(self, what: str) -> str:
        size = self.count(what, 1)
        data = self.buffer[self.at : self.at + size]
        self.at += size
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.path}: {what}", "must be UTF-8", error, _CURE) from error

    def value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self.string(key)
        if kind == _ARRAY:
            return self.array(key)
        if kind not in _SCALARS:
            raise CheckpointError(f"{self.path}: {key}", "is of a type that GGUF does not have", kind, _CURE)
        return self.scalar(_SCALARS[kind], key)

    def array(self, key: str) -> Any:
        kind = self.scalar("<I", key)
        if kind == _STRING:
            return [self.string(key) for _ in range(self.count(key, 8))]
        if kind not in _SCALARS:
            raise CheckpointError(f"{self.path}: {key}", "must be an array of numbers or strings", f"type {kind}", _CURE)
        dtype = np.dtype(np.bool_ if kind == 7 else _SCALARS[kind])
        length = self.count(key, dtype.itemsize)
        numbers = np.frombuffer(self.buffer, dtype, length, self.at) if length else np.zeros(0, dtype)
        self.at += length * dtype.itemsize
        return numbers


@dataclass(frozen=True, slots=True)
class _Info:
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def _tensor_info(cursor: _Cursor) -> _Info:
    name = cursor.string("tensor name")
    dimensions = cursor.scalar("<I", name)
    if not 1 <= dimensions <= 3:
        raise CheckpointError(f"{cursor.path}: {name}", "must have one to three dimensions", dimensions, _CURE)
    shape = tuple(cursor.scalar("<Q", name) for _ in range(dimensions))[::-1]
    if min(shape) < 1:
        raise CheckpointError(f"{cursor.path}: {name}", "must not be empty", shape, _CURE)
    return _Info(name, shape, cursor.scalar("<I", name), cursor.scalar("<Q", name))


def _map_tensors(stored: Stored, header: int, infos: list[_Info], alignment: Any) -> dict[str, GGUFTensor]:
    """Check kinds, sizes, ends and overlaps of all tensors, then return them. `header`: its bytes."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    path, size = stored.path, stored.nbytes
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise CheckpointError(f"{path}: general.alignment", "must be a power of two", alignment, _CURE)
    start = -(-header // alignment) * alignment
    names = {member.value: member for member in GGMLQuantizationType}
    tensors: dict[str, GGUFTensor] = {}
    spans = []
    for info in infos:
        member = names.get(info.kind)
        if member is None:
            raise CheckpointError(f"{path}: {info.name}", "is of a type that GGML does not have", info.kind, "Update the gguf library.")
        block, block_bytes = GGML_QUANT_SIZES[member]
        columns = info.shape[-1]
        if columns % block:
            raise CheckpointError(f"{path}: {info.name}", f"must have columns in blocks of {block} for {member.name}", columns, _CURE)
        row_bytes, rows = columns // block * block_bytes, math.prod(info.shape[:-1])
        begin, end = start + info.offset, start + info.offset + rows * row_bytes
        if end > size:
            raise CheckpointError(f"{path}: {info.name}", f"ends at byte {end}, but the file ends at {size}", "", _CURE)
        if info.offset % alignment or info.name in tensors:
            raise CheckpointError(f"{path}: {info.name}", f"must be there once, at a multiple of {alignment}", info.offset, _CURE)
        flat = stored.span(begin, rows * row_bytes)
        data = flat.reshape(rows, row_bytes) if len(info.shape) > 1 else flat
        tensors[info.name] = GGUFTensor(info.shape, member.name, data, begin)
        spans.append((begin, end, info.name))
    spans.sort()
    for (_, end, first), (begin, _, second) in itertools.pairwise(spans):
        if begin < end:
            raise CheckpointError(f"{path}: {second}", "must not overlap another tensor", first, _CURE)
    return tensors


# Tensors of GGUF that hold the numbers of ours in another form.


_EXPERTS = ".mlp.experts."


def as_ours(config: ModelConfig, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return experts apart, taps with their middle dimension of 1, and logarithms of the decays: all of them lie otherwise in GGUF.

    Raises CheckpointError for another number of experts, and decays that are none.
    """
    shapes, found = expected_shapes(config), dict[str, Tensor]()
    for name, tensor in tensors.items():
        shape = shapes.get(name, ())
        if _EXPERTS in name:
            found |= _apart(config, tensor, where)
        elif len(shape) == 3 and tensor.shape == (shape[0], shape[2]):
            found[name] = replace(tensor, shape=shape)
        elif name.endswith(".A_log"):
            found[name] = _logarithms(tensor, where)
        else:
            found[name] = tensor
    return found


def _apart(config: ModelConfig, tensor: Tensor, where: str) -> dict[str, Tensor]:
    """Return each expert's linear; its rows are mapped as before."""
    head, _, tail = tensor.name.partition(_EXPERTS)
    count = config.experts.count if config.experts else 0
    if len(tensor.shape) != 3 or tensor.shape[0] != count:
        raise CheckpointError(f"{where}: {tensor.name}", f"must hold {count} experts, one after the other", tensor.shape)
    rows, apart = tensor.shape[1], dict[str, Tensor]()
    for number in range(count):
        name = f"{head}{_EXPERTS}{number}.{tail}"
        apart[name] = Tensor(name, tensor.shape[1:], tensor.kind, tensor.raw[number * rows : (number + 1) * rows])
    return apart


def _logarithms(tensor: Tensor, where: str) -> Tensor:
    decays = tensor.to_float32()
    if not (decays < 0).all():
        raise CheckpointError(f"{where}: {tensor.name}", "must hold numbers below 0, minus the decays", float(decays.max()))
    return replace(tensor, kind="F32", data=np.log(-decays).view(np.uint8))


OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
INNER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "attn_qkv": "self_attn.qkv_proj", "post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip


def tensors_from_gguf(gguf: GGUF) -> tuple[ModelConfig, dict[str, Tensor], dict[str, int]]:
    """Return config, tensors by Hugging Face's name, and the numbers of heads of tensors with interleaved rows."""
    path, config = gguf.path, config_from_gguf(gguf)
    tensors, own = dict[str, Tensor](), {**INNER, **families()[config.family].gguf_names}
    for name, stored in gguf.tensors.items():
        if name.startswith(("rope_freqs.", "rope_factors_")) or _is_ahead(name, config):  # read into the config; not needed
            continue
        hf_name = _hf_name(name, own)
        if hf_name is None or hf_name in tensors:
            raise CheckpointError(
                f"{path}: {name}", f"is not a tensor of a {config.family} model", "", "This model has parts that Ingle would leave out."
            )
        tensors[hf_name] = Tensor(hf_name, stored.shape, stored.kind, stored.data)
    tensors = parts_of(config, as_ours(config, tensors, str(path)))
    heads: dict[str, int] = {}
    if families()[config.family].interleaved:
        for name in tensors:
            for part, count in ((".q_proj.", config.num_heads), (".k_proj.", config.num_kv_heads)):
                if part in name:
                    heads[name] = count
    return config, tensors, heads


def config_from_gguf(gguf: GGUF) -> ModelConfig:
    """Return the `ModelConfig` of a GGUF file. Raises CheckpointError, naming the key, for all that Ingle cannot run."""
    where = str(gguf.path)
    name, prefix = _family(Fields(gguf.metadata, where))
    fields = Fields({k.removeprefix(prefix): v for k, v in gguf.metadata.items() if k.startswith(prefix)}, f"{where}: {prefix[:-1]}")
    hidden, heads, context = fields.whole("embedding_length"), fields.whole("attention.head_count"), fields.whole("context_length")
    kv_heads = _groups(fields, heads)
    head_dim = fields.whole("attention.key_length", hidden // max(heads, 1))
    turned = fields.whole("rope.dimension_count", head_dim)
    for key, value in (("attention.value_length", fields.whole("attention.value_length", head_dim)), ("rope.dimension_count", turned)):
        if value != head_dim and (key == "attention.value_length" or not families()[name].part or value < 2):
            raise CheckpointError(f"{where}: {prefix}{key}", f"must be the head's width {head_dim}", value)
    count = fields.whole("block_count") - fields.whole("nextn_predict_layers", 0)
    layers = full_layers(count, kv_heads, where)
    with blame_checkpoint(where):
        traits = families()[name].gguf_traits(fields, count)
    if fields.whole("expert_count", 0) and traits.experts is None:
        raise CheckpointError(f"{where}: {prefix}expert_count", "must be 0 in this family", fields.whole("expert_count"))
    ways, layers = traits.ways, mixing(layers, traits)
    window = fields.whole("attention.sliding_window", 0)
    if ways.local and 0 < window < context:
        layers = tuple(LayerSpec((), window) if i in ways.local else layer for i, layer in enumerate(layers))
    elif 0 < window < context:
        raise CheckpointError(f"{where}: {prefix}attention.sliding_window", "must be off", window)
    names = gguf.tensors
    if "token_embd.weight" not in names:
        raise CheckpointError(f"{where}: token_embd.weight", "is missing", "", "The file is incomplete; pull it again.")
    vocab_size = names["token_embd.weight"].shape[0]
    tokens = gguf.metadata.get("tokenizer.ggml.tokens", ())
    if not isinstance(tokens, list | tuple) or len(tokens) > vocab_size:
        got = f"{len(tokens)} tokens" if isinstance(tokens, list | tuple) else type(tokens).__name__
        raise CheckpointError(f"{where}: tokenizer.ggml.tokens", f"must be at most the embedding's {vocab_size} rows", got)
    rope = _rope(gguf, fields, head_dim, context)
    attention = f"blk.{next((i for i, spec in enumerate(layers) if spec.mixer == 'attention'), 0)}"
    with blame_checkpoint(where):
        return ModelConfig(
            family=name,
            vocab_size=vocab_size,
            hidden_size=hidden,
            intermediate_size=fields.whole("feed_forward_length"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            layers=layers,
            context_length=rope.original_context if rope.kind == "longrope" else context,
            rope=rope,
            norm_eps=_shortest(norm_eps(fields, "attention.layer_norm_rms_epsilon")),
            tie_embeddings="output.weight" not in names,
            qkv_bias=f"{attention}.attn_q.bias" in names,
            output_bias=f"{attention}.attn_output.bias" in names,
            mlp_bias="blk.0.ffn_gate.bias" in names,
            qk_norm=f"{attention}.attn_q_norm.weight" in names,
            ways=ways if turned == head_dim else replace(ways, turned=turned),
            convolution=traits.convolution,
            delta=traits.delta,
            experts=traits.experts,
        )


def _family(top: Fields) -> tuple[str, str]:
    """Return a file's family, and the prefix of its keys."""
    architecture = top.text("general.architecture")
    known_ones = {family.gguf: name for name, family in families().items() if family.gguf}
    if architecture not in known_ones:
        known = f"Known: {', '.join(known_ones)}."
        raise CheckpointError(f"{top.where}: general.architecture", "is not an architecture that Ingle knows", architecture, known)
    if top.whole("split.count", 1) > 1:
        raise CheckpointError(f"{top.where}: split.count", "must be 1", top.whole("split.count"), "Merge it with llama-gguf-split --merge.")
    return known_ones[architecture], f"{architecture}."


def _groups(fields: Fields, heads: int) -> int:
    """Return the number of key-value groups: the most of any layer, where each layer has a number of its own."""
    if not isinstance(fields.table.get("attention.head_count_kv"), np.ndarray):
        return fields.whole("attention.head_count_kv", heads)
    counts = fields.numbers("attention.head_count_kv")
    if counts is None or not len(counts) or len({int(count) for count in counts if count}) != 1:
        raise CheckpointError(f"{fields.where}.attention.head_count_kv", "must be one number, but for layers without attention", counts)
    return int(max(counts))


def _is_ahead(name: str, config: ModelConfig) -> bool:
    """Return whether a tensor is of a layer behind the model's own: those guess the tokens after the next."""
    number = name.split(".")[1] if name.startswith("blk.") else ""
    return number.isdecimal() and int(number) >= len(config.layers)


def _rope(gguf: GGUF, fields: Fields, head_dim: int, context: int) -> Rope:
    theta = _shortest(fields.number("rope.freq_base", 10_000.0))
    kind = fields.text("rope.scaling.type", "none")
    factor = _shortest(fields.number("rope.scaling.factor", fields.number("rope.scale_linear", 1.0)))
    short = gguf.tensors.get("rope_factors_short.weight")
    if short is not None:
        if short.kind != "F32" or len(short.shape) != 1:
            raise CheckpointError(f"{gguf.path}: rope_factors_short.weight", "must be an F32 vector", f"{short.kind} {short.shape}")
        original, scale = fields.whole("rope.scaling.original_context_length", context), fields.number("rope.scaling.attn_factor", 1.0)
        own = tuple(map(float, decode("F32", short.data)))
        return check_rope(Rope(theta, "longrope", 1.0, original, attention_factor=scale, divisors=own), fields.where)
    divisors = gguf.tensors.get("rope_freqs.weight")
    if divisors is not None:
        if divisors.kind != "F32" or len(divisors.shape) != 1 or kind != "none":
            got = f"{divisors.kind} {divisors.shape}, scaling {kind}"
            raise CheckpointError(f"{gguf.path}: rope_freqs.weight", "must be an F32 vector, without another scaling", got)
        check_rope(Rope(theta), fields.where)
        return check_rope(llama3_from_factors(decode("F32", divisors.data), theta, head_dim, context, str(gguf.path)), fields.where)
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return check_rope(Rope(theta, "linear", factor) if factor != 1.0 else Rope(theta), fields.where)
    if kind == "linear":
        return check_rope(Rope(theta, "linear", factor), fields.where)
    if kind != "yarn" or fields.number("rope.scaling.yarn_log_multiplier", 0.0):
        raise CheckpointError(f"{fields.where}.rope.scaling.type", "must be none, linear or (plain) yarn", kind)
    fast, slow = fields.number("rope.scaling.yarn_beta_fast", 32.0), fields.number("rope.scaling.yarn_beta_slow", 1.0)
    original = fields.whole("rope.scaling.original_context_length", context)
    attention = fields.number("rope.scaling.attn_factor", 1.0) * yarn_attention(factor)
    return check_rope(Rope(theta, "yarn", factor, original, beta_fast=fast, beta_slow=slow, attention_factor=attention), fields.where)


def _shortest(value: float) -> float:
    """Return the decimal that someone typed before it became a float32: 9.999999747378752e-06 → 1e-05."""
    return float(str(np.float32(value))) if math.isfinite(np.float32(value)) else value


def _hf_name(name: str, inner: Mapping[str, str]) -> str | None:
    """Return Hugging Face's name: `blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`; None for an unknown one."""
    head, _, rest = name.partition(".")
    number, _, part = rest.partition(".")
    in_layer = head == "blk" and number.isdecimal()
    layer, whole = (f"model.layers.{int(number)}.", part) if in_layer else ("", name)
    names = inner if in_layer else {**OUTER, **inner}
    if whole in names:
        return layer + names[whole]
    stem, _, ending = whole.rpartition(".")
    return f"{layer}{names[stem]}.{ending}" if ending in ("weight", "bias") and stem in names else None
