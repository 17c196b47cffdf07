"""What the guards have to know about a model."""

from weakref import WeakKeyDictionary

from ingle.engine.language_model import LanguageModel
from ingle.model.tokenizer import Tokenizer
from ingle.safety.limits import Limits

_longest: WeakKeyDictionary[Tokenizer, int] = WeakKeyDictionary()
"""By tokenizer, for as long as that lives: a model that was swapped out is not held."""


def limits_of(model: LanguageModel) -> Limits:
    """The limits for requests to this model. Takes some milliseconds the first time."""
    tokenizer = model.tokenizer
    longest = _longest.get(tokenizer)
    if longest is None:
        longest = _longest[tokenizer] = _longest_token(tokenizer)
    return Limits(model.backend.config.context_length, longest, tuple(tokenizer.control))


def _longest_token(tokenizer: Tokenizer) -> int:
    """Bytes that the longest token can stand for, generously: tokenizers that normalise Unicode make text three times shorter first."""
    bytes_per_character = 1 if tokenizer.facts.kind == "bytes" else 4
    return 3 * bytes_per_character * max(map(len, tokenizer.fast.get_vocab(with_added_tokens=True)))
