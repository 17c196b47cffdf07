"""A small cross-encoder that scores whether two questions ask the same of the same thing.

Both questions go into an encoder of texts (model/text_encoder.py) together, one number comes out: the mean of its last states and one
linear unit on top. It has half of e5-small's depth, and the words that all encoders here share. `bench/adapt_matcher.py` trained it on
English, German, French and Spanish questions that were written for it, in the four bits of the file beside this one. Few pairs get so far
(adapt/scope.py).
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

from ingle.model.text_encoder import TextEncoder, load_encoder

FOLDER = Path(__file__).parent
WEIGHTS_FILE = "matcher.safetensors"
LONGEST = 64
"""Most tokens of a question; a longer one is cut."""
_REMEMBERED = 4096
"""Pairs whose scores are cached."""


def pair_row(encoder: TextEncoder, question: str, other: str) -> tuple[Sequence[int], Sequence[int]]:
    """Return tokens and segments: `<s> question </s> other </s>`."""
    first, second = (encoder.ids(text, LONGEST) for text in (question, other))
    return [encoder.start, *first, encoder.end, *second, encoder.end], [0] * (len(first) + 2) + [1] * (len(second) + 1)


def pair_odds(encoder: TextEncoder, question: str, other: str) -> float:
    """Return the log odds that two questions ask the same. Pairs are not batched, so that no other pair changes a score."""
    weight, bias = encoder.head
    return float((weight @ encoder.read(*pair_row(encoder, question, other)).mean(0) + bias)[0])


@cache
def matcher() -> TextEncoder:
    """Return the matcher in the files beside this one."""
    return load_encoder(FOLDER / WEIGHTS_FILE)


@lru_cache(_REMEMBERED)
def odds_of(question: str, other: str) -> float:
    """Return the mean of both orders' odds, cached: the questions of a conversation are compared more than once."""
    return (pair_odds(matcher(), question, other) + pair_odds(matcher(), other, question)) / 2
