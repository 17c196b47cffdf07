"""The sentences of a request and the quarters of its pictures, and the request without some of them.

A quarter of a picture is left out by painting it over with the picture's mean colour. A memory's lines are no sentences here: what was
taught is left out as a whole, by whoever placed it. The question itself is not a cause either: no answer is left without it.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ingle.core.media import Picture
from ingle.core.message import ImagePart, Message, Part, Request, TextPart
from ingle.media.picture import png_of, read_picture

_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)\s*|[。！？]+[”』」]*\s*|\n+\s*")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|No|Inc|Ltd|Co|Gen|Col|Sen|Rep|e\.g|i\.e|U\.S|U\.K)|\b[A-Z])\.\s*$")
_NOT_CAUSES = frozenset({"memory"})
QUARTERS = ("upper left", "upper right", "lower left", "lower right")
MOST = 400  # most sentences of a prompt; the last one then holds the rest


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a request, with the space after it; or a quarter of a picture, with its place in words."""

    message: int  # number of its message; −1 = the plain prompt
    part: int
    start: int  # its first character in the part; of a quarter, its number
    end: int
    text: str
    asks: bool = False  # whether it is the question, which is never left out


def sentences_of(request: Request) -> tuple[Sentence, ...]:
    """Return the sentences of a request and the quarters of its pictures in order; none of a prompt of token ids."""
    found = [
        Sentence(message, part, start, end, text[start:end])
        for message, part, text in _texts(request)
        for start, end in spans(text)
    ][:MOST]  # fmt: skip
    found = sorted([*found, *_quarters(request)], key=lambda one: (one.message, one.part))
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
        if i == last or message.text.strip() or message is request.messages[i] or _pictures(message)
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


def _quarters(request: Request) -> Iterator[Sentence]:
    shown = [(i, j) for i, message in enumerate(request.messages) for j in _pictures(message)]
    for number, (i, j) in enumerate(shown):
        name = "the picture" if len(shown) == 1 else f"picture {number + 1}"
        yield from (Sentence(i, j, quarter, quarter + 1, f"[{name}: {place}] ") for quarter, place in enumerate(QUARTERS))


def _pictures(message: Message) -> list[int]:
    return [number for number, part in enumerate(message.parts) if isinstance(part, ImagePart)]


def _asking(found: Sequence[Sentence], request: Request) -> set[int]:
    """Return the numbers of the sentences that ask: the last one, and an instruction before a text ("Summarise this:").

    A text that ends the prompt after an instruction asks nothing itself.
    """
    texts = [number for number, one in enumerate(found) if one.message < 0 or one.part not in _pictures(request.messages[one.message])]
    last_message = max((found[number].message for number in texts), default=0)
    last = [number for number in texts if found[number].message == last_message]
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
        if mine and isinstance(part, TextPart):
            part = replace(part, text=_cut(part.text, mine))
        elif mine and isinstance(part, ImagePart):
            part = _painted_over(part, frozenset(one.start for one in mine))
        parts.append(part)
    return replace(message, parts=tuple(parts))


@lru_cache(maxsize=32)
def _painted_over(part: ImagePart, quarters: frozenset[int]) -> ImagePart:
    """Return the picture with these quarters in its mean colour."""
    pixels = read_picture(part.data).pixels.copy()
    mean = pixels.mean((0, 1)).round().astype(np.uint8)
    middle, centre = pixels.shape[0] // 2, pixels.shape[1] // 2
    rows, columns = (slice(None, middle), slice(middle, None)), (slice(None, centre), slice(centre, None))
    for quarter in quarters:
        pixels[rows[quarter // 2], columns[quarter % 2]] = mean
    return ImagePart(png_of(Picture(pixels)), "image/png", part.origin)


def _cut(text: str, left_out: Sequence[Sentence]) -> str:
    kept, at = "", 0
    for one in sorted(left_out, key=lambda one: one.start):
        kept, at = kept + text[at : one.start], one.end
        space = one.text[len(one.text.rstrip()) :]
        if "\n" in space and kept and not kept.endswith("\n") and text[at:]:  # the paragraph ends all the same
            kept = kept.rstrip() + space
    return kept + text[at:]
