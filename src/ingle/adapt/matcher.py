"""A small cross-encoder that scores whether two questions ask the same of the same thing. In NumPy.

Both questions go in together, one number comes out. It is BERT's encoder (arXiv 1810.04805, post-norm, learnt positions) in the width
of MiniLM (arXiv 2002.10957) and half its depth, with mean pooling and one linear unit on top. `bench/adapt_matcher.py` trained it from
all-MiniLM-L6-v2 on questions that were written for it, in the four bits of the file beside this one. Its vocabulary holds the pieces
that English questions need. A pair takes some milliseconds, and few pairs get so far (adapt/scope.py). Differs from the source: tanh
instead of erf in GELU, because NumPy has it; it was trained so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from threadpoolctl import ThreadpoolController
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece

Array = npt.NDArray[Any]
FOLDER = Path(__file__).parent
WEIGHTS_FILE, VOCABULARY_FILE = "matcher.safetensors", "matcher_vocabulary.txt"
HEADS = 12
LONGEST = 64
"""Most tokens of a question; a longer one is cut."""
GROUP = 128
"""Weights of a row that share a scale."""
_EPSILON = 1e-12
_SMALLEST = 1e-6  # of scales: float16 has some below, of few digits
_SCALE = ".scale"
_REMEMBERED = 4096
"""Pairs whose scores are cached."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """A trained cross-encoder. Thread-safe."""

    tokenizer: Tokenizer
    weights: Mapping[str, Array]
    """float32, by the names of Hugging Face's `BertModel`, and `head.weight` [1, width], `head.bias` [1]."""

    def score(self, question: str, other: str) -> float:
        """Return the log odds that two questions ask the same. Pairs are not batched, so that no other pair changes a score."""
        ids, segments = self.row(question, other)
        with _pools().limit(limits=1, user_api="blas"):  # beside a decoder, two threads that wait for each other take fifty times as long
            mean = encode(self.weights, ids, segments).mean(0)
        return float((self.weights["head.weight"] @ mean + self.weights["head.bias"])[0])

    def row(self, question: str, other: str) -> tuple[Array, Array]:
        """Return tokens and segments, int64 [tokens]: `[CLS] question [SEP] other [SEP]`."""
        start, end = self.tokenizer.token_to_id("[CLS]"), self.tokenizer.token_to_id("[SEP]")
        first, second = (self.tokenizer.encode(text).ids[:LONGEST] for text in (question, other))
        ids = [start, *first, end, *second, end]
        return np.array(ids), np.repeat([0, 1], [len(first) + 2, len(second) + 1])


def encode(weights: Mapping[str, Array], ids: Array, segments: Array) -> Array:
    """Return BERT's last states, float32 [tokens, width], for tokens and their segments, int64 [tokens]."""
    x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.token_type_embeddings.weight"][segments]
    x = _norm(x + weights["embeddings.position_embeddings.weight"][: len(ids)], weights, "embeddings.LayerNorm")
    number = 0
    while (name := f"encoder.layer.{number}") + ".output.dense.weight" in weights:
        x = _norm(x + _attention(x, weights, f"{name}.attention"), weights, f"{name}.attention.output.LayerNorm")
        wide = _gelu(_linear(x, weights, f"{name}.intermediate.dense"))
        x = _norm(x + _linear(wide, weights, f"{name}.output.dense"), weights, f"{name}.output.LayerNorm")
        number += 1
    return x


def _attention(x: Array, weights: Mapping[str, Array], name: str) -> Array:
    tokens, width = x.shape
    q, k, v = (
        _linear(x, weights, f"{name}.self.{part}").reshape(tokens, HEADS, -1).transpose(1, 0, 2) for part in ("query", "key", "value")
    )
    scores = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(width // HEADS))
    share = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (share / share.sum(-1, keepdims=True)) @ v
    return _linear(mixed.transpose(1, 0, 2).reshape(tokens, width), weights, f"{name}.output.dense")


def _linear(x: Array, weights: Mapping[str, Array], name: str) -> Array:
    y: Array = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return y


def _norm(x: Array, weights: Mapping[str, Array], name: str) -> Array:
    x = x - x.mean(-1, keepdims=True)
    unit: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(_EPSILON))
    return unit * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _gelu(x: Array) -> Array:
    bent: Array = 1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x))
    return np.float32(0.5) * x * bent


def tokenizer_of(vocabulary: Sequence[str]) -> Tokenizer:
    """Return a WordPiece tokenizer over these pieces, in lower case and without accents, as BERT's."""
    tokenizer = Tokenizer(WordPiece({piece: number for number, piece in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def rounded(values: Array) -> tuple[Array, Array]:
    """Quantise a matrix: return codes −7 … 7, int8 [rows, groups, GROUP], and float16 scales [rows, groups, 1]."""
    groups = values.reshape(len(values), -1, GROUP)
    scale = np.maximum(np.abs(groups).max(-1, keepdims=True) / 7, _SMALLEST).astype(np.float16)
    return np.clip(np.rint(groups / scale.astype(np.float32)), -7, 7).astype(np.int8), scale


def quantised(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Quantise every matrix of several rows (see `rounded`): two codes a byte, scales beside them. The rest stays float32."""
    tensors = dict[str, Array]()
    for name, values in weights.items():
        if values.ndim == 1 or len(values) == 1:
            tensors[name] = values.astype(np.float32)
            continue
        codes, scale = rounded(values)
        flat = (codes.reshape(len(values), -1) + 8).astype(np.uint8)
        tensors[name], tensors[name + _SCALE] = flat[:, ::2] | flat[:, 1::2] << 4, scale
    return tensors


def dequantised(stored: Mapping[str, Array]) -> dict[str, Array]:
    """Return the float32 weights of what `quantised` stored."""
    tensors = dict[str, Array]()
    for name, values in stored.items():
        if name.endswith(_SCALE):
            continue
        if name + _SCALE in stored:
            codes = np.stack([values & 15, values >> 4], -1).astype(np.float32) - 8
            scale = stored[name + _SCALE].astype(np.float32)
            values = (codes.reshape(*scale.shape[:2], GROUP) * scale).reshape(len(values), -1)
        tensors[name] = values
    return tensors


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


@cache
def matcher() -> Matcher:
    """Return the matcher in the file beside this one."""
    pieces = (FOLDER / VOCABULARY_FILE).read_text("utf-8").split("\n")
    return Matcher(tokenizer_of(pieces), dequantised(load_file(FOLDER / WEIGHTS_FILE)))


@lru_cache(_REMEMBERED)
def odds_of(question: str, other: str) -> float:
    """Return the matcher's score of two questions, cached: the questions of a conversation are compared more than once."""
    return matcher().score(question, other)
