"""Write answers to many requests at once, for callers that wait for all (measurements, data makers). The scheduler does the work."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import Empty, SimpleQueue

from ingle.core.errors import IngleError
from ingle.core.message import Chunk, Request
from ingle.core.process import release_memory
from ingle.core.state import STEP_TOKENS
from ingle.engine.job import Capacity, Job
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import PrefixCache
from ingle.engine.scheduler import Scheduler

_PLACES = 8
"""Answers at once: more hardly make a step of two cores faster."""
_STATE_BYTES, STARTS_BYTES = 1 << 30, 64 << 20
"""Most for the states of answers and of earlier prompts together; of these, what is there beside the answers', for common starts."""
_LOOK_S = 0.1
"""Seconds between calls of `stopped` while no answer is ready."""


def _never() -> bool:
    return False


def write(model: LanguageModel, requests: Sequence[Request], stopped: Callable[[], bool] = _never) -> Iterator[tuple[int, str]]:
    """Yield each request's number with its answer's text, as soon as it is ready. A common start of prompts is read once.

    When `stopped` is true, nothing more comes. Raises what `LanguageModel.prompt` raises for any request before the first answer.
    """
    return ((number, text) for number, text, _ in write_whole(model, requests, stopped))


def write_whole(
    model: LanguageModel, requests: Sequence[Request], stopped: Callable[[], bool] = _never
) -> Iterator[tuple[int, str, Chunk]]:  # fmt: skip
    """Yield each request's number with its answer's text and last chunk, as `write` does."""
    prompts = [model.prompt(request) for request in requests]
    sizes = [len(prompt.ids) + model.most_tokens(request, len(prompt.ids)) for request, prompt in zip(requests, prompts, strict=True)]
    # No more than that: what has been answered is not asked again, and its states would pile up until nothing is free.
    room = min(_STATE_BYTES, _PLACES * model.backend.state_bytes(max(sizes, default=0)) + STARTS_BYTES)
    capacity = Capacity(_PLACES, _PLACES, len(requests) + 1, len(requests) + 1, room, STEP_TOKENS, STEP_TOKENS)
    arrived: SimpleQueue[tuple[int, Chunk | IngleError]] = SimpleQueue()
    words: list[list[str]] = [[] for _ in requests]
    scheduler = Scheduler(capacity, PrefixCache(room))
    try:
        for number, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            deliver, grammar = partial(_arrive, arrived, number), model.grammar(request)
            scheduler.submit(Job(model, request, prompt.ids, deliver, grammar, vectors=prompt.vectors))
        left = len(requests)
        while left and not stopped():
            try:
                number, outcome = arrived.get(timeout=_LOOK_S)
            except Empty:
                continue
            if isinstance(outcome, IngleError):
                raise outcome
            words[number].append(outcome.text)
            if outcome.finish is not None:
                left -= 1
                yield number, "".join(words[number]), outcome
    finally:
        scheduler.close()
        del scheduler
        release_memory()  # of all states: the caller may train next


def _arrive(arrived: "SimpleQueue[tuple[int, Chunk | IngleError]]", number: int, outcome: Chunk | IngleError) -> None:
    arrived.put((number, outcome))
