"""Style bounds: finds bounds on a few counts of a text that tell liked answers from others. No PyTorch.

Nobody says what a rating was for. So counts of words, sentences, lines, and of the marks in any rated answer are searched for bounds that
hold the liked answers and exclude the others. The search is greedy: each bound excludes most of the others that are left. One that
excludes few may be chance and is not taken. Last, each upper bound is tightened to where half of the liked answers are, because the
most extreme liked answer may have been liked for something else.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

_CONTRACTION = re.compile(r"\b(?:\w+['’](?:t|m|re|ve|ll|d)|(?:it|he|she|that|there|here|what|who|where|how|let)['’]s)\b", re.IGNORECASE)
_MARKED = re.compile(r"^\s*(?:[^\w\s\"'“”‘’(]+|(?:\d{1,3}|[A-Za-z])[.)])\s", re.MULTILINE)
_SENTENCE = re.compile(r"[^.!?\n]*(?:[.!?]+(?=\s|$)|\n+|$)")
_END = re.compile(r"[.!?][\"'”’)*]*\s*$")
_MARK = re.compile(r"[^\w\s.,]")  # full stops and commas are in all prose: their number only says how long it is
_FEW_WORDS = 15  # least upper bound of words: one short liked answer is no rule for all
_LEAST = 0.15  # least share of the others that a further bound must exclude
_HALF = 0.5  # least share of the others that all bounds together must exclude
_TYPICAL = 0.5  # least share of the liked answers within a tightened bound
Grows = Literal["size", "sign"]


@dataclass(frozen=True, slots=True)
class Count:
    """A count of something in a text. It never falls as a text grows."""

    name: str
    of: Callable[[str], int]
    # `size`: it grows with every sentence. `sign`: only with sentences that have the sign.
    grows: Grows
    slips: Literal["line", "word", ""] = "word"  # the cause if it becomes too much: a new line, a word, or ("") no single place


@dataclass(frozen=True, slots=True)
class Bound:
    """An upper (`most`) or lower bound of a count."""

    count: Count
    most: bool
    value: int

    def holds(self, text: str) -> bool:
        """Return whether a whole text is within the bound."""
        return self.count.of(text) <= self.value if self.most else self.count.of(text) >= self.value


@dataclass(frozen=True, slots=True)
class Beginning:
    """The beginning of an answer, within the bounds."""

    text: str
    # Whether an answer may end there, because more would be too much. If not, it only must not go on as it did.
    ends: bool


def common_bounds(liked: Sequence[str], others: Sequence[str]) -> list[Bound]:
    """Return the bounds that tell liked answers from others, the most telling first; none if no bounds do."""
    if not liked or not others:
        return []
    counts = _counts([*liked, *others])
    within, without, bounds = list(liked), list(others), list[Bound]()
    while without:
        worth, bound = max(
            ((_worth(one, within, without, len(liked), len(others)), one) for one in _tried(counts, within)), key=lambda x: x[0]
        )
        if worth < _LEAST:
            break
        bounds.append(bound)
        within = [text for text in within if bound.holds(text)]
        without = [text for text in without if bound.holds(text)]
    return [_tightened(bound, liked) for bound in bounds] if len(others) - len(without) >= _HALF * len(others) else []


def _tightened(bound: Bound, liked: Sequence[str]) -> Bound:
    """Return the tightest upper bound of its count that holds enough of the liked answers; a lower bound unchanged."""
    kind = [one for one in _tried([bound.count], liked) if one.most and bound.most]
    held = [one for one in kind if sum(one.holds(text) for text in liked) >= _TYPICAL * len(liked)]
    return min(held, key=lambda one: one.value, default=bound)


def beginning(text: str, bounds: Sequence[Bound]) -> Beginning | None:
    """Return the whole sentences at an answer's beginning within all upper bounds; None if there are none, or too few."""
    upper, lower = [one for one in bounds if one.most], [one for one in bounds if not one.most]
    kept, end, broken = "", 0, list[Bound]()
    while bounds and end < len(text):
        sentence = _SENTENCE.match(text, end)
        if not sentence or not sentence.group():
            break
        end = sentence.end()
        broken = [one for one in upper if not one.holds(text[:end].rstrip())]
        if broken:
            break
        if _END.search(text[:end]):
            kept = text[:end]
    kept = kept.strip()
    if not kept or not all(one.holds(kept) for one in lower):
        return None
    return Beginning(kept, not broken or any(one.count.grows == "size" for one in broken))


def _tried(counts: Sequence[Count], within: Sequence[str]) -> list[Bound]:
    bounds = []
    for count in counts:
        values = sorted({count.of(text) for text in within}, reverse=True)
        bounds += [Bound(count, True, max(value, _FEW_WORDS) if count.name == "words" else value) for value in values]
        bounds += [Bound(count, False, value) for value in reversed(values) if value > 0]
    return bounds


def _worth(bound: Bound, within: Sequence[str], without: Sequence[str], liked: int, others: int) -> float:
    """Return Youden's index on the texts still within: the share of the others that a bound excludes, less that of the liked ones."""
    return sum(not bound.holds(text) for text in without) / others - sum(not bound.holds(text) for text in within) / liked


def _counts(texts: Sequence[str]) -> list[Count]:
    marks = sorted({_plain(mark) for text in texts for mark in _MARK.findall(text)})
    return [
        Count("words", lambda text: len(text.split()), "size", ""),
        Count("lines", lambda text: len([line for line in text.split("\n") if line.strip()]), "size", "line"),
        Count("marked lines", lambda text: len(_MARKED.findall(text)), "sign", "line"),
        Count("contractions", lambda text: len(_CONTRACTION.findall(text)), "sign"),
        *(Count(f"mark {mark}", partial(_marks, mark), "sign") for mark in marks),
        Count("numbers", lambda text: len(re.findall(r"\d+", text)), "sign"),
        Count("sentences", lambda text: len(re.findall(r"[.!?](?=\s|$)", text)), "size", ""),
    ]


def _marks(mark: str, text: str) -> int:
    return _plain(text).count(mark)


def _plain(text: str) -> str:
    return text.translate(str.maketrans("’‘“”", "''\"\""))
