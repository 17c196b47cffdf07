"""Makes a request ready for the engine, off the event loop: templates come with models and may be slow, and pictures take time."""

import asyncio
from collections.abc import Callable

from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import RequestError
from ingle.core.message import Request
from ingle.energy.meter import Span, open_meter
from ingle.engine.grammar import Grammar
from ingle.engine.language_model import LanguageModel
from ingle.engine.seeing import ReadyPrompt


async def prepare(
    model: LanguageModel, request: Request, others: Callable[[], int] = lambda: 0
) -> tuple[ReadyPrompt, Grammar | None, Energy]:
    """Return the prompt, the answer's grammar, and the energy that its pictures took.

    `others`: how many answers are being written. Beside them, pictures are in their share already: a step's energy is the process's.
    Raises RequestError and its subclasses for a request that can't be answered.
    """
    size = model.backend.config.vocab_size
    if any(token >= size for token, _ in request.sampling.logit_bias):
        raise RequestError("logit_bias", f"must map token ids below {size}", max(token for token, _ in request.sampling.logit_bias))
    alone = not others()

    def read() -> tuple[ReadyPrompt, Grammar | None, Energy]:
        span = Span(open_meter()) if alone and model.seer is not None else None
        prompt = model.prompt(request)
        taken = span.end() if span is not None and prompt.vectors else NOTHING
        return prompt, model.grammar(request), taken if not others() else NOTHING

    return await asyncio.to_thread(read)
