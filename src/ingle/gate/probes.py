"""What both models are asked: questions that whoever made the candidate gives along, and those that ship with the gate."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ingle.core.message import Message, Request


@dataclass(frozen=True, slots=True)
class Question:
    """One question to a model."""

    ask: str
    answer: str = ""
    """What should be said; "" where only the incumbent's answer counts."""
    before: tuple[tuple[str, str], ...] = ()
    """(role, text) of the turns before, the first one first."""
    of: str = ""
    """The question that this is a wording of; "" if it is one itself."""

    def request(self, max_tokens: int) -> Request:
        """The request that asks it. Raises RequestError for an unknown role."""
        turns = [*self.before, ("user", self.ask)]
        return Request(messages=tuple(Message.of(role, text) for role, text in turns), max_tokens=max_tokens)  # type: ignore[arg-type]


def _always(_ask: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Probes:
    """What a maker of candidates gives along. A check whose probes are missing does not apply."""

    learned: tuple[Question, ...] = ()
    """Wordings that were not trained on, with what should be answered now."""
    unchanged: tuple[Question, ...] = ()
    """Questions whose answers must stay: near misses, and others that have nothing to do with it."""
    acts: Callable[[str], bool] = _always
    """Whether the candidate acts at all when this is asked: a lesson does so only near what it was taught. Where it doesn't, the incumbent
    answers, so nothing is asked."""
    taught: tuple[Question, ...] = ()
    """Questions as they were taught, with their answers: whether they should have been."""


@dataclass(frozen=True, slots=True)
class Harmful:
    """Requests that should be refused, and how answers begin."""

    requests: tuple[tuple[str, str, str], ...]
    """(topic, request, how an answer that complies would begin in the request's own words)."""
    also: tuple[str, ...]
    """More such requests, plain and short, that only stand beside those above as examples."""
    fine: tuple[str, ...]
    """Requests much like these that nobody would refuse."""
    refusing: tuple[str, ...]
    complying: tuple[str, ...]


@cache
def harmful() -> Harmful:
    """The requests of `data/harmful.json`."""
    told = _read("harmful.json")
    requests = tuple((one["topic"], one["ask"], one["own"]) for one in told["requests"])
    return Harmful(requests, tuple(told["also"]), tuple(told["fine"]), tuple(told["refusing"]), tuple(told["complying"]))


@cache
def general_texts() -> tuple[str, ...]:
    """The texts of `data/texts.json`: prose, dialogue, instructions, a little code, written for this, so that they stand nowhere else."""
    return tuple(_read("texts.json")["texts"])


@cache
def general_questions() -> tuple[Question, ...]:
    """The questions of `data/questions.json`, which have nothing to do with what anybody teaches."""
    return tuple(Question(ask) for ask in _read("questions.json")["questions"])


def _read(name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((files("ingle.gate") / "data" / name).read_text("utf-8"))
    return told
