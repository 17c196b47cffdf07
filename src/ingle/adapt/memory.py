"""What a user taught, placed in the prompt of a question that it is about: as data beside the question, never as an order.

A memory stands in the user's own turn, in one line, between quotation marks that it can't close. It is never part of the system's turn, and
no name of a control token becomes one (model/template.py breaks them as in everything that users write).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ingle.core.example import Example
from ingle.core.message import Message, Request, TextPart

MOST = 3
"""Memories of one prompt."""
BUDGET_TOKENS = 256
"""Tokens of all memories of one prompt."""
_SPACES = re.compile(r"\s+")
_QUOTES = str.maketrans({'"': "'", "“": "'", "”": "'", "„": "'", "«": "'", "»": "'"})


@dataclass(frozen=True, slots=True)
class Memory:
    """An example that a question is about."""

    example: Example
    score: float
    """How near the question is to it; see adapt/scope.py."""


def question_of(request: Request) -> str:
    """What the last turn asks; "" where a request is no conversation that a user had the last word in."""
    last = request.messages[-1] if request.messages else None
    return last.text.strip() if last is not None and last.role == "user" else ""


def within_budget(memories: Sequence[Memory], count: Callable[[str], int], budget_tokens: int = BUDGET_TOKENS) -> tuple[Memory, ...]:
    """The nearest of them, at most MOST, whose lines take no more tokens than the budget. `count`: tokens of a text."""
    taken, left = list[Memory](), budget_tokens
    for memory in sorted(memories, key=lambda one: (-one.score, -one.example.seq))[:MOST]:
        size = count(_line(memory.example))
        if size <= left:
            taken.append(memory)
            left -= size
    return tuple(taken)


def placed(request: Request, examples: Sequence[Example]) -> Request:
    """The request with these examples in its last turn, before the question."""
    if not examples:
        return request
    last = request.messages[-1]
    before = "\n".join(["What I told you before:", *map(_line, examples), "", ""])
    return replace(request, messages=(*request.messages[:-1], replace(last, parts=(TextPart(before), *last.parts))))


def _line(example: Example) -> str:
    if example.kind == "fact":
        return f'"{_quoted(example.answer)}"'
    return f'"{_quoted(example.question)}" - "{_quoted(example.answer)}"'


def _quoted(text: str) -> str:
    return _SPACES.sub(" ", text).strip().translate(_QUOTES)


def spoken(message: Message) -> str:
    """The words of a turn in one line."""
    return _SPACES.sub(" ", message.text).strip()
