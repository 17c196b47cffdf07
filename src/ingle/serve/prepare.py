"""Makes a request ready for the engine, off the event loop: templates come with models and may be slow, and pictures take time."""

import asyncio

from ingle.core.errors import RequestError
from ingle.core.message import Request
from ingle.engine.grammar import Grammar
from ingle.engine.language_model import LanguageModel
from ingle.engine.seeing import ReadyPrompt


async def prepare(model: LanguageModel, request: Request) -> tuple[ReadyPrompt, Grammar | None]:
    """Return the prompt and the answer's grammar. Raises RequestError and its subclasses for a request that can't be answered."""
    size = model.backend.config.vocab_size
    if any(token >= size for token, _ in request.sampling.logit_bias):
        raise RequestError("logit_bias", f"must map token ids below {size}", max(token for token, _ in request.sampling.logit_bias))
    return await asyncio.to_thread(lambda: (model.prompt(request), model.grammar(request)))
