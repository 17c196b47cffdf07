"""Reads the beginning of a question while it is still being spoken, so that its answer need not wait for that.

Nothing is answered, and nothing of it is stored: the state lies beside those of earlier prompts, for whoever asks by the same key.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from ingle.app.answering import Ask
from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import IngleError
from ingle.core.message import Chunk, Message, Request
from ingle.engine.job import Job
from ingle.engine.prefix_cache import common_length
from ingle.serve.service import Service

# Endings that may come next. Where the tokens with it begin to differ, nothing is certain any more.
_MORE = " so"
_MOST_S = 30.0


async def read_ahead(service: Service, ask: Ask) -> Energy:
    """Read the request of `ask` up to the last of its words that is certain; returns the energy. Never fails: it is worth a moment only."""
    try:
        kept, model = await service.models.find(ask.model)
        model = (await asyncio.to_thread(service.chooser.choose, ask.asker, model, kept, ask.request, False)).model
        ids = await asyncio.to_thread(_certain, model.encode, ask.request)
        inbox: asyncio.Queue[Chunk | IngleError] = asyncio.Queue()
        request = Request(prompt=tuple(ids), max_tokens=0)
        job = Job(model, request, ids, inbox.put_nowait, None, ask.asker, deadline=time.perf_counter() + _MOST_S)
        service.scheduler.submit(job)
        try:
            outcome = await inbox.get()
        except asyncio.CancelledError:
            service.scheduler.cancel(job)
            raise
    except IngleError:
        return NOTHING
    return outcome.usage.energy or NOTHING if isinstance(outcome, Chunk) and outcome.usage else NOTHING


def _certain(encode: Callable[[Request], list[int]], request: Request) -> list[int]:
    *before, last = request.messages
    longer = replace(request, messages=(*before, Message.of(last.role, last.text + _MORE)))
    ids = encode(request)
    return ids[: max(1, common_length(ids, encode(longer)))]
