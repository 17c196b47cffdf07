"""Conversations: a title, settings, and the turn at which each one stands. Their text is in `turns`.

Each change counts its `version` up, so that whoever changes what somebody else has changed since is told so.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingle.core.errors import NotKept, RequestError, Stale
from ingle.home.database import as_written, json_text, now, scrub, writing_for

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Row

MAX_TITLE = 200  # characters; a longer title is cut
MAX_WORDS = 1000  # most characters of a search
_COLUMNS = "id, owner, title, leaf, settings, created, updated, pinned, version"


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation."""

    id: str
    owner: str  # id of an API key; "" for somebody on this machine who needs none
    title: str
    leaf: str  # id of the turn at which it stands, the end of the branch that is shown; "" for an empty conversation
    settings: Mapping[str, Any]  # model, system prompt, sampling …: any JSON values
    created: str  # UTC, ISO 8601 with microseconds
    updated: str  # time of the last turn
    pinned: bool = False  # whether it stands before the others in lists
    version: int = 1  # counts its changes


def create_conversation(engine: "Engine", owner: str, title: str = "", settings: Mapping[str, Any] | None = None) -> Conversation:
    """Create an empty conversation."""
    import sqlalchemy as sa

    at = now()
    new = Conversation(f"conv-{secrets.token_hex(12)}", owner, _one_line(title)[:MAX_TITLE], "", dict(settings or {}), at, at)
    row = {"id": new.id, "owner": owner, "title": new.title, "settings": json_text("settings", new.settings), "at": at}
    insert = f"INSERT INTO conversations ({_COLUMNS}) VALUES (:id, :owner, :title, '', :settings, :at, :at, 0, 1)"
    with writing_for(engine, owner) as connection:
        connection.execute(sa.text(insert), row)
    return new


def get_conversation(engine: "Engine", owner: str, conversation: str) -> Conversation:
    """Return the owner's conversation with that id. Raises NotKept if there is none."""
    with engine.connect() as connection:
        return _get(connection, owner, conversation)


def list_conversations(
    engine: "Engine", owner: str, words: str = "", behind: Conversation | None = None, limit: int = 50
) -> tuple[Conversation, ...]:
    """Return up to `limit` conversations, pinned ones first, then the latest. The next page begins `behind` the last one.

    With `words`, return only those with these words in their title or in any turn, on every branch. Upper and lower case are the same (in
    SQLite for a–z only). Raises RequestError for more than MAX_WORDS characters.
    """
    import sqlalchemy as sa

    query = f"SELECT {_COLUMNS} FROM conversations WHERE owner = :owner"
    values: dict[str, Any] = {"owner": owner, "limit": limit}
    if len(words) > MAX_WORDS:
        raise RequestError("words", f"must be at most {MAX_WORDS} characters to search for", len(words))
    if line := _one_line(words):
        query += f""" AND ({_holds(engine, "title", "title")} OR EXISTS (
            SELECT 1 FROM turns WHERE turns.owner = :owner AND turns.conversation = conversations.id
            AND {_holds(engine, "content", "content")}))"""
        # A turn's content is JSON, so a quotation mark or a new line stands in it as JSON writes it.
        values |= {"title": line, "content": json_text("words", words.strip())[1:-1]}
    if behind is not None:
        query += " AND (pinned, updated, id) < (:pinned, :updated, :id)"
        values |= {"pinned": int(behind.pinned), "updated": behind.updated, "id": behind.id}
    with engine.connect() as connection:
        return tuple(
            map(_conversation, connection.execute(sa.text(f"{query} ORDER BY pinned DESC, updated DESC, id DESC LIMIT :limit"), values))
        )


@dataclass(frozen=True, slots=True)
class ConversationChange:
    """What becomes of a conversation; None = it stays."""

    title: str | None = None  # put on one line, and cut
    settings: Mapping[str, Any] | None = None  # in the place of all settings
    pinned: bool | None = None
    leaf: str | None = None  # the turn at which it stands, so that another branch is shown; "" = before the first


