"""The answer service behind the API and the page: one request in, chunks out, one fact in the ledger.

An answer passes guards → queue → engine → guards → ledger → client. The last chunk leaves only when the fact (and the text, if it is
stored) would survive a power cut. An answer whose client has gone leaves its fact too.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, TypeVar

from ingle.adapt.choosing import Chooser
from ingle.app.answer_key import answer_key
from ingle.app.answering import AnswerRun, Ask, answering, left
from ingle.app.drawing import drawn, is_drawing
from ingle.app.facts import Recorder
from ingle.app.house import open_rooms
from ingle.app.settings import SamplingSettings, ServeSettings
from ingle.core.clock import REAL, Clock
from ingle.core.energy import Energy
from ingle.core.errors import HomeError, IngleError
from ingle.core.message import Chunk, Finish, Request, Usage, Verdict
from ingle.core.report import Event
from ingle.energy.meter import Clocks, Meter
from ingle.engine.job import Job, Outcome, post_directly
from ingle.engine.language_model import LanguageModel, as_drawing, lacks
from ingle.engine.prefix_cache import PrefixCache, SavedStates, forgotten
from ingle.engine.scheduler import Scheduler
from ingle.home.api_keys import list_keys
from ingle.home.examples import mend_index
from ingle.home.place import Home
from ingle.learn.learning_settings import LearnSettings
from ingle.media.decoder import MediaDecoder
from ingle.media.speech import Speech
from ingle.safety.middleware import Next
from ingle.safety.opinion import AskGuard, GuardCost
from ingle.safety.policy import USUAL, GuardPolicy
from ingle.serve.guard_models import GuardModels
from ingle.serve.live_policy import LivePolicy
from ingle.serve.logs import log
from ingle.serve.metrics import Metrics
from ingle.serve.model_registry import ModelRegistry
from ingle.serve.prepare import Preparer
from ingle.serve.pulling import Puller
from ingle.serve.refusals import Refusals
from ingle.serve.slow import Slow
from ingle.serve.sound_memory import SoundMemory
from ingle.serve.updates import Updates
from ingle.serve.wrong_keys import WrongKeys

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.ledger.row import Row

T = TypeVar("T")
_SWEEP_S = 5.0


class Service:
    """The answer service, one per server. `start` and `close` belong to its event loop."""

    def __init__(
        self, home: Home, settings: ServeSettings, sampling: SamplingSettings, models: ModelRegistry, policy: GuardPolicy = USUAL,
        clock: Clock = REAL,
    ) -> None:  # fmt: skip
        """policy: settings of the guards, until policy.toml is looked at; see safety/policy.py. clock: of all that has patience here."""
        self.clock = clock
        self.home, self.settings, self.sampling, self.models = home, settings, sampling, models
        self.metrics, self.recorder = Metrics(), Recorder(home)
        self.live = LivePolicy(home.policy, policy, lambda: self.engine)
        # Decoders, ears and voices: processes that start when they are first needed.
        self.slow, self.decoder, self.speech, self.sounds = Slow(), MediaDecoder(), Speech(home), SoundMemory(clock)
        # Meters those processes; a reading between two answers counts what others asked meanwhile, too.
        self.meter = Meter(clocks=Clocks(cpu_s=lambda: self.decoder.cpu_s + self.speech.cpu_s))
        self.preparer = Preparer(self.slow, self.decoder, self.meter, lambda: self.running)
        self.guard_models = GuardModels(models, self.slow.guard_models, lambda one: self.scheduler.attend(one), settings.deadline_s)  # noqa: PLW0108 - none yet
        self.puller = Puller(home, models.only, lambda: self.running)
        self.refusals, self.updates = Refusals(self.recorder.add, clock), Updates()
        self.wrong_keys = WrongKeys(self.recorder.add, self.metrics.wrong_key, clock)
        self.key, self.learns = b"", False  # key of the answers' digests, and whether a learner runs beside
        self.learning: LearnSettings | None = None  # how that learner learns; None where none runs
        self._key_names: dict[str, str] = {}
        self._scheduler: Scheduler | None = None
        self._database: Engine | None = None
        self._chooser: Chooser | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the scheduler's thread. Raises LedgerError or HomeError if there is no ledger to write to."""
        loop = asyncio.get_running_loop()
        self._database = await asyncio.to_thread(open_rooms, self.home)
        self.key = await asyncio.to_thread(answer_key, self.home, self._database)
        with suppress(HomeError):  # it says so to whoever asks for it
            await asyncio.to_thread(mend_index, self._database)
        self._chooser = Chooser(self.home, self._database)
        self._sweeping = asyncio.create_task(self._sweep())

        def post(outcomes: Sequence[Outcome]) -> None:
            if outcomes:
                loop.call_soon_threadsafe(post_directly, outcomes)

        capacity = self.settings.capacity()
        saved = SavedStates(self.home.states, self.settings.saved_mb << 20) if self.settings.save_states else None
        if saved is not None:
            await asyncio.to_thread(saved.open)
        self._scheduler = Scheduler(capacity, PrefixCache(capacity.state_bytes), post, saved)
        self.metrics.watch(self._scheduler)

    @property
    def most_at_once(self) -> int:
        """Most answers that one request may run at a time."""
        capacity = self.settings.capacity()
        return max(1, min(capacity.places_per_owner, capacity.queue_per_owner))

    def forget(self, owner: str, label: str | None = None) -> None:
        """Drops the states of a deleted conversation or answer; without a label, all states of this owner."""
        self.scheduler.forget(owner, label)

    async def _sweep(self) -> None:
        """Drops from memory what lapsed lessons and forgotten text left, also where another process undid or forgot them."""
        seen: dict[str, float] = {}
        while True:
            await asyncio.sleep(_SWEEP_S)
            await self.live.renewed()
            self.refusals.sweep()
            with suppress(HomeError):  # the next time, then
                for digest in await asyncio.to_thread(self.chooser.lapsed):
                    self.scheduler.forget_model(digest)
            gone = await asyncio.to_thread(forgotten, self.home.states)
            if gone != seen:
                self.scheduler.forget_before(gone)
                seen = gone

    def record(self, event: Event) -> "Row":
        """Writes a fact and waits until it would survive a power cut. Not for the event loop. Raises the errors of writing."""
        return self.recorder.add(event).result()

    async def drain(self, grace_s: float | None = None) -> None:
        """Takes no more requests, lets running answers finish within the time of grace, and ends the rest. A later call may shorten it."""
        if self._scheduler is not None:
            await asyncio.to_thread(self._scheduler.close, self.settings.grace_s if grace_s is None else grace_s)
            await asyncio.sleep(0)  # what the scheduler posted last
        self.updates.close()

    async def close(self) -> None:
        """Drains and waits until all facts are written."""
        await self.puller.close()
        await self.drain()
        self.slow.close()
        for apart in (self.decoder, self.speech):
            await asyncio.to_thread(apart.close)
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.refusals.sweep(now=True)
        await asyncio.to_thread(self.recorder.close)
        if self._database is not None:
            self._database.dispose()

    @property
    def engine(self) -> "Engine":
        """The home's database."""
        assert self._database is not None, "start() comes first"
        return self._database

    @property
    def policy(self) -> GuardPolicy:
        """The guards' policy, as it was when somebody last asked something."""
        return self.live.now

    @property
    def chooser(self) -> Chooser:
        """Chooses what acts on answers of all that was taught."""
        assert self._chooser is not None, "start() comes first"
        return self._chooser

    @property
    def running(self) -> int:
        """Answers that are being written."""
        return 0 if self._scheduler is None else self._scheduler.running

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler. Only this class gives it jobs, so that no answer bypasses guards and ledger."""
        assert self._scheduler is not None, "start() comes first"
        return self._scheduler

    async def answer(self, ask: Ask) -> AsyncGenerator[Chunk, None]:
        """Yields the chunks of an answer, as `app.answering.answering` does.

        Raises NotKept for an unknown model too, and Busy at too much load.
        """
        policy = await self.live.renewed()
        kept, model = await self.models.able(ask.model, lambda one: lacks(one, ask.request))
        run = AnswerRun(ask, kept, model, policy)
        async with aclosing(answering(self, run, self._engine(run))) as chunks:
            async for chunk in chunks:
                shown = is_drawing(run.model, run.ask.request)
                yield drawn(run.model, chunk, "".join(run.words)) if shown else chunk

    async def ready(self, model: LanguageModel, request: Request, asker: str) -> tuple[Request, Energy]:
        """See `Runtime`: a conversation that asks for a picture gets one, where the model paints."""
        request = as_drawing(model, request)
        return request, await self.preparer.see(model, request, asker)

    async def apart(self, work: Callable[[], T]) -> T:
        """See `Runtime`."""
        return await asyncio.to_thread(work)

    async def judged(self, asker: str, work: Callable[[], T]) -> T:
        """See `Runtime`."""
        return await self.slow.guards.do(asker, lambda _stop: work())

    def ask_guard(self, asker: str, told: Callable[[GuardCost], object] = lambda _: None) -> AskGuard:
        """See `Runtime`."""
        return self.guard_models.ask_for(asker, told)

    def count(self, finish: Finish | None, usage: Usage | None, verdicts: Sequence[Verdict]) -> None:
        """See `Runtime`."""
        if finish is not None and usage is not None:
            self.metrics.answered(finish, usage)
        self.metrics.judged(dict.fromkeys(verdicts))

    def told(self, model: LanguageModel, fault: str) -> None:
        """See `Runtime`."""
        log("lesson", {"model": model.name, "fault": fault})

    def add(self, event: Event) -> "Future[Row]":
        """See `Runtime`."""
        return self.recorder.add(event)

    def key_name(self, id_: str) -> str:
        """See `Runtime`. Reads the database."""
        if not self.policy.keys or not id_:
            return ""
        if id_ not in self._key_names:
            self._key_names |= {key.id: key.name for key in list_keys(self.engine)}
        return self._key_names.get(id_, "")

    def _engine(self, run: AnswerRun) -> Next:
        """Return what answers on the scheduler."""

        async def engine(request: Request) -> AsyncIterator[Chunk]:
            prompt, grammar = await self.preparer.prepare(run.model, request, run.ask.asker)
            inbox: asyncio.Queue[Chunk | IngleError] = asyncio.Queue()
            ask, choice = run.ask, run.choice
            assert choice is not None, "it was chosen"
            deadline = time.perf_counter() + self.settings.deadline_s
            label = "" if choice.lessons else ask.label  # states made with lessons are not saved: they would outlive the lessons
            lasting, vectors = choice.lasting, prompt.vectors
            job = Job(run.model, request, prompt.ids, inbox.put_nowait, grammar, ask.asker, label, lasting, deadline, vectors=vectors)
            job.energy = run.seeing
            self.scheduler.submit(job)
            finished, run.writing = False, True
            try:
                while not finished:
                    outcome = await inbox.get()
                    if isinstance(outcome, IngleError):
                        finished = True
                        if run.words:  # the client has them
                            left(self, run, job.decoding.usage())
                        raise outcome
                    finished = outcome.finish is not None
                    run.writing = not finished
                    yield outcome
            finally:
                run.writing = False
                if not finished:  # whoever asked has gone, or a guard has ended it
                    job.deliver = lambda outcome: self._left(run, outcome)
                    while not inbox.empty():
                        self._left(run, inbox.get_nowait())
                    self.scheduler.cancel(job)

        return engine

    def _left(self, run: AnswerRun, outcome: Chunk | IngleError) -> None:
        """Record an answer that nobody reads, once it is known what it took. One that failed leaves a fact only if a guard had ended it."""
        usage = outcome.usage if isinstance(outcome, Chunk) else run.nothing if run.blocked is not None else None
        if usage is not None:
            left(self, run, usage)
