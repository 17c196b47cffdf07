"""Questions about pictures, with answers made from their words: what it is, what sort of thing, its colours, words for it, a sentence."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ingle.core.media import Picture, PictureLook, SightPiece
from ingle.core.message import ImagePart, Message, TextPart
from ingle.engine.language_model import Seen, seen_prompt
from ingle.media.sight import line_of
from ingle.model.template import render
from ingle.model.tokenizer import ControlToken, Tokenizer
from ingle.train.encode import Document
from ingle.tuning.sight_pictures import ShownPicture

NAME = "What is it? Answer with its name only."
WORDS = "Which words describe it? Answer with a list."
KIND = "What sort of thing is it?"
COLOURS = "Which colours does it have?"
_NAMES = (NAME, "What is this?", "What does the picture show?", "What do you see?", "Name it.")
_WORDS = (WORDS, "Give a few words for this picture.")
_KINDS = (KIND, "What kind of thing does the picture show?")
_COLOURS = (COLOURS, "What colour is it?")
_SENTENCES = ("Describe the picture.", "Describe this picture in a sentence.")
_MOST_WORDS = 8


def listed(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def questions_of(one: ShownPicture, colours: Sequence[str], count: int, draw: np.random.Generator) -> list[tuple[str, str]]:
    """Return a picture's questions with their answers: its name is asked first, then `count` − 1 others."""

    def pick(texts: Sequence[str]) -> str:
        return texts[int(draw.integers(len(texts)))]

    called = pick(_NAMES)
    first = (called, one.name if called == NAME else f"The picture shows: {one.name}.")
    words = list(dict.fromkeys((*one.name.lower().split(), *one.tags)))[:_MOST_WORDS]
    others = [(pick(_WORDS), ", ".join(words))]
    if one.kind:
        others.append((pick(_KINDS), f"It is {one.kind}."))
    if colours:
        others.append((pick(_COLOURS), f"It is {listed(colours)}."))
    kind = f" It is {one.kind}." if one.kind else ""
    coloured = f" Its colours are {listed(colours)}." if colours else ""
    others.append((pick(_SENTENCES), f"The picture shows: {one.name}.{kind}{coloured}"))
    chosen = draw.permutation(len(others))[: max(0, count - 1)]
    return [first, *(others[i] for i in chosen)]


class Marks:
    """A sight that only marks its places: the ids of a picture's vectors can be told by their order."""

    marker, digest, likeness = "", "marks", 1.0

    def see(self, picture: Picture) -> tuple[str, ...]:
        """Return nothing: no picture is ever shown to it."""
        return ()

    def fingerprint(self, picture: Picture, pieces: Sequence[SightPiece]) -> npt.NDArray[np.float32]:
        """Return nothing, too."""
        return np.zeros(0, np.float32)


def asked(tokenizer: Tokenizer, question: str) -> tuple[str | ControlToken, ...]:
    """Return a question about a picture as the model's template writes it."""
    return render(tokenizer, [Message("user", (ImagePart(b"", "image/png"), TextPart(question)))], True)


def document_of(
    tokenizer: Tokenizer, vocab_size: int, view: int, places: int, line: str, question: Sequence[str | ControlToken], answer: str
) -> Document:
    """Return a question about a picture (see `asked`) with its answer, as the engine would ask it. `view`: the number of the view."""
    seen = [Seen(PictureLook(str(view), "", np.zeros(0, np.float32)), (np.zeros((places, 1), np.float32), line))]
    ends = next(iter(tokenizer.facts.eos_ids), None)
    prompt = seen_prompt(tokenizer, question, seen, Marks(), vocab_size).ids
    place, ids = 0, list[int]()
    for id_ in prompt:
        if id_ >= vocab_size:
            ids.append(vocab_size + view * places + place)
            place += 1
        else:
            ids.append(id_)
    written = [*tokenizer.encode_pieces(["", answer]), *([] if ends is None else [ends])]
    return Document(np.array([*ids, *written], np.int32), np.arange(len(ids) + len(written)) >= len(ids))


def line_for(said: tuple[Sequence[str], Sequence[str]], colours: Sequence[str]) -> str:
    """Return the words behind a picture's vectors."""
    return line_of(*said, colours)
