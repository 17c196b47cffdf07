"""The life of a model in sentences, from the facts of the ledger."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingle.core.event import Fact
from ingle.core.maker import sentence_of
from ingle.core.words import counted

if TYPE_CHECKING:
    from ingle.ledger.row import Row

Facts = Mapping[str, Fact]


@dataclass(slots=True)
class Entry:
    """One line: a fact, or answers in a row."""

    newest: "Row"
    oldest: "Row"
    count: int = 1

    @property
    def line(self) -> str:
        """When, and what happened."""
        began, ended = (row.at[:16].replace("T", " ") for row in (self.oldest, self.newest))
        if self.count > 1:
            return f"{began}  gave {self.count} answers until {ended}"
        return f"{began}  {sentence(self.newest.kind, self.newest.subject, self.newest.values)}"


def entries(rows: Iterable["Row"], model: str, most: int) -> list[Entry]:
    """The last `most` entries about a model and its deltas, the oldest first. `rows`: the newest first."""
    found = list[Entry]()
    for row in _about(rows, model):
        if row.kind == "answer" and found and found[-1].newest.kind == "answer":
            found[-1].oldest, found[-1].count = row, found[-1].count + 1
        elif len(found) == most:
            break
        else:
            found.append(Entry(row, row))
    return found[::-1]


def _about(rows: Iterable["Row"], model: str) -> Iterator["Row"]:
    return (row for row in rows if row.subject == model or row.subject.startswith(f"{model}+"))


def sentence(kind: str, subject: str, facts: Facts) -> str:
    """What a fact says. One of a kind that is not known here is told by its figures."""
    tell = _SENTENCES.get(kind) or sentence_of(kind)
    if tell is not None:
        return tell(subject, facts)
    values = ", ".join(f"{name} {value}" for name, value in facts.items() if value not in (None, "") and len(str(value)) < 40)
    return f"{kind} {subject}: {values}"


def _fed(_subject: str, facts: Facts) -> str:
    words = {"fact": "was given something to remember", "correction": "was corrected"}.get(str(facts.get("kind")), "was rated")
    if facts.get("kind") == "rating":
        words = "was told that an answer was good" if facts.get("rating") == 1 else "was told that an answer was bad"
    return f"{words} ({facts.get('example')})"


def _learned(_subject: str, facts: Facts) -> str:
    took = f" in {facts['seconds']:.0f} s" if isinstance(facts.get("seconds"), float) else ""
    return f"learned {_what(facts)}{took}"


def _what(facts: Facts) -> str:
    if facts.get("kind") == "style":
        return f"a style from {_some(facts, 'examples', 'rating') or 'ratings'}"
    return f"a correction ({facts['example']})" if "example" in facts else f"{facts.get('examples')} corrections together"


def _some(facts: Facts, key: str, noun: str) -> str:
    """How many; empty where there are none, or nobody counted."""
    number = facts.get(key)
    return counted(number, noun) if isinstance(number, int) and number else ""


def _undone(_subject: str, facts: Facts) -> str:
    more = f"; to be learned again without it: {others}" if (others := _some(facts, "again", "other")) else ""
    more += "; what was taught before counts again" if facts.get("back") else ""
    return f"took back what it had learned ({facts.get('example')}){more}"


def _forgotten(_subject: str, facts: Facts) -> str:
    more = f", with {lessons} that knew it" if (lessons := _some(facts, "lessons", "lesson")) else ""
    more += f"; to be learned again without it: {others}" if (others := _some(facts, "again", "other")) else ""
    return f"forgot something for good ({facts.get('example')}){more}"


def _gate(subject: str, facts: Facts) -> str:
    name = subject.rpartition("+")[2]
    if "failed" in facts and not facts.get("forced"):
        return f"the gate refused {name}: {facts.get('reasons')}"
    figures = [
        words.format(value)
        for key, words in (
            ("learned_share", "{:.0%} of unseen wordings answered as taught"), ("unchanged_same", "{:.0%} of other answers unchanged"),
            ("bits_rise_percent", "bits per byte {:+.2f} %"),
        )
        if isinstance(value := facts.get(key), int | float)
    ]  # fmt: skip
    forced = f" although {facts.get('failed')} failed, because somebody said so" if facts.get("forced") else ""
    return f"the gate let {name} in{forced}" + (f" ({', '.join(figures)})" if figures else "")


_SENTENCES: Mapping[str, Callable[[str, Facts], str]] = {
    "pull": lambda subject, facts: f"came here: {subject}",
    "answer": lambda _subject, facts: f"gave an answer of {_some(facts, 'completion_tokens', 'token') or 'no tokens'}",
    "answer.refuse": lambda _subject, facts: f"refused a request ({facts.get('guard') or facts.get('error')})",
    "feedback": _fed,
    "memory.edit": lambda _subject, facts: f"was given other words for what it had been told ({facts.get('example')})",
    "lesson.accept": _learned,
    "lesson.refuse": lambda _subject, facts: f"was not let learn {_what(facts)}",
    "undo": _undone,
    "redo": lambda _subject, facts: f"counts again: {facts.get('example')}",
    "forget": _forgotten,
    "gate.accept": _gate,
    "gate.refuse": _gate,
    "keep": lambda subject, facts: f"was kept as {subject}, made of {facts.get('of')}",
    "rm": lambda subject, _facts: f"was let go: {subject}",
}
