"""Guard models of a server: opened when they are first asked, beside the models on offer, and read on the scheduler's thread.

So a question takes its asker's share, step by step beside everybody's answers, and waits in its asker's turn: a long text of one delays
nobody else's questions. It is waited for without holding up the event loop.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from weakref import WeakSet

from ingle.core.apart import StopFlag
from ingle.core.errors import Busy, Closing, GuardError, IngleError
from ingle.engine.metering import Reading
from ingle.robustness.guard_model import GuardModel, GuardSession
from ingle.safety.opinion import AskGuard, GuardCost, GuardOpinion, GuardQuestion
from ingle.serve.logs import log
from ingle.serve.model_registry import ModelRegistry
from ingle.serve.slow import Turns

# For the states of answers that are being watched, between two questions. Beyond it, a question is read from its beginning.
HELD_BYTES = 256 << 20
_PAUSE_S = 0.05  # until room for a state is asked for again


class GuardModels:
    """The guard models of one server. `ask_for` belongs to its event loop."""

    def __init__(self, models: ModelRegistry, turns: Turns, attend: Callable[[Reading], None], deadline_s: float) -> None:
        """`attend`: gives a reading to the scheduler; `deadline_s`: the longest that a question may wait and take."""
        self._models, self._turns, self._attend, self._deadline_s = models, turns, attend, deadline_s
        self._opened: dict[str, GuardModel] = {}
        self._sessions: WeakSet[GuardSession] = WeakSet()

    def ask_for(self, asker: str, told: Callable[[GuardCost], object] = lambda _: None) -> AskGuard:
        """Return what asks about one answer to this asker; `told` hears of costs.

        It raises NotKept and the errors of opening, GuardError, TemplateError, TimeoutError, and what reading raises.
        """
        sessions: dict[str, GuardSession] = {}

        async def ask(question: GuardQuestion) -> GuardOpinion:
            try:
                async with asyncio.timeout(self._deadline_s):
                    found = await self._ask(sessions, question, asker)
            except Exception as error:
                fault = str(error) if isinstance(error, IngleError) else type(error).__name__
                log("guard", {"model": question.model, "fault": fault})
                raise
            told(found.cost)
            return found

        return ask

    async def _ask(self, sessions: dict[str, GuardSession], question: GuardQuestion, asker: str) -> GuardOpinion:
        guard = await self._open(question.model)
        if question.model not in sessions or sessions[question.model].guard is not guard:
            sessions[question.model] = GuardSession(guard)
            self._sessions.add(sessions[question.model])
        session = sessions[question.model]
        found = await self._turns.do(asker, lambda stop: self._read(session, question, asker, stop))
        if sum(one.nbytes for one in self._sessions) > HELD_BYTES:
            session.forget()
        return found

    async def _open(self, name: str) -> GuardModel:
        model = await self._models.own(name)
        if name not in self._opened or self._opened[name].model is not model:
            self._opened[name] = GuardModel(model)
        return self._opened[name]

    def _read(self, session: GuardSession, question: GuardQuestion, asker: str, stop: StopFlag) -> GuardOpinion:
        """Read a question. Runs in a thread of its own, and waits for the scheduler's."""
        reading, done = session.begin(question), Future[None]()

        def step(most: int) -> int | None:
            _check(stop)
            return reading.reading.step(most)

        def ended(error: Exception | None) -> None:
            done.set_result(None) if error is None else done.set_exception(error)

        job = Reading(step, ended, reading.reading.state_bytes, asker, awaited=True)
        while True:
            try:
                self._attend(job)
                break
            except Closing:
                raise
            except Busy:  # other states take the room now
                _check(stop)
                time.sleep(_PAUSE_S)
        done.result()
        return reading.opinion(job.energy)


def _check(stop: StopFlag) -> None:
    """Raise GuardError if nobody waits any more."""
    if stop.is_set:
        raise GuardError("guard model", "was asked by somebody who has gone")
