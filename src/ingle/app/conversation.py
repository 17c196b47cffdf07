"""An open conversation: one branch of a tree of turns, and each turn's siblings.

It is stored in the home. A temporary one is only in the memory of a server.
"""

import itertools
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from ingle.app.answering import Keep
from ingle.core.clock import REAL, Clock
from ingle.core.errors import Busy, NotKept, RequestError
from ingle.core.message import Message, TextPart
from ingle.home import turns
from ingle.home.conversations import Conversation, ConversationChange, change_conversation, check_version, get_conversation
from ingle.home.database import now
from ingle.home.turns import Turn

if TYPE_CHECKING:
    from sqlalchemy import Engine

Key = tuple[str, str]  # owner and conversation
_TITLE = 48  # most characters of a title that is made from a question
TEMPORARY = "temporary-"  # begins the ids of those that are not stored
MOST_TEMPORARY, MOST_TEMPORARY_BYTES = 8, 16 << 20  # temporary chats of one person, and bytes of each
IDLE_S = 3600.0  # after so many seconds without a word, a temporary chat may make room for another


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
    """A tree of turns, and the turn at which the user stands. A stored one reads and writes the database."""

    @property
    def key(self) -> Key:
        """Owner and id, unique among all conversations."""

    def now(self) -> Conversation:
        """Return title, settings, leaf and version as they are. Raises NotKept if the conversation is gone."""

    def path(self) -> Sequence[SaidTurn]:
        """Return the current branch. Raises NotKept if the conversation is gone."""

    def said(self, turn: str) -> Sequence[Message]:
        """Return the messages up to a turn, this one included."""

    def ask(self, message: Message, parent: str) -> str:
        """Adds the user's message behind `parent` and moves there. Returns the turn's id."""

    def change(self, change: ConversationChange, version: int | None = None) -> Conversation:
        """Changes title, settings, pin or leaf, and returns the outcome. Raises as `change_conversation` does."""

    def following(self, turn: str) -> Sequence[str]:
        """Return the ids of a turn's children, oldest first."""

    def keep(self, parent: str) -> Keep | None:
        """Return where the service stores the answer behind `parent`; None = it does not."""

    def answered(self, parent: str, message: Message, completion: str, facts: Mapping[str, Any]) -> None:
        """Adds an answer that the service did not store. Moves there unless the user has gone to another branch."""


def stand(conversation: OpenConversation, turn: str, deep: bool = True) -> None:
    """Move to a turn ("" = before the first); `deep`: on to the end of the newest branch behind it."""
    while deep and (behind := conversation.following(turn)):
        turn = behind[-1]
    conversation.change(ConversationChange(leaf=turn))


class StoredConversation:
    """A conversation in the home's database."""

    def __init__(self, engine: "Engine", owner: str, conversation: str) -> None:
        self._engine, self._owner, self._id = engine, owner, conversation

    @property
    def key(self) -> Key:
        return self._owner, self._id

    def now(self) -> Conversation:
        return get_conversation(self._engine, self._owner, self._id)

    def path(self) -> Sequence[SaidTurn]:
        branch = turns.path(self._engine, self._owner, self.now().leaf)
        behind = turns.tree(self._engine, self._owner, self._id)
        return [SaidTurn(turn, tuple(behind[turn.parent])) for turn in branch]

    def said(self, turn: str) -> Sequence[Message]:
        return [step.message for step in turns.path(self._engine, self._owner, turn)]

    def ask(self, message: Message, parent: str) -> str:
        return turns.keep(self._engine, self._owner, (message,), parent, self._id)

    def change(self, change: ConversationChange, version: int | None = None) -> Conversation:
        return change_conversation(self._engine, self._owner, self._id, change, version)

    def following(self, turn: str) -> Sequence[str]:
        return turns.tree(self._engine, self._owner, self._id).get(turn, ())

    def keep(self, parent: str) -> Keep | None:
        return Keep(self._id, parent)

    def answered(self, parent: str, message: Message, completion: str, facts: Mapping[str, Any]) -> None:
        turns.keep_answer(self._engine, self._owner, parent, message, completion, facts, (), self._id)


