"""What a server holds of conversations in memory: temporary chats, and answers that are being written or failed."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from ingle.app.answering import Ask
from ingle.app.choices import choices_of, request_of
from ingle.app.conversation import TEMPORARY, EndTold, Key, OpenConversation, StoredConversation, Temporaries, stand, title_of
from ingle.core.errors import Busy, HomeError, NotKept
from ingle.core.message import ImagePart, Message
from ingle.home.conversations import Conversation, ConversationChange, check_version
from ingle.home.teachings import change_mark
from ingle.home.turns import Turn
from ingle.serve.hearing import with_printed_words
from ingle.serve.pending_answers import PendingAnswer, PendingAnswers
from ingle.serve.service import Service
from ingle.serve.troubles import said, trouble

LOOK_S = 2.0  # seconds between two looks at what was taught
MOST_ASKED = 1024  # questions whose clients' keys are remembered, of everybody


class Follower(Protocol):
    """Reads an answer aloud while it is being written."""

    def follow(self, pending: PendingAnswer) -> None:
        """Begin to read it."""


class Talks:
    """The conversations of one server. Belongs to its event loop; what `app.conversation.Held` promises may be called from any thread."""

    def __init__(self, service: Service) -> None:
        self.service, self.temporaries = service, Temporaries(service.clock)
        self.changed: list[Callable[[Key], None]] = []  # called when an answer began or ended in a conversation
        self.pending = PendingAnswers(service, self._changed)
        self._asked: OrderedDict[tuple[str, str, str], tuple[str, str]] = OrderedDict()  # by the client's key: answer and question
        self._asking: set[Key] = set()
        self.voices: dict[tuple[str, str], Follower] = {}  # tabs with sound, by their owner and their own id
        self._marks: dict[str, str] = {}  # by owner: what changes with what was taught, as it was last seen
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Take the running event loop as its own, and look from time to time at what others change."""
        self._loop = asyncio.get_running_loop()
        self._looking = asyncio.create_task(self._look(), name="look for changes")
        self.service.puller.changed.append(self._pulled)
        self.service.live.changed.append(lambda: self.service.updates.tell(None, "guards.changed", {}))

    async def _look(self) -> None:
        """Tell of what was taught by any program, while somebody listens."""
        updates, engine = self.service.updates, self.service.engine
        while True:
            await self.service.clock.pause(LOOK_S)
            for owner in updates.owners():
                with suppress(HomeError):  # the next time, then
                    mark = await asyncio.to_thread(change_mark, engine, owner)
                    if self._marks.setdefault(owner, mark) != mark:
                        self._marks[owner] = mark
                        updates.tell(owner, "learning.changed", {})

    def _pulled(self) -> None:
        state = self.service.puller.state
        self.service.updates.tell("", "pull.changed", {"object": "pull", **state.table(), "note": said(state.note)})

    def open(self, owner: str, id_: str) -> OpenConversation:
        """Return a conversation. Raises NotKept for a temporary one that is gone; a stored one says so when it is read."""
        return self.temporaries.find(owner, id_) if id_.startswith(TEMPORARY) else StoredConversation(self.service.engine, owner, id_)

    def busy(self, owner: str) -> set[str]:
        """Return the ids of an owner's conversations in which an answer is being written."""
        return self.pending.busy(owner)

    def end(self, key: Key, parent: str) -> EndTold:
        """Return how far the answer to a question without one is."""
        pending = self.pending.at(key, parent)
        if pending is not None and pending.running:
            now = pending.drawn
            return EndTold(parent, pending.ask.id, now.stage, now.number, now.text, now.html, now.open)
        note, cures = trouble(None, stopped=False) if pending is None else pending.trouble
        return EndTold(parent, pending.ask.id if pending else "", "failed", note=note, cures=cures)

    def waits(self, key: Key, parent: str) -> bool:
        """Return whether another answer to a question is being written, or failed."""
        return self.pending.at(key, parent) is not None

    def forget(self, key: Key) -> None:
        """Stop and drop the answers of a conversation, from a thread that is not the event loop's."""
        assert self._loop is not None, "start() comes first"
        asyncio.run_coroutine_threadsafe(self.pending.forget(key), self._loop).result()

    def tell(self, owner: str, kept: Conversation | str) -> None:
        """Tell the owner's streams that a conversation has changed, or (by its id) was deleted."""
        if isinstance(kept, str):
            self.service.updates.tell(owner, "conversation.deleted", {"id": kept})
        else:
            self.service.updates.tell(owner, "conversation.changed", {"id": kept.id, "version": kept.version})

    async def ask(
        self, owner: str, id_: str, message: Message, edits: str = "", again: str = "", version: int | None = None, key: str = "",
        aloud: str = "",
    ) -> tuple[str, str]:  # fmt: skip
        """Ask something and begin its answer; returns the ids of the answer and of the question's turn.

        `message`: a new question, without parts where a question gets another answer: `again`. `edits`: the question that it stands beside,
        whose pictures it keeps. `version`: the one that was seen. `key`: the client's own; a second time, it asks nothing. `aloud`: the tab
        whose voice reads the answer.
        Raises NotKept, Stale; Busy while one is being asked or answered there.
        """
        if key and (done := self._asked.get((owner, id_, key))):
            return done
        conversation = self.open(owner, id_)
        if conversation.key in self._asking:
            raise Busy("question", "Another question is being asked here", "", "Wait for it.")
        self._asking.add(conversation.key)
        try:
            done = await self._ask(conversation, message, edits, again, version)
        finally:
            self._asking.discard(conversation.key)
        voice, pending = self.voices.get((owner, aloud)), self.pending.called(conversation.key, done[0])
        if voice is not None and pending is not None:
            voice.follow(pending)
        if key:
            self._asked[owner, id_, key] = done
            if len(self._asked) > MOST_ASKED:
                self._asked.popitem(last=False)
        return done

    async def _ask(
        self, conversation: OpenConversation, message: Message, edits: str, again: str, version: int | None
    ) -> tuple[str, str]:  # fmt: skip
        owner, _ = conversation.key
        kept = await asyncio.to_thread(conversation.now)
        check_version(kept, version)
        if (now := self.pending.at(conversation.key, kept.leaf)) is not None and now.running:
            raise Busy("question", "An answer is being written", "", "Stop it first, or let it end.")
        if again:
            await asyncio.to_thread(_question, conversation, again)
            await asyncio.to_thread(stand, conversation, again, False)
            parent = again
        else:
            before = await asyncio.to_thread(_question, conversation, edits) if edits else None
            if before is not None:
                pictures = [part for part in before.message.parts if isinstance(part, ImagePart)]
                message = Message("user", (*pictures, *message.parts))
            message = await with_printed_words(self.service, message, owner)
            parent = await asyncio.to_thread(conversation.ask, message, kept.leaf if before is None else before.parent)
            if not kept.title and not kept.leaf and not kept.id.startswith(TEMPORARY):
                await asyncio.to_thread(conversation.change, ConversationChange(title=title_of(message.text)))
        choices = choices_of(kept.settings)
        said = await asyncio.to_thread(conversation.said, parent)
        request = request_of(self.service.sampling, self.service.settings, choices, said)
        ask = Ask(request, choices.model or "", owner, keep=conversation.keep(parent))
        self.pending.begin(ask, conversation, parent)
        self.tell(owner, await asyncio.to_thread(conversation.now))
        return ask.id, parent

    def answer(self, owner: str, id_: str, answer: str) -> PendingAnswer:
        """Return an answer that is being written. Raises NotKept if there is none."""
        found = self.pending.called((owner, id_), answer)
        if found is None or not found.running:
            raise NotKept("answer", "No such answer is being written here", "", "It may have ended.")
        return found

    async def close(self) -> None:
        """Wait for the answers that the service is ending."""
        self._looking.cancel()
        await self.pending.close()

    def _changed(self, key: Key) -> None:
        for hear in self.changed:
            hear(key)


def _question(conversation: OpenConversation, turn: str) -> Turn:
    """Return a question of the branch that is shown. Raises NotKept."""
    found: Sequence[Turn] = [step.turn for step in conversation.path() if step.turn.id == turn and step.turn.message.role == "user"]
    if not found:
        raise NotKept(f"turn {turn[:12]}", "is no question of the branch that is shown")
    return found[0]
