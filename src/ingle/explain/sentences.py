"""The sentences of a request, and the request without some of them.

A memory's lines are no sentences here: what was taught is left out as a whole, by whoever placed it. The question itself is not a cause
either: no answer is left without it.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from ingle.core.message import Message, Part, Request, TextPart

_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)\s*|[。！？]+[”』」]*\s*|\n+\s*")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|No|Inc|Ltd|Co|Gen|Col|Sen|Rep|e\.g|i\.e|U\.S|U\.K)|\b[A-Z])\.\s*$")
_NOT_CAUSES = frozenset({"memory"})
MOST = 400
"""Most sentences of a prompt; the last one then holds the rest."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a request, with the space after it."""

    message: int
    """Number of its message; −1 = the plain prompt."""
    part: int
    start: int
    end: int
    text: str
    asks: bool = False
    """Whether it is the question, which is never left out."""


def sentences_of(request: Request) -> tuple[Sentence, ...]:
    """Return the sentences of a request in order; none of a prompt of token ids."""
    found = [
        Sentence(message, part, start, end, text[start:end])
        for message, part, text in _texts(request)
        for start, end in spans(text)
    ][:MOST]  # fmt: skip
    asking = _asking(found, request)
    return tuple(replace(one, asks=number in asking) for number, one in enumerate(found))


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each sentence of a text. Together they are the text; each has a letter or a digit in it."""
    start = 0
    for match in _END.finditer(text):
        piece = text[start : match.end()]
        if "\n" not in match.group() and (_ABBREVIATION.search(piece) or not re.match(r"[\"'“‘(\[]?[^a-z]", text[match.end() :] or "A")):
            continue
        if any(map(str.isalnum, piece)) and any(map(str.isalnum, text[match.end() :])):
            yield start, match.end()
            start = match.end()
    if start < len(text):
        yield start, len(text)


def without(request: Request, left_out: Collection[Sentence]) -> Request:
    """Return the request without these sentences. A message that has nothing left goes too, unless it is the last one."""
    if request.prompt is not None:
        if isinstance(request.prompt, str):
            return replace(request, prompt=_cut(request.prompt, [one for one in left_out if one.message < 0]))
        return request
    last = len(request.messages) - 1
    changed = [_shortened(message, [one for one in left_out if one.message == i]) for i, message in enumerate(request.messages)]
    kept = [
        message for i, message in enumerate(changed)
        if i == last or message.text.strip() or message is request.messages[i]
    ]  # fmt: skip
    return replace(request, messages=tuple(kept))


def _texts(request: Request) -> Iterator[tuple[int, int, str]]:
    """Yield (message, part, text) of all that was said in the prompt."""
    if isinstance(request.prompt, str):
        yield -1, 0, request.prompt
    for i, message in enumerate(request.messages):
        for j, part in enumerate(message.parts):
            if isinstance(part, TextPart) and part.origin not in _NOT_CAUSES and not (part.origin == "system" != message.role):
                yield i, j, part.text


def _asking(found: Sequence[Sentence], request: Request) -> set[int]:
    """Return the numbers of the sentences that ask: the last one, and an instruction before a text ("Summarise this:").

    A text that ends the prompt after an instruction asks nothing itself.
    """
    last_message = max((one.message for one in found), default=0)
    last = [number for number, one in enumerate(found) if one.message == last_message]
    if not last:
        return set()
    first, final = found[last[0]], found[last[-1]]
    orders = first.text.strip().endswith(":") and len(last) > 1
    if orders and not final.text.strip().endswith("?") and request.prompt is None:
        return {last[0]}
    return {last[-1]} | ({last[0]} if orders else set())


def _shortened(message: Message, left_out: Sequence[Sentence]) -> Message:
    if not left_out:
        return message
    parts: list[Part] = []
    for number, part in enumerate(message.parts):
        mine = [one for one in left_out if one.part == number]
        parts.append(replace(part, text=_cut(part.text, mine)) if mine and isinstance(part, TextPart) else part)
    return replace(message, parts=tuple(parts))


def _cut(text: str, left_out: Sequence[Sentence]) -> str:
    kept, at = "", 0
    for one in sorted(left_out, key=lambda one: one.start):
        kept, at = kept + text[at : one.start], one.end
        space = one.text[len(one.text.rstrip()) :]
        if "\n" in space and kept and not kept.endswith("\n") and text[at:]:  # the paragraph ends all the same
            kept = kept.rstrip() + space
    return kept + text[at:]
