"""The list of conversations at the side of one tab."""

import asyncio
from collections.abc import Mapping
from typing import Any

from ingle.home import conversations
from ingle.page.parts import ConversationList
from ingle.page.pending_answers import PendingAnswers
from ingle.page.tab import Deed, Tab

PAGE = 50  # conversations that are listed at first, and that "Older" adds
_COPIES = "Deleted. Another program is reading the database, so old copies of the words may stay in its file for a while."


class Listing:
    """Draws the list and carries out its actions."""

    def __init__(self, tab: Tab, part: ConversationList, pending: PendingAnswers, visitor: str) -> None:
        """`visitor`: the name of the tab's user."""
        self._tab, self._part, self._pending, self._visitor = tab, part, pending, visitor
        self._words, self._limit = "", PAGE
        self.deeds: Mapping[str, Deed]
        self.deeds = {"rename": self.rename, "remove": self.remove, "search": self.search, "more": self.more}

    async def draw(self) -> str | None:
        """Shows the newest conversations, or those that match the search.

        Returns the title of the conversation that the tab shows, if it is one of them.
        """
        tab, limit = self._tab, self._limit
        listed = await asyncio.to_thread(conversations.list_conversations, tab.service.engine, tab.owner, self._words, None, limit + 1)
        busy = self._pending.busy(tab.owner)
        rows = [{"id": kept.id, "title": kept.title, "at": kept.updated, "busy": kept.id in busy} for kept in listed[:limit]]
        values = {"rows": rows, "more": len(listed) > limit, "current": tab.place, "words": self._words, "who": self._visitor}
        self._part.show(values)
        return next((kept.title for kept in listed if kept.id == tab.place), None)

    async def rename(self, argument: Any) -> None:
        """Changes a title; `argument`: [id, title]."""
        conversation, title = map(str, argument)
        tab = self._tab
        if title.strip():
            await asyncio.to_thread(conversations.rename_conversation, tab.service.engine, tab.owner, conversation, title)
            tab.changed(conversation)

    async def remove(self, argument: Any) -> None:
        """Deletes a conversation and all that was made of its words."""
        tab, conversation = self._tab, str(argument)
        await self._pending.forget((tab.owner, conversation))
        gone = await asyncio.to_thread(conversations.delete_conversation, tab.service.engine, tab.owner, conversation)
        tab.service.forget(tab.owner, conversation)
        if tab.place == conversation:
            await tab.leave()
        if not gone:
            tab.say(_COPIES)
        tab.changed(conversation)

    async def search(self, argument: Any) -> None:
        """Lists only conversations with these words."""
        self._words, self._limit = str(argument or "")[: conversations.MAX_WORDS], PAGE

    async def more(self, _argument: Any) -> None:
        """Lists older conversations too."""
        self._limit += PAGE
