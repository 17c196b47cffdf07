"""The tokens of an answer. An explanation is of what the model wrote, not of a text that looks like it, so the answer is given again."""

from collections.abc import Iterable

from ingle.core.message import Chunk, Request
from ingle.engine.language_model import LanguageModel
from ingle.explain.cause import Said


def said_by(model: LanguageModel, request: Request, chunks: Iterable[Chunk]) -> Said:
    """Return an answer from the engine's chunks; `request`: as the model read it. The token that ends it is none of its words."""
    tokens = [token for chunk in chunks for token in chunk.tokens]
    while tokens and tokens[-1] in model.tokenizer.eos_ids:
        tokens.pop()
    return Said(model, request, tuple(tokens), pieces_of(model, tokens))


def pieces_of(model: LanguageModel, tokens: Iterable[int]) -> tuple[str, ...]:
    """Return the text of each token. A character of several tokens belongs to the last of them."""
    stream = model.tokenizer.stream()
    pieces = [stream.feed(token) for token in tokens]
    if pieces:
        pieces[-1] += stream.flush()
    return tuple(pieces)
