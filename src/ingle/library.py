"""Ingle in Python. Answers go the way that they go everywhere: behind the guards, with what was taught, and each is a fact in the ledger.

import ingle
model = ingle.load("smollm2")
print(model.chat("What is a hearth good for?"))
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

from ingle.core.errors import RequestError
from ingle.core.message import ROLES, Chunk, Finish, Message, Request, Usage
from ingle.core.report import Event
from ingle.safety.opinion import NO_COST, GuardCost

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.adapt.choosing import Choice, Chooser
    from ingle.cli.settings import Settings
    from ingle.engine.answer import Session
    from ingle.engine.language_model import LanguageModel
    from ingle.home.kept import Kept
    from ingle.home.place import Home

Turn = Message | Mapping[str, str]  # a message, or a table with `role` and `content`, as OpenAI's clients write them


class Answer(str):
    """The words of an answer; a string like any other that knows how it came about."""

    finish: Finish  # why it ended: `stop`, `length`, …
    usage: Usage  # tokens, seconds, joules, and the digest of the model that answered
    event: Event  # the fact that it left in the ledger; `event.facts["seq"]` is its number


class Model:
    """A model of your home, ready to answer. Made by `ingle.load`; `close` it, or use it in a `with` block, to let its database go."""

    def __init__(self, home: "Home", kept: "Kept", model: "LanguageModel", settings: "Settings") -> None:
        from ingle.robustness.guard_model import guard_opener
        from ingle.safety.guard import guard_policy

        self._home, self._kept, self._model, self._settings = home, kept, model, settings
        self._policy = guard_policy(home.policy)
        self._open_guard = guard_opener(home, self._policy, self._opened)
        self._session: tuple[str, Session] | None = None
        self._database: Engine | None = None
        self._chooser: Chooser | None = None

    @property
    def name(self) -> str:
        """The name under which the home keeps it."""
        return self._kept.name

    @property
    def digest(self) -> str:
        """SHA-256 of all that its answers depend on beside the request."""
        return self._model.digest

    def chat(
        self, said: str | Sequence[Turn], system: str = "", max_tokens: int | None = None, temperature: float | None = None,
        seed: int | None = None, stop: Sequence[str] = (),
    ) -> Answer:  # fmt: skip
        """Return the answer to a question, or to a conversation that ends with one.

        What is left out is as in the home's config.toml. Temperature 0 gives the likeliest answer, the same each time.
        Raises RequestError for what can't be answered, ContextError for what is too long.
        """
        return self._whole(self._request(self._messages(said, system), None, max_tokens, temperature, seed, stop))

    def stream(
        self, said: str | Sequence[Turn], system: str = "", max_tokens: int | None = None, temperature: float | None = None,
        seed: int | None = None, stop: Sequence[str] = (),
    ) -> Iterator[str]:  # fmt: skip
        """Yield the answer in pieces, as they come. Arguments and errors as for `chat`. Whoever stops reading stops the answer."""
        request = self._request(self._messages(said, system), None, max_tokens, temperature, seed, stop)
        with closing(self._chunks(request)) as chunks:
            for chunk in chunks:
                if chunk.text:
                    yield chunk.text

    def generate(
        self, prompt: str, max_tokens: int | None = None, temperature: float | None = None, seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Answer:  # fmt: skip
        """Return how the model goes on from plain text, without a chat template. Arguments and errors as for `chat`."""
        return self._whole(self._request((), prompt, max_tokens, temperature, seed, stop))

    def close(self) -> None:
        """Let the database go. A later answer opens it again."""
        if self._database is not None:
            self._database.dispose()
        self._database = self._chooser = None

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ingle.Model({self.name!r}, {self.digest[:12]})"

    def _messages(self, said: str | Sequence[Turn], system: str) -> tuple[Message, ...]:
        turns = [Message.of("user", said)] if isinstance(said, str) else [_message(turn, i) for i, turn in enumerate(said)]
        told = system or ("" if any(turn.role == "system" for turn in turns) else self._settings.chat.system)
        return (Message.of("system", told), *turns) if told else tuple(turns)

    def _request(
        self, messages: tuple[Message, ...], prompt: str | None, max_tokens: int | None, temperature: float | None, seed: int | None,
        stop: Sequence[str],
    ) -> Request:  # fmt: skip
        from ingle.serve.record import new_seed

        sampling = self._settings.sampling.sampling(new_seed())
        sampling = sampling if seed is None else replace(sampling, seed=seed)
        sampling = sampling if temperature is None else replace(sampling, temperature=temperature)
        most = self._settings.chat.max_tokens if max_tokens is None else max_tokens
        return Request(messages, prompt, max_tokens=most, sampling=sampling, stop=(stop,) if isinstance(stop, str) else tuple(stop))

    def _whole(self, request: Request) -> Answer:
        chunks = list(self._chunks(request))
        last, answer = chunks[-1], Answer("".join(chunk.text for chunk in chunks))
        assert last.finish and last.usage and last.event
        answer.finish, answer.usage, answer.event = last.finish, last.usage, last.event
        return answer

    def _chunks(self, request: Request) -> Generator[Chunk, None, None]:
        """The answer; its last chunk carries the fact, and comes when that would survive a power cut."""
        from ingle.engine.answer import answer
        from ingle.robustness.guard_model import asks_here
        from ingle.safety.guard import make_guards
        from ingle.safety.middleware import drive, from_iterator, wrap
        from ingle.serve.answers_key import answer_key
        from ingle.serve.limits import limits_of
        from ingle.serve.record import refusal_event

        heard: list[Chunk] = []
        took: list[Usage] = []
        costs: list[GuardCost] = []
        choice: Choice | None = None
        try:
            choice = self._choose(request)
            model, session = choice.model, self._take_session(choice.model)
            ask = asks_here(self._open_guard, costs.append)
            guards = make_guards(limits_of(model), self._policy, model.name, ask=ask)
            drafts = self._settings.serve.drafts
            guarded = wrap(guards, lambda asked: from_iterator(answer(model, asked, session, drafts=drafts, left=took.append)))
            with closing(drive(guarded(choice.request))) as chunks:
                for chunk in chunks:
                    heard.append(chunk)
                    if chunk.finish is None:
                        yield chunk
            self._session = model.digest, session
        except RequestError as error:
            key = answer_key(self._home, self._rooms)
            self._record(refusal_event(key, self._model, request, error, policy=self._policy))
            choice = None
            raise
        finally:
            if choice is not None:
                heard.append(self._told(choice, request, heard, took, costs))
        yield heard[-1]

    def _told(
        self, choice: "Choice", request: Request, heard: Sequence[Chunk], took: Sequence[Usage], costs: Sequence[GuardCost]
    ) -> Chunk:  # fmt: skip
        """The last chunk, once its fact is written; of an answer that nobody read to its end, one that says so."""
        from ingle.serve.answers_key import answer_key
        from ingle.serve.record import answer_event, told_events

        last = heard[-1] if heard and heard[-1].finish else Chunk("", finish="cancelled")
        nothing = Usage(0, 0, 0, 0.0, 0.0, 0, model_digest=choice.model.digest, seed=request.sampling.seed or 0)
        usage, finish = last.usage or next(iter(took), nothing), last.finish or "cancelled"
        text, verdicts = "".join(chunk.text for chunk in heard), [verdict for chunk in heard for verdict in chunk.verdicts]
        key = answer_key(self._home, self._rooms)
        for told in told_events(key, choice.model, request, text, verdicts, self._policy):
            self._record(told)
        event = answer_event(key, choice.model.name, request, text, finish, usage, verdicts)
        facts = {**event.facts, **choice.facts, **reduce(GuardCost.plus, costs, NO_COST).facts()}
        return replace(last, usage=usage, event=self._record(replace(event, facts=facts)))

    def _record(self, event: Event) -> Event:
        from ingle.ledger.chain import Ledger

        row = Ledger(self._rooms, self._home.keys).append(event)
        return replace(event, facts={**event.facts, "seq": row.seq})

    def _opened(self, kept: "Kept") -> "LanguageModel":
        """Open another model of the home, as this one was."""
        from ingle.cli.choose import open_kept

        return open_kept(self._home, kept, self._settings.chat)

    def _choose(self, request: Request) -> "Choice":
        """Which model answers, and with what of all that was taught here."""
        from ingle.adapt.choosing import Choice, Chooser
        from ingle.home.taught import anything_taught

        if self._chooser is None:
            if not anything_taught(self._home):
                return Choice(self._model, request)
            self._chooser = Chooser(self._home, self._rooms)
        return self._chooser.choose("", self._model, self._kept, request, self._settings.chat.memory)

    @property
    def _rooms(self) -> "Engine":
        from ingle.serve.rooms import open_rooms

        if self._database is None:
            self._database = open_rooms(self._home)
        return self._database

    def _take_session(self, model: "LanguageModel") -> "Session":
        """Return the state of what was read, for a conversation reads only what is new; a new one if it is in use or another model's."""
        from ingle.engine.answer import Session

        taken, self._session = self._session, None
        return taken[1] if taken is not None and taken[0] == model.digest else Session(model.backend.new_state())


