"""Did this home say this? A text is compared with the answers of the ledger, which holds keyed digests of them and no words.

A whole answer is found in any case. A part of one is found only where the answer's text is kept: its runs of words are then compared with
those of the text, in memory alone.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingle.core.digest import digest_bytes

if TYPE_CHECKING:
    from ingle.ledger.row import Row

# Words in a row that are compared. Shorter runs are said by many.
RUN = 8
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class SaidHere:
    """A fact of an answer that is the text as a whole."""

    seq: int
    at: str
    model: str


@dataclass(frozen=True, slots=True)
class Shared:
    """A kept answer that has runs of words in common with the text."""

    seq: int | None  # number of its fact, if the home knows it
    share: float  # share of the text's runs that it holds
    words: int  # words in its longest stretch of them


@dataclass(frozen=True, slots=True)
class Whose:
    """The home's knowledge of a text."""

    said: tuple[SaidHere, ...]
    shared: tuple[Shared, ...]  # the largest share first
    share: float  # share of the text's runs that stand in any kept answer
    runs: int  # runs in the text; 0 = it has fewer words than a run, so nothing is said of parts
    answers: int  # answers whose digests were compared
    unknown: int  # answers that can't be compared at all, because their key was lost
    kept: int  # answers whose words were compared

    @property
    def ours(self) -> bool:
        """Whether the text is an answer of this home, as a whole."""
        return bool(self.said)


def whose(
    text: str, rows: Iterable["Row"], digest: Callable[[str], str], proven: Callable[[int], bool], kept: Iterable[tuple[int | None, str]]
) -> Whose:
    """Compare a text with what a home has answered.

    `rows`: the ledger's facts of answers. `digest`: the keyed digest of an answer. `proven`: whether the fact of that number has digests
    under this key. `kept`: number and words of every answer whose text is kept.
    """
    wanted = {digest(form) for form in _forms(text)}
    said, answers, unknown = list[SaidHere](), 0, 0
    for row in rows:
        if not proven(row.seq):
            unknown += 1
            continue
        answers += 1
        if row.values.get("answer") in wanted:
            said.append(SaidHere(row.seq, row.at, row.subject))
    mine = tuple(_runs(text))
    places = dict[bytes, list[int]]()
    for place, run in enumerate(mine):
        places.setdefault(run, []).append(place)
    covered, shared, looked = set[int](), list[Shared](), 0
    for seq, words in kept:
        looked += 1
        found = {place for run in _runs(words) if run in places for place in places[run]}
        if found:
            covered |= found
            shared.append(Shared(seq, len(found) / len(mine), _longest(found)))
    shared.sort(key=lambda one: (-one.share, -(one.seq or 0)))
    return Whose(tuple(said[::-1]), tuple(shared), len(covered) / max(len(mine), 1), len(mine), answers, unknown, looked)


def _forms(text: str) -> set[str]:
    """Return the text, and what editors and shells make of the ends of lines and of files undone."""
    lines = text.replace("\r\n", "\n")
    return {text, lines, lines.removesuffix("\n"), lines.rstrip(), lines.strip()}


def _runs(text: str) -> Iterator[bytes]:
    """Yield the digests of all runs of words, whatever stands between the words and in whatever case."""
    words = [word.casefold() for word in _WORD.findall(text)]
    for start in range(len(words) - RUN + 1):
        yield bytes.fromhex(digest_bytes(" ".join(words[start : start + RUN]).encode("utf-8", "surrogatepass")))


def _longest(places: set[int]) -> int:
    """Return the number of words in the longest stretch of runs that follow each other."""
    best = length = 0
    for place in sorted(places):
        length = length + 1 if place - 1 in places else 1
        best = max(best, length)
    return best + RUN - 1
