"""Whether what is measured was trained on: the same text, or a stretch of 13 words of it (as arXiv 2005.14165, appendix C)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ingle.core.digest import digest_json
from ingle.core.report import Report
from ingle.measure.intervals import wilson

WORDS = 13
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Contamination:
    """How much of what is held out stands in the training texts."""

    n: int
    """Texts held out."""
    exact: tuple[str, ...]
    """Names of those that stand there whole, word for word."""
    overlapping: tuple[str, ...]
    """Names of those that share a stretch of words, the exact ones included."""
    words: int
    data_digest: str
    """Of the names and words of what is held out."""

    def report(self) -> Report:
        """The share of texts that overlap; of no model."""
        interval = wilson(len(self.overlapping), self.n)
        share, name = len(self.overlapping) / self.n, f"contamination_{self.words}_words"
        return Report(name, share, "share", interval.low, interval.high, self.n, "", self.data_digest, interval.method)


def contamination(training: Iterable[str], held_out: Mapping[str, str], words: int = WORDS) -> Contamination:
    """Compares words without case and punctuation. A text shorter than `words` only counts if it stands there whole.

    `training` is read once and may be long: 8 bytes and some are kept for each of its words. Raises ValueError if nothing is held out.
    """
    if not held_out:
        raise ValueError("nothing is held out")
    split = {name: tuple(_WORD.findall(text.casefold())) for name, text in held_out.items()}
    stretches: dict[int, set[str]] = {}  # by hash: Python's is good for one process, and equal hashes of unequal words are one in 10^19
    wholes: dict[tuple[str, ...], set[str]] = {}
    for name, text in split.items():
        wholes.setdefault(text, set()).add(name)
        for stretch in _stretches(text, words):
            stretches.setdefault(hash(stretch), set()).add(name)
    exact: set[str] = set()
    overlapping: set[str] = set()
    for document in training:
        found = tuple(_WORD.findall(document.casefold()))
        exact |= wholes.get(found, set())
        for stretch in _stretches(found, words):
            overlapping |= stretches.get(hash(stretch), set())
    digest = digest_json({name: list(text) for name, text in split.items()})
    return Contamination(len(split), tuple(sorted(exact)), tuple(sorted(overlapping | exact)), words, digest)


def _stretches(text: tuple[str, ...], words: int) -> Iterable[tuple[str, ...]]:
    return (text[i : i + words] for i in range(len(text) - words + 1))
