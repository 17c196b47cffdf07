"""Answers requests in the caller's own process, one at a time: for the terminal, and for Ingle in Python."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from threading import RLock, Thread
from typing import TYPE_CHECKING, TypeVar

from ingle.app.answering import AnswerRun, Ask, answering, behind_guards, left, limits_of
from ingle.app.house import House
from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import RequestError
from ingle.core.message import Chunk, Finish, Request, Usage, Verdict
from ingle.core.progress import Counted, silent
from ingle.core.report import Event
from ingle.engine.answer import Session, answer
from ingle.engine.language_model import LanguageModel
from ingle.home.kept import Kept
from ingle.robustness.guard_model import asks_here, guard_opener
from ingle.safety.guard import guard_policy
from ingle.safety.middleware import Next, drive, from_iterator
from ingle.safety.opinion import AskGuard, GuardCost
from ingle.safety.policy import GuardPolicy

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.adapt.choosing import Chooser
    from ingle.ledger.row import Row

T = TypeVar("T")
OWNER = ""  # owner of what is taught on this machine without a key


@dataclass(eq=False)
class Here:
    """The caller's process as a place where requests are answered (`app.answering.Runtime`). `close` it to let its database go.

    Raises ConfigError for a policy that can't be meant, or that names a guard model which is not kept.
    """

    house: House
    open_: Callable[[Kept], LanguageModel]  # opens another model of the home: guard models
    drafts: bool = True
    say: Callable[[str], object] = lambda _text: None  # hears why a lesson can't act, once each
    policy: GuardPolicy = field(init=False)
    session: Session | None = field(init=False, default=None)  # of the last answer: the next one reads only what is new

    def __post_init__(self) -> None:
        self.home = self.house.home
        self.policy = guard_policy(self.home.policy)
        self._open_guard = guard_opener(self.home, self.policy, self.open_)
        self._read_by = ""  # digest of the model whose state the session is
        self._said: set[str] = set()
        self._lock = RLock()
        self._key = b""
        self._chooser: Chooser | None = None

    def answer(
        self, run: AnswerRun, stopped: Callable[[], bool] = lambda: False, progress: Counted = silent, inner: Next | None = None
    ) -> Generator[Chunk, None, None]:  # fmt: skip
        """Yield the chunks of an answer as `answering` does. Whoever stops reading stops it.

        `stopped`, `progress`: as for `engine.answer.answer`. `inner`: what answers behind the guards, by default the model itself.
        """
        return drive(answering(self, run, inner or self._engine(run, stopped, progress)))

    def run(self, ask: Ask, kept: Kept, model: LanguageModel) -> AnswerRun:
        """Return an answer that is about to be written."""
        return AnswerRun(ask, kept, model, self.policy)

    def again(self, model: LanguageModel, request: Request, asker: str, around: Callable[[Next], Next] = lambda inner: inner) -> str:
        """Return an answer as the home's guards let it out now, to compare it with one that was given. No fact is written.

        `around`: wraps the engine, to hear what passes there.
        """
        inner = around(lambda passed: from_iterator(answer(model.answering(passed), passed)))
        guarded = behind_guards(self, model.name, limits_of(model), request, self.policy, asker, inner)
        return "".join(chunk.text for chunk in drive(guarded))

    def close(self) -> None:
        """Let the database go. A later answer opens it again."""
        self.house.close()
        self._chooser = None

    def warm(self) -> None:
        """Begin to open the database and to look for the key, for whoever will answer again: their libraries take a quarter of a second."""
        if not self._key:
            Thread(target=self._warm, name="house", daemon=True).start()

    def _warm(self) -> None:
        with suppress(Exception):  # whoever needs it next is told
            _ = self.key

    @property
    def engine(self) -> "Engine":
        """See `Runtime`."""
        return self.house.engine

    @property
    def key(self) -> bytes:
        """The key of the answers' digests. Raises as `answer_key` does."""
        from ingle.app.answer_key import answer_key

        with self._lock:
            self._key = self._key or answer_key(self.home, self.engine)
            return self._key

    @property
    def chooser(self) -> "Chooser | None":
        """See `Runtime`."""
        from ingle.adapt.choosing import Chooser
        from ingle.home.taught import anything_taught

        if self._chooser is None and anything_taught(self.home):
            self._chooser = Chooser(self.home, self.engine)
        return self._chooser

    def told(self, _model: LanguageModel, fault: str) -> None:
        """See `Runtime`."""
        self.say_once(f"A lesson can't act: {fault}")

    def say_once(self, text: str) -> None:
        """Say a remark, unless it was said before."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def add(self, event: Event) -> "Future[Row]":
        """See `Runtime`: it is written when this returns."""
        done: Future[Row] = Future()
        done.set_result(self.house.record(event))
        return done

    def count(self, finish: Finish | None, usage: Usage | None, verdicts: list[Verdict]) -> None:
        """See `Runtime`: nobody watches."""

    async def apart(self, work: Callable[[], T]) -> T:
        """See `Runtime`."""
        return work()

    async def judged(self, _asker: str, work: Callable[[], T]) -> T:
        """See `Runtime`."""
        return work()

    async def ready(self, _model: LanguageModel, request: Request, _asker: str) -> tuple[Request, Energy]:
        """See `Runtime`: pictures are seen when the model reads."""
        return request, NOTHING

    def key_name(self, asker: str) -> str:
        """See `Runtime`."""
        if not self.policy.keys or not asker:
            return ""
        from ingle.home.api_keys import list_keys

        return next((one.name for one in list_keys(self.engine) if one.id == asker), "")

    def ask_guard(self, _asker: str, told: Callable[[GuardCost], object]) -> AskGuard:
        """See `Runtime`."""
        return asks_here(self._open_guard, told)

    def _engine(self, run: AnswerRun, stopped: Callable[[], bool], progress: Counted) -> Next:
        def chunks(request: Request) -> Iterator[Chunk]:
            session = self._take_session(run.model)
            said = False  # whether the fact is somebody else's to write

            def gone(usage: Usage) -> None:
                nonlocal said
                said = True
                left(self, run, usage)

            run.writing = True
            try:
                with closing(answer(run.model, request, session, stopped, progress, self.drafts, gone)) as written:
                    for chunk in written:
                        run.writing = chunk.finish is None
                        said = not run.writing
                        yield chunk
            except RequestError:
                raise
            except BaseException:
                if not said:
                    left(self, run, run.nothing)
                raise
            finally:
                run.writing = False
                self.session, self._read_by = session, run.model.digest

        return lambda request: from_iterator(chunks(request))

    def _take_session(self, model: LanguageModel) -> Session:
        """Return the state of what was read; a new one if it is in use or another model's."""
        taken, self.session = self.session, None
        return taken if taken is not None and self._read_by == model.digest else Session(model.backend.new_state())