class TemporaryConversation:
    """A conversation in memory only. Thread-safe."""

    def __init__(self, owner: str, settings: Mapping[str, Any] | None = None, clock: Clock = REAL) -> None:
        at, self._clock = now(), clock
        self._lock = threading.RLock()
        self._is = Conversation(f"{TEMPORARY}{secrets.token_hex(12)}", owner, "", "", dict(settings or {}), at, at)
        self._turns: dict[str, Turn] = {}
        self._number = itertools.count(1)
        self._bytes = 0
        self.used = self._clock.now()

    @property
    def key(self) -> Key:
        return self._is.owner, self._is.id

    def now(self) -> Conversation:
        return self._is

    def path(self) -> Sequence[SaidTurn]:
        with self._lock:
            return [SaidTurn(turn, tuple(self.following(turn.parent))) for turn in self._climb(self._is.leaf)]

    def said(self, turn: str) -> Sequence[Message]:
        with self._lock:
            return [step.message for step in self._climb(turn)]

    def ask(self, message: Message, parent: str) -> str:
        with self._lock:
            if parent:
                self._climb(parent)
            return self._add(message, parent)

    def change(self, change: ConversationChange, version: int | None = None) -> Conversation:
        with self._lock:
            check_version(self._is, version)
            if change.leaf:
                self._climb(change.leaf)
            settings = self._is.settings if change.settings is None else dict(change.settings)
            leaf = self._is.leaf if change.leaf is None else change.leaf
            self._is = replace(self._is, settings=settings, leaf=leaf, version=self._is.version + 1)
            return self._is

    def following(self, turn: str) -> Sequence[str]:
        return [child.id for child in list(self._turns.values()) if child.parent == turn]

    def keep(self, parent: str) -> Keep | None:
        return None

    def answered(self, parent: str, message: Message, completion: str, facts: Mapping[str, Any]) -> None:
        with self._lock:
            self._add(message, parent, completion, facts, moves=self._is.leaf == parent)

    def _climb(self, leaf: str) -> list[Turn]:
        branch = []
        while leaf:
            if leaf not in self._turns:
                raise NotKept(f"turn {leaf[:12]}", "is not part of this conversation")
            branch.append(self._turns[leaf])
            leaf = branch[-1].parent
        return branch[::-1]

    def _add(
        self, message: Message, parent: str, completion: str = "", facts: Mapping[str, Any] | None = None, moves: bool = True
    ) -> str:  # fmt: skip
        size = sum(len(part.text.encode()) if isinstance(part, TextPart) else len(part.data) for part in message.parts)
        if not completion and self._bytes + size > MOST_TEMPORARY_BYTES:
            raise RequestError("text", f"A temporary chat holds {MOST_TEMPORARY_BYTES >> 20} MB at most", "", "Begin a new one.")
        name = str(next(self._number))
        self._turns[name] = Turn(name, self._is.owner, "", parent, message, completion, facts, now())
        self._bytes, self.used = self._bytes + size, self._clock.now()
        leaf = name if moves else self._is.leaf
        self._is = replace(self._is, leaf=leaf, updated=self._turns[name].at, version=self._is.version + 1)
        return name


@dataclass
class Temporaries:
    """The temporary chats of one server, by their owner and id. Thread-safe."""

    clock: Clock = REAL
    _open: dict[Key, TemporaryConversation] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, owner: str, settings: Mapping[str, Any] | None = None) -> TemporaryConversation:
        """Begin one. Raises Busy if the owner has too many that are in use."""
        with self._lock:
            mine = sorted((one for key, one in self._open.items() if key[0] == owner), key=lambda one: one.used)
            if len(mine) >= MOST_TEMPORARY:
                if self.clock.now() - mine[0].used < IDLE_S:
                    raise Busy("temporary", f"There are {MOST_TEMPORARY} temporary chats open", "", "Leave one first.", 60.0)
                del self._open[mine[0].key]
            new = TemporaryConversation(owner, settings, self.clock)
            self._open[new.key] = new
        return new

    def find(self, owner: str, id_: str) -> TemporaryConversation:
        """Return one by its id. Raises NotKept."""
        found = self._open.get((owner, id_))
        if found is None:
            raise NotKept("conversation", "This temporary chat is gone", "", "Begin a new one.")
        return found

    def end(self, owner: str, id_: str) -> None:
        """Forget one. Raises NotKept."""
        with self._lock:
            self.find(owner, id_)
            del self._open[owner, id_]


@dataclass(frozen=True, slots=True)
class Cure:
    """What may help where an answer is missing."""

    id: str
    label: str


@dataclass(frozen=True, slots=True)
class EndTold:
    """The answer that is being written behind a question, or why there is none."""

    parent: str  # the question's turn
    answer: str  # its id; "" for none
    state: str  # opening, reading, writing, failed
    number: int = 0  # of the last piece that is in `text`: the next one that `/v1/updates` tells has the next number
    text: str = ""
    html: str = ""  # of the blocks that are complete
    open: str = ""  # HTML of the block that is still open
    note: str = ""  # why there is none
    cures: tuple[Cure, ...] = ()


class Held(Protocol):
    """What a running server holds of conversations in memory. Thread-safe."""

    temporaries: Temporaries

    def busy(self, owner: str) -> set[str]:
        """Return the ids of an owner's conversations in which an answer is being written."""

    def end(self, key: Key, parent: str) -> EndTold:
        """Return how far the answer to a question without one is."""

    def waits(self, key: Key, parent: str) -> bool:
        """Return whether another answer to a question is being written, or failed."""

    def forget(self, key: Key) -> None:
        """Stop and drop the answers of a conversation."""

    def tell(self, owner: str, kept: Conversation | str) -> None:
        """Tell who listens that a conversation has changed, or (by its id) was deleted."""


def title_of(text: str) -> str:
    """Return the first words of a question as a title."""
    words = " ".join(text.split()) or "A picture"
    if len(words) <= _TITLE:
        return words
    cut = words[: _TITLE + 1].rpartition(" ")[0] or words[:_TITLE]
    return cut.rstrip(" ,;:.–-") + " …"
