"""One tensor of a checkpoint: its raw rows as they lie in the file, and their meaning."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CheckpointError
from ingle.core.spec import LayerSpec, ModelConfig
from ingle.kernels import formats

PLAIN_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True, eq=False)
class Later:
    """Bytes that are made again whenever they are asked for: see model/lean_checkpoint.py."""

    nbytes: int
    make: Callable[[], npt.NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A named tensor whose bytes are mapped, not copied."""

    name: str  # hugging Face's parameter name
    shape: tuple[int, ...]  # (rows, columns) or (n,)
    kind: str  # GGML's name for the type: `F32`, `F16`, `BF16`, `Q8_0`, `Q4_1`, …; or our own `Q4_16` and `Q3_16` (kernels/formats.py)
    # [rows, bytes per row], or [bytes] for a vector; read-only. Quantised blocks lie along the columns.
    data: npt.NDArray[np.uint8] | Later

    @property
    def raw(self) -> npt.NDArray[np.uint8]:
        """The bytes of `data`."""
        return self.data.make() if isinstance(self.data, Later) else self.data

    @property
    def nbytes(self) -> int:
        """How many bytes `raw` has; none is made for it."""
        return self.data.nbytes

    def to_float32(self) -> npt.NDArray[np.float32]:
        """Return the numbers, float32 of `shape`, in their own memory."""
        return decode(self.kind, self.raw).reshape(self.shape)

    def row_chunks(self, chunk_bytes: int = 1 << 22) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the numbers some rows at a time, so that a large tensor needs little memory."""
        rows = np.atleast_2d(self.raw)
        step = max(1, chunk_bytes // max(rows.shape[1], 1))
        for start in range(0, len(rows), step):
            yield decode(self.kind, rows[start : start + step])


def decode(kind: str, raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Decode raw bytes [..., bytes per row] → float32 [..., columns]. The kind was checked when the checkpoint was opened."""
    if kind == "F32":
        return np.array(np.ascontiguousarray(raw).view("<f4"), np.float32)
    if kind == "F16":
        return np.ascontiguousarray(raw).view("<f2").astype(np.float32)
    if kind == "BF16":
        return (np.ascontiguousarray(raw).view("<u2").astype(np.uint32) << 16).view(np.float32)
    if kind in formats.BYTES_16:
        return formats.decode(kind, raw)
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    numbers: npt.NDArray[np.float32] = dequantize(raw, GGMLQuantizationType[kind])
    return numbers


def check_kind(kind: str, name: str) -> None:
    """Raise CheckpointError unless `decode` can read this kind."""
    if kind in PLAIN_BYTES or _decodes(kind):
        return
    from gguf.constants import GGMLQuantizationType

    known = [*PLAIN_BYTES, *(member.name for member in GGMLQuantizationType if member.name not in PLAIN_BYTES and _decodes(member.name))]
    raise CheckpointError(name, "is of a type that cannot be decoded", kind, f"Known: {', '.join(known)}.")


@cache
def _decodes(kind: str) -> bool:
    """Return whether the gguf library dequantises this kind, by trying it on one block of zeros."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    if kind not in GGMLQuantizationType.__members__:
        return False
    member = GGMLQuantizationType[kind]
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[member][1]), np.uint8), member)
    except NotImplementedError:
        return False
    return True


# The tensors that a model with a config has: names, shapes, and the order of rows that RoPE wants.


# Ending of the parameter for a memory's fill level. Older hybrids lack it; it is then 0.
AGE = ".age"


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return every tensor of a model with this config, in order: Hugging Face's name → (rows, columns) or (n,)."""
    hidden = config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    (first, second), (of_attention, of_mlp) = config.ways.norm_names
    for i, spec in enumerate(config.layers):
        layer = f"model.layers.{i}"
        shapes |= _norm(layer, first, hidden) | _MIXERS[spec.mixer](layer, config, spec)
        shapes |= _norm(layer, of_attention, hidden) | _norm(layer, second, hidden)
        shapes |= _inner(f"{layer}.mlp", config, i) | _norm(layer, of_mlp, hidden)
    shapes["model.norm.weight"] = (hidden,)
    if not config.tie_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


def row_order(config: ModelConfig, name: str, rows: int, heads: int | None) -> npt.NDArray[np.int64] | None:
    """Return where each row comes from in the file; None = the rows lie as we have them. `heads`: see `Checkpoint.interleaved`."""
    if (order := turned_order(config, name, rows)) is not None or heads is None:
        return order
    # llama.cpp's permutation: within a head, rows 2i and 2i+1 go to i and i + head_dim/2. Raw bytes are moved, so it is exact.
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)


