"""A text as a sparse vector: hashed n-grams of characters and words, for linear judges."""

import re
from collections.abc import Iterable
from zlib import crc32

import numpy as np
import numpy.typing as npt

SIZE = 1 << 17  # features; n-grams are hashed to them
_MOST_CHARACTERS = 8000
WORD = re.compile(r"[a-z']+|[0-9]+|[^\w\s]")


Sparse = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]  # places and values; the vector has length 1


def grams(text: str, characters: tuple[int, int] = (3, 5), words: int = 2, mark: str = "") -> npt.NDArray[np.int64]:
    """Return the feature of every n-gram, as often as it comes. `mark` tells the grams of one part of an input from another's."""
    text = f" {' '.join(text[:_MOST_CHARACTERS].lower().replace('’', chr(39)).split())} "
    letters = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
    tokens = np.array([crc32(token.encode("utf-8", "replace")) for token in WORD.findall(text)], np.uint64)
    low, high = characters
    found = [gram_runs(letters, size, f"c{mark}") for size in range(low, high + 1)]
    return np.concatenate([*found, *(gram_runs(tokens, size, f"w{mark}") for size in range(1, words + 1))])


def gram_runs(items: npt.NDArray[np.uint64], size: int, kind: str) -> npt.NDArray[np.int64]:
    """Return the feature of every run of so many items: multiply and mix, as in splitmix64; overflow is meant."""
    count = max(0, len(items) - size + 1)
    mixed = np.full(count, crc32(f"{kind}{size}".encode()), np.uint64)
    for at in range(size):
        mixed = (mixed ^ items[at : at + count]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return ((mixed * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(40)).astype(np.int64) % SIZE


def vector(*features: npt.NDArray[np.int64]) -> Sparse:
    """Return how often each feature comes as one vector: logarithms, scaled to length 1."""
    places, counts = np.unique(np.concatenate(features), return_counts=True)
    values = np.log1p(counts.astype(np.float64))
    return places, (values / max(float(np.sqrt((values**2).sum())), 1e-9)).astype(np.float32)


def logit(weights: npt.NDArray[np.float32], bias: float, text: Sparse) -> float:
    """Return a linear judge's log-odds."""
    places, values = text
    return float(weights[places].astype(np.float64) @ values) + bias


def stacked(texts: Iterable[Sparse]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return many vectors as one list of places and values, and where each begins."""
    items = list(texts)
    starts = np.cumsum([0, *(len(places) for places, _ in items[:-1])])
    return np.concatenate([places for places, _ in items]), np.concatenate([values for _, values in items]), starts
