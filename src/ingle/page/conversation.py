"""A conversation as the page shows it: one branch of the tree of turns, and each turn's siblings.

It is stored in the home. A temporary one is only in memory, for as long as it is open.
"""

import asyncio
import itertools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ingle.app.answering import Keep
from ingle.core.errors import NotKept
from ingle.core.message import Message
from ingle.home import conversations, turns
from ingle.home.database import now
from ingle.home.turns import Turn

if TYPE_CHECKING:
    from sqlalchemy import Engine

Key = tuple[str, str]  # owner and conversation
_TITLE = 48  # most characters of a title that is made from a question


@dataclass(frozen=True, slots=True)
class SaidTurn:
    """One turn of the branch that is shown."""

    turn: Turn
    beside: tuple[str, ...]  # ids of the turns with the same parent, this one included, oldest first

    @property
    def place(self) -> int:
        """Index of this turn in `beside`."""
        return self.beside.index(self.turn.id)


class OpenConversation(Protocol):
    """A tree of turns, and the turn at which the user stands."""

    @property
    def key(self) -> Key:
        """Owner and id, unique among all conversations."""

    async def path(self) -> Sequence[SaidTurn]:
        """Return the current branch. Raises NotKept if the conversation is gone."""

    async def said(self, turn: str) -> Sequence[Message]:
        """Return the messages up to a turn, this one included."""

    async def ask(self, message: Message, parent: str) -> str:
        """Adds the user's message behind `parent` and moves there. Returns the turn's id."""

    async def stand(self, turn: str, deep: bool = True) -> None:
        """Moves to a turn ("" = before the first); `deep`: on to the end of the newest branch behind it."""

    async def following(self, turn: str) -> Sequence[str]:
        """Return the ids of a turn's children, oldest first."""

    def keep(self, parent: str) -> Keep | None:
        """Return where the service stores the answer behind `parent`; None = it does not."""

    async def answered(self, parent: str, message: Message, completion: str, facts: Mapping[str, Any]) -> None:
        """Adds an answer that the service did not store. Moves there unless the user has gone to another branch."""


class StoredConversation:
    """A conversation in the home's database."""

    def __init__(self, engine: "Engine", owner: str, conversation: str) -> None:
        self._engine, self._owner, self._id = engine, owner, conversation

    @property
    def key(self) -> Key:
        return self._owner, self._id

    async def path(self) -> Sequence[SaidTurn]:
        def read() -> Sequence[SaidTurn]:
            leaf = conversations.get_conversation(self._engine, self._owner, self._id).leaf
            return [SaidTurn(turn, self._behind(turn.parent)) for turn in turns.path(self._engine, self._owner, leaf)]

        return await asyncio.to_thread(read)

    async def said(self, turn: str) -> Sequence[Message]:
        path = await asyncio.to_thread(turns.path, self._engine, self._owner, turn)
        return [step.message for step in path]

    async def ask(self, message: Message, parent: str) -> str:
        return await asyncio.to_thread(turns.keep, self._engine, self._owner, (message,), parent, self._id)

    async def stand(self, turn: str, deep: bool = True) -> None:
        def move() -> None:
            leaf = turn
            while deep and (behind := self._behind(leaf)):
                leaf = behind[-1]
            conversations.move_leaf(self._engine, self._owner, self._id, leaf)

        await asyncio.to_thread(move)

    async def following(self, turn: str) -> Sequence[str]:
        return await asyncio.to_thread(self._behind, turn)

    def keep(self, parent: str) -> Keep | None:
        return Keep(self._id, parent)

    async def answered(self, parent: str, message: Message, completion: str, facts: Mapping[str, Any]) -> None:
        await asyncio.to_thread(turns.keep_answer, self._engine, self._owner, parent, message, completion, facts, (), self._id)

    def _behind(self, turn: str) -> tuple[str, ...]:
        return tuple(child.id for child in turns.children(self._engine, self._owner, turn, self._id))


class TemporaryConversation:
    """A conversation in memory only."""

    def __init__(self, owner: str) -> None:
        self._owner, self._leaf = owner, ""
        self._name = f"temporary-{secrets.token_hex(12)}"
        self._turns: dict[str, Turn] = {}
        self._number = itertools.count(1)

    @property
    def key(self) -> Key:
        return self._owner, self._name

    async def path(self) -> Sequence[SaidTurn]:
        return [SaidTurn(turn, tuple(await self.following(turn.parent))) for turn in self._climb(self._leaf)]

    async def said(self, turn: str) -> Sequence[Message]:
        return [step.message for step in self._climb(turn)]

    async def ask(self, message: Message, parent: str) -> str:
        return self._add(message, parent)

    async def stand(self, turn: str, deep: bool = True) -> None:
        if turn and turn not in self._turns:
            raise NotKept(f"turn {turn[:12]}", "is not part of this conversation")
        self._leaf = turn
        while deep and (behind := await self.following(self._leaf)):
            self._leaf = behind[-1]

    async def following(self, turn: str) -> Sequence[str]:
        return [child.id for child in self._turns.values() if child.parent == turn]

    def keep(self, parent: str) -> Keep | None:
        return None

    async def answered(self, parent: str, message: Message, completion: str, facts: Mapping[str, Any]) -> None:
        self._add(message, parent, completion, facts, moves=self._leaf == parent)

    def _climb(self, leaf: str) -> list[Turn]:
        branch = []
        while leaf:
            branch.append(self._turns[leaf])
            leaf = branch[-1].parent
        return branch[::-1]

    def _add(
        self, message: Message, parent: str, completion: str = "", facts: Mapping[str, Any] | None = None, moves: bool = True
    ) -> str:  # fmt: skip
        name = str(next(self._number))
        self._turns[name] = Turn(name, self._owner, "", parent, message, completion, facts, now())
        self._leaf = name if moves else self._leaf
        return name


def title_of(text: str) -> str:
    """Return the first words of a question as a title."""
    words = " ".join(text.split()) or "A picture"
    if len(words) <= _TITLE:
        return words
    cut = words[: _TITLE + 1].rpartition(" ")[0] or words[:_TITLE]
    return cut.rstrip(" ,;:.–-") + " …"
