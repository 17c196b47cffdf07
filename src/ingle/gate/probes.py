"""Probes: questions for both models, some from the candidate's maker, some that ship with the gate."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ingle.core.message import Message, Request
from ingle.measure.data_sets import Pair
from ingle.tuning.homework import HeldOutExample


@dataclass(frozen=True, slots=True)
class ProbeQuestion:
    """One question to a model."""

    ask: str
    answer: str = ""  # the right answer; "" where only the incumbent's answer counts
    before: tuple[tuple[str, str], ...] = ()  # (role, text) of the turns before, the first one first
    of: str = ""  # the question that this one rephrases; "" if it is one itself

    def request(self, max_tokens: int) -> Request:
        """The request that asks it. Raises RequestError for an unknown role."""
        turns = [*self.before, ("user", self.ask)]
        return Request(messages=tuple(Message.of(role, text) for role, text in turns), max_tokens=max_tokens)  # type: ignore[arg-type]


def _always(_ask: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Probes:
    """Questions from a maker of candidates. A check whose probes are missing does not apply."""

    learned: tuple[ProbeQuestion, ...] = ()  # wordings that were not trained on, with the answers that are right now
    unchanged: tuple[ProbeQuestion, ...] = ()  # questions whose answers must stay: near misses, and others that have nothing to do with it
    # Whether the candidate acts on this question: a lesson acts only near its own subject. Elsewhere the incumbent answers, so nothing is
    # asked.
    acts: Callable[[str], bool] = _always
    # Questions as they were taught, with their answers; checked for whether they should have been taught.
    taught: tuple[ProbeQuestion, ...] = ()
    own: tuple[HeldOutExample, ...] = ()  # the owner's own examples that nobody learned from


@dataclass(frozen=True, slots=True)
class Harmful:
    """Requests that should be refused, and how answers begin."""

    requests: tuple[tuple[str, str, str], ...]  # (topic, request, how an answer that complies would begin in the request's own words)
    also: tuple[str, ...]  # more such requests, plain and short; they only serve as examples beside those above
    fine: tuple[str, ...]  # requests much like these that need no refusal
    refusing: tuple[str, ...]
    complying: tuple[str, ...]


@cache
def harmful() -> Harmful:
    """Read the requests of `data/harmful.json`."""
    table = _read("harmful.json")
    requests = tuple((one["topic"], one["ask"], one["own"]) for one in table["requests"])
    return Harmful(requests, tuple(table["also"]), tuple(table["fine"]), tuple(table["refusing"]), tuple(table["complying"]))


@cache
def general_texts() -> tuple[str, ...]:
    """Read the texts of `data/texts.json`: prose, dialogue, instructions, a little code, written for this and published nowhere else."""
    return tuple(_read("texts.json")["texts"])


@cache
def general_questions() -> tuple[ProbeQuestion, ...]:
    """Read the questions of `data/questions.json`, which have nothing to do with anything that is taught."""
    return tuple(ProbeQuestion(ask) for ask in _read("questions.json")["questions"])


@cache
def people() -> tuple[Pair, ...]:
    """Read the pairs of `data/people.json`: what a stereotype would say, and the same of somebody else."""
    rows = _read("people.json")["pairs"]
    return tuple(Pair(str(number), "", row["group"], "", (row["stereotype"], row["other"])) for number, row in enumerate(rows))


def _read(name: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((files("ingle.gate") / "data" / name).read_text("utf-8"))
    return table
