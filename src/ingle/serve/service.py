"""The answer service behind the API and the page: one request in, chunks out, one fact in the ledger.

An answer passes guards → queue → engine → guards → ledger → client. The last chunk leaves only when the fact (and the text, if it is
stored) would survive a power cut. An answer whose client has gone leaves its fact too.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from ingle.adapt.choosing import Choice, Chooser
from ingle.core.errors import HomeError, IngleError, RequestError
from ingle.core.message import Chunk, Finish, Request, Usage, Verdict
from ingle.core.report import Event
from ingle.energy.meter import Clocks, Meter
from ingle.engine.job import Job, Outcome, post_directly
from ingle.engine.language_model import LanguageModel, as_drawing, lacks
from ingle.engine.prefix_cache import PrefixCache, SavedStates, forgotten
from ingle.engine.scheduler import Scheduler
from ingle.home.api_keys import list_keys
from ingle.home.examples import mend_index
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.home.turns import keep_answer
from ingle.learn.learning_settings import LearnSettings
from ingle.media.decoder import MediaDecoder
from ingle.media.speech import Speech
from ingle.safety.middleware import Blocked, Next, close, wrap
from ingle.safety.policy import USUAL, GuardPolicy
from ingle.serve.answers_key import answer_key
from ingle.serve.ask import AnswerRun, Ask, Keep
from ingle.serve.drawing import drawn, is_drawing, said_with_picture
from ingle.serve.guard_models import GuardModels
from ingle.serve.guarding import guards_around
from ingle.serve.limits import limits_of
from ingle.serve.live_policy import LivePolicy
from ingle.serve.logs import log
from ingle.serve.metrics import Metrics
from ingle.serve.model_registry import ModelRegistry
from ingle.serve.prepare import Preparer
from ingle.serve.pulling import Puller
from ingle.serve.record import Recorder, answer_event, new_seed, refusal_event, told_events
from ingle.serve.refusals import Refusals
from ingle.serve.replay import parameters
from ingle.serve.rooms import open_rooms
from ingle.serve.settings import SamplingSettings, ServeSettings
from ingle.serve.slow import Slow
from ingle.serve.sound_memory import SoundMemory
from ingle.serve.wrong_keys import WrongKeys

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.ledger.row import Row

_SWEEP_S = 5.0


class Service:
    """The answer service, one per server. `start` and `close` belong to its event loop."""

    def __init__(
        self, home: Home, settings: ServeSettings, sampling: SamplingSettings, models: ModelRegistry, policy: GuardPolicy = USUAL
    ) -> None:  # fmt: skip
        """policy: settings of the guards, until policy.toml is looked at; see safety/policy.py."""
        self.home, self.settings, self.sampling, self.models = home, settings, sampling, models
        self.metrics, self.recorder = Metrics(), Recorder(home)
        self.live = LivePolicy(home.policy, policy, lambda: self.engine)
        # Decoders, ears and voices: processes that start when they are first needed.
        self.slow, self.decoder, self.speech, self.sounds = Slow(), MediaDecoder(), Speech(home), SoundMemory()
        # Meters those processes; a reading between two answers counts what others asked meanwhile, too.
        self.meter = Meter(clocks=Clocks(cpu_s=lambda: self.decoder.cpu_s + self.speech.cpu_s))
        self.preparer = Preparer(self.slow, self.decoder, self.meter, lambda: self.running)
        self.guard_models = GuardModels(models, self.slow.guard_models, lambda one: self.scheduler.attend(one), settings.deadline_s)  # noqa: PLW0108 - none yet
        self.puller = Puller(home, models.only, lambda: self.running)
        self.refusals = Refusals(self.recorder.add)
        self.wrong_keys = WrongKeys(self.recorder.add, self.metrics.wrong_key)
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

    def record(self, event: Event) -> None:
        """Writes a fact and waits until it would survive a power cut. Not for the event loop. Raises the errors of writing."""
        self.recorder.add(event).result()

    async def drain(self, grace_s: float | None = None) -> None:
        """Takes no more requests, lets running answers finish within the time of grace, and ends the rest. A later call may shorten it."""
        if self._scheduler is not None:
            await asyncio.to_thread(self._scheduler.close, self.settings.grace_s if grace_s is None else grace_s)
            await asyncio.sleep(0)  # what the scheduler posted last

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
        """Yields the chunks of an answer. The last one carries `finish`, `usage` and the ledger's `event`. A refusal is a fact, too.

        Raises NotKept for an unknown model, RequestError and its subclasses for a request that can't be answered, Busy at too much load,
        HomeError or LedgerError if the fact can't be written: the answer then has no last chunk.
        """
        policy = await self.live.renewed()
        kept, model = await self.models.able(ask.model, lambda one: lacks(one, ask.request))
        request = ask.request
        try:
            request = as_drawing(model, request)
            seed = request.sampling.seed
            request = replace(request, sampling=replace(request.sampling, seed=new_seed() if seed is None else seed))
            seeing = await self.preparer.see(model, request, ask.asker)
            choice = await asyncio.to_thread(self._choose, ask, model, kept, request)
            run = AnswerRun(replace(ask, request=request), choice, policy, seeing)
            async with aclosing(self._guarded(run)) as chunks:
                async for chunk in drawn(run.model, chunks) if is_drawing(run.model, request) else chunks:
                    yield chunk
        except RequestError as error:
            if error.guard:
                self.metrics.judged([error.verdict if isinstance(error, Blocked) else Verdict("block", guard=error.guard)])
            event = refusal_event(self.key, model, request, error, ask.id, ask.asker, policy)
            await asyncio.wrap_future(self.recorder.add(event))
            error.told = True
            raise

    async def _guarded(self, run: AnswerRun) -> AsyncGenerator[Chunk, None]:
        limits = await asyncio.to_thread(limits_of, run.model)  # reads the vocabulary the first time
        request = run.choice.request
        layers = await guards_around(self, request, limits, run.policy, run.model.name, run.ask.asker, run.guarded)
        guarded = wrap(layers, self._engine(run))(request)
        try:
            async for chunk in guarded:
                run.words.append(chunk.text)
                run.verdicts += chunk.verdicts
                if chunk.finish == "blocked" and run.writing:
                    run.blocked = asyncio.get_running_loop().create_future()
                    await close(guarded)
                    chunk = replace(chunk, usage=await run.blocked)
                yield chunk if chunk.finish is None else await self._last(run, chunk, chunk.finish)
        finally:
            await close(guarded)

    def key_name(self, id_: str) -> str:
        """Return the name of a key, by which a policy knows it; "" where no policy asks. Reads the database."""
        if not self.policy.keys or not id_:
            return ""
        if id_ not in self._key_names:
            self._key_names |= {key.id: key.name for key in list_keys(self.engine)}
        return self._key_names.get(id_, "")

    def _choose(self, ask: Ask, model: LanguageModel, kept: Kept, request: Request) -> Choice:
        """Choose the memories and lessons of the asker that act on this request."""
        if (model := model.answering(request)).paints:
            return Choice(model, request)
        choice = self.chooser.choose(ask.asker, model, kept, request, ask.memory)
        for fault in choice.faults:
            log("lesson", {"model": model.name, "fault": fault})
        return choice

    def _engine(self, run: AnswerRun) -> Next:
        """Return the innermost handler, which the guards wrap."""

        async def engine(request: Request) -> AsyncIterator[Chunk]:
            prompt, grammar = await self.preparer.prepare(run.model, request, run.ask.asker)
            inbox: asyncio.Queue[Chunk | IngleError] = asyncio.Queue()
            ask = run.ask
            deadline = time.perf_counter() + self.settings.deadline_s
            label = "" if run.choice.lessons else ask.label  # states made with lessons are not saved: they would outlive the lessons
            lasting, vectors = run.choice.lasting, prompt.vectors
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
                            self._left(run, Chunk("", finish="cancelled", usage=job.decoding.usage()))
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
        """Records the fact of an answer that nobody reads."""
        if run.blocked is not None and not run.blocked.done():  # a guard has ended it, and its fact waits for this
            nothing = Usage(0, 0, 0, 0.0, 0.0, 0, model_digest=run.model.digest, seed=run.ask.request.sampling.seed or 0)
            usage = outcome.usage if isinstance(outcome, Chunk) else nothing
            if usage is not None:
                run.blocked.set_result(usage)
        elif run.blocked is None and isinstance(outcome, Chunk) and outcome.usage is not None:
            self.metrics.answered("cancelled", outcome.usage)
            self._tell(run)
            self.recorder.add(self._event(run, "cancelled", outcome.usage))

    async def _last(self, run: AnswerRun, chunk: Chunk, finish: Finish) -> Chunk:
        seed = run.ask.request.sampling.seed or 0
        usage = chunk.usage or Usage(0, 0, 0, 0.0, 0.0, 0, model_digest=run.model.digest, seed=seed)
        self.metrics.answered(finish, usage)
        self._tell(run)
        event = self._event(run, finish, usage)
        row: Row = await asyncio.wrap_future(self.recorder.add(event))
        event = replace(event, facts={**event.facts, "seq": row.seq})
        if run.ask.keep is not None:
            await asyncio.to_thread(self._keep, run, run.ask.keep, event, usage)
        return replace(chunk, usage=usage, event=event, verdicts=tuple(run.verdicts))

    def _tell(self, run: AnswerRun) -> None:
        """Counts what guards said, and queues the facts of it before that of the answer."""
        ask, text = run.ask, "".join(run.words)
        self.metrics.judged(dict.fromkeys(run.verdicts))
        for event in told_events(self.key, run.model, ask.request, text, run.verdicts, run.policy, ask.id, ask.asker):
            self.recorder.add(event)

    def _keep(self, run: AnswerRun, keep: Keep, event: Event, usage: Usage) -> None:
        """Stores the words of an answer, with all that a replay needs."""
        ask, whole = run.ask, event.facts.get("finish") in ("stop", "length")
        message = said_with_picture(run.model, ask.request, "".join(run.words), whole)
        times = {name: getattr(usage, name) for name in ("queued_s", "prefill_s", "decode_s")}
        facts = {**event.facts, **times, "model_name": run.model.name, "request": parameters(ask.request, system=bool(keep.conversation))}
        facts |= {} if keep.learn else {"learn": False}
        if usage.image_tokens and (look := run.model.look(ask.request)):
            facts["look"] = look.text()
        history = () if keep.conversation else ask.request.messages
        keep_answer(self.engine, ask.asker, keep.parent, message, ask.id, facts, history, keep.conversation)

    def _event(self, run: AnswerRun, finish: Finish, usage: Usage) -> Event:
        ask, text = run.ask, "".join(run.words)
        event = answer_event(self.key, run.model.name, ask.request, text, finish, usage, run.verdicts, ask.id, ask.asker)
        sight = {"sight": run.model.seer.sight.digest} if usage.image_tokens and run.model.seer is not None else {}
        return replace(event, facts={**event.facts, **run.choice.facts, **sight, **run.guarding.facts()})
