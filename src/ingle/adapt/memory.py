"""Memories: places what a user taught in the prompt of a question about it, as data, never as an order.

A memory is one line of the user's own turn, between quotation marks that it can't close. It is never in the system's turn, and no name
of a control token in it becomes one (model/template.py breaks them as in all that users write). Of more than twenty wordings around it,
this is the one with which SmolLM2 gives the taught answer most often (`bench/adapt_wording.py`).

What was taught as the answer to a question is the answer to it, word for word: small models embroider it with claims of their own.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ingle.core.example import Example
from ingle.core.message import Constraint, ImagePart, Message, Request, TextPart

WORDLESS = "What is this?"  # the question of a picture without words
MOST = 3  # most memories in a prompt
BUDGET_TOKENS = 512  # most tokens of all memories in a prompt
_SHORT = 200  # most characters of an answer that the prompt says twice
_SPACES = re.compile(r"[\s\u2028\u2029]+")
_MARKS = str.maketrans({"“": "'", "”": "'", "„": "'", "«": "'", "»": "'", '"': "'"})


@dataclass(frozen=True, slots=True)
class RecalledExample:
    """An example, and how near a question is to it."""

    example: Example
    score: float  # nearness of the question; see adapt/scope.py


def question_of(request: Request) -> str:
    """Return the text of the last turn if it is the user's, else ""."""
    last = request.messages[-1] if request.messages else None
    return asked_in(last) if last is not None and last.role == "user" else ""


def asked_in(message: Message) -> str:
    """Return the question of a user's turn. What stands in a picture is none of it; a picture without words asks what it is."""
    if not any(isinstance(part, ImagePart) for part in message.parts):
        return message.text.strip()
    own = "".join(part.text for part in message.parts if isinstance(part, TextPart) and part.origin != "document")
    return own.strip() or WORDLESS


def within_budget(
    memories: Sequence[RecalledExample], count: Callable[[str], int], budget_tokens: int = BUDGET_TOKENS
) -> tuple[RecalledExample, ...]:
    """Return the nearest correction and the nearest facts, at most MOST, whose lines fit in the budget of tokens.

    `memories`: nearest first. One correction, because a question has one answer. `count`: returns the tokens of a text.
    """
    taken, left, corrected = list[RecalledExample](), budget_tokens, False
    for memory in memories:
        correction = memory.example.kind != "fact"
        size = count("".join(part.text for part in _note(memory.example)).strip())
        if size <= left and len(taken) < MOST and not (correction and corrected):
            taken.append(memory)
            left -= size
            corrected |= correction
    return tuple(taken)


def placed(request: Request, examples: Sequence[Example]) -> Request:
    """Return the request with these examples in its last turn, after the question. A correction's answer is the only one that may be given,
    unless the request asks for a form of its own."""
    if not examples:
        return request
    last = request.messages[-1]
    notes = (part for example in examples for part in _note(example))
    parts = (TextPart("Question: ", "system"), *last.parts, *notes, *_order(examples))
    constraint = request.constraint or next((_only(one.answer) for one in examples if one.kind != "fact"), None)
    return replace(request, messages=(*request.messages[:-1], replace(last, parts=parts)), constraint=constraint)


def _only(answer: str) -> Constraint:
    return Constraint("lark", f"start: {json.dumps(answer.strip(), ensure_ascii=False)}")


# What is quoted is a memory; the frame is ours. As a memory, guards would take it for an order that hides in one.


def _framed(before: str, words: str, after: str) -> tuple[TextPart, ...]:
    return TextPart(before, "system"), TextPart(words, "memory"), TextPart(after, "system")


def _note(example: Example) -> tuple[TextPart, ...]:
    return (
        _framed('\nNote: "', _quoted(example), '"')
        if example.kind == "fact"
        else _framed('\nNote: the answer is "', _quoted(example), '".')
    )


def _order(examples: Sequence[Example]) -> tuple[TextPart, ...]:
    """Return the instruction at the end. A small model follows it better if the answer is in it too."""
    answer = next((_quoted(example) for example in examples if example.kind != "fact"), None)
    if answer is None:
        return (TextPart("\n\nAnswer the question with the note.", "system"),)
    if len(answer) > _SHORT:
        return (TextPart("\n\nGive the answer of the note.", "system"),)
    return _framed('\n\nGive the answer of the note: "', answer, '".')


def _quoted(example: Example) -> str:
    return _SPACES.sub(" ", example.answer).strip().translate(_MARKS)
