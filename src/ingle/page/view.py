"""One open tab: what it shows, and what its user does."""

import asyncio
from collections.abc import Mapping
from typing import Any

from nicegui import background_tasks
from nicegui.client import Client

from ingle.core.errors import Busy, IngleError, NotKept, RequestError
from ingle.home import conversations
from ingle.home.turns import Turn
from ingle.page.acts import acts_of, correct
from ingle.page.choices import Choices, choices_of, home_choices, request_of
from ingle.page.conversation import Conversation, StoredConversation, TemporaryConversation, title_of
from ingle.page.layout import Parts
from ingle.page.learning import Learning
from ingle.page.list import Listing
from ingle.page.panel import Panel
from ingle.page.room import Room
from ingle.page.session import Visitor
from ingle.page.tab import Deed
from ingle.page.taught import look_up
from ingle.page.thread import Thread
from ingle.serve.service import Ask, Service

MOST_TEXT = 400_000
"""Characters of one message that a browser may send."""


class View:
    """One open tab; its panels know it as `Tab`."""

    def __init__(self, room: Room, visitor: Visitor, client: Client, parts: Parts) -> None:
        self.room, self.visitor, self.client, self.parts = room, visitor, client, parts
        self.conversation: Conversation | None = None
        self.choices = Choices()
        self.title = ""
        self.temporary = False
        """Whether the conversation that is about to begin, or has begun, is not kept."""
        self._stale = self._drawing = self._sending = False
        self.thread = Thread(room.pending, parts, self._hear_turn, lambda turns: look_up(room.service.engine, visitor.owner, turns))
        self.listing = Listing(self, parts.list, room.pending, visitor.name)
        self.panel, self.learning = Panel(self, parts.settings), Learning(self, parts.learning)
        heard: dict[Any, Mapping[str, Deed]] = {
            parts.shell: {"new": self.new, "stop": self.stop, "go": self.open},
            parts.bar: {"settings": self.panel.open, "passing": self.pass_by, "new": self.new},
            parts.composer: {"send": self.send, "stop": self.stop, "last": self.edit_last, "lost": self.lost},
            parts.welcome: {"sample": self.send},
            parts.list: {"new": self.new, "learning": self.learning.open, "open": self.open, **self.listing.deeds},
            parts.settings: self.panel.deeds,
            parts.learning: self.learning.deeds,
            parts.scroll: {"earlier": self.earlier},
        }
        for part, deeds in heard.items():
            for event, deed in deeds.items():
                part.hear(event, self.heard(deed))

    # What its panels know

    @property
    def owner(self) -> str:
        """Id of the visitor's key; "" for somebody on this machine who needs none."""
        return self.visitor.owner

    @property
    def service(self) -> Service:
        """The one service of the application."""
        return self.room.service

    @property
    def place(self) -> str:
        """Id of the conversation in the home; "" for a new one, or one that is not kept."""
        return "" if self.conversation is None or self.temporary else self.conversation.key[1]

    async def choose(self, choices: Choices) -> None:
        """Takes over settings of the conversation, and keeps them with it; other tabs that show it take them over too."""
        self.choices = choices
        if self.place:
            await asyncio.to_thread(conversations.change_settings, self.service.engine, self.owner, self.place, choices.kept)
        for other in self.room.beside(self):
            other.choices = choices
            await other.panel.draw()
            other.stale()
        await self.panel.draw()

    async def is_watched(self) -> bool:
        """Whether the tab is open still, and its visitor may see it."""
        return not self.client.is_deleted and await self.welcome()

    def changed(self, conversation: str = "") -> None:
        """Lets every tab of this owner draw what is different now."""
        self.room.changed((self.owner, conversation))

    # What is drawn

    def stale(self) -> None:
        """Draws everything again, soon; once, however often it is asked for."""
        self._stale = True
        if not self._drawing and not self.client.is_deleted:
            self._drawing = True
            background_tasks.create(self._draw_soon(), name="draw a tab of the page")

    async def _draw_soon(self) -> None:
        try:
            while self._stale and not self.client.is_deleted and await self.welcome():
                self._stale = False
                try:
                    await self.draw()
                except IngleError as error:
                    self.say(str(error))
        finally:
            self._drawing = False

    async def draw(self) -> None:
        """Shows everything as it is now."""
        title = await self.listing.draw()
        self.title = self.title if title is None else title
        conversation = self.conversation
        try:
            await self.thread.draw(conversation, lambda: self.conversation is conversation)
        except NotKept:
            await self.leave("This conversation is not kept any more.")
        self._draw_frame()

    def _draw_frame(self) -> None:
        begun = self.conversation is not None
        title = self.title if begun and not self.temporary else ""
        model = self.choices.model or home_choices(self.service)["model"]
        self.parts.bar.show({"title": title, "model": model, "passing": self.temporary, "begun": begun})
        place = None if self.temporary else self.place
        self.parts.composer.show({"writing": self.thread.pending is not None, "place": place, "begun": begun})
        self.parts.shell.show({"path": f"/c/{self.place}" if self.place else "/", "title": title})
        self.parts.welcome.show({"shown": not begun, "passing": self.temporary})

    # Who may do something

    async def welcome(self) -> bool:
        """Whether the user's key is still good; if not, the tab goes to the sign-in form."""
        if await self.room.sessions.visitor(self.visitor.sign_in) is not None:
            return True
        self.room.views.discard(self)
        self.parts.shell.do("leave")
        return False

    def heard(self, deed: Deed) -> Deed:
        """A deed, for those who may; what can't be done is said above the composer."""

        async def run(said: Any) -> None:
            if not await self.welcome():
                return
            self.say("")
            try:
                await deed(said)
            except IngleError as error:
                self.say(str(error))
                self.parts.composer.do("refused")
            self.stale()

        return run

    def say(self, text: str) -> None:
        """One quiet line above the composer."""
        self.parts.composer.show({"note": text})

    # Talking

    async def send(self, said: Any) -> None:
        """What was typed: it is stored before anything else happens, and only then leaves the composer."""
        text = _checked(said)
        if not text or self._sending or self.thread.pending is not None:
            return
        self._sending = True  # until it is stored: a second click finds the answer being written
        try:
            await self._send(said, text)
        finally:
            self._sending = False

    async def _send(self, said: Any, text: str) -> None:
        before, choices = self.conversation, self.choices  # whoever goes elsewhere while it is stored is neither brought back nor mixed up
        conversation = before or await self._begin(text)
        turn = await conversation.ask(text, self.thread.leaf if before is conversation else "")
        if self.conversation is before:
            self.conversation = conversation
        self.parts.composer.do("taken", said)
        self.parts.scroll.do("end")
        await self.answer(conversation, turn, choices)

    async def _begin(self, text: str) -> Conversation:
        if self.temporary:
            return TemporaryConversation(self.owner)
        engine, owner = self.service.engine, self.owner
        made = await asyncio.to_thread(conversations.create_conversation, engine, owner, title_of(text), self.choices.kept)
        if self.conversation is None:
            self.title = made.title
        return StoredConversation(engine, owner, made.id)

    async def answer(self, conversation: Conversation, parent: str, choices: Choices) -> None:
        """Lets the model answer what was said up to a turn."""
        request = request_of(self.service, choices, await conversation.said(parent))
        ask = Ask(request, choices.model or "", self.owner, keep=conversation.keep(parent))
        self.room.pending.begin(ask, conversation, parent)

    async def again(self, parent: str) -> None:
        """Another answer to a question, beside those that it has."""
        conversation, choices = self.conversation, self.choices
        if conversation is not None and self.thread.pending is None:
            await conversation.stand(parent, deep=False)
            await self.answer(conversation, parent, choices)

    async def edit(self, turn: Turn, text: str) -> None:
        """Another question in the place of one, beside it. Raises Busy while an answer is being written."""
        conversation, choices, asked = self.conversation, self.choices, _checked(text)
        if conversation is None or not asked:
            return
        if self.thread.pending is not None:
            raise Busy("question", "An answer is being written", "", "Stop it first, or let it end.")
        parent = await conversation.ask(asked, turn.parent)
        self.thread.stored(turn)
        await self.answer(conversation, parent, choices)
        self.parts.scroll.do("end")

    async def stop(self, _said: Any) -> None:
        """Ends the answer that is being written here."""
        if self.thread.pending is not None:
            self.room.pending.stop(self.thread.pending)

    async def edit_last(self, _said: Any) -> None:
        """Lets the user edit the last question."""
        self.thread.edit_last()

    async def earlier(self, _said: Any) -> None:
        """Shows more of a long conversation."""
        self.thread.show_earlier()

    async def _hear_turn(self, event: str, turn: Turn | None, said: Any) -> None:
        await self.heard(lambda _: self._turn_deed(event, turn, said))(said)

    async def _turn_deed(self, event: str, turn: Turn | None, said: Any) -> None:
        if event == "step" and self.conversation is not None:
            # "" = where another answer is being written.
            await self.conversation.stand(str(said) or (turn.parent if turn else self.thread.leaf), deep=bool(said))
        elif event == "edit" and turn is not None:
            await self.edit(turn, str(said))
        elif event == "correct" and turn is not None:
            await correct(self, turn, str(said))
            self.thread.stored(turn)
        elif event == "learning":
            await self.learning.open()
        elif event == "act" and turn is not None:
            for act in acts_of(turn):
                if act.id == said and act.deed is not None:
                    await act.deed(self, turn)
        elif event == "cure":
            cures: dict[str, Deed] = {"again": lambda _: self.again(self.thread.leaf), "new": self.new, "settings": self.panel.open}
            await cures.get(str(said), self.new)(said)

    # Conversations

    async def leave(self, note: str = "") -> None:
        """Goes to a new conversation."""
        await self._forget_temporary()
        self.conversation, self.title, self.temporary, self.choices = None, "", False, Choices()
        self.parts.composer.do("focus")
        self.say(note)
        self.stale()

    async def new(self, said: Any) -> None:
        """A new conversation. "key" = by a key, which is not to end one that is not kept."""
        if said == "key" and self.temporary and self.conversation is not None:
            self.say("This conversation is not kept, so no key ends it: “New conversation” does.")
            return
        await self.leave()

    async def lost(self, _said: Any) -> None:
        """The page was loaded anew while it showed a conversation that is not kept."""
        if self.conversation is None:
            self.temporary = True
            self.say("The conversation that was not kept is gone. This one is not kept either.")

    async def open(self, said: Any) -> None:
        """Another conversation; "" = a new one."""
        if not said:
            await self.leave()
        elif said != self.place:
            engine, owner = self.service.engine, self.owner
            kept = await asyncio.to_thread(conversations.get_conversation, engine, owner, str(said))
            await self._forget_temporary()
            self.conversation, self.title, self.temporary = StoredConversation(engine, owner, kept.id), kept.title, False
            self.choices = choices_of(kept.settings)
            self.parts.scroll.do("end")

    async def pass_by(self, said: Any) -> None:
        """Whether the conversation that is about to begin is not kept."""
        if self.conversation is None:
            self.temporary = bool(said)

    async def _forget_temporary(self) -> None:
        if self.temporary and self.conversation is not None:
            self.parts.composer.do("drop")
            await self.room.pending.forget(self.conversation.key)

    async def close(self) -> None:
        """The tab is gone."""
        self.room.views.discard(self)
        await self._forget_temporary()


def _checked(said: Any) -> str:
    """What a browser sent as a message. Raises RequestError for too much of it."""
    text = said.strip() if isinstance(said, str) else ""
    if len(text) > MOST_TEXT:
        raise RequestError("message", f"must have at most {MOST_TEXT:,} characters", f"{len(text):,}", "Send it in parts.")
    return text
