"""The page's conversations: a title, settings, and the turn at which each one stands. Their text is in `turns`."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingle.core.errors import NotKept, RequestError
from ingle.home.database import as_written, json_text, now, scrub, writing_for

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Row

MAX_TITLE = 200  # characters; a longer title is cut
MAX_WORDS = 1000  # most characters of a search
_COLUMNS = "id, owner, title, leaf, settings, created, updated"


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


def create_conversation(engine: "Engine", owner: str, title: str = "", settings: Mapping[str, Any] | None = None) -> Conversation:
    """Create an empty conversation."""
    import sqlalchemy as sa

    at = now()
    new = Conversation(f"conv-{secrets.token_hex(12)}", owner, _one_line(title)[:MAX_TITLE], "", dict(settings or {}), at, at)
    row = {"id": new.id, "owner": owner, "title": new.title, "settings": json_text("settings", new.settings), "at": at}
    insert = f"INSERT INTO conversations ({_COLUMNS}) VALUES (:id, :owner, :title, '', :settings, :at, :at)"
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
    """Return up to `limit` conversations, the latest first. The next page begins `behind` the last one.

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
        query += " AND (updated < :updated OR updated = :updated AND id < :id)"
        values |= {"updated": behind.updated, "id": behind.id}
    with engine.connect() as connection:
        return tuple(map(_conversation, connection.execute(sa.text(f"{query} ORDER BY updated DESC, id DESC LIMIT :limit"), values)))


def rename_conversation(engine: "Engine", owner: str, conversation: str, title: str) -> Conversation:
    """Change the title, on one line. Raises NotKept if there is no such conversation."""
    return _change(engine, owner, conversation, "title = :value", _one_line(title)[:MAX_TITLE])


def change_settings(engine: "Engine", owner: str, conversation: str, settings: Mapping[str, Any]) -> Conversation:
    """Replace the settings.

    Raises NotKept if there is no such conversation, RequestError if JSON can't hold them.
    """
    return _change(engine, owner, conversation, "settings = :value", json_text("settings", dict(settings)))


def move_leaf(engine: "Engine", owner: str, conversation: str, leaf: str) -> Conversation:
    """Move a conversation to another of its turns, so that another branch is shown ("" = before the first).

    Raises NotKept if there is no such conversation, or it has no such turn.
    """
    import sqlalchemy as sa

    own = sa.text("SELECT 1 FROM turns WHERE owner = :owner AND id = :leaf AND conversation = :conversation")
    with writing_for(engine, owner) as connection:
        kept = _get(connection, owner, conversation)
        if leaf and not connection.execute(own, {"owner": owner, "leaf": leaf, "conversation": conversation}).first():
            raise NotKept(f"turn {leaf[:12]}", "is not part of this conversation")
        _set(connection, kept, "leaf = :value", leaf)
        return _get(connection, owner, conversation)


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


def _change(engine: "Engine", owner: str, conversation: str, change: str, value: str) -> Conversation:
    with writing_for(engine, owner) as connection:
        _set(connection, _get(connection, owner, conversation), change, value)
        return _get(connection, owner, conversation)


def _set(connection: "Connection", kept: Conversation, change: str, value: str) -> None:
    import sqlalchemy as sa

    of = {"owner": kept.owner, "id": kept.id, "value": value}
    connection.execute(sa.text(f"UPDATE conversations SET {change} WHERE owner = :owner AND id = :id"), of)


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
    return Conversation(row.id, row.owner, row.title, row.leaf, settings, row.created, row.updated)


def _one_line(title: str) -> str:
    """Return `title` with single spaces for everything that isn't printable."""
    return " ".join("".join(c if c.isprintable() else " " for c in title).split())


def _no_conversation(conversation: str) -> NotKept:
    return NotKept(f"conversation {conversation[:40]}", "is not kept here")
