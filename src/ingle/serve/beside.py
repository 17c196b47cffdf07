"""Reads and writes for an explanation on the server's scheduler, beside everybody's answers, behind the same guards."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ingle.app.answering import behind_guards, limits_of
from ingle.app.explained import Tap
from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import IngleError
from ingle.core.media import Vectors
from ingle.core.message import Chunk, Request
from ingle.engine.job import Job
from ingle.engine.language_model import AnswerPlace, LanguageModel, ReadyPrompt, places_in_steps
from ingle.engine.metering import Reading
from ingle.engine.scoring import score_in_steps
from ingle.explain.cause import TOP, Nats, OutOfTime, Reader
from ingle.serve.service import Service

T = TypeVar("T")
_STATES = 3  # states of the whole prompt that a trie holds at once, at most; forks share what is full


@dataclass
class Beside:
    """The work for one explanation. Its functions are called from a thread of its own, not from the event loop."""

    service: Service
    loop: asyncio.AbstractEventLoop
    asker: str
    deadline: float  # by `time.perf_counter`
    stopped: bool = False  # whether whoever asked has gone
    energy: Energy = NOTHING
    _answering: "list[Future[tuple[str, Tap]]]" = field(default_factory=list)

    @property
    def reader(self) -> Reader:
        """The reader for `explain`."""
        return Reader(self._score, lambda asks: [text for text, _ in self.answers(asks)], self._places)

    def stop(self) -> None:
        """Ends all work soon: whoever asked has gone."""
        self.stopped = True
        for future in list(self._answering):
            future.cancel()

    def answers(self, asks: Sequence[tuple[LanguageModel, Request]]) -> list[tuple[str, Tap]]:
        """Return answers as the guards let them out, with what the engine read and wrote. Raises OutOfTime and what answering raises."""
        self._check()
        futures = [asyncio.run_coroutine_threadsafe(self._answer(model, request), self.loop) for model, request in asks]
        self._answering = futures
        try:
            self._check()  # whoever goes from here on finds them
            return [future.result(max(0.0, self.deadline - time.perf_counter())) for future in futures]
        except (TimeoutError, CancelledError):
            raise OutOfTime from None
        finally:
            for future in futures:
                future.cancel()

    def _score(
        self, model: LanguageModel, tasks: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]], vectors: Vectors
    ) -> list[Sequence[Nats]]:  # fmt: skip
        longest = max(len(given) + max(map(len, endings)) for given, endings in tasks)
        read = self._read(model, longest, lambda room: score_in_steps(model.backend, tasks, room, model.adapter, vectors))
        found = dict(read)
        return [found[number] for number in range(len(tasks))]

    def _places(self, model: LanguageModel, given: ReadyPrompt, answer: Sequence[int]) -> list[AnswerPlace]:
        ids, vectors = given.ids, given.vectors
        longest = len(ids) + len(answer)
        return self._read(model, longest, lambda room: places_in_steps(model.backend, ids, answer, TOP, room, model.adapter, vectors))

    def _read(self, model: LanguageModel, longest: int, begin: Callable[[Callable[[], int]], Iterator[list[T]]]) -> list[T]:
        """Return all that a reading's steps yield. `begin`: begins it, and takes the room for its next step."""
        found, room, done = list[T](), [0], Future[None]()
        steps = begin(lambda: room[0])

        def step(most: int) -> int | None:
            self._check()
            room[0] = most
            ready = next(steps, None)
            found.extend(ready or ())
            return None if ready is None else most

        def ended(error: Exception | None) -> None:
            done.set_result(None) if error is None else done.set_exception(error)

        reading = Reading(step, ended, _STATES * model.backend.state_bytes(longest), self.asker)
        self.service.scheduler.attend(reading)
        done.result()
        self.energy = self.energy + reading.energy
        return found

    def _check(self) -> None:
        if self.stopped or time.perf_counter() > self.deadline:
            raise OutOfTime

    async def _answer(self, model: LanguageModel, request: Request) -> tuple[str, Tap]:
        tap = Tap()
        limits = await asyncio.to_thread(limits_of, model)
        inner, service = tap.around(lambda passed: self._engine(model, passed)), self.service
        guarded = behind_guards(service, model.name, limits, request, service.policy, self.asker, inner)
        async with aclosing(guarded) as chunks:
            words = [chunk.text async for chunk in chunks]
        return "".join(words), tap

    async def _engine(self, model: LanguageModel, request: Request) -> AsyncIterator[Chunk]:
        prompt, grammar = await self.service.preparer.prepare(model, request, self.asker)
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        # Nothing of it is remembered: it holds what was taught, or lacks it, and nobody goes on from here.
        deadline, vectors = self.deadline, prompt.vectors
        job = Job(model, request, prompt.ids, inbox.put_nowait, grammar, self.asker, lasting=0, deadline=deadline, vectors=vectors)
        self.service.scheduler.submit(job)
        finished = False
        try:
            while not finished:
                outcome = await inbox.get()
                if isinstance(outcome, IngleError):
                    finished = True
                    raise outcome
                finished = outcome.finish is not None
                if finished and outcome.usage is not None and outcome.usage.energy is not None:
                    self.energy = self.energy + outcome.usage.energy
                if outcome.finish == "deadline":
                    raise OutOfTime
                yield outcome
        finally:
            if not finished:
                self.service.scheduler.cancel(job)
