"""One answer for one caller: reuse the longest start that was already read, then read the rest and answer token by token."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ingle.core.errors import CannotRewind
from ingle.core.message import Chunk, Request, Usage
from ingle.energy.meter import Span, open_meter
from ingle.engine.backend import AnyState
from ingle.engine.checkpoints import WORTH_KEEPING
from ingle.engine.decoding import Decoding
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import PrefixCache
from ingle.engine.speculative import ALONE, StepTimer

_EARLIER_BYTES = 128 << 20


@dataclass
class Session:
    """The state of one conversation, so that its next turn reads only new text."""

    state: AnyState
    ids: list[int] = field(default_factory=list)
    earlier: PrefixCache = field(default_factory=lambda: PrefixCache(_EARLIER_BYTES))
    """Earlier states, for a session whose own state can't go back."""
    pace: StepTimer = field(default_factory=StepTimer)
    """Measured step times, for drafts."""

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
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    drafts: bool = True,
    left: Callable[[Usage], None] = lambda _usage: None,
) -> Iterator[Chunk]:
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
