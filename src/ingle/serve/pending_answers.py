"""Answers in conversations that are being written. They go on when nobody listens; only Stop ends them.

Who closes a browser or a stream changes nothing here: whoever comes back reads the answer as far as it is.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ingle.app.answer_words import facts_of
from ingle.app.answering import Ask
from ingle.app.conversation import Cure, Key, OpenConversation
from ingle.app.markdown import GrowingMarkdown, Stroke
from ingle.app.replay import parameters
from ingle.core.errors import IngleError, LedgerError
from ingle.core.message import Message, TextPart
from ingle.serve.service import Service
from ingle.serve.troubles import trouble

PAUSE_S = 1 / 15  # least time between two changes of the page, so that the model gets the processor
_SHARE = 0.05  # largest share of the time that rendering may take
_FACT_S = 10.0  # longest wait for the ledger's fact of a stopped answer
_NEWEST = 200  # newest facts among which it must be
_MOST_FAILED = 200  # failures that are kept, so that a reloaded page can say why

Watcher = Callable[[str, Sequence[Stroke]], None]  # called with the stage ("opening", "reading", "writing") and the changes


@dataclass(frozen=True, slots=True)
class ToldSoFar:
    """An answer as far as it was told."""

    stage: str = "opening"
    number: int = 0  # pieces that were told
    text: str = ""
    html: str = ""  # of the blocks that are complete
    open: str = ""  # HTML of the block that is still open


@dataclass(eq=False)
class PendingAnswer:
    """An answer that is being written, or that failed."""

    ask: Ask
    conversation: OpenConversation
    parent: str  # the turn that it follows
    stage: str = "opening"
    words: list[str] = field(default_factory=list)
    growing: GrowingMarkdown = field(default_factory=GrowingMarkdown)
    watchers: list[Watcher] = field(default_factory=list)
    stopped: bool = False  # by the user
    error: Exception | None = None
    task: asyncio.Task[None] | None = None
    more: asyncio.Event = field(default_factory=asyncio.Event)  # set when there is something to show
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # set when no more words will come
    over: bool = False  # whether it has ended and is stored
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while `growing` and the watchers change
    shown: int = 0  # how many of the words the page has
    cost_s: float = 0.0  # processor time of the last rendering
    drawn: ToldSoFar = ToldSoFar()

    @property
    def running(self) -> bool:
        """Whether it is still being written."""
        return not self.over

    @property
    def text(self) -> str:
        """All that was written."""
        return "".join(self.words)

    @property
    def trouble(self) -> tuple[str, tuple[Cure, ...]]:
        """Why there is no answer, and what may help."""
        return trouble(self.error, stopped=True)

    def watch(self, watcher: Watcher) -> None:
        """Adds a watcher of all changes from now on. The caller holds the lock."""
        self.watchers.append(watcher)
        self.more.set()

    def tell(self, strokes: Sequence[Stroke] = ()) -> None:
        """Passes changes on to the watchers."""
        for watcher in self.watchers:
            watcher(self.stage, strokes)


class PendingAnswers:
    """All pending answers of the page."""

    def __init__(self, service: Service, changed: Callable[[Key], None]) -> None:
        """`changed` is called when an answer began or ended in a conversation."""
        self._service, self._changed, self._updates = service, changed, service.updates
        self._pending: dict[tuple[Key, str], PendingAnswer] = {}

    def begin(self, ask: Ask, conversation: OpenConversation, parent: str) -> None:
        """Begins an answer behind a turn, unless one is being written there."""
        present = self.at(conversation.key, parent)
        if present is not None and present.running:
            return
        pending = self._pending[conversation.key, parent] = PendingAnswer(ask, conversation, parent)
        pending.task = asyncio.create_task(self._run(pending), name="answer in a conversation")
        self._tell(pending, "answer.begun", {"parent": parent})
        self._changed(conversation.key)

    def at(self, key: Key, parent: str) -> PendingAnswer | None:
        """Return the pending or failed answer behind a turn."""
        return self._pending.get((key, parent))

    def called(self, key: Key, answer: str) -> PendingAnswer | None:
        """Return a pending answer of a conversation by its id."""
        return next((one for place, one in self._pending.items() if place[0] == key and one.ask.id == answer), None)

    def busy(self, owner: str) -> set[str]:
        """Return the ids of the owner's conversations with a pending answer."""
        return {key[1] for (key, _), pending in [*self._pending.items()] if key[0] == owner and pending.running}

    def stop(self, pending: PendingAnswer) -> None:
        """Stops an answer. The text so far stays."""
        if pending.running and not pending.stopped and pending.task is not None:
            pending.stopped = True
            pending.task.cancel()

    async def forget(self, key: Key) -> None:
        """Stops and drops all answers of a conversation."""
        for place in [place for place in self._pending if place[0] == key]:
            pending = self._pending[place]
            self.stop(pending)
            if pending.task is not None:
                await asyncio.wait([pending.task])
            self._pending.pop(place, None)

    async def close(self) -> None:
        """Waits for the answers that the service is ending."""
        tasks = [pending.task for pending in self._pending.values() if pending.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._service.settings.grace_s)
            for task in late:
                task.cancel()

    async def _run(self, pending: PendingAnswer) -> None:
        painter = asyncio.create_task(self._paint(pending))
        try:
            await self._write(pending)
        except asyncio.CancelledError:
            if not pending.stopped:
                raise
            await self._keep_stopped(pending)
        except IngleError as error:
            self._service.refusals.refused("page", error, pending.ask.asker)
            pending.error = error
        except Exception as error:
            logging.getLogger("ingle").exception("page")
            pending.error = error
        finally:
            pending.ended.set()
            pending.more.set()
            await asyncio.wait([painter])
            self._over(pending)

    async def _write(self, pending: PendingAnswer) -> None:
        ask, service = pending.ask, self._service
        await service.models.get(ask.model)
        self._stage(pending, "reading")
        async with aclosing(service.answer(ask)) as chunks:
            async for chunk in chunks:
                pending.words.append(chunk.text)
                pending.more.set()
                if chunk.finish is not None and ask.keep is None:
                    facts = {**facts_of(chunk), "request": parameters(ask.request, system=True)}
                    said = (*chunk.media, *([TextPart(pending.text)] if pending.text else []))
                    await asyncio.to_thread(pending.conversation.answered, pending.parent, Message("assistant", said), ask.id, facts)

    async def _paint(self, pending: PendingAnswer) -> None:
        """Tells of new text at most every PAUSE_S, while somebody listens."""
        while not pending.ended.is_set():
            await pending.more.wait()
            pending.more.clear()
            if pending.watchers or self._updates.hears(pending.ask.asker):
                await self._draw(pending)
            pause = max(PAUSE_S, pending.cost_s / _SHARE)
            with suppress(TimeoutError):
                await asyncio.wait_for(pending.ended.wait(), pause)
        await self._draw(pending, last=True)

    async def _draw(self, pending: PendingAnswer, last: bool = False) -> None:
        async with pending.lock:
            text, strokes = await asyncio.to_thread(_grow, pending)
            if last:
                strokes += await asyncio.to_thread(pending.growing.finish)
            if not text and not strokes:
                return
            if text and pending.stage != "writing":
                self._stage(pending, "writing")
            was, growing = pending.drawn, pending.growing
            pending.drawn = ToldSoFar(pending.stage, was.number + 1, was.text + text, growing.complete, growing.open[2])
            self._tell(pending, "answer.delta", {"number": was.number + 1, "text": text, "strokes": strokes})
            pending.tell(strokes)

    def _stage(self, pending: PendingAnswer, stage: str) -> None:
        pending.stage, pending.drawn = stage, replace(pending.drawn, stage=stage)
        self._tell(pending, "answer.stage", {"stage": stage})
        pending.tell()

    def _tell(self, pending: PendingAnswer, name: str, facts: Mapping[str, Any]) -> None:
        owner, conversation = pending.conversation.key
        self._updates.tell(owner, name, {"conversation": conversation, "answer": pending.ask.id, **facts})

    async def _keep_stopped(self, pending: PendingAnswer) -> None:
        """Stores the text of a stopped answer. Its fact is on its way to the ledger."""
        if not pending.text.strip():
            return
        ask = pending.ask
        try:
            facts = {**await self._fact(ask), "request": parameters(ask.request, system=True)}
            message = Message.of("assistant", pending.text)
            await asyncio.to_thread(pending.conversation.answered, pending.parent, message, ask.id, facts)
        except IngleError as error:
            pending.error = error

    async def _fact(self, ask: Ask) -> dict[str, Any]:
        """Return the ledger's fact of an answer. Raises LedgerError if there is none."""
        from ingle.ledger.chain import Ledger

        ledger = Ledger(self._service.engine, self._service.home.keys)

        def read() -> Mapping[str, Any] | None:
            rows = ledger.read(kind="answer", last=_NEWEST)
            return next(({**row.values, "seq": row.seq, "model_name": row.subject} for row in rows if row.values.get("id") == ask.id), None)

        until = time.monotonic() + _FACT_S
        while (facts := await asyncio.to_thread(read)) is None:
            if time.monotonic() > until:
                raise LedgerError("answer", "must have left its fact in the ledger", ask.id)
            await asyncio.sleep(0.05)
        return dict(facts)

    def _over(self, pending: PendingAnswer) -> None:
        pending.over, place = True, (pending.conversation.key, pending.parent)
        if pending.error is None and (not pending.stopped or pending.text.strip()):
            self._pending.pop(place, None)
        ended = place not in self._pending
        note, cures = pending.trouble
        told: dict[str, Any] = {"note": note, "cures": [asdict(one) for one in cures]}
        self._tell(pending, "answer.ended" if ended else "answer.failed", {} if ended else told)
        failed = [at for at, answer in self._pending.items() if not answer.running]
        for at in failed[:-_MOST_FAILED]:
            del self._pending[at]
        self._changed(pending.conversation.key)


def _grow(pending: PendingAnswer) -> tuple[str, list[Stroke]]:
    """Return the text that was not told yet, and the changes that draw it."""
    text, pending.shown = "".join(pending.words[pending.shown :]), len(pending.words)
    if not text:
        return "", []
    began = time.thread_time()
    strokes = pending.growing.take(text)
    pending.cost_s = time.thread_time() - began
    return text, strokes
