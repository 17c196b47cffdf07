"""The limits of a model that guards check."""

from ingle.engine.language_model import LanguageModel
from ingle.safety.guard import RequestLimits


def limits_of(model: LanguageModel) -> RequestLimits:
    """Return the limits of this model. Takes some milliseconds the first time."""
    tokenizer = model.tokenizer
    return RequestLimits(model.backend.config.context_length, tokenizer.longest_token, tuple(tokenizer.control))
