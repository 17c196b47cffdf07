"""One answer, one fact, whoever asks: choose what acts on a request, let the guards look, run it, record it.

An answer passes choice → guards → engine → guards → ledger → caller. The last chunk leaves only when the fact (and the text, if it is
stored) would survive a power cut. An answer whose reader has gone leaves its fact too, and a refusal is a fact.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from ingle.adapt.choosing import Choice, Chooser
from ingle.app.drawing import said_with_picture
from ingle.app.facts import answer_event, new_seed, refusal_event, told_events
from ingle.app.replay import parameters
from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import RequestError
from ingle.core.message import Chunk, Finish, Request, Usage, Verdict
from ingle.core.report import Event
from ingle.engine.language_model import LanguageModel
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.safety.guard import RequestLimits, judge_ahead, make_guards
from ingle.safety.middleware import Blocked, Next, close, wrap
from ingle.safety.opinion import NO_COST, AskGuard, GuardCost
from ingle.safety.policy import GuardPolicy

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.ledger.row import Row

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Keep:
    """Where the text of an answer is stored in the home."""

    conversation: str = ""  # id of a conversation of the page; empty = the answer is stored by itself, with all messages before it
    parent: str = ""  # turn of the conversation that the answer follows
    learn: bool = True  # whether the weights may learn from later feedback on it, unless the feedback says so itself


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer that somebody asks for."""

    request: Request
    model: str = ""  # name of a kept model; empty = the default
    asker: str = ""  # id of the API key; empty = somebody on this machine without one
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    keep: Keep | None = None
    # Whether the asker's memories may be placed in the prompt. Lessons in the weights act in any case.
    memory: bool = True

    @property
    def label(self) -> str:
        """Id under which the text is stored; saved states are deleted with it. Empty = not stored."""
        return "" if self.keep is None else self.keep.conversation or self.id


@dataclass
class AnswerRun:
    """An answer that is being written."""

    ask: Ask  # the request as it came, and its seed
    kept: Kept
    asked: LanguageModel  # the kept model, before anything that was taught acts
    policy: GuardPolicy  # the guards' policy that holds for it from its beginning to its end
    choice: Choice | None = None  # the request after memories were added, and the model with its lessons
    seeing: Energy = NOTHING  # the energy that its pictures took
    guarding: GuardCost = NO_COST  # the cost of guard models that were asked about it
    words: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    writing: bool = False  # whether the engine is at it
    blocked: "Future[Usage] | None" = None  # where the engine tells what the answer took, when a guard has ended it

    @property
    def model(self) -> LanguageModel:
        """The model that answers."""
        return self.asked if self.choice is None else self.choice.model

    @property
    def nothing(self) -> Usage:
        """The usage of an answer that took nothing."""
        return Usage(0, 0, 0, 0.0, 0.0, 0, model_digest=self.model.digest, seed=self.ask.request.sampling.seed or 0)

    def guarded(self, cost: GuardCost) -> None:
        """Adds what one question to a guard model took."""
        self.guarding = self.guarding.plus(cost)


class Runtime(Protocol):
    """Where requests are answered: a server, or the caller's own process."""

    home: Home

    @property
    def key(self) -> bytes:
        """The key of the answers' digests."""
        ...

    @property
    def engine(self) -> "Engine":
        """The home's database."""
        ...

    @property
    def chooser(self) -> Chooser | None:
        """Chooses of all that was taught; None where nothing was."""
        ...

    def told(self, model: LanguageModel, fault: str) -> None:
        """Say why a lesson can't act."""
        ...

    def add(self, event: Event) -> "Future[Row]":
        """Write a fact. The future is done when it would survive a power cut."""
        ...

    def count(self, finish: Finish | None, usage: Usage | None, verdicts: list[Verdict]) -> None:
        """Count an answer, or a refusal (no finish), for whoever watches."""
        ...

    def apart(self, work: Callable[[], T]) -> Awaitable[T]:
        """Return what work returns that may wait for a disk, without holding up others."""
        ...

    def judged(self, asker: str, work: Callable[[], T]) -> Awaitable[T]:
        """As `apart`, for judges that read a request, in their asker's turn."""
        ...

    def ready(self, model: LanguageModel, request: Request, asker: str) -> Awaitable[tuple[Request, Energy]]:
        """Return a request as this place understands it, once the model has seen its pictures; and what that took."""
        ...

    def key_name(self, asker: str) -> str:
        """Return the name of a key, by which a policy knows it; "" where no policy asks."""
        ...

    def ask_guard(self, asker: str, told: Callable[[GuardCost], object]) -> AskGuard:
        """Return what asks guard models about one answer."""
        ...


async def settled(future: "Future[T]") -> T:
    """Return the result of a future; without an event loop, of one that is done."""
    return future.result() if future.done() else await asyncio.wrap_future(future)


def limits_of(model: LanguageModel) -> RequestLimits:
    """Return the limits that guards check. Takes some milliseconds the first time."""
    tokenizer = model.tokenizer
    return RequestLimits(model.backend.config.context_length, tokenizer.longest_token, tuple(tokenizer.control))


async def behind_guards(
    place: Runtime, name: str, limits: RequestLimits, request: Request, policy: GuardPolicy, asker: str, inner: Next,
    told: Callable[[GuardCost], object] = lambda _: None,
) -> AsyncGenerator[Chunk, None]:  # fmt: skip
    """Yield what the guards let out of `inner`; no fact is written. `name`: the model's; `told` hears what guard models cost.

    Judges read the request before, in a thread and in its asker's turn, so that none holds up others.
    """
    key = await place.apart(lambda: place.key_name(asker))
    await place.judged(asker, lambda: judge_ahead(request, policy, name, key))
    guarded = wrap(make_guards(limits, policy, name, key, place.ask_guard(asker, told)), inner)(request)
    try:
        async for chunk in guarded:
            yield chunk
    finally:
        await close(guarded)


