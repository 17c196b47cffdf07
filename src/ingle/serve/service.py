"""What every door of the server calls, the API's and the page's alike: one request in, chunks out, one fact in the ledger.

An answer goes: guards → queue → engine → guards → ledger → client. The last chunk leaves only when the fact (and the text, where it is
kept) would survive a power cut; an answer that a client walked away from leaves its fact too.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ingle.adapt.choosing import Choice, Chooser
from ingle.core.errors import HomeError, IngleError, RequestError
from ingle.core.event import Event
from ingle.core.message import Chunk, Finish, Message, Request, Usage, Verdict
from ingle.engine.grammar import Grammar
from ingle.engine.job import Job, Outcome, post_directly
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import PrefixCache
from ingle.engine.saved_states import SavedStates, forgotten
from ingle.engine.scheduler import Scheduler
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.home.turns import keep_answer
from ingle.safety.middleware import Next, close, wrap
from ingle.safety.policy import USUAL, Policy
from ingle.safety.registry import make_guards
from ingle.serve.limits import limits_of
from ingle.serve.logs import log
from ingle.serve.metrics import Metrics
from ingle.serve.model_registry import ModelRegistry
from ingle.serve.record import Recorder, answer_event, answer_key, new_seed, refusal_event
from ingle.serve.replay import parameters
from ingle.serve.rooms import open_rooms
from ingle.serve.settings import SamplingSettings, ServeSettings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.ledger.row import Row

_SWEEP_S = 5.0


@dataclass(frozen=True, slots=True)
class Keep:
    """That the text of an answer is to be kept in the home."""

    conversation: str = ""
    """Of the page; empty = the answer is kept for itself, with all messages before it."""
    parent: str = ""
    """Turn of the conversation that the answer follows."""
    learn: bool = True
    """Whether the weights may learn from what is said of it later, unless that says so itself."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer that somebody wants."""

    request: Request
    model: str = ""
    """Name of a kept model; empty = the default."""
    asker: str = ""
    """Id of the API key; empty = somebody on this machine without one."""
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    keep: Keep | None = None
    memory: bool = True
    """Whether what the asker taught may be placed in the prompt; lessons in the weights act all the same."""

    @property
    def label(self) -> str:
        """What the text belongs to where it is kept: saved states go when this goes. Empty = it is not kept."""
        return "" if self.keep is None else self.keep.conversation or self.id


@dataclass
class Run:
    """An answer on its way."""

    ask: Ask
    """With the request as it came, and its seed."""
    choice: Choice
    """With what is asked in its place, and of whom."""
    words: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def model(self) -> LanguageModel:
        """What answers."""
        return self.choice.model


