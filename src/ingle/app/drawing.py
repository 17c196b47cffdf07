"""Drawing in a conversation: the words that a painting model writes become a picture before anybody sees them."""

from dataclasses import replace

from ingle.core.message import Chunk, ImagePart, Message, Request, TextPart
from ingle.engine.language_model import LanguageModel, painted
from ingle.media.picture import SIDE, enlarged, png_of

_SIDE = 256  # pixels of a side, as the picture is shown: what is painted has fewer, more is only smoother
_WHOLE = ("stop", "length")


def is_drawing(model: LanguageModel, request: Request) -> bool:
    """Return whether the answer to a request is shown as a picture: one that a conversation asked for."""
    return model.paints and bool(request.messages)


def drawn(model: LanguageModel, chunk: Chunk, words: str) -> Chunk:
    """Return a chunk of a drawing as it is shown: without words, and the last with the picture. An answer that was cut short has none.

    `words`: of the whole answer so far.
    """
    return replace(chunk, text="", media=picture_of(model, words) if chunk.finish in _WHOLE else ())


def picture_of(model: LanguageModel, words: str) -> tuple[ImagePart, ...]:
    """Return the picture that these words are."""
    return (ImagePart(png_of(enlarged(painted(model, words), _SIDE / SIDE)), "image/png"),)


def said_with_picture(model: LanguageModel, request: Request, words: str, whole: bool) -> Message:
    """Return an answer as it is stored: a picture with its words, by which a replay proves it; else the words alone."""
    if whole and is_drawing(model, request):
        return Message("assistant", (*picture_of(model, words), TextPart(words)))
    return Message.of("assistant", words)
