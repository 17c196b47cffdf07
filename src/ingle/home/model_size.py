"""Sizes that follow from a model's shape: parameters, bytes of a file by the kind of its quantisation, and what a token reads.

The rules are those of llama.cpp's quantiser (llama-quant.cpp). A real file differs by its tokenizer's texts: sizes are good to 2 %.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

# Bits of a weight by the kind of its blocks, in the file and as the kernels read it.
BITS = {"Q4_1": 5.0, "Q4_K": 4.5, "Q5_K": 5.5, "Q6_K": 6.5625, "Q8_0": 8.5, "BF16": 16.0}
_WORD_BYTES = 40  # bytes of the file for each word of the vocabulary: text, type, merges
_CACHE_BYTES = 2  # float16


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Numbers on which a dense transformer's size depends."""

    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = True  # whether the embedding is the output matrix, too
    fused: bool = False  # whether q, k and v are one matrix in the file, as in Phi

    @property
    def parameters(self) -> int:
        """Weights of all matrices."""
        return sum(count for _, _, count in _matrices(self))


def _matrices(shape: ModelShape) -> Iterator[tuple[str, int, int]]:
    """Yield each matrix: its part in a layer, the layer's number (0 outside of layers), and its weights."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield ("tied" if shape.tied else "embedding"), 0, shape.vocabulary * shape.hidden
    if not shape.tied:
        yield "output", 0, shape.vocabulary * shape.hidden
    for i in range(shape.layers):
        if shape.fused:
            yield "qkv", i, shape.hidden * (queries + 2 * keys)
        else:
            yield "q", i, shape.hidden * queries
            yield "k", i, shape.hidden * keys
            yield "v", i, shape.hidden * keys
        yield "o", i, queries * shape.hidden
        yield "gate and up", i, 2 * shape.hidden * shape.mlp
        yield "down", i, shape.mlp * shape.hidden


def _q4_k_m(part: str, layer: int, layers: int) -> str:
    """Return the kind of one matrix in a Q4_K_M: half of v and down in six bits, and what makes the logits."""
    if part in ("tied", "output"):
        return "Q6_K"
    if part == "qkv":
        return "Q5_K"
    first = layers // 8
    more = layer < first or layer >= 7 * layers // 8 or (layer - first) % 3 == 2
    return "Q6_K" if part in ("v", "down") and more else "Q4_K"


# Which kind of blocks a matrix has, by the name of a file's quantisation. Q4_1 is that of the embedded model; BF16 is no quantisation, but
# what safetensors mostly hold.
QUANTISATIONS: Mapping[str, Callable[[str, int, int], str]] = {
    "Q4_K_M": _q4_k_m,
    "Q8_0": lambda _part, _layer, _layers: "Q8_0",
    "BF16": lambda _part, _layer, _layers: "BF16",
    "Q4_1": lambda part, _layer, _layers: "Q8_0" if part in ("tied", "output") else "Q4_1",
}


def read_bytes(shape: ModelShape, quantisation: str) -> dict[str, int]:
    """Return the bytes of weights that one token reads, by kind. Of an embedding that is not the output, a token reads one row: nothing."""
    return _bytes(shape, quantisation, without="embedding")


def file_bytes(shape: ModelShape, quantisation: str) -> int:
    """Return about the bytes of a GGUF file."""
    return sum(_bytes(shape, quantisation).values()) + _WORD_BYTES * shape.vocabulary


def cache_bytes(shape: ModelShape, tokens: int) -> int:
    """Return the bytes of keys and values of so many tokens in float16, all of them kept."""
    return 2 * _CACHE_BYTES * shape.layers * shape.kv_heads * shape.head_dim * tokens


def _bytes(shape: ModelShape, quantisation: str, without: str = "") -> dict[str, int]:
    rule, bits = QUANTISATIONS[quantisation], Counter[str]()
    for part, layer, count in _matrices(shape):
        if part != without:
            kind = rule(part, layer, shape.layers)
            bits[kind] += int(count * BITS[kind])
    return {kind: total // 8 for kind, total in bits.items()}
