"""One answer for one caller: reuse the longest start that was already read, then read the rest and answer token by token."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CannotRewind, GuardError, IngleError
from ingle.core.message import Chunk, Request, Usage
from ingle.core.process import release_memory
from ingle.core.progress import Counted, silent
from ingle.core.state import STEP_TOKENS, State
from ingle.energy.meter import Span, open_meter
from ingle.engine.backend import Segment
from ingle.engine.decoding import WORTH_KEEPING, Decoding
from ingle.engine.job import Capacity, Job
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import PrefixCache, common_length
from ingle.engine.scheduler import Scheduler
from ingle.engine.speculative import ALONE, StepTimer
from ingle.model.tokenizer import ControlToken, Tokenizer

_EARLIER_BYTES = 128 << 20


@dataclass
class Session:
    """The state of one conversation, so that its next turn reads only new text."""

    state: State
    ids: list[int] = field(default_factory=list)
    # Earlier states, for a session whose own state can't go back.
    earlier: PrefixCache = field(default_factory=lambda: PrefixCache(_EARLIER_BYTES))
    pace: StepTimer = field(default_factory=StepTimer)  # measured step times, for drafts

    def resume(self, ids: Sequence[int], new_state: Callable[[], Any]) -> int:
        """Go back to the longest start of `ids` that was already read and can be continued. At least one token is left to read. Returns its
        length."""
        limit = min(len(ids) - 1, len(self.ids))
        common = next((i for i in range(limit) if ids[i] != self.ids[i]), limit)
        try:
            self.state.rewind(common)
        except CannotRewind:
            earlier = self.earlier.find("", "", ids)
            self.state, common = (earlier.state, earlier.length) if earlier else (new_state(), 0)
        self.ids = list(ids[:common])
        return common

    def keep(self, ids: Sequence[int]) -> None:
        """Keep a fork of the state, with `ids` read, unless nearly as many of them are kept already."""
        if len(ids) >= WORTH_KEEPING + self.earlier.known("", "", [*ids, 0]):
            self.earlier.put("", "", ids, self.state.fork())


def answer(
    model: LanguageModel,
    request: Request,
    session: Session | None = None,
    stopped: Callable[[], bool] = lambda: False,
    progress: Counted = silent,
    drafts: bool = True,
    left: Callable[[Usage], None] = lambda _usage: None,
) -> Generator[Chunk, None, None]:
    """Yield the answer in pieces; the last one has `finish` and `usage`.

    `session` is continued and kept up to date, even if the caller stops iterating. `stopped` is asked after every chunk. `progress` gets
    the number of unread prompt tokens that have been read, of all. Without `drafts` each step writes one token; the tokens are the same.
    `left` gets what an answer took whose reader goes before its end.
    Raises ContextError for a prompt that doesn't fit; TemplateError, RequestError for one that can't be encoded.
    """
    backend, span = model.backend, Span(open_meter())
    prompt = model.prompt(request)
    ids = prompt.ids
    lasting, session = session is not None, session or Session(backend.new_state())
    session.resume(ids[:1] if request.echo else ids, backend.new_state)
    pace = session.pace if drafts else None
    decoding = Decoding(model, request, ids, session.state, model.grammar(request), pace=pace, vectors=prompt.vectors)
    if lasting and decoding.checkpoints.needed:
        session.keep(session.ids)  # where the last answer ended
    fresh = decoding.unread
    chunk: Chunk | None = None
    try:
        while chunk is None or chunk.finish is None:
            reading = decoding.reading
            segment, began = decoding.next(), time.perf_counter()
            try:
                [rows] = backend.forward([segment])
            except BaseException:  # a Ctrl-C too: memories may have taken in what its length doesn't tell of
                session.state = decoding.state = backend.new_state()
                raise
            if not reading:
                session.pace.saw(ALONE, len(segment.ids) - 1, time.perf_counter() - began)
            if lasting and reading and decoding.checkpoints.due(decoding.state.length):
                session.keep(ids[: decoding.state.length])
            chunk = decoding.take(rows)
            if reading:
                progress(fresh - decoding.prompt_tokens + decoding.state.length, fresh)
            span.tick()
            if chunk is not None:
                yield _metered(chunk, span)
                if chunk.finish is None and stopped():
                    chunk = decoding.end("cancelled")
                    yield _metered(chunk, span)
    finally:
        session.ids = decoding.ids[: decoding.state.length]  # all of it, or what was read before Ctrl-C
        if chunk is not None and chunk.finish is None:
            left(replace(decoding.usage(), energy=span.end()))


def _metered(chunk: Chunk, span: Span) -> Chunk:
    """Add the answer's energy to its last chunk, the caller's display included; other chunks are unchanged."""
    return chunk if chunk.usage is None else replace(chunk, usage=replace(chunk.usage, energy=span.end()))


# Which of some words a model would say next: one prefill of a prompt, the logits of the words' first tokens, and no decoding.
# Most of such a prompt is a template that never changes: the state after its beginning is kept, and each prompt goes on from a fork of it.


Pieces = Sequence[str | ControlToken]


@dataclass(frozen=True, slots=True)
class LabelPrompt:
    """A prompt, and the tokens that are compared behind it."""

    ids: list[int]
    labels: tuple[int, ...]  # one for each word, all different


def label_prompt(tokenizer: Tokenizer, pieces: Pieces, lead: str, words: Sequence[str]) -> LabelPrompt:
    """Return a rendered prompt up to the place where one of `words` would begin, behind `lead`.

    Tokens may join the lead and a word, so the words are encoded in their place: what all have in common is read, what comes next differs.
    Raises GuardError for words that this vocabulary does not tell apart.
    """
    last = max((i for i, piece in enumerate(pieces) if isinstance(piece, ControlToken)), default=-1)
    end = "".join(piece for piece in pieces[last + 1 :] if isinstance(piece, str))
    end += "" if lead and end.endswith(lead) else lead
    head = list(pieces[: last + 1])
    start = tokenizer.encode_pieces(head)
    anchor = head[-1:]  # a text behind a control token is not encoded as one at the beginning
    ends = [tokenizer.encode_pieces([*anchor, end + word])[len(anchor) :] for word in words]
    common = min(common_length(ends[0], one) for one in ends)
    labels = tuple(one[common] if len(one) > common else -1 for one in ends)
    if len(set(labels)) < len(labels) or -1 in labels:
        cure = "Is it the model that its name says?"
        raise GuardError("guard model", "must have a token of its own for each of its labels", ", ".join(map(repr, words)), cure)
    return LabelPrompt(start + ends[0][:common], labels)


def chances(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the probabilities of labels among themselves, float64 [labels]. Raises GuardError for NaN and infinity."""
    if not np.isfinite(logits).all():
        raise GuardError("guard model", "must give numbers for its labels", "NaN or infinity", "Run `ingle verify --models`.")
    odds = np.exp(logits.astype(np.float64) - float(logits.max()))
    found: npt.NDArray[np.float64] = odds / odds.sum()
    return found


