"""One open tab: what it shows, and what its user does."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import background_tasks
from nicegui.client import Client

from ingle.core.errors import Busy, IngleError, NotKept, RequestError
from ingle.home import conversations
from ingle.home.turns import Turn
from ingle.serve.page_acts import acts_of, correct
from ingle.serve.page_book import Book, KeptBook, PassingBook, title_of
from ingle.serve.page_choices import Choices, choices_of, home_choices, request_of
from ingle.serve.page_door import Visitor
from ingle.serve.page_layout import Parts
from ingle.serve.page_learning import Learning
from ingle.serve.page_list import Listing
from ingle.serve.page_panel import Panel
from ingle.serve.page_room import Room
from ingle.serve.page_taught import look_up
from ingle.serve.page_thread import Thread
from ingle.serve.service import Ask

MOST_TEXT = 400_000
"""Characters of one message that a browser may send."""
Deed = Callable[[Any], Awaitable[None]]


class View:
    """One open tab."""

    def __init__(self, room: Room, visitor: Visitor, client: Client, parts: Parts) -> None:
        self.room, self.visitor, self.client, self.parts = room, visitor, client, parts
        self.book: Book | None = None
        self.choices = Choices()
        self.title = ""
        self.passing = False
        """Whether the conversation that is about to begin, or has begun, is not kept."""
        self._stale = self._drawing = self._sending = False
        self.thread = Thread(room.desk, parts, self._hear_turn, lambda turns: look_up(room.service.engine, visitor.owner, turns))
        self.listing, self.panel, self.learning = Listing(self), Panel(self), Learning(self)
        heard: dict[Any, dict[str, Deed]] = {
            parts.shell: {"new": self.new, "stop": self.stop, "go": self.open},
            parts.bar: {"settings": self.panel.open, "passing": self.pass_by, "new": self.new},
            parts.composer: {"send": self.send, "stop": self.stop, "last": self.edit_last, "lost": self.lost},
            parts.welcome: {"sample": self.send},
            parts.list: {"new": self.new, "learning": self.learning.open},
            parts.scroll: {"earlier": self.earlier},
        }
        for part, deeds in heard.items():
            for event, deed in deeds.items():
                part.hear(event, self.heard(deed))

    # What is drawn

    @property
    def place(self) -> str:
        """Id of the conversation in the home; "" for a new one, or one that is not kept."""
        return "" if self.book is None or self.passing else self.book.key[1]

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
        await self.listing.draw()
        book = self.book
        try:
            await self.thread.draw(book, lambda: self.book is book)
        except NotKept:
            await self.leave("This conversation is not kept any more.")
        self._draw_frame()

    def _draw_frame(self) -> None:
        begun = self.book is not None
        title = self.title if begun and not self.passing else ""
        model = self.choices.model or home_choices(self.room.service)["model"]
        self.parts.bar.show({"title": title, "model": model, "passing": self.passing, "begun": begun})
        place = None if self.passing else self.place
        self.parts.composer.show({"writing": self.thread.writing is not None, "place": place, "begun": begun})
        self.parts.shell.show({"path": f"/c/{self.place}" if self.place else "/", "title": title})
        self.parts.welcome.show({"shown": not begun, "passing": self.passing})

    # Who may do something

    async def welcome(self) -> bool:
        """Whether the user's key is still good; if not, the tab goes to the door."""
        if await self.room.door.visitor(self.visitor.sign_in) is not None:
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
        if not text or self._sending or self.thread.writing is not None:
            return
        self._sending = True  # until it is stored: a second click finds the answer being written
        try:
            await self._send(said, text)
        finally:
            self._sending = False

    async def _send(self, said: Any, text: str) -> None:
        before, choices = self.book, self.choices  # whoever goes elsewhere while it is stored is neither brought back nor mixed up
        book = before or await self._begin(text)
        turn = await book.ask(text, self.thread.leaf if before is book else "")
        if self.book is before:
            self.book = book
        self.parts.composer.do("taken", said)
        self.parts.scroll.do("end")
        await self.answer(book, turn, choices)

    async def _begin(self, text: str) -> Book:
        if self.passing:
            return PassingBook(self.visitor.owner)
        engine, owner = self.room.service.engine, self.visitor.owner
        made = await asyncio.to_thread(conversations.create_conversation, engine, owner, title_of(text), self.choices.kept)
        if self.book is None:
            self.title = made.title
        return KeptBook(engine, owner, made.id)

    async def answer(self, book: Book, parent: str, choices: Choices) -> None:
        """Lets the model answer what was said up to a turn."""
        request = request_of(self.room.service, choices, await book.said(parent))
        ask = Ask(request, choices.model or "", self.visitor.owner, keep=book.keep(parent))
        self.room.desk.begin(ask, book, parent)

    async def again(self, parent: str) -> None:
        """Another answer to a question, beside those that it has."""
        book, choices = self.book, self.choices
        if book is not None and self.thread.writing is None:
            await book.stand(parent, deep=False)
            await self.answer(book, parent, choices)

    async def edit(self, turn: Turn, text: str) -> None:
        """Another question in the place of one, beside it. Raises Busy while an answer is being written."""
        book, choices, asked = self.book, self.choices, _checked(text)
        if book is None or not asked:
            return
        if self.thread.writing is not None:
            raise Busy("question", "An answer is being written", "", "Stop it first, or let it end.")
        parent = await book.ask(asked, turn.parent)
        self.thread.stored(turn)
        await self.answer(book, parent, choices)
        self.parts.scroll.do("end")

    async def stop(self, _said: Any) -> None:
        """Ends the answer that is being written here."""
        if self.thread.writing is not None:
            self.room.desk.stop(self.thread.writing)

    async def edit_last(self, _said: Any) -> None:
        """Lets the user edit the last question."""
        self.thread.edit_last()

    async def earlier(self, _said: Any) -> None:
        """Shows more of a long conversation."""
        self.thread.show_earlier()

    async def _hear_turn(self, event: str, turn: Turn | None, said: Any) -> None:
        await self.heard(lambda _: self._turn_deed(event, turn, said))(said)

    async def _turn_deed(self, event: str, turn: Turn | None, said: Any) -> None:
        if event == "step" and self.book is not None:
            # "" = where another answer is being written.
            await self.book.stand(str(said) or (turn.parent if turn else self.thread.leaf), deep=bool(said))
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
        await self._forget_passing()
        self.book, self.title, self.passing, self.choices = None, "", False, Choices()
        self.parts.composer.do("focus")
        self.say(note)
        self.stale()

    async def new(self, said: Any) -> None:
        """A new conversation. "key" = by a key, which is not to end one that is not kept."""
        if said == "key" and self.passing and self.book is not None:
            self.say("This conversation is not kept, so no key ends it: “New conversation” does.")
            return
        await self.leave()

    async def lost(self, _said: Any) -> None:
        """The page was loaded anew while it showed a conversation that is not kept."""
        if self.book is None:
            self.passing = True
            self.say("The conversation that was not kept is gone. This one is not kept either.")

    async def open(self, said: Any) -> None:
        """Another conversation; "" = a new one."""
        if not said:
            await self.leave()
        elif said != self.place:
            engine, owner = self.room.service.engine, self.visitor.owner
            kept = await asyncio.to_thread(conversations.get_conversation, engine, owner, str(said))
            await self._forget_passing()
            self.book, self.title, self.passing = KeptBook(engine, owner, kept.id), kept.title, False
            self.choices = choices_of(kept.settings)
            self.parts.scroll.do("end")

    async def pass_by(self, said: Any) -> None:
        """Whether the conversation that is about to begin is not kept."""
        if self.book is None:
            self.passing = bool(said)

    async def _forget_passing(self) -> None:
        if self.passing and self.book is not None:
            self.parts.composer.do("drop")
            await self.room.desk.forget(self.book.key)

    async def close(self) -> None:
        """The tab is gone."""
        self.room.views.discard(self)
        await self._forget_passing()


def _checked(said: Any) -> str:
    """What a browser sent as a message. Raises RequestError for too much of it."""
    text = said.strip() if isinstance(said, str) else ""
    if len(text) > MOST_TEXT:
        raise RequestError("message", f"must have at most {MOST_TEXT:,} characters", f"{len(text):,}", "Send it in parts.")
    return text