async def answering(place: Runtime, run: AnswerRun, inner: Next) -> AsyncGenerator[Chunk, None]:
    """Yield the chunks of an answer. The last one carries `finish`, `usage` and the ledger's `event`.

    `inner`: what answers behind the guards; it calls `left` for an answer whose reader goes before its end.

    Raises RequestError and its subclasses for a request that can't be answered, once that is recorded; what the engine raises; HomeError or
    LedgerError if the fact can't be written: the answer then has no last chunk.
    """
    request = run.ask.request
    try:
        request, run.seeing = await place.ready(run.asked, request, run.ask.asker)
        seed = request.sampling.seed
        request = replace(request, sampling=replace(request.sampling, seed=new_seed() if seed is None else seed))
        run.ask = replace(run.ask, request=request)
        choice = run.choice = await place.apart(lambda: _choose(place, run))
        limits = await place.apart(lambda: limits_of(choice.model))  # reads the vocabulary the first time
        guarded = behind_guards(
            place, choice.model.name, limits, choice.request, run.policy, run.ask.asker, inner, run.guarded
        )  # fmt: skip
        async with aclosing(guarded) as chunks:
            async for chunk in chunks:
                run.words.append(chunk.text)
                run.verdicts += chunk.verdicts
                if chunk.finish == "blocked" and run.writing:
                    run.blocked = Future()
                    await chunks.aclose()
                    usage = await settled(run.blocked)
                    chunk = replace(chunk, usage=usage)
                yield chunk if chunk.finish is None else await _last(place, run, chunk, chunk.finish)
    except RequestError as error:
        if error.guard:
            place.count(None, None, [error.verdict if isinstance(error, Blocked) else Verdict("block", guard=error.guard)])
        event = refusal_event(place.key, run.asked, request, error, run.ask.id, run.ask.asker, run.policy)
        await settled(place.add(event))
        error.told = True
        raise


def left(place: Runtime, run: AnswerRun, usage: Usage) -> None:
    """Record the fact of an answer that nobody reads; if a guard has ended it, its fact waits for this."""
    if run.blocked is None:
        place.count("cancelled", usage, run.verdicts)
        _tell(place, run)
        place.add(_event(place, run, "cancelled", usage))
    elif not run.blocked.done():
        run.blocked.set_result(usage)


def _choose(place: Runtime, run: AnswerRun) -> Choice:
    """Choose the memories and lessons of the asker that act on this request."""
    ask = run.ask
    model = run.asked.answering(ask.request)
    chooser = None if model.paints else place.chooser
    if chooser is None:
        return Choice(model, ask.request)
    choice = chooser.choose(ask.asker, model, run.kept, ask.request, ask.memory)
    for fault in choice.faults:
        place.told(model, fault)
    return choice


async def _last(place: Runtime, run: AnswerRun, chunk: Chunk, finish: Finish) -> Chunk:
    usage = chunk.usage or run.nothing
    place.count(finish, usage, run.verdicts)
    _tell(place, run)
    event = _event(place, run, finish, usage)
    row = await settled(place.add(event))
    event = replace(event, facts={**event.facts, "seq": row.seq})
    if (keep := run.ask.keep) is not None:
        await place.apart(lambda: _store(place, run, keep, event, usage))
    return replace(chunk, usage=usage, event=event, verdicts=tuple(run.verdicts))


def _tell(place: Runtime, run: AnswerRun) -> None:
    """Record what guards said, before the fact of the answer."""
    ask, text = run.ask, "".join(run.words)
    for event in told_events(place.key, run.model, ask.request, text, run.verdicts, run.policy, ask.id, ask.asker):
        place.add(event)


def _event(place: Runtime, run: AnswerRun, finish: Finish, usage: Usage) -> Event:
    ask, text = run.ask, "".join(run.words)
    event = answer_event(place.key, run.model.name, ask.request, text, finish, usage, run.verdicts, ask.id, ask.asker)
    sight = {"sight": run.model.seer.sight.digest} if usage.image_tokens and run.model.seer is not None else {}
    acted = {} if run.choice is None else run.choice.facts
    return replace(event, facts={**event.facts, **acted, **sight, **run.guarding.facts()})


def _store(place: Runtime, run: AnswerRun, keep: Keep, event: Event, usage: Usage) -> None:
    """Store the words of an answer, with all that a replay needs."""
    from ingle.home.turns import LAST, keep_answer, keep_last

    ask, whole = run.ask, event.facts.get("finish") in ("stop", "length")
    message = said_with_picture(run.model, ask.request, "".join(run.words), whole)
    times = {name: getattr(usage, name) for name in ("queued_s", "prefill_s", "decode_s")}
    facts = {**event.facts, **times, "model_name": run.model.name, "request": parameters(ask.request, system=bool(keep.conversation))}
    facts |= {} if keep.learn else {"learn": False}
    if usage.image_tokens and (look := run.model.look(ask.request)):
        facts["look"] = look.text()
    if ask.id.startswith(LAST):
        keep_last(place.engine, ask.asker, message, ask.id, facts, ask.request.messages)
    else:
        history = () if keep.conversation else ask.request.messages
        keep_answer(place.engine, ask.asker, keep.parent, message, ask.id, facts, history, keep.conversation)
