"""Conversations: listed, searched, read, changed and deleted."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from ingle.adapt.guards import guards_taught
from ingle.app.answer_words import details, judged, line, seen
from ingle.app.choices import choices_of
from ingle.app.conversation import TEMPORARY, EndTold, Held, Key, OpenConversation, SaidTurn, StoredConversation
from ingle.app.house import House
from ingle.app.operation import About, Confirm, Note, Rows, Said, operation, table_of
from ingle.app.taught_notes import TaughtNotes, look_up
from ingle.core.config import Bounds
from ingle.core.errors import ConfigError, NotKept, RequestError, Stale, counted
from ingle.core.message import AudioPart, ImagePart
from ingle.engine.prefix_cache import drop_saved
from ingle.home.conversations import (  # fmt: skip
    Conversation,
    ConversationChange,
    create_conversation,
    delete_conversation,
    get_conversation,
    list_conversations,
)

if TYPE_CHECKING:
    from ingle.home.turns import Turn

_Id = Annotated[str, About("Its id.", "ID", placed=True)]
_COPIES = "Another program is reading the database, so old copies of the words may stay in its file for a while."


@dataclass(frozen=True, slots=True)
class ConversationTold:
    """A conversation, without its turns."""

    id: str
    object: str
    title: str
    settings: Mapping[str, Any]  # model, system, temperature, top_p, max_tokens, seed; the home's hold for what is not there
    leaf: str  # id of the turn at which it stands
    pinned: bool
    temporary: bool  # whether it is only in the server's memory
    busy: bool  # whether an answer is being written in it
    version: int  # counts its changes
    created_at: str
    updated_at: str


def _told(house: House, one: Conversation) -> ConversationTold:
    busy = house.held is not None and one.id in house.held.busy(house.owner)
    return ConversationTold(
        one.id, "conversation", one.title, one.settings, one.leaf, one.pinned, one.id.startswith(TEMPORARY), busy, one.version, one.created,
        one.updated,
    )  # fmt: skip


def _open(house: House, id_: str) -> OpenConversation:
    if id_.startswith(TEMPORARY):
        if house.held is None:
            raise NotKept("conversation", "A temporary chat is only in the memory of its server")
        return house.held.temporaries.find(house.owner, id_)
    return StoredConversation(house.engine, house.owner, id_)


@dataclass(frozen=True, slots=True)
class Listed:
    """Words to look for."""

    words: Annotated[str, About("Words in a title or in any turn; by default all.", "[WORDS]", placed=True, many=True)] = ""
    limit: Annotated[int, Bounds(ge=1, le=1000), About("The most that are listed.")] = 50
    after: Annotated[str, About("Id of the last one of the list before.", "ID")] = ""


@dataclass(frozen=True, slots=True)
class ConversationsTold:
    """Conversations, pinned ones first, then the latest."""

    object: str
    data: tuple[ConversationTold, ...]
    has_more: bool


def _says_listed(told: ConversationsTold) -> Iterable[Said]:
    if not told.data:
        yield Note("There is none.")
        return
    rows = [
        (one.updated_at[:16].replace("T", " "), one.id, ("* " if one.pinned else "") + (one.title or "(no title)")) for one in told.data
    ]
    yield Rows(("last", "id", "title"), rows)
    if told.has_more:
        yield Note(f"There are more: ingle conversations list --after {told.data[-1].id}")


@operation("conversations list", "GET /v1/conversations", says=_says_listed)
def listed(house: House, asked: Listed) -> ConversationsTold:
    """List conversations of the page, or those with certain words.

    Temporary chats are in no list.

    Examples:
        ingle conversations
        ingle conversations list bread oven
    """
    behind = get_conversation(house.engine, house.owner, asked.after) if asked.after else None
    found = list_conversations(house.engine, house.owner, asked.words, behind, asked.limit + 1)
    return ConversationsTold("list", tuple(_told(house, one) for one in found[: asked.limit]), len(found) > asked.limit)


@dataclass(frozen=True, slots=True)
class Begun:
    """A new conversation."""

    title: Annotated[str, About("Its title; by default the first words of the first question.")] = ""
    settings: Annotated[dict[str, Any] | None, About("Model, system prompt, sampling: what differs from the home's.", "JSON")] = None
    temporary: Annotated[bool, About("Keep it in the server's memory only, until it is deleted or the server stops.")] = False


@operation("conversations new", "POST /v1/conversations", says=lambda told: (told.id,))
def new(house: House, asked: Begun) -> ConversationTold:
    """Begin a conversation.

    Examples:
        ingle conversations new --title "Bread"
    """
    settings = choices_of(asked.settings or {}).kept
    if not asked.temporary:
        made = create_conversation(house.engine, house.owner, asked.title, settings)
    elif house.held is None:
        raise RequestError("temporary", "is for a server: a temporary chat is only in its memory")
    else:
        made = house.held.temporaries.begin(house.owner, settings).now()
    return _changed(house, made)


def _changed(house: House, made: Conversation) -> ConversationTold:
    if house.held is not None:
        house.held.tell(house.owner, made)
    return _told(house, made)


@dataclass(frozen=True, slots=True)
class Shown:
    """How a turn is shown to people: the words about it, and what may be done with it."""

    html: str | None  # an answer's Markdown, as HTML that loads and runs nothing; None = it is not one
    line: str
    details: tuple[tuple[str, str], ...]
    seen: tuple[str, ...]  # what the guards saw, a sentence each
    guards: str  # what they were taught since; "" = nothing
    correction: Mapping[str, Any] | None
    nearly: Mapping[str, str] | None  # what was taught and came near: in short, and its answer
    # Acts that fit it, by name; for one that can be taken back, the id of what was made by it: "" = it was not done.
    acts: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class TurnTold:
    """One turn of the branch that is shown."""

    id: str
    object: str
    parent: str
    role: str
    text: str
    pictures: tuple[str, ...]  # `data:` URLs
    recordings: int
    # Ids of the turns with the same parent, this one included, oldest first; "" at the end = another answer is being written there.
    beside: tuple[str, ...]
    completion_id: str | None
    facts: Mapping[str, Any] | None
    at: str
    shown: Shown | None


@dataclass(frozen=True, slots=True)
class Read:
    """A conversation, and how much of it."""

    id: _Id
    last: Annotated[int, Bounds(ge=1, le=1000), About("How many turns, counted from the end.")] = 100
    shown: Annotated[bool, About("Tell how each turn is shown to people too.")] = False


@dataclass(frozen=True, slots=True)
class ConversationRead(ConversationTold):
    """A conversation with the branch at whose end it stands."""

    turns: tuple[TurnTold, ...]
    earlier: int  # turns before these
    beside: tuple[str, ...]  # ids of the answers that the last turn has, if it is a question
    end: EndTold | None  # the answer that it waits for; None = its last turn is one, or no server runs


def _says_read(told: ConversationRead) -> Iterable[Said]:
    yield f"{told.title or '(no title)'} · {told.id} · version {told.version}"
    if told.earlier:
        yield Note(f"{counted(told.earlier, 'earlier turn')} not shown (--last).")
    for turn in told.turns:
        yield f"\n{'You' if turn.role == 'user' else 'Answer'}: {turn.text}" + f" ({counted(len(turn.pictures), 'picture')})" * bool(
            turn.pictures
        )


@operation("conversations show", "GET /v1/conversations/{id}", says=_says_read)
def show(house: House, asked: Read) -> ConversationRead:
    """Show a conversation: the branch at whose end it stands.

    Examples:
        ingle conversations show conv-1f0c…
        ingle conversations show conv-1f0c… --last 4 --json
    """
    return _read(house, _open(house, asked.id), asked.last, asked.shown)


def _read(house: House, conversation: OpenConversation, last: int, shown: bool) -> ConversationRead:
    kept, whole = conversation.now(), conversation.path()
    path = whole[-last:]
    taught = _taught(house, [step.turn for step in path]) if shown else None
    leaf = path[-1].turn if path else None
    waits = leaf is not None and leaf.message.role == "user"
    end = house.held.end(conversation.key, leaf.id) if leaf is not None and waits and house.held is not None else None
    behind = tuple(conversation.following(leaf.id)) if leaf is not None and waits else ()
    one = _told(house, kept)
    return ConversationRead(
        one.id, one.object, one.title, one.settings, one.leaf, one.pinned, one.temporary, one.busy, one.version, one.created_at,
        one.updated_at, tuple(_turn(step, taught, conversation.key, house.held) for step in path), len(whole) - len(path), behind, end,
    )  # fmt: skip


def _taught(house: House, turns: "Sequence[Turn]") -> TaughtNotes:
    guards = None
    with suppress(ConfigError):  # a damaged file: whoever asks the model hears of it, and what was said can still be read
        guards = {one.id: one.harmful for one in guards_taught(house.home)} if house.guards else None
    return look_up(house.engine, house.owner, turns, guards)


def _turn(step: SaidTurn, taught: TaughtNotes | None, key: Key, held: Held | None) -> TurnTold:
    turn, message = step.turn, step.turn.message
    pictures = tuple(part.url for part in message.parts if isinstance(part, ImagePart))
    waits = held is not None and message.role == "assistant" and held.waits(key, turn.parent)
    recordings = sum(isinstance(part, AudioPart) for part in message.parts)
    beside = (*step.beside, "") if waits else step.beside
    shown = None if taught is None else _shown(turn, taught)
    return TurnTold(
        turn.id, "turn", turn.parent, message.role, message.text, pictures, recordings, beside, turn.completion or None, turn.facts,
        turn.at, shown,
    )  # fmt: skip


def _shown(turn: "Turn", taught: TaughtNotes) -> Shown:
    from ingle.app.markdown import rendered

    facts, near = turn.facts or {}, taught.nearly(turn)
    painted = any(isinstance(part, ImagePart) for part in turn.message.parts)
    html = None if turn.message.role != "assistant" else "" if painted else rendered(turn.message.text)
    saw = seen(turn.facts, taught.taught_guards(turn)) if turn.facts is not None else None
    return Shown(
        html, line(facts) if facts else "", tuple(details(facts, turn.at, taught)) if facts else (),
        tuple(saw["lines"]) if saw else (), str(saw["taught"]) if saw else "", taught.correction(turn),
        None if near is None else {"text": near.in_short, "answer": near.answer}, _acts(turn, taught, painted),
    )  # fmt: skip


def _acts(turn: "Turn", taught: TaughtNotes, painted: bool) -> dict[str, str | None]:
    """Return what may be done with a turn. Nothing is learned from a temporary chat, for that would store its words."""
    stored, words, fact = bool(turn.conversation), bool(turn.message.text.strip()), taught.fact(turn)
    remembered = fact.id if fact is not None else ""
    if turn.message.role == "user":
        return {"copy": None, "edit": None} | ({"remember": remembered} if stored else {})
    fits = {"copy": True, "aloud": words, "again": True}
    acts: dict[str, str | None] = {name: None for name, does in fits.items() if does}
    answered = stored and bool(turn.completion) and words and not painted
    if answered:
        rated = taught.ratings.get(turn.completion)
        for name, rating in (("good", 1), ("bad", -1)):
            acts[name] = rated.id if rated is not None and rated.rating == rating else ""
        acts["correct"], acts["remember"] = None, remembered
    near = answered and taught.nearly(turn) is not None
    fits = {"why": bool(turn.completion) and words, "details": bool(turn.facts), "meant": near}
    acts.update({name: None for name, does in fits.items() if does})
    if answered and taught.guards is not None:
        side = taught.taught_guards(turn)
        if judged(turn.facts or {}):
            acts["harmless"] = turn.completion if side is False else ""
        acts["harmful"] = turn.completion if side is True else ""
    return acts


@dataclass(frozen=True, slots=True)
class Changing:
    """A conversation, and what becomes of it; what is not given stays."""

    id: _Id
    title: Annotated[str | None, About("A new title.")] = None
    pinned: Annotated[bool | None, About("Whether it stands before the others in lists.")] = None
    settings: Annotated[
        dict[str, Any] | None, About("New settings in the place of all: model, system, temperature, and so on.", "JSON")
    ] = None
    leaf: Annotated[str | None, About("A turn: the branch through it is shown from now on, to its newest end.", "TURN")] = None
    exact: Annotated[bool, About("With --leaf: stand at that turn itself.")] = False
    version: Annotated[int | None, About("The version that you saw; refused with the newer one if there is one.")] = None


@operation("conversations change", "PATCH /v1/conversations/{id}", says=lambda told: (f"{told.id} is at version {told.version}.",))
def change(house: House, asked: Changing) -> ConversationTold:
    """Rename or pin a conversation, change its settings, or show another branch of it.

    Examples:
        ingle conversations change conv-1f0c… --title "Bread, again"
        ingle conversations change conv-1f0c… --pinned
        ingle conversations change conv-1f0c… --settings '{"model": "qwen3-4b", "temperature": 0.7}'
    """
    if asked.title is not None and not asked.title.strip():
        raise RequestError("title", "must have a letter")
    conversation, leaf = _open(house, asked.id), asked.leaf
    while leaf and not asked.exact and (behind := conversation.following(leaf)):
        leaf = behind[-1]
    settings = None if asked.settings is None else choices_of(asked.settings).kept
    try:
        return _changed(house, conversation.change(ConversationChange(asked.title, settings, asked.pinned, leaf), asked.version))
    except Stale as error:
        error.newer = table_of(_told(house, conversation.now()))
        raise


@dataclass(frozen=True, slots=True)
class Deleting:
    """A conversation."""

    id: _Id


@dataclass(frozen=True, slots=True)
class DeletedTold:
    """A deleted conversation."""

    id: str
    object: str
    deleted: bool
    scrubbed: bool  # whether its words have left all files of the database


def _asks_delete(house: House, asked: Deleting, confirm: Confirm) -> Deleting | None:
    title = _open(house, asked.id).now().title
    return asked if confirm(f"Delete “{title or asked.id}” for good?") else None


@operation(
    "conversations delete", "DELETE /v1/conversations/{id}", asks=_asks_delete,
    says=lambda told: (f"{told.id} is deleted.", *(() if told.scrubbed else (Note(_COPIES),))),
)  # fmt: skip
def delete(house: House, asked: Deleting) -> DeletedTold:
    """Delete a conversation with every turn, on every branch.

    What it taught stays: `ingle memory`.

    Examples:
        ingle conversations delete conv-1f0c…
    """
    conversation = _open(house, asked.id)
    conversation.now()
    if house.held is not None:
        house.held.forget(conversation.key)
    if asked.id.startswith(TEMPORARY) and house.held is not None:
        house.held.temporaries.end(house.owner, asked.id)
        scrubbed = True
    else:
        scrubbed = delete_conversation(house.engine, house.owner, asked.id)
        house.forget_states(house.owner, asked.id)
        if house.held is None:  # a server beside has states of it, in memory and on the disk
            drop_saved(house.home.states, [house.owner])
    if house.held is not None:
        house.held.tell(house.owner, asked.id)
    return DeletedTold(asked.id, "conversation", True, scrubbed)
