"""Contamination: was the held-out text trained on, whole or as a stretch of 13 words (as arXiv 2005.14165, appendix C)?"""

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
    """Share of the held-out texts that stand in the training texts."""

    n: int
    """Number of held-out texts."""
    exact: tuple[str, ...]
    """Names of held-out texts that stand there whole, word for word."""
    overlapping: tuple[str, ...]
    """Names of held-out texts that share a stretch of words, the exact ones included."""
    words: int
    data_digest: str
    """Digest of the names and words of the held-out texts."""

    def report(self) -> Report:
        """Report the share of texts that overlap; it is of no model."""
        interval = wilson(len(self.overlapping), self.n)
        share, name = len(self.overlapping) / self.n, f"contamination_{self.words}_words"
        return Report(name, share, "share", interval.low, interval.high, self.n, "", self.data_digest, interval.method)


def contamination(training: Iterable[str], held_out: Mapping[str, str], words: int = WORDS) -> Contamination:
    """Compare words without case and punctuation. A text shorter than `words` only counts if it stands there whole.

    `training` is read once and may be long: about 8 bytes are kept for each of its words. Raises ValueError if nothing is held out.
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
        spoken = tuple(_WORD.findall(document.casefold()))
        exact |= wholes.get(spoken, set())
        for stretch in _stretches(spoken, words):
            overlapping |= stretches.get(hash(stretch), set())
    digest = digest_json({name: list(text) for name, text in split.items()})
    return Contamination(len(split), tuple(sorted(exact)), tuple(sorted(overlapping | exact)), words, digest)


def _stretches(text: tuple[str, ...], words: int) -> Iterable[tuple[str, ...]]:
    return (text[i : i + words] for i in range(len(text) - words + 1))
