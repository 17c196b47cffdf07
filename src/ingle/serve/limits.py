"""What the guards have to know about a model."""

from functools import lru_cache

from ingle.engine.language_model import LanguageModel
from ingle.model.tokenizer import Tokenizer
from ingle.safety.limits import Limits


@lru_cache(maxsize=8)
def limits_of(model: LanguageModel) -> Limits:
    """The limits for requests to this model."""
    tokenizer = model.tokenizer
    return Limits(model.backend.config.context_length, _longest_token(tokenizer), tuple(tokenizer.control))


@lru_cache(maxsize=8)
def _longest_token(tokenizer: Tokenizer) -> int:
    """Bytes that the longest token can stand for, generously: tokenizers that normalise Unicode make text three times shorter first."""
    bytes_per_character = 1 if tokenizer.facts.kind == "bytes" else 4
    return 3 * bytes_per_character * max(map(len, tokenizer.fast.get_vocab(with_added_tokens=True)))
