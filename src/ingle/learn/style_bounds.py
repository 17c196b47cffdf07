"""What liked answers have in common that others have not, as far as it can be counted: bounds on a few counts of a text. No PyTorch.

Nobody says what a thumb was for. Counts of words, sentences, lines and of marks that stand in any rated answer are looked through
for the few bounds within which the liked answers lie and the others don't: each bound taken is the one that shuts out most of the others
that are still within. A bound that shuts out little is chance, and is not taken. Last, what is at most so many is drawn in to where half
of the liked ones are: what the one furthest out was forgiven is not what was liked.
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
_MARK = re.compile(r"[^\w\s.,]")  # full stops and commas stand in all prose: their number says how long it is
_FEW_WORDS = 15  # no thumb asks for less: one short answer that was liked is no rule for all
_LEAST = 0.15  # of the others, a further bound must shut out at least so many
_HALF = 0.5  # and all bounds together so many
_TYPICAL = 0.5  # of the liked answers, so many are within a bound as it is drawn in
Grows = Literal["size", "sign"]


@dataclass(frozen=True, slots=True)
class Count:
    """Something about a text that can be counted; a longer text never has less of it."""

    name: str
    of: Callable[[str], int]
    grows: Grows
    """`size`: with every sentence. `sign`: only with those that have it."""
    slips: Literal["line", "word", ""] = "word"
    """What is to blame where it becomes too much: that a line began, the word, or no single place."""


@dataclass(frozen=True, slots=True)
class Bound:
    """At most, or at least, so many."""

    count: Count
    most: bool
    value: int

    def holds(self, text: str) -> bool:
        """Whether a whole text is within."""
        return self.count.of(text) <= self.value if self.most else self.count.of(text) >= self.value


@dataclass(frozen=True, slots=True)
class Beginning:
    """Of an answer, what is within the bounds."""

    text: str
    ends: bool
    """Whether an answer may end there: what would come next is too much. Else it only must not go on as it did."""


def common_bounds(liked: Sequence[str], others: Sequence[str]) -> list[Bound]:
    """The bounds that tell liked answers from others, the most telling first; none if what is liked can't be seen."""
    if not liked or not others:
        return []
    counts = _counts([*liked, *others])
    within, without, found = list(liked), list(others), list[Bound]()
    while without:
        worth, bound = max(
            ((_worth(one, within, without, len(liked), len(others)), one) for one in _tried(counts, within)), key=lambda x: x[0]
        )
        if worth < _LEAST:
            break
        found.append(bound)
        within = [text for text in within if bound.holds(text)]
        without = [text for text in without if bound.holds(text)]
    return [_drawn_in(bound, liked) for bound in found] if len(others) - len(without) >= _HALF * len(others) else []


def _drawn_in(bound: Bound, liked: Sequence[str]) -> Bound:
    """The tightest one of its kind within which enough of the liked answers are; a lower bound as it is."""
    kind = [one for one in _tried([bound.count], liked) if one.most and bound.most]
    held = [one for one in kind if sum(one.holds(text) for text in liked) >= _TYPICAL * len(liked)]
    return min(held, key=lambda one: one.value, default=bound)


def beginning(text: str, bounds: Sequence[Bound]) -> Beginning | None:
    """The whole sentences at an answer's beginning that are within all upper bounds; None where that is nothing, or too little."""
    upper, lower = [one for one in bounds if one.most], [one for one in bounds if not one.most]
    kept, at, broken = "", 0, list[Bound]()
    while bounds and at < len(text):
        found = _SENTENCE.match(text, at)
        if not found or not found.group():
            break
        at = found.end()
        broken = [one for one in upper if not one.holds(text[:at].rstrip())]
        if broken:
            break
        if _END.search(text[:at]):
            kept = text[:at]
    kept = kept.strip()
    if not kept or not all(one.holds(kept) for one in lower):
        return None
    return Beginning(kept, not broken or any(one.count.grows == "size" for one in broken))


def _tried(counts: Sequence[Count], within: Sequence[str]) -> list[Bound]:
    found = []
    for count in counts:
        values = sorted({count.of(text) for text in within}, reverse=True)
        found += [Bound(count, True, max(value, _FEW_WORDS) if count.name == "words" else value) for value in values]
        found += [Bound(count, False, value) for value in reversed(values) if value > 0]
    return found


def _worth(bound: Bound, within: Sequence[str], without: Sequence[str], liked: int, others: int) -> float:
    """Youden's index, of what is still within: the share of the others that it shuts out, less that of the liked ones."""
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