class Service:
    """One per server. `start` and `close` belong to the event loop on which it serves."""

    def __init__(
        self, home: Home, settings: ServeSettings, sampling: SamplingSettings, shelf: ModelRegistry, policy: Policy = USUAL
    ) -> None:  # fmt: skip
        """policy: what the guards are to do; see safety/policy.py."""
        self.home, self.settings, self.sampling, self.models = home, settings, sampling, shelf
        self.metrics = Metrics()
        self._policy = policy
        self.recorder = Recorder(home)
        self._key = b""
        self._scheduler: Scheduler | None = None
        self._database: Engine | None = None
        self._chooser: Chooser | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the scheduler's thread; refuses to start without a ledger to write to (LedgerError, HomeError)."""
        loop = asyncio.get_running_loop()
        self._key = await asyncio.to_thread(answer_key, self.home)
        self._database = await asyncio.to_thread(open_rooms, self.home)
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
        """Answers that one request may want at a time."""
        capacity = self.settings.capacity()
        return max(1, min(capacity.places_per_owner, capacity.queue_per_owner))

    def forget(self, owner: str, label: str | None = None) -> None:
        """Lets go the states of a conversation, or an answer, whose text was deleted; all of this owner's where that may be several."""
        self.scheduler.forget(owner, label)

    def let_lessons_go(self) -> None:
        """Lets go the lessons that are held ready: one of them has gone, and must not stay in memory either."""
        assert self._chooser is not None, "start() comes first"
        self._chooser.forget()

    async def _sweep(self) -> None:
        """Lets go what lapsed lessons and forgotten text have left in memory, also where another process undid or forgot them."""
        assert self._chooser is not None, "start() comes first"
        known: dict[str, float] = {}
        while True:
            await asyncio.sleep(_SWEEP_S)
            with suppress(HomeError):  # the next time, then
                for digest in await asyncio.to_thread(self._chooser.lapsed):
                    self.scheduler.forget_model(digest)
            gone = await asyncio.to_thread(forgotten, self.home.states)
            if gone != known:
                self.scheduler.forget_before(gone)
                known = gone

    def record(self, event: Event) -> None:
        """Adds a fact of another kind, and waits until it would survive a power cut; not for the event loop. Raises what writing raises."""
        self.recorder.add(event).result()

    async def drain(self, grace_s: float | None = None) -> None:
        """Takes nothing on any more, lets running answers finish within the time of grace, and ends the rest. A later call may be in more
        of a hurry."""
        if self._scheduler is not None:
            await asyncio.to_thread(self._scheduler.close, self.settings.grace_s if grace_s is None else grace_s)
            await asyncio.sleep(0)  # what the scheduler posted last

    async def close(self) -> None:
        """Drains, and waits until all facts are written."""
        await self.drain()
        if self._sweeping is not None:
            self._sweeping.cancel()
        await asyncio.to_thread(self.recorder.close)
        if self._database is not None:
            self._database.dispose()

    @property
    def engine(self) -> "Engine":
        """The home's database."""
        assert self._database is not None, "start() comes first"
        return self._database

    @property
    def running(self) -> int:
        """Answers that are being written."""
        return 0 if self._scheduler is None else self._scheduler.running

    @property
    def scheduler(self) -> Scheduler:
        """Only this class gives it jobs: that is how no answer goes without guards and ledger."""
        assert self._scheduler is not None, "start() comes first"
        return self._scheduler

    async def answer(self, ask: Ask) -> AsyncGenerator[Chunk, None]:
        """The chunks of an answer; the last one carries `finish`, `usage` and the `event` of the ledger. A refusal is a fact, too.

        Raises NotKept for an unknown model, RequestError and its kin for what can't be answered, Busy where too much is asked at once,
        HomeError or LedgerError if the fact can't be written: the answer then has no last chunk.
        """
        kept, model = await self.models.find(ask.model)
        sampling = ask.request.sampling
        request = replace(ask.request, sampling=replace(sampling, seed=new_seed() if sampling.seed is None else sampling.seed))
        try:
            run = Run(replace(ask, request=request), await asyncio.to_thread(self._choose, ask, model, kept, request))
            async with aclosing(self._guarded(run)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except RequestError as error:
            event = refusal_event(self._key, model, request, error, ask.id, ask.asker)
            await asyncio.wrap_future(self.recorder.add(event))
            raise

    async def _guarded(self, run: Run) -> AsyncGenerator[Chunk, None]:
        limits = await asyncio.to_thread(limits_of, run.model)  # reads the vocabulary the first time
        guarded = wrap(make_guards(limits, self._policy), self._engine(run))(run.choice.request)
        try:
            async for chunk in guarded:
                run.words.append(chunk.text)
                run.verdicts += chunk.verdicts
                yield chunk if chunk.finish is None else await self._last(run, chunk, chunk.finish)
        finally:
            await close(guarded)

    def _choose(self, ask: Ask, model: LanguageModel, kept: Kept, request: Request) -> Choice:
        """What the asker taught, as far as it acts on this."""
        assert self._chooser is not None, "start() comes first"
        choice = self._chooser.choose(ask.asker, model, kept, request, ask.memory)
        for fault in choice.faults:
            log("lesson", {"model": model.name, "fault": fault})
        return choice

    def _engine(self, run: Run) -> Next:
        """The innermost layer."""

        async def engine(request: Request) -> AsyncIterator[Chunk]:
            ids, grammar = await _prepare(run.model, request)
            inbox: asyncio.Queue[Chunk | IngleError] = asyncio.Queue()
            ask = run.ask
            deadline = time.perf_counter() + self.settings.deadline_s
            label = "" if run.choice.lessons else ask.label  # what lessons had a part in is not written to disk: it would outlive them
            job = Job(run.model, request, ids, inbox.put_nowait, grammar, ask.asker, label, run.choice.lasting, deadline)
            self.scheduler.submit(job)
            finished = False
            try:
                while not finished:
                    outcome = await inbox.get()
                    if isinstance(outcome, IngleError):
                        finished = True
                        if run.words:  # they were said
                            self._left(run, Chunk("", finish="cancelled", usage=job.decoding.usage()))
                        raise outcome
                    finished = outcome.finish is not None
                    yield outcome
            finally:
                if not finished:  # whoever asked has gone
                    job.deliver = lambda outcome: self._left(run, outcome)
                    while not inbox.empty():
                        self._left(run, inbox.get_nowait())
                    self.scheduler.cancel(job)

        return engine

    def _left(self, run: Run, outcome: Chunk | IngleError) -> None:
        """What still comes of an answer that nobody reads: its fact."""
        if isinstance(outcome, Chunk) and outcome.usage is not None:
            self.metrics.answered("cancelled", outcome.usage)
            self.recorder.add(self._event(run, "cancelled", outcome.usage))

    async def _last(self, run: Run, chunk: Chunk, finish: Finish) -> Chunk:
        seed = run.ask.request.sampling.seed or 0
        usage = chunk.usage or Usage(0, 0, 0, 0.0, 0.0, 0, model_digest=run.model.digest, seed=seed)
        self.metrics.answered(finish, usage)
        event = self._event(run, finish, usage)
        row: Row = await asyncio.wrap_future(self.recorder.add(event))
        event = replace(event, facts={**event.facts, "seq": row.seq})
        if run.ask.keep is not None:
            await asyncio.to_thread(self._keep, run, run.ask.keep, event, usage)
        return replace(chunk, usage=usage, event=event)

    def _keep(self, run: Run, keep: Keep, event: Event, usage: Usage) -> None:
        """The words, where the user keeps them, with all that is needed to ask the same again."""
        ask, message = run.ask, Message.of("assistant", "".join(run.words))
        took = {name: getattr(usage, name) for name in ("queued_s", "prefill_s", "decode_s")}
        facts = {**event.facts, **took, "model_name": run.model.name, "request": parameters(ask.request, system=bool(keep.conversation))}
        facts |= {} if keep.learn else {"learn": False}
        history = () if keep.conversation else ask.request.messages
        keep_answer(self.engine, ask.asker, keep.parent, message, ask.id, facts, history, keep.conversation)

    def _event(self, run: Run, finish: Finish, usage: Usage) -> Event:
        ask, text = run.ask, "".join(run.words)
        event = answer_event(self._key, run.model.name, ask.request, text, finish, usage, run.verdicts, ask.id, ask.asker)
        return replace(event, facts={**event.facts, **run.choice.facts})


async def _prepare(model: LanguageModel, request: Request) -> tuple[list[int], Grammar | None]:
    """The prompt's ids, and the language of the answer; in a thread of its own, for templates come with models and may take their time."""

    size = model.backend.config.vocab_size
    if any(token >= size for token, _ in request.sampling.logit_bias):
        raise RequestError("logit_bias", f"must map token ids below {size}", max(token for token, _ in request.sampling.logit_bias))

    def prepare() -> tuple[list[int], Grammar | None]:
        return model.encode(request), model.grammar(request)

    return await asyncio.to_thread(prepare)
