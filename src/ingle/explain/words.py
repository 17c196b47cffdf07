"""An explanation's figures in plain words. Every sentence comes from the table here, and none claims more than its figures."""

from collections.abc import Sequence
from typing import Literal

from ingle.explain.cause import Kind, ProvedCause, Together

Row = Literal["decides", "leans", "unneeded", "several", "enough", "nothing", "unlooked", "alone_prompt", "elsewhere"]
TABLE: dict[Row, str] = {
    "decides": "Without {what} it would have said: {answer}",
    "leans": "It leaned on {what}, but would have said the same without it.",
    "unneeded": "{What} was there, but the answer did not need it.",
    "several": "Several places say this; no single one decides: {what}. Without all of them it would have said: {answer}",
    "enough": "{What} alone is enough for it to say this.",
    "elsewhere": "It took this from a sentence about {theirs}, but you asked about {asked}.",
    "nothing": "Nothing here stands out; I can't say why.",
    "alone_prompt": "There is nothing to leave out but the question itself. What it says comes from the weights.",
    "unlooked": "The time was over before everything was looked at: {what}.",
}
_KINDS: dict[Kind, str] = {
    "sentence": "“{text}”",
    "memory": "the memory “{text}”",
    "lesson": "the lesson {id}",
    "delta": "the delta {id}",
    "retrieval": "the heads that see the whole text",
    "recurrent": "the recurrent memory",
    "groups": "as many other heads",
}
ENOUGH = 0.1
"""A sentence is enough by itself if less than this share of the fall without any sentence is left."""
SEVERAL = 0.5
"""Several places say the same if more than this share of the joint fall is in no single one."""
_SHOWN = 160
"""Most characters of quoted words."""


def what(found: ProvedCause) -> str:
    """Return a cause in words, with its own words quoted."""
    cause = found.cause
    return _KINDS[cause.kind].format(text=quoted(cause.text), id=cause.id[:12])


def quoted(text: str) -> str:
    """Return a text as it is quoted: on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1].rstrip() + "…"


def row_of(found: ProvedCause) -> Row:
    """Return the row of the table that the figures of a cause allow."""
    if not found.stands_out:
        return "unneeded"
    if found.differs and found.answer_without is not None:
        return "decides"
    return "leans" if found.answer_without is not None else "unneeded"


def say(found: ProvedCause) -> str:
    """Return a cause's figures as a sentence."""
    said = what(found)
    row = row_of(found)
    return TABLE[row].format(what=said, What=said[:1].upper() + said[1:], answer=_answer(found.answer_without))


def say_together(together: Together, shown: Sequence[ProvedCause]) -> str:
    """Return the figures of several sentences left out together as a sentence; "" where single sentences say all."""
    if not shares_blame(together):
        return ""
    listed = "; ".join(what(found) for found in shown)
    return TABLE["several"].format(what=listed, answer=_answer(together.answer_without))


def shares_blame(together: Together) -> bool:
    """Return whether several sentences decide together and none by itself."""
    above = together.by_chance is None or together.necessity > together.by_chance.high
    return above and together.differs and together.rest > SEVERAL * together.necessity and together.necessity > 0


def say_enough(found: ProvedCause) -> str:
    """Return the sentence for a cause that is enough by itself; "" if it is not, or was not tried alone."""
    if not found.stands_out or found.alone is None or found.alone >= ENOUGH:
        return ""
    said = what(found)
    return TABLE["enough"].format(What=said[:1].upper() + said[1:])


def _answer(text: str | None) -> str:
    return f"“{quoted(text)}”" if text and text.strip() else "nothing"
