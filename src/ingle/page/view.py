"""One open tab: draws it and carries out what its user does."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from nicegui import background_tasks
from nicegui.client import Client

from ingle.adapt.guards import guards_taught
from ingle.app.answering import Ask
from ingle.core.errors import Busy, ConfigError, IngleError, NotKept
from ingle.core.message import ImagePart, Message
from ingle.home import conversations
from ingle.home.turns import Turn
from ingle.page.acts import acts_of, correct
from ingle.page.bringing import Bringing
from ingle.page.choices import Choices, choices_of, home_choices, request_of
from ingle.page.conversation import OpenConversation, StoredConversation, TemporaryConversation, title_of
from ingle.page.learning import LearningTab
from ingle.page.list import Listing
from ingle.page.models import ModelsTab
from ingle.page.page_layout import PageParts
from ingle.page.panel import Panel
from ingle.page.room import Room
from ingle.page.safety_section import SafetySection
from ingle.page.sent import message_of
from ingle.page.session import Visitor
from ingle.page.tab import Deed
from ingle.page.taught import TaughtNotes, look_up
from ingle.page.thread import Thread
from ingle.page.troubles import said
from ingle.page.why import WhyTab
from ingle.serve.hearing import with_printed_words
from ingle.serve.service import Service


class View:
    """One open tab. Its panels know it as `Tab`."""

    def __init__(self, room: Room, visitor: Visitor, client: Client, parts: PageParts) -> None:
        self.room, self.visitor, self.client, self.parts = room, visitor, client, parts
        self.conversation: OpenConversation | None = None
        self.choices = Choices()
        self.title = ""
        self.temporary = False  # whether the conversation, begun or not, is a temporary chat
        self._stale = self._drawing = self._sending = False
        self.thread = Thread(room.pending, parts, self._hear_turn, self._look_up)
        self.listing = Listing(self, parts.list, room.pending, visitor.name)
        self.why = WhyTab(self, self.thread.part_of)
        self.safety = SafetySection(self, parts.settings)
        self.panel, self.learning = Panel(self, parts.settings, self.safety), LearningTab(self, parts.learning)
        self.models, self.bringing = ModelsTab(self, parts.models), Bringing(self, parts.composer)
        events: dict[Any, Mapping[str, Deed]] = {
            parts.shell: {"new": self.new, "stop": self.stop, "go": self.open},
            parts.bar: {"settings": self.panel.open, "temporary": self.set_temporary, "new": self.new},
            parts.composer: {"send": self.send, "stop": self.stop, "last": self.edit_last, "lost": self.lost, **self.bringing.deeds},
            parts.welcome: {"sample": self.send, "models": self.models.open, "answer": self.safety.answer, "better": self.bringing.better},
            parts.list: {"new": self.new, "learning": self.learning.open, "open": self.open, **self.listing.deeds},
            parts.settings: {**self.panel.deeds, **self.safety.deeds, "models": self.models.open},
            parts.models: self.models.deeds,
            parts.learning: self.learning.deeds,
            parts.scroll: {"earlier": self.earlier},
        }
        for part, deeds in events.items():
            for event, deed in deeds.items():
                part.hear(event, self.heard(deed))

    # What `Tab` promises

    @property
    def owner(self) -> str:
        """Id of the visitor's key; "" on this machine, where none is needed."""
        return self.visitor.owner

    @property
    def service(self) -> Service:
        """The one service of the application."""
        return self.room.service

    @property
    def teaches_guards(self) -> bool:
        """Whether the visitor may teach the guards of the home."""
        return self.visitor.guards

    @property
    def place(self) -> str:
        """Id of the stored conversation; "" for a new or a temporary one."""
        return "" if self.conversation is None or self.temporary else self.conversation.key[1]

    async def choose(self, choices: Choices) -> None:
        """Changes the settings of the conversation, stores them, and updates the other tabs that show it."""
        self.choices = choices
        if self.place:
            await asyncio.to_thread(conversations.change_settings, self.service.engine, self.owner, self.place, choices.kept)
        for other in self.room.beside(self):
            other.choices = choices
            await other.panel.draw()
            other.stale()
        await self.panel.draw()

    async def is_watched(self) -> bool:
        """Return whether the tab is still open and its visitor may see it."""
        return not self.client.is_deleted and await self.welcome()

    def changed(self, conversation: str = "") -> None:
        """Redraws every tab of this owner."""
        self.room.changed((self.owner, conversation))

    # Drawing

    def _look_up(self, turns: Sequence[Turn]) -> TaughtNotes:
        """Return what was taught about turns. Reads the database."""
        guards = None
        with suppress(ConfigError):  # a damaged file: whoever asks the model hears of it, and what was said can still be read
            guards = {one.id: one.harmful for one in guards_taught(self.service.home)} if self.teaches_guards else None
        return look_up(self.service.engine, self.owner, turns, guards)

    def stale(self) -> None:
        """Redraws the tab soon. Several calls make one redraw."""
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
                    self.say(said(error))
        finally:
            self._drawing = False

    async def draw(self) -> None:
        """Shows the current state."""
        title = await self.listing.draw()
        self.title = self.title if title is None else title
        conversation = self.conversation
        try:
            await self.thread.draw(conversation, lambda: self.conversation is conversation)
        except NotKept:
            await self.leave("This conversation was deleted.")
        self.why.tidy()
        self._draw_frame()
        await self.safety.redraw()
        await self.bringing.draw()
        offer, question = (await self.models.offer(), await self.safety.question()) if self.conversation is None else (None, None)
        self.parts.welcome.show({"offer": offer, "question": question})

    def _draw_frame(self) -> None:
        begun = self.conversation is not None
        title = self.title if begun and not self.temporary else ""
        model = self.choices.model or home_choices(self.service)["model"]
        self.parts.bar.show({"title": title, "model": model, "temporary": self.temporary, "begun": begun})
        writing, place = self.thread.pending is not None, None if self.temporary else self.place
        self.parts.composer.show({"writing": writing, "place": place, "begun": begun})
        self.parts.shell.show({"path": f"/c/{self.place}" if self.place else "/", "title": title})
        self.parts.welcome.show({"shown": not begun, "temporary": self.temporary})

    # Access

    async def welcome(self) -> bool:
        """Return whether the user's key is still good. If not, the tab goes to the sign-in form."""
        if await self.room.sessions.visitor(self.visitor.sign_in) is not None:
            return True
        self.room.views.discard(self)
        self.parts.shell.do("leave")
        return False

    def heard(self, deed: Deed) -> Deed:
        """Wraps a deed: it needs a good key, and its error shows above the composer."""

        async def run(argument: Any) -> None:
            if not await self.welcome():
                return
            self.say("")
            try:
                await deed(argument)
            except IngleError as error:
                self.service.refusals.refused("page", error, self.owner)
                self.say(said(error))
                self.parts.composer.do("refused")
            self.stale()

        return run

    def say(self, text: str) -> None:
        """Shows a note above the composer."""
        self.parts.composer.show({"note": text})

    # Talking

    async def send(self, argument: Any) -> None:
        """Sends a message. It is stored first, and only then leaves the composer."""
        message = message_of(argument)
        if not message.parts or self._sending or self.thread.pending is not None:
            return
        self._sending = True  # until it is stored: a second click finds the answer being written
        try:
            await self._send(argument, message)
        finally:
            self._sending = False

    async def _send(self, argument: Any, message: Message) -> None:
        if await self.bringing.holds(message):
            return
        before, choices = self.conversation, self.choices  # whoever goes elsewhere while it is stored is neither brought back nor mixed up
        conversation = before or await self._begin(message.text)
        message = await with_printed_words(self.service, message, self.owner)
        turn = await conversation.ask(message, self.thread.leaf if before is conversation else "")
        if self.conversation is before:
            self.conversation = conversation
        self.parts.composer.do("taken", argument["text"] if isinstance(argument, dict) else argument)
        self.parts.scroll.do("end")
        await self.answer(conversation, turn, choices)
        voice = self.room.voices.get((self.owner, str(argument.get("aloud")))) if isinstance(argument, dict) else None
        pending = self.room.pending.at(conversation.key, turn)
        if voice is not None and pending is not None:
            voice.follow(pending)

    async def _begin(self, text: str) -> OpenConversation:
        if self.temporary:
            return TemporaryConversation(self.owner)
        engine, owner = self.service.engine, self.owner
        stored = await asyncio.to_thread(conversations.create_conversation, engine, owner, title_of(text), self.choices.kept)
        if self.conversation is None:
            self.title = stored.title
        return StoredConversation(engine, owner, stored.id)

    async def answer(self, conversation: OpenConversation, parent: str, choices: Choices) -> None:
        """Has the model answer the messages up to a turn."""
        request = request_of(self.service, choices, await conversation.said(parent))
        ask = Ask(request, choices.model or "", self.owner, keep=conversation.keep(parent))
        self.room.pending.begin(ask, conversation, parent)

    async def again(self, parent: str) -> None:
        """Begins another answer to a question, beside those that it has."""
        conversation, choices = self.conversation, self.choices
        if conversation is not None and self.thread.pending is None:
            await conversation.stand(parent, deep=False)
            await self.answer(conversation, parent, choices)

    async def edit(self, turn: Turn, text: str) -> None:
        """Asks an edited question, beside the first one. Raises Busy while an answer is being written."""
        conversation, choices = self.conversation, self.choices
        question = message_of(text, tuple(part for part in turn.message.parts if isinstance(part, ImagePart)))
        if conversation is None or not question.parts:
            return
        if self.thread.pending is not None:
            raise Busy("question", "An answer is being written", "", "Stop it first, or let it end.")
        parent = await conversation.ask(question, turn.parent)
        self.thread.stored(turn)
        await self.answer(conversation, parent, choices)
        self.parts.scroll.do("end")

    async def explain(self, turn: Turn) -> None:
        """Opens the view "Why" under an answer, or closes it."""
        await self.why.toggle(turn)

    async def stop(self, _argument: Any) -> None:
        """Stops the pending answer."""
        if self.thread.pending is not None:
            self.room.pending.stop(self.thread.pending)

    async def edit_last(self, _argument: Any) -> None:
        """Lets the user edit the last question."""
        self.thread.edit_last()

    async def earlier(self, _argument: Any) -> None:
        """Shows earlier turns of a long conversation."""
        self.thread.show_earlier()

    async def _hear_turn(self, event: str, turn: Turn | None, argument: Any) -> None:
        await self.heard(lambda _: self._turn_deed(event, turn, argument))(argument)

    async def _turn_deed(self, event: str, turn: Turn | None, argument: Any) -> None:
        if event == "step" and self.conversation is not None:
            # "" = where another answer is being written.
            await self.conversation.stand(str(argument) or (turn.parent if turn else self.thread.leaf), deep=bool(argument))
        elif event == "edit" and turn is not None:
            await self.edit(turn, str(argument))
        elif event == "correct" and turn is not None:
            await correct(self, turn, str(argument))
            self.thread.stored(turn)
        elif event == "learning":
            await self.learning.open()
        elif event == "safety":
            await self.panel.open_safety()
        elif event == "act" and turn is not None:
            for act in acts_of(turn):
                if act.id == argument and act.deed is not None:
                    await act.deed(self, turn)
        elif event == "cure":
            cures: dict[str, Deed] = {
                "again": lambda _: self.again(self.thread.leaf), "settings": self.panel.open, "safety": self.panel.open_safety,
            }  # fmt: skip
            await cures.get(str(argument), self.new)(argument)

    # Conversations

    async def leave(self, note: str = "") -> None:
        """Goes to a new conversation."""
        await self._forget_temporary()
        self.conversation, self.title, self.temporary, self.choices = None, "", False, Choices()
        self.parts.composer.do("focus")
        self.say(note)
        self.stale()

    async def new(self, argument: Any) -> None:
        """Begins a new conversation. "key" = by a shortcut, which must not end a temporary chat."""
        if argument == "key" and self.temporary and self.conversation is not None:
            self.say("Shortcuts don't end a temporary chat. Press “New conversation” to leave it.")
            return
        await self.leave()

    async def lost(self, _argument: Any) -> None:
        """Handles a reload of the page during a temporary chat."""
        if self.conversation is None:
            self.temporary = True
            self.say("Your temporary chat is gone. This is a new temporary chat.")

    async def open(self, argument: Any) -> None:
        """Opens a conversation; "" = a new one."""
        if not argument:
            await self.leave()
        elif argument != self.place:
            engine, owner = self.service.engine, self.owner
            stored = await asyncio.to_thread(conversations.get_conversation, engine, owner, str(argument))
            await self._forget_temporary()
            self.conversation, self.title, self.temporary = StoredConversation(engine, owner, stored.id), stored.title, False
            self.choices = choices_of(stored.settings)
            self.parts.scroll.do("end")

    async def set_temporary(self, argument: Any) -> None:
        """Sets whether the next conversation is a temporary chat."""
        if self.conversation is None:
            self.temporary = bool(argument)

    async def _forget_temporary(self) -> None:
        if self.temporary and self.conversation is not None:
            self.parts.composer.do("drop")
            await self.room.pending.forget(self.conversation.key)

    async def close(self) -> None:
        """Handles the end of the tab."""
        self.room.views.discard(self)
        self.why.close()
        await self._forget_temporary()
