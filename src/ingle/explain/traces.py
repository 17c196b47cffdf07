"""Runs of words of an answer that stand, word for word, in a text that its model was taught or tuned on.

That the words stand there too is all that this shows: never that they come from there. Upper and lower case, spaces and punctuation do not
count. A text needs no index: where a run may begin is found by numbers of three words each, all at once in NumPy; from there on, words are
compared as they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_WORDS = 5  # shorter runs stand in many texts by chance
MOST = 5  # most runs that are returned
_FEW = 3  # words that are looked for at once; a match of so many is then read on word by word
_BITS = 18
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_FIRST = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)  # masks of the first bytes of eight
_TABLE = bytes(code if chr(code).isalnum() or code > 127 else ord(" ") for code in range(256)).lower()
_MARKS = tuple(mark.encode() for mark in "‘’“”„…–—«»·•、。「」『』！？，：；（）\u00a0\u2028\u2029\u3000")
Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TaughtText:
    """A text that a model was taught or tuned on."""

    name: str  # an example's id or a file's name
    text: str


@dataclass(frozen=True, slots=True)
class WordTrace:
    """A run of words that stands both in an answer and in a source."""

    start: int
    end: int  # its characters in the answer
    words: int
    source: str  # name of the first source that it stands in
    line: int  # line of the source where it begins, from 1
    text: str  # the run as it stands in the answer


@dataclass(frozen=True, slots=True)
class _Words:
    raw: bytes  # its bytes, A to Z in lower case; spaces for all that is in no word
    starts: Places
    ends: Places
    keys: Keys  # a number for each word, of its length and its first eight bytes

    def word(self, place: int) -> bytes:
        return self.raw[self.starts[place] : self.ends[place]]


def traces(answer: str, sources: Iterable[TaughtText], least: int = LEAST_WORDS, most: int = MOST) -> tuple[WordTrace, ...]:
    """Return the longest runs of at least `least` words, the longest first. None lies within another one of them.

    Raises ValueError for a `least` below three.
    """
    if least < _FEW:
        raise ValueError(f"runs of fewer than {_FEW} words are not looked for: {least}")
    said = _words(answer)
    best = [_NOWHERE] * len(said.keys)
    for source in sources:
        text = _words(source.text)
        for at, length, place in _matches(said, text, least):
            if length > best[at][0]:
                best[at] = length, source.name, source.text, int(text.starts[place])
    runs, reached = list[tuple[int, int]](), 0
    for at, (length, *_) in enumerate(best):  # a run that ends no later than an earlier one is a part of it
        if length and at + length > reached:
            reached = at + length
            runs.append((-length, at))
    return tuple(_trace(answer, said, at, *best[at]) for _, at in sorted(runs)[:most])


_NOWHERE: tuple[int, str, str, int] = (0, "", "", 0)


def _trace(answer: str, said: _Words, at: int, length: int, name: str, text: str, place: int) -> WordTrace:
    start, end = _characters(answer, int(said.starts[at])), _characters(answer, int(said.ends[at + length - 1]))
    line = 1 + text.count("\n", 0, _characters(text, place))
    return WordTrace(start, end, length, name, line, answer[start:end])


def _words(text: str) -> _Words:
    raw = text.encode("utf-8", "surrogatepass")
    if not raw.isascii():
        for mark in _MARKS:
            raw = raw.replace(mark, b" " * len(mark))
    raw = raw.translate(_TABLE)
    letters = np.frombuffer(raw + bytes(9), np.uint8)  # room to read eight bytes from any word on, and an end for the last one
    inside = letters[: len(raw) + 1] != ord(" ")
    inside[-1] = False
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    if inside[0]:
        edges = np.concatenate([[0], edges])
    starts, ends = edges[::2], edges[1::2]
    eights = np.ndarray(len(raw) + 1, "<u8", letters.data, strides=(1,))
    lengths = ends - starts
    keys = (eights[starts] & _FIRST[np.minimum(lengths, 8)]) + lengths.astype(np.uint64) * _MIX
    return _Words(raw, starts, ends, np.asarray(keys, np.uint64))


def _grams(keys: Keys) -> Keys:
    """Return a number for every few words in a row; the top bits of all words reach the top of the sum."""
    count = max(0, len(keys) - _FEW + 1)
    total = np.zeros(count, np.uint64)
    for step in range(_FEW):
        total = (total + keys[step : step + count]) * _FACTOR
        total ^= total >> np.uint64(29)
    return total


def _matches(said: _Words, text: _Words, least: int) -> Iterable[tuple[int, int, int]]:
    """Yield (place in the answer, words, place in the text) of the longest run from each place of the answer, the first one of equals."""
    grams, theirs = _grams(said.keys), _grams(text.keys)
    if not len(grams) or not len(theirs):
        return
    some = np.zeros(1 << _BITS, bool)  # a table that lets through all that may be in the answer, and little else
    some[grams >> np.uint64(64 - _BITS)] = True
    maybe = np.flatnonzero(some[theirs >> np.uint64(64 - _BITS)])
    by_gram: dict[int, list[int]] = {}
    for hit, gram in zip(maybe.tolist(), theirs[maybe].tolist(), strict=True):
        by_gram.setdefault(gram, []).append(hit)
    for at, gram in enumerate(grams.tolist()):
        best = max(((_run(said, text, at, hit), -hit) for hit in by_gram.get(gram, ())), default=(0, 0))
        if best[0] >= least:
            yield at, best[0], -best[1]


def _run(said: _Words, text: _Words, at: int, hit: int) -> int:
    """Return how many words from these places on are equal, compared as they are."""
    length, most = 0, min(len(said.keys) - at, len(text.keys) - hit)
    while length < most and said.word(at + length) == text.word(hit + length):
        length += 1
    return length


def _characters(text: str, place: int) -> int:
    """Return the number of characters before a byte."""
    return place if text.isascii() else len(text.encode("utf-8", "surrogatepass")[:place].decode("utf-8", "surrogatepass"))