def turned_order(config: ModelConfig, name: str, rows: int) -> npt.NDArray[np.int64] | None:
    """Return where each row of q, k or their norm comes from; None for another tensor, and where RoPE turns whole heads.

    RoPE turns the first `ways.turned` numbers of a head in pairs (i, i + turned/2): halves of them go to the beginnings of the head's
    halves, so that pairs are (i, i + head_dim/2), and what is not turned lies behind. Gates stay where they are.
    """
    dim, turned, part = config.head_dim, config.ways.turned, name.split(".")[-2]
    if not turned or part not in ("q_proj", "k_proj", "q_norm", "k_norm"):
        return None
    one, rest = np.arange(dim), np.arange(turned, dim)
    half = (dim - turned) // 2
    order = np.concatenate([one[: turned // 2], rest[:half], one[turned // 2 : turned], rest[half:]])
    if part == "q_proj" and config.ways.gated:
        order = np.concatenate([order, np.arange(dim, 2 * dim)])
    result: npt.NDArray[np.int64] = (np.arange(0, rows, len(order))[:, None] + order).reshape(-1)
    return result


def _attention(layer: str, config: ModelConfig, spec: LayerSpec) -> dict[str, tuple[int, ...]]:
    name, hidden = f"{layer}.self_attn", config.hidden_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    of_heads = {"q": queries, "k": keys} if config.ways.whole_norm else dict.fromkeys("qk", config.head_dim)
    shapes: dict[str, tuple[int, ...]] = {}
    for part, rows in (("q", queries * (1 + config.ways.gated)), ("k", keys), ("v", keys)):
        shapes |= _linear(f"{name}.{part}_proj", rows, hidden, config.qkv_bias)
    if config.qk_norm:
        shapes |= {f"{name}.{part}_norm.weight": (size,) for part, size in of_heads.items()}
    shapes |= _linear(f"{name}.o_proj", hidden, queries, config.output_bias)
    return shapes | _memory(f"{name}.memory", config, len(spec.remembering(config.num_kv_heads)))


def _convolution(layer: str, config: ModelConfig, _spec: LayerSpec) -> dict[str, tuple[int, ...]]:
    name, hidden, own = f"{layer}.conv", config.hidden_size, config.convolution
    assert own is not None, "ModelConfig checks it"
    taps: dict[str, tuple[int, ...]] = {f"{name}.conv.weight": (hidden, 1, own.length)}
    taps |= {f"{name}.conv.bias": (hidden,)} if own.bias else {}
    return taps | _linear(f"{name}.in_proj", 3 * hidden, hidden, own.bias) | _linear(f"{name}.out_proj", hidden, hidden, own.bias)


def _delta(layer: str, config: ModelConfig, _spec: LayerSpec) -> dict[str, tuple[int, ...]]:
    name, hidden, own = f"{layer}.linear_attn", config.hidden_size, config.delta
    assert own is not None, "ModelConfig checks it"
    heads, values = own.value_heads, own.value_heads * own.dim
    shapes: dict[str, tuple[int, ...]] = {f"{name}.dt_bias": (heads,), f"{name}.A_log": (heads,)}
    shapes[f"{name}.conv1d.weight"] = (own.channels, 1, own.length)
    shapes[f"{name}.norm.weight"] = (own.dim,)
    for part, rows in (("qkv", own.channels), ("z", values), ("b", heads), ("a", heads)):
        shapes |= _linear(f"{name}.in_proj_{part}", rows, hidden, False)
    return shapes | _linear(f"{name}.out_proj", hidden, values, False)


_MIXERS = {"attention": _attention, "convolution": _convolution, "delta": _delta}


def _inner(name: str, config: ModelConfig, index: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a layer's MLP or of its experts."""
    experts = config.experts_at(index)
    if experts is None:
        return _mlp(name, config.hidden_size, config.intermediate_size, config.mlp_bias)
    shapes = _linear(f"{name}.gate", experts.count, config.hidden_size, False)
    for number in range(experts.count):
        shapes |= _mlp(f"{name}.experts.{number}", config.hidden_size, experts.width, False)
    return shapes


def _mlp(name: str, hidden: int, width: int, bias: bool) -> dict[str, tuple[int, ...]]:
    shapes = _linear(f"{name}.gate_proj", width, hidden, bias) | _linear(f"{name}.up_proj", width, hidden, bias)
    return shapes | _linear(f"{name}.down_proj", hidden, width, bias)


def _memory(name: str, config: ModelConfig, groups: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a layer's recurrent memories, one for each of so many groups, in order; see `model.module_parts`."""
    dim = config.head_dim
    maps: dict[str, tuple[int, ...]] = {f"{name}.{part}.weight": (groups * dim, dim) for part in ("q_map", "k_map")}
    for part, rows, columns in (("decay", groups, 2 * dim), ("write", groups, 2 * dim), ("gate", groups * config.queries_per_group, dim)):
        maps |= _linear(f"{name}.{part}", rows, columns, True)
    return maps | {name + AGE: (groups * config.queries_per_group,)} if groups else {}


def _norm(layer: str, name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{layer}.{name}.weight": (size,)} if name else {}


def _linear(name: str, rows: int, columns: int, bias: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (rows, columns)}
    return shapes | {f"{name}.bias": (rows,)} if bias else shapes


# Sizes of a model, from its config alone: how many numbers it holds, and where.


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Numbers of parameters."""

    whole: int  # all of them; an output matrix that is the embedding counts once
    layer: int  # those of one layer, on average
    head: int  # those of the output matrix
    largest: int  # those of the largest tensor
    layers: int  # number of layers
    read: int  # those that a token is multiplied with: of experts, those that it is given to


def size_of(config: ModelConfig) -> ModelSize:
    """Count the parameters of a model of this config."""
    counts = {name: math.prod(shape) for name, shape in expected_shapes(config).items()}
    layers = sum(count for name, count in counts.items() if name.startswith("model.layers."))
    experts = sum(count for name, count in counts.items() if ".mlp.experts." in name)
    idle = round(experts * (1 - config.experts.chosen / config.experts.count)) if config.experts else 0
    head, count = config.vocab_size * config.hidden_size, len(config.layers)
    return ModelSize(sum(counts.values()), layers // count, head, max(counts.values()), count, head + layers - idle)
