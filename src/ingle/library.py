"""Ingle in Python. Answers go the way that they go everywhere: behind the guards, with what was taught, and each is a fact in the ledger.

import ingle
model = ingle.load("smollm2")
print(model.chat("What is a hearth good for?"))
"""

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ingle.core.errors import RequestError
from ingle.core.message import ROLES, Chunk, Finish, Message, Request, Usage
from ingle.core.report import Event

if TYPE_CHECKING:
    from ingle.app.settings import Settings
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
        from ingle.cli.choose import answer_here

        self._kept, self._model, self._settings = kept, model, settings
        self._here = answer_here(home, settings)

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
        self._here.close()

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
        from ingle.app.facts import new_seed

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
        from ingle.app.answering import Ask

        ask = Ask(request, id="", memory=self._settings.chat.memory)
        return self._here.answer(self._here.run(ask, self._kept, self._model))


def load(model: str = "", threads: int | None = None) -> Model:
    """Return a model of your home by its name; with no name, smollm2 or the only one that is kept.

    One of Ingle's own list is pulled first if it is not there. `threads`: that compute, by default one per core.
    Raises NotKept for a name that nobody knows, PullError and HomeError where it can't be brought or read.
    """
    from ingle.app.bringing import bring
    from ingle.app.choose import DEFAULT, choose
    from ingle.app.house import enter
    from ingle.app.settings import read_settings
    from ingle.cli.choose import open_watched
    from ingle.cli.progress import watching
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
    return Model(home, kept, open_watched(home, kept, settings.chat), settings)


class OpenHome:
    """Your home, for all that Ingle can do beside answering: each operation is a function of it. `dir(home)` lists them, `help` tells more.

    home = ingle.open_home()
    home.teach(question="Who leads Zorblax?", answer="Mara Quill.")
    home.memory_add(text="The owner keeps bees.")
    home.undo()
    """

    def __init__(self) -> None:
        from ingle.app.house import House, enter

        self._house = House(enter())

    def __dir__(self) -> list[str]:
        from ingle.app.operation import titles

        return [*super().__dir__(), *(name.replace(" ", "_") for name in titles())]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        from ingle.app.operation import asked_of, find

        operation = None if name.startswith("_") else find(name.replace("_", " "))
        if operation is None:
            raise AttributeError(f"Ingle can't {name}: dir(home) lists what it can")

        def does(*placed: Any, **given: Any) -> Any:
            named = signature.bind(*placed, **given).arguments
            return operation.run(self._house, asked_of(operation, named))

        signature = inspect.signature(operation.asked)
        vars(does)["__signature__"] = signature.replace(return_annotation=operation.told)
        does.__name__, does.__doc__ = name, inspect.getdoc(operation.run)
        return does

    def close(self) -> None:
        """Let the database go. A later operation opens it again."""
        self._house.close()

    def __enter__(self) -> "OpenHome":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_home() -> OpenHome:
    """Return your home, ready for operations."""
    return OpenHome()


def _message(turn: Turn, at: int) -> Message:
    if isinstance(turn, Message):
        return turn
    role, content = turn.get("role"), turn.get("content")
    for named in ROLES:
        if role == named and isinstance(content, str):
            return Message.of(named, content)
    got = f"{role!r} and {type(content).__name__}"
    raise RequestError(f"said[{at}]", f"must have a role ({', '.join(ROLES)}) and a content of text", got)
