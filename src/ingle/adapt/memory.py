"""What a user taught, placed in the prompt of a question that it is about: as data beside the question, never as an order.

A memory stands in the user's own turn, in one line, between quotation marks that it can't close. It is never part of the system's turn, and
no name of a control token becomes one (model/template.py breaks them as in everything that users write). The words around it are those, of
more than twenty tried, with which SmolLM2 says most often what was taught (`bench/adapt_wording.py`).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ingle.core.example import Example
from ingle.core.message import Request, TextPart

MOST = 3
"""Memories of one prompt."""
BUDGET_TOKENS = 512
"""Tokens of all memories of one prompt."""
_SHORT = 200
"""Characters of an answer that is said twice."""
_SPACES = re.compile(r"[\s\u2028\u2029]+")
_MARKS = str.maketrans({"“": "'", "”": "'", "„": "'", "«": "'", "»": "'", '"': "'"})


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
    """The nearest correction and the nearest facts, at most MOST, whose lines take no more tokens than the budget.

    `memories`: the nearest first. One correction, because a question has one answer. `count`: tokens of a text.
    """
    taken, left, corrected = list[Memory](), budget_tokens, False
    for memory in memories:
        correction = memory.example.kind != "fact"
        size = count(_line(memory.example))
        if size <= left and len(taken) < MOST and not (correction and corrected):
            taken.append(memory)
            left -= size
            corrected |= correction
    return tuple(taken)


def placed(request: Request, examples: Sequence[Example]) -> Request:
    """The request with these examples in its last turn, after the question."""
    if not examples:
        return request
    last = request.messages[-1]
    notes = "\n".join(map(_line, examples))
    after = TextPart(f"\n{notes}\n\n{_order(examples)}", "memory")
    parts = (TextPart("Question: ", "system"), *last.parts, after)
    return replace(request, messages=(*request.messages[:-1], replace(last, parts=parts)))


def _line(example: Example) -> str:
    return f'Note: "{_quoted(example)}"' if example.kind == "fact" else f'Note: the answer is "{_quoted(example)}".'


def _order(examples: Sequence[Example]) -> str:
    """Ours, at the end. A small model follows it better where the answer is in it too."""
    answer = next((_quoted(example) for example in examples if example.kind != "fact"), None)
    if answer is None:
        return "Answer the question with the note."
    return f'Give the answer of the note: "{answer}".' if len(answer) <= _SHORT else "Give the answer of the note."


def _quoted(example: Example) -> str:
    return _SPACES.sub(" ", example.answer).strip().translate(_MARKS)