@dataclass(eq=False)
class LabelReader:
    """Reads such prompts with one model. The beginnings that do not change are read once, for all who ask. Thread-safe."""

    model: LanguageModel
    _starts: dict[str, tuple[list[int], State]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def session(self, kind: str) -> Session:
        """Return a session that goes on from the known beginning of this kind of prompts; from nothing, where none is known."""
        with self._lock:
            ids, state = self._starts.get(kind, ([], None))
            return Session(self.model.backend.new_state() if state is None else state.fork(), list(ids))

    def keep(self, kind: str, ids: Sequence[int], state: State) -> None:
        """Keep a fork of a state as the beginning of a kind; the first one stays."""
        with self._lock:
            if kind not in self._starts and ids:
                self._starts[kind] = list(ids), state.fork()

    @property
    def nbytes(self) -> int:
        """Bytes of all beginnings."""
        with self._lock:
            return sum(state.nbytes for _, state in self._starts.values())


class LabelReading:
    """One prompt on its way through a model, in steps."""

    def __init__(self, reader: LabelReader, session: Session, prompt: LabelPrompt, kind: str = "", shared: int = 0) -> None:
        """`session`: it is continued; `shared`: tokens at the beginning that all prompts of this `kind` have in common."""
        self._reader, self._session, self._prompt, self._kind, self._shared = reader, session, prompt, kind, shared
        backend = reader.model.backend
        self.cached = session.resume(prompt.ids, backend.new_state)  # tokens that were known
        self.logits: npt.NDArray[np.float32] | None = None  # float32 [labels], once all is read

    @property
    def tokens(self) -> int:
        """Tokens that have to be read, or had to."""
        return len(self._prompt.ids) - self.cached

    @property
    def state_bytes(self) -> int:
        """Bytes of its state, when all is read."""
        return self._reader.model.backend.state_bytes(len(self._prompt.ids))

    def step(self, most: int = STEP_TOKENS) -> int | None:
        """Read up to so many tokens; returns how many, None once all is read. Raises as `Backend.forward` does; the session then is new."""
        if self.logits is not None:
            return None
        session, ids, model = self._session, self._prompt.ids, self._reader.model
        at = len(session.ids)
        until = self._shared if at < self._shared else len(ids)
        chunk = ids[at : min(until, at + most, at + STEP_TOKENS)]
        last = at + len(chunk) == len(ids)
        try:
            [rows] = model.backend.forward([Segment(session.state, chunk, "last" if last else "none", model.adapter)])
        except BaseException:
            session.state, session.ids = model.backend.new_state(), []
            raise
        session.ids += chunk
        if last:
            self.logits = rows[-1][list(self._prompt.labels)].astype(np.float32)
        elif len(session.ids) == self._shared:
            self._reader.keep(self._kind, session.ids, session.state)
        return len(chunk)


# Write answers to many requests at once, for callers that wait for all (measurements, data makers). The scheduler does the work.


_PLACES = 8  # answers at once: more hardly make a step of two cores faster
# Most for the states of answers and of earlier prompts together; of these, what is there beside the answers', for common starts.
_STATE_BYTES, STARTS_BYTES = 1 << 30, 64 << 20
_LOOK_S = 0.1  # seconds between calls of `stopped` while no answer is ready


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