def change_conversation(
    engine: "Engine", owner: str, conversation: str, change: ConversationChange, version: int | None = None
) -> Conversation:
    """Change a conversation, all or nothing, and return it. `version`: the one that the change is based on; None = whichever it has.

    Raises NotKept if there is no such conversation, or it has no such turn; Stale if it has another version by now; RequestError for
    settings that JSON can't hold.
    """
    import sqlalchemy as sa

    own = sa.text("SELECT 1 FROM turns WHERE owner = :owner AND id = :leaf AND conversation = :conversation")
    values = {
        "title": None if change.title is None else _one_line(change.title)[:MAX_TITLE],
        "settings": None if change.settings is None else json_text("settings", dict(change.settings)),
        "pinned": None if change.pinned is None else int(change.pinned),
        "leaf": change.leaf,
    }
    with writing_for(engine, owner) as connection:
        kept = _get(connection, owner, conversation)
        check_version(kept, version)
        if change.leaf and not connection.execute(own, {"owner": owner, "leaf": change.leaf, "conversation": conversation}).first():
            raise NotKept(f"turn {change.leaf[:12]}", "is not part of this conversation")
        sets = "".join(f"{name} = :{name}, " for name, value in values.items() if value is not None)
        update = f"UPDATE conversations SET {sets}version = version + 1 WHERE owner = :owner AND id = :id"
        connection.execute(sa.text(update), {**values, "owner": owner, "id": conversation})
        return _get(connection, owner, conversation)


def check_version(kept: Conversation, version: int | None) -> None:
    """Raise Stale if a conversation has another version; None = whichever it has."""
    if version is not None and version != kept.version:
        raise Stale("version", "This conversation was changed since", f"version {version}, now {kept.version}", "Read it again.")


def delete_conversation(engine: "Engine", owner: str, conversation: str) -> bool:
    """Delete a conversation with every turn, on every branch. Raises NotKept if there is none.

    Returns whether its words have left all files of the database: see `scrub`. SQLite writes new pages to the write-ahead log first, and
    old pages stay in both files until they are overwritten, so deleting rows alone would leave the words readable there. Copies on the disk
    itself or in backups are out of our reach.
    """
    import sqlalchemy as sa

    # Its turns go with it: ON DELETE CASCADE.
    statement = sa.text("DELETE FROM conversations WHERE owner = :owner AND id = :id")
    with writing_for(engine, owner) as connection:
        if not connection.execute(statement, {"owner": owner, "id": conversation}).rowcount:
            raise _no_conversation(conversation)
    return scrub(engine)


def _holds(engine: "Engine", column: str, value: str) -> str:
    """Return SQL for: the text of `column` contains the bound `value`. Not LIKE, which SQLite refuses beyond 50,000 bytes."""
    place = "strpos" if engine.dialect.name == "postgresql" else "instr"
    return f"{place}(lower({column}), lower(:{value})) > 0"


def _get(connection: "Connection", owner: str, conversation: str) -> Conversation:
    import sqlalchemy as sa

    query = sa.text(f"SELECT {_COLUMNS} FROM conversations WHERE owner = :owner AND id = :id")
    row = connection.execute(query, {"owner": owner, "id": conversation}).first()
    if row is None:
        raise _no_conversation(conversation)
    return _conversation(row)


def _conversation(row: "Row[Any]") -> Conversation:
    with as_written(f"conversation {str(row.id)[:40]}"):
        settings = dict(json.loads(row.settings))
    return Conversation(row.id, row.owner, row.title, row.leaf, settings, row.created, row.updated, bool(row.pinned), row.version)


def _one_line(title: str) -> str:
    """Return `title` with single spaces for everything that isn't printable."""
    return " ".join("".join(c if c.isprintable() else " " for c in title).split())


def _no_conversation(conversation: str) -> NotKept:
    return NotKept(f"conversation {conversation[:40]}", "is not kept here")
