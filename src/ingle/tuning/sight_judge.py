"""Held-out pictures, described as the model is served: names, words, and whether it looks at all."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ingle.core.candidate import Candidate
from ingle.core.media import Picture
from ingle.core.message import ImagePart, Message, Request, TextPart
from ingle.engine.answer import write
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import Opener
from ingle.engine.packs import candidate_source
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.media.picture import png_of
from ingle.tuning.sight_pictures import ShownPicture, words_of
from ingle.tuning.sight_questions import NAME, WORDS

_MOST = 40
_BEGINNING = re.compile(r"^(the picture shows:\s*|it is\s+)?((an?|the)\s+)?", re.IGNORECASE)


def ask(data: bytes, question: str, max_tokens: int = _MOST) -> Request:
    """Return a question about one picture, to be answered greedily."""
    return Request((Message("user", (ImagePart(data, "image/png"), TextPart(question))),), max_tokens=max_tokens)


def plain(name: str) -> str:
    """Return a name without the words that lead to it (`The picture shows: a`), capitals, and punctuation at its ends."""
    return _BEGINNING.sub("", " ".join(name.lower().split()).strip(" .,!?\"'")).strip(" .,!?\"'")


def f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the F1 of words against words, each counted once."""
    first, second = set(given), set(wanted)
    same = len(first & second)
    return 2 * same / (len(first) + len(second)) if same else 0.0


def wanted_words(one: ShownPicture) -> tuple[str, ...]:
    """Return the words that describe a picture: of its name, and its tags."""
    return tuple(dict.fromkeys((*words_of(one.name), *one.tags)))


def answers(model: LanguageModel, requests: Sequence[Request], stopped: Callable[[], bool]) -> list[str]:
    """Return the answers in order; what was stopped before it came is empty."""
    by_number = dict(write(model, requests, stopped))
    return [by_number.get(number, "") for number in range(len(requests))]


def blank() -> bytes:
    """Return a white picture, as a file."""
    return png_of(Picture(np.full((64, 64, 3), 255, np.uint8)))


def described(
    home: Home, kept: Kept, candidate: Candidate, pictures: Sequence[ShownPicture], stopped: Callable[[], bool]
) -> dict[str, Any]:
    """Return the candidate's figures on these pictures: the share named right, the mean F1 of its words, the same for a blank picture in
    their place, and the share of answers that change when the next picture stands in a picture's place."""
    model, n = Opener().open(candidate_source(home, kept, candidate)), len(pictures)
    named = answers(model, [ask(one.data, NAME) for one in pictures], stopped)
    words = answers(model, [ask(one.data, WORDS) for one in pictures], stopped)
    [nothing] = answers(model, [ask(blank(), WORDS)], stopped)
    wanted = [wanted_words(one) for one in pictures]
    return {
        "n": n,
        "named": sum(plain(got) == plain(one.name) for got, one in zip(named, pictures, strict=True)) / n,
        "words": float(np.mean([f1(words_of(got), one) for got, one in zip(words, wanted, strict=True)])),
        "blank_words": float(np.mean([f1(words_of(nothing), one) for one in wanted])),
        "changed": sum(first != second for first, second in zip(words, [*words[1:], words[0]], strict=True)) / n,
        "samples": [[one.name, got] for one, got in list(zip(pictures, named, strict=True))[:8]],
    }
