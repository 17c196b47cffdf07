"""Pending answers of the page. They go on when no tab is open; only Stop ends them.

Closing or reloading a browser changes nothing here: the page that comes back shows the answer as far as it is.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from ingle.app.answering import Ask
from ingle.app.replay import parameters
from ingle.core.errors import IngleError, LedgerError
from ingle.core.message import Message, TextPart
from ingle.page.conversation import Key, OpenConversation
from ingle.page.facts import facts_of
from ingle.page.markdown import GrowingMarkdown, Stroke
from ingle.serve.service import Service

PAUSE_S = 1 / 15  # least time between two changes of the page, so that the model gets the processor
_SHARE = 0.05  # largest share of the time that rendering may take
_FACT_S = 10.0  # longest wait for the ledger's fact of a stopped answer
_NEWEST = 200  # newest facts among which it must be
_MOST_FAILED = 200  # failures that are kept, so that a reloaded page can say why

Watcher = Callable[[str, Sequence[Stroke]], None]  # called with the stage ("opening", "reading", "writing") and the changes


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

    @property
    def running(self) -> bool:
        """Whether it is still being written."""
        return not self.over

    @property
    def text(self) -> str:
        """All that was written."""
        return "".join(self.words)

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
        self._service, self._changed = service, changed
        self._pending: dict[tuple[Key, str], PendingAnswer] = {}

    def begin(self, ask: Ask, conversation: OpenConversation, parent: str) -> None:
        """Begins an answer behind a turn, unless one is being written there."""
        present = self.at(conversation.key, parent)
        if present is not None and present.running:
            return
        pending = self._pending[conversation.key, parent] = PendingAnswer(ask, conversation, parent)
        pending.task = asyncio.create_task(self._run(pending), name="answer of the page")
        self._changed(conversation.key)

    def at(self, key: Key, parent: str) -> PendingAnswer | None:
        """Return the pending or failed answer behind a turn."""
        return self._pending.get((key, parent))

    def busy(self, owner: str) -> set[str]:
        """Return the ids of the owner's conversations with a pending answer."""
        return {key[1] for (key, _), pending in self._pending.items() if key[0] == owner and pending.running}

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
        pending.stage = "reading"
        pending.tell()
        async with aclosing(service.answer(ask)) as chunks:
            async for chunk in chunks:
                pending.words.append(chunk.text)
                pending.more.set()
                if chunk.finish is not None and ask.keep is None:
                    facts = {**facts_of(chunk), "request": parameters(ask.request, system=True)}
                    said = (*chunk.media, *([TextPart(pending.text)] if pending.text else []))
                    await pending.conversation.answered(pending.parent, Message("assistant", said), ask.id, facts)

    async def _paint(self, pending: PendingAnswer) -> None:
        """Shows new text at most every PAUSE_S, while a tab watches."""
        while not pending.ended.is_set():
            await pending.more.wait()
            pending.more.clear()
            if pending.watchers:
                async with pending.lock:
                    if strokes := await asyncio.to_thread(_grow, pending):
                        pending.tell(strokes)
            pause = max(PAUSE_S, pending.cost_s / _SHARE)
            with suppress(TimeoutError):
                await asyncio.wait_for(pending.ended.wait(), pause)
        async with pending.lock:
            pending.tell(await asyncio.to_thread(lambda: [*_grow(pending), *pending.growing.finish()]))

    async def _keep_stopped(self, pending: PendingAnswer) -> None:
        """Stores the text of a stopped answer. Its fact is on its way to the ledger."""
        if not pending.text.strip():
            return
        ask = pending.ask
        try:
            facts = {**await self._fact(ask), "request": parameters(ask.request, system=True)}
            await pending.conversation.answered(pending.parent, Message.of("assistant", pending.text), ask.id, facts)
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
        pending.over = True
        if pending.error is None and (not pending.stopped or pending.text.strip()):
            self._pending.pop((pending.conversation.key, pending.parent), None)
        failed = [place for place, answer in self._pending.items() if not answer.running]
        for place in failed[:-_MOST_FAILED]:
            del self._pending[place]
        self._changed(pending.conversation.key)


def _grow(pending: PendingAnswer) -> list[Stroke]:
    text, pending.shown = "".join(pending.words[pending.shown :]), len(pending.words)
    if not text:
        return []
    pending.stage = "writing"
    began = time.thread_time()
    strokes = pending.growing.take(text)
    pending.cost_s = time.thread_time() - began
    return strokes