def load(model: str = "", threads: int | None = None) -> Model:
    """Return a model of your home by its name; with no name, smollm2 or the only one that is kept.

    One of Ingle's own list is pulled first if it is not there. `threads`: that compute, by default one per core.
    Raises NotKept for a name that nobody knows, PullError and HomeError where it can't be brought or read.
    """
    from ingle.cli.bringing import bring
    from ingle.cli.choose import DEFAULT, choose, open_kept
    from ingle.cli.house import enter
    from ingle.cli.progress import watching
    from ingle.cli.settings import read_settings
    from ingle.core.errors import NotKept
    from ingle.home.catalogue import CATALOGUE, SHIPPED

    home = enter()
    settings = read_settings(home, (), {"chat.model": model or None, "chat.threads": threads})
    name = settings.chat.model
    try:
        kept = choose(home, name)
    except NotKept:
        if (name or DEFAULT) not in {**CATALOGUE, **SHIPPED}:
            raise
        with watching() as watch:
            kept = bring(home, name or DEFAULT, watch, format_=settings.chat.format).kept
    return Model(home, kept, open_kept(home, kept, settings.chat), settings)


def _message(turn: Turn, at: int) -> Message:
    if isinstance(turn, Message):
        return turn
    role, content = turn.get("role"), turn.get("content")
    for named in ROLES:
        if role == named and isinstance(content, str):
            return Message.of(named, content)
    got = f"{role!r} and {type(content).__name__}"
    raise RequestError(f"said[{at}]", f"must have a role ({', '.join(ROLES)}) and a content of text", got)
