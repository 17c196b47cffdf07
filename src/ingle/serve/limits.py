"""The limits of a model that guards check."""

from weakref import WeakKeyDictionary

from ingle.engine.language_model import LanguageModel
from ingle.model.tokenizer import Tokenizer
from ingle.safety.limits import RequestLimits

_longest: WeakKeyDictionary[Tokenizer, int] = WeakKeyDictionary()
"""By tokenizer. Weak, so that a model that was swapped out is not held."""


def limits_of(model: LanguageModel) -> RequestLimits:
    """Return the limits of this model. Takes some milliseconds the first time."""
    tokenizer = model.tokenizer
    longest = _longest.get(tokenizer)
    if longest is None:
        longest = _longest[tokenizer] = _longest_token(tokenizer)
    return RequestLimits(model.backend.config.context_length, longest, tuple(tokenizer.control))


def _longest_token(tokenizer: Tokenizer) -> int:
    """Return an upper bound of the bytes in one token. Tokenizers that normalise Unicode may make text three times shorter first."""
    bytes_per_character = 1 if tokenizer.facts.kind == "bytes" else 4
    return 3 * bytes_per_character * max(map(len, tokenizer.fast.get_vocab(with_added_tokens=True)))
