"""The sentences of a request and the quarters of its pictures, the request without some of them, and the names that they are about.

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


# Names and numbers of a text: an answer that was taken from a sentence about somebody else's is found by them.


_NAME = re.compile(r"(?<![\w'’-])(?:[A-Z][\w-]*(?:\s+[A-Z][\w-]*)*|\d[\d.,:]*)")
_START = re.compile(r"(?:^|[.!?:\n])[\s\"'“”‘’()*-]*$")
_WORD = re.compile(r"[^\W_]+")
_COMMON_WORDS = """
a an and are as at be been but by can could did do does dr for from give had has have he her here him his how i if in into is it its me
mr mrs ms my name no not of on one or our please question she since so some tell than that the their them then there these they this those
to under was we were what when where which who whom whose why will with would yes you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_REFERS = re.compile(r"\b(?:it|its|he|his|him|she|her|they|their|them|this|that|these|those|there|here)\b", re.IGNORECASE)
_BEFORE = 240  # characters before a sentence in which a name may stand that it refers to


def names_of(text: str, around: str = "") -> tuple[str, ...]:
    """Return the names and numbers of a text, each once, in order.

    One capital word that begins a sentence is a name only if it stands as one within a sentence, here or in `around`.
    """
    found = dict[str, None]()
    unsure = list[str]()
    for match in _NAME.finditer(text):
        words = match.group().split()
        starts = _START.search(text[: match.start()]) is not None
        while words and words[0].lower() in _COMMON:
            words, starts = words[1:], False
        name = " ".join(words).rstrip(".,:-")
        if name and starts and len(words) == 1 and not name[0].isdigit():
            unsure.append(name)
        elif name:
            found[name] = None
    for name in unsure:
        if name in found or _within_sentence(name, around):
            found[name] = None
    return tuple(sorted(found, key=text.find))


def twin(question: str, sentence: str, answer: str, text: str = "") -> tuple[str, str] | None:
    """Return (the sentence's name, the question's name) if the sentence is about another one than the question asks for; else None.

    Either two different words stand in the same place of both, or the question names something that the sentence does not, and the sentence
    names something that is neither in the question nor in the answer. `text`: all that was said, with the sentence in it.
    """
    theirs = [name for name in names_of(sentence, text) if not _named(name, question)]
    asked = [name for name in names_of(question, f"{sentence}\n{text}") if not _named(name, sentence)]
    if (same_place := _same_place(question, sentence, {word.lower() for name in theirs for word in name.split()})) is not None:
        return None if _refers(sentence, same_place[1], text) else same_place
    theirs = [name for name in theirs if not _in(name, answer)]
    return (theirs[0], asked[0]) if theirs and asked and not _refers(sentence, asked[0], text) else None


def _same_place(question: str, sentence: str, names: set[str]) -> tuple[str, str] | None:
    """Return a word of the sentence and one of the question with the same two words before them, neither of which is in the other text.

    Where the sentence's word is no name, the next words must be equal too: *under the lamp in* and *under the mill in*.
    """
    theirs, asked = _WORD.findall(sentence), _WORD.findall(question)
    mine, other = ([word.lower() for word in words] for words in (theirs, asked))
    places: dict[tuple[str, str], list[int]] = {}
    for at in range(2, len(other)):
        places.setdefault((other[at - 2], other[at - 1]), []).append(at)
    for at in range(2, len(mine)):
        for place in places.get((mine[at - 2], mine[at - 1]), ()):
            apart = mine[at] not in other and other[place] not in mine and not {mine[at], other[place]} & _COMMON
            follows = at + 1 < len(mine) and place + 1 < len(other) and mine[at + 1] == other[place + 1]
            if apart and (mine[at] in names or follows):
                return theirs[at], asked[place]
    return None


def _named(name: str, sentence: str) -> bool:
    """Return whether a sentence has a name: all of its words, or the last one, if that is not the end of another name there."""
    words = [word for word in _WORD.findall(name) if word.lower() not in _COMMON] or [name]
    if all(_in(word, sentence) for word in words):
        return True
    others = [one for one in names_of(sentence) if len(one.split()) > 1 and one.split()[-1].lower() == words[-1].lower()]
    return _in(words[-1], sentence) and not others


def _refers(sentence: str, name: str, text: str) -> bool:
    """Return whether a sentence may speak of a name without saying it: it has a pronoun, and the name stands shortly before it."""
    at = text.find(sentence.strip())
    return at > 0 and _REFERS.search(sentence) is not None and _in(name, text[max(0, at - _BEFORE) : at])


def _within_sentence(name: str, text: str) -> bool:
    return any(_START.search(text[: match.start()]) is None for match in re.finditer(rf"(?<![\w'’-]){re.escape(name)}(?!\w)", text))


def _in(name: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None
