"""The conversations at the side of one tab."""

import asyncio
from typing import TYPE_CHECKING, Any

from ingle.home import conversations

if TYPE_CHECKING:
    from ingle.page.view import View

PAGE = 50
"""Conversations that are listed at once."""
_COPIES = "Deleted. Another program is reading the database, so old copies of the words may stay in its file for a while."


class Listing:
    """What is listed, and what can be done with it."""

    def __init__(self, view: "View") -> None:
        self._view = view
        self._words, self._limit = "", PAGE
        deeds = {"open": view.open, "rename": self.rename, "remove": self.remove, "search": self.search, "more": self.more}
        for event, deed in deeds.items():
            view.parts.list.hear(event, view.heard(deed))

    async def draw(self) -> None:
        """Shows the newest conversations, or those with the words that are searched for."""
        view, room = self._view, self._view.room
        owner, limit = view.visitor.owner, self._limit
        listed = await asyncio.to_thread(conversations.list_conversations, room.service.engine, owner, self._words, None, limit + 1)
        busy = room.pending.busy(owner)
        rows = [{"id": kept.id, "title": kept.title, "at": kept.updated, "busy": kept.id in busy} for kept in listed[:limit]]
        values = {"rows": rows, "more": len(listed) > limit, "current": view.place, "words": self._words, "who": view.visitor.name}
        view.parts.list.show(values)
        view.title = next((kept.title for kept in listed if kept.id == view.place), view.title)

    async def rename(self, said: Any) -> None:
        """Another title."""
        conversation, title = map(str, said)
        owner = self._view.visitor.owner
        if title.strip():
            await asyncio.to_thread(conversations.rename_conversation, self._view.room.service.engine, owner, conversation, title)
            self._view.room.changed((owner, conversation))

    async def remove(self, said: Any) -> None:
        """Deletes a conversation, with everything that was made of its words."""
        view, room, conversation = self._view, self._view.room, str(said)
        owner = view.visitor.owner
        await room.pending.forget((owner, conversation))
        gone = await asyncio.to_thread(conversations.delete_conversation, room.service.engine, owner, conversation)
        room.service.forget(owner, conversation)
        if view.place == conversation:
            await view.leave()
        if not gone:
            view.say(_COPIES)
        room.changed((owner, conversation))

    async def search(self, said: Any) -> None:
        """Only conversations with these words."""
        self._words, self._limit = str(said or "")[: conversations.MAX_WORDS], PAGE

    async def more(self, _said: Any) -> None:
        """Older conversations too."""
        self._limit += PAGE
