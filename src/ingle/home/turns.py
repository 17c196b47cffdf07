"""Conversation text, as trees of turns: the only place where it is stored.

A tree belongs to a conversation of the page, or, with conversation "", to the answers that one owner kept through the API. A turn
hangs on the one that it follows, so a conversation that was regenerated or edited branches. The id of a turn is the SHA-256 of
[owner, conversation, parent, role, content, completion], and of its pictures and recordings, if any: the same history stored twice is the
same rows. The conversation is
part of it, so that no deletion has to ask which of two conversations that begin alike a branch belonged to.

Every query names the owner, and so do the foreign keys: nothing can be attached to another owner's turn.
"""

import base64
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from ingle.core.digest import digest_bytes
from ingle.core.errors import NotKept
from ingle.core.message import ORIGINS, AudioPart, ImagePart, Message, Part, TextPart, ToolCall
from ingle.home.database import Migrations, as_written, json_text, now, scrub, writing_for
from ingle.home.quoting import seeker

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Row

# The room "turns": (number, statements), oldest first.
MIGRATIONS: Migrations = (
    (
        1,
        (
            """
            CREATE TABLE conversations (
                id TEXT NOT NULL, owner TEXT NOT NULL, title TEXT NOT NULL, leaf TEXT NOT NULL, settings TEXT NOT NULL,
                created TEXT NOT NULL, updated TEXT NOT NULL, PRIMARY KEY (id, owner)
            )""",
            "CREATE INDEX conversations_newest ON conversations (owner, updated, id)",
            "CREATE INDEX conversations_leaf ON conversations (leaf, owner)",
            """
            CREATE TABLE turns (
                id TEXT NOT NULL, owner TEXT NOT NULL, conversation TEXT, parent TEXT, role TEXT NOT NULL, content TEXT NOT NULL,
                completion TEXT, facts TEXT, at TEXT NOT NULL, PRIMARY KEY (id, owner),
                FOREIGN KEY (parent, owner) REFERENCES turns (id, owner),
                FOREIGN KEY (conversation, owner) REFERENCES conversations (id, owner) ON DELETE CASCADE
            )""",
            # The owner comes last: an index that begins with it tempts PostgreSQL to read all of an owner's turns for each step up.
            "CREATE INDEX turns_parent ON turns (parent, owner)",
            "CREATE INDEX turns_conversation ON turns (conversation, owner)",
            "CREATE INDEX turns_completion ON turns (completion)",
        ),
    ),
    (
        2,
        (  # explanations hold words of a turn, so they go with it: home/explanations.py
            """
            CREATE TABLE explanations (
                id TEXT NOT NULL, owner TEXT NOT NULL, turn TEXT NOT NULL, body TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (id, owner),
                FOREIGN KEY (turn, owner) REFERENCES turns (id, owner) ON DELETE CASCADE
            )""",
            "CREATE INDEX explanations_turn ON explanations (turn, owner)",
        ),
    ),
    (3, ("ALTER TABLE turns ADD COLUMN media TEXT",)),  # pictures and recordings lie beside the words, which alone are searched
    (
        4,
        (
            "ALTER TABLE conversations ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0",
            "ALTER TABLE conversations ADD COLUMN version INTEGER NOT NULL DEFAULT 1",
            "CREATE INDEX conversations_listed ON conversations (owner, pinned, updated, id)",
            "DROP INDEX conversations_newest",
        ),
    ),
)

_INSERT = """
    INSERT INTO turns (id, owner, conversation, parent, role, content, media, completion, facts, at)
    VALUES (:id, :owner, :conversation, :parent, :role, :content, :media, :completion, :facts, :at) ON CONFLICT DO NOTHING"""
_MEDIA: dict[str, type[ImagePart] | type[AudioPart]] = {"image": ImagePart, "audio": AudioPart}
_PATH = """
    WITH RECURSIVE up (up_id, up_parent, depth) AS (
        SELECT id, parent, 0 FROM turns WHERE owner = :owner AND id = :id
        UNION ALL SELECT id, parent, depth + 1 FROM turns JOIN up ON id = up_parent WHERE owner = :owner
    )
    SELECT turns.*, (SELECT COUNT(*) FROM turns AS child WHERE child.owner = :owner AND child.parent = up_id) AS children,
        (SELECT COUNT(*) FROM conversations WHERE owner = :owner AND leaf = up_id) AS leaves
    FROM up JOIN turns ON turns.id = up_id WHERE turns.owner = :owner ORDER BY depth"""
LAST = "run-"  # beginning of the ids of answers of which only the last is kept
_AT_ONCE = 500  # rows in memory while all are searched
_BELOW = """(
    WITH RECURSIVE below (below_id) AS (
        SELECT id FROM turns WHERE owner = :owner AND id = :id
        UNION ALL SELECT id FROM turns JOIN below ON parent = below_id WHERE owner = :owner
    ) SELECT below_id FROM below)"""


@dataclass(frozen=True, slots=True)
class Turn:
    """One kept message and its place in the tree."""

    id: str
    owner: str  # id of an API key; "" for somebody on this machine who needs none
    conversation: str  # id of its conversation; "" = kept through the API
    parent: str  # id of the turn before; "" for the first
    message: Message
    completion: str  # the API's id of this answer; "" for everything that the model didn't say
    facts: Mapping[str, Any] | None  # facts about an answer: model, seed, token counts, event in the ledger, parameters …
    at: str  # when it was kept: UTC, ISO 8601 with microseconds


def keep(engine: "Engine", owner: str, messages: Sequence[Message], parent: str = "", conversation: str = "") -> str:
    """Keep messages, each attached to the one before and the first to `parent`; the conversation then stands at the last.

    Returns the id of the last (or `parent`, if there are none). Raises NotKept if the owner has no such parent or conversation.
    """
    return _store(engine, owner, conversation, parent, _rows(owner, conversation, parent, messages))


def keep_answer(
    engine: "Engine", owner: str, parent: str, message: Message, completion: str, facts: Mapping[str, Any] | None,
    history: Sequence[Message] = (), conversation: str = "",
) -> str:  # fmt: skip
    """Keep the model's answer with its facts; `history` are the messages between `parent` and the answer.

    All or nothing, so that no words remain without an answer by whose id they can be deleted. Returns the id of the answer's turn. Raises
    as `keep` does.
    """
    rows = _rows(owner, conversation, parent, history)
    last = rows[-1]["id"] if rows else parent
    [answer] = _rows(owner, conversation, last, (message,), completion)
    answer["facts"] = None if facts is None else json_text("facts", dict(facts))
    return _store(engine, owner, conversation, parent, [*rows, answer], stays=True)


def keep_last(
    engine: "Engine", owner: str, message: Message, completion: str, facts: Mapping[str, Any], history: Sequence[Message]
) -> None:
    """Keep an answer in the place of the one that was kept so before it: ids of such begin with LAST."""
    assert completion.startswith(LAST)
    keep_answer(engine, owner, "", message, completion, facts, history)
    for turn in _kept_so(engine, owner):
        if turn.completion != completion:
            drop(engine, owner, turn.id)


def last_kept(engine: "Engine", owner: str) -> set[str]:
    """Return the ids of the turns that stay until the next of their kind: see `keep_last`. They go with any word of theirs that is
    forgotten, since nobody sees them in a list."""
    return {turn.id for last in _kept_so(engine, owner) for turn in path(engine, owner, last.id)}


def _kept_so(engine: "Engine", owner: str) -> tuple[Turn, ...]:
    return _select(engine, "owner = :owner AND completion LIKE :like", {"owner": owner, "like": LAST + "%"})


def path(engine: "Engine", owner: str, turn_id: str) -> tuple[Turn, ...]:
    """Return the turns from the first to this one; none for "". Raises NotKept if the owner has no such turn."""
    with engine.connect() as connection:
        return tuple(map(_turn, reversed(_climb(connection, owner, turn_id)))) if turn_id else ()


def children(engine: "Engine", owner: str, parent: str, conversation: str = "") -> tuple[Turn, ...]:
    """Return the turns that follow `parent` ("" = the conversation's first ones), the oldest first: the branches to choose from."""
    if parent:
        return _select(engine, "owner = :owner AND parent = :parent", {"owner": owner, "parent": parent})
    which = "owner = :owner AND parent IS NULL AND COALESCE(conversation, '') = :conversation"
    return _select(engine, which, {"owner": owner, "conversation": conversation})


def tree(engine: "Engine", owner: str, conversation: str) -> dict[str, list[str]]:
    """Return the ids of the turns that follow each turn of a conversation, the oldest first; "" is before the first ones."""
    import sqlalchemy as sa

    query = sa.text("SELECT id, parent FROM turns WHERE owner = :owner AND conversation = :conversation ORDER BY at, id")
    behind: dict[str, list[str]] = {}
    with engine.connect() as connection:
        for row in connection.execute(query, {"owner": owner, "conversation": conversation}):
            behind.setdefault(row.parent or "", []).append(row.id)
    return behind


def find_completion(engine: "Engine", owner: str, completion: str) -> Turn | None:
    """Return the answer that the API gave under this id; of several (`n`), the first."""
    turns = _select(engine, "owner = :owner AND completion = :completion", {"owner": owner, "completion": completion})
    return turns[0] if turns else None


def find_any_completion(engine: "Engine", completion: str) -> Turn | None:
    """Return the answer under this id, whoever's it is: for the home's own user, who may replay every event."""
    turns = _select(engine, "completion = :completion", {"completion": completion})
    return turns[0] if turns else None


def answers_kept(engine: "Engine") -> list[tuple[str, str, int | None]]:
    """Return (turn, completion, number of its fact) of all stored answers, whoever's they are, the oldest first; for the home's own user.

    The number is None where none was stored, and 0 where it can't be read.
    """
    import sqlalchemy as sa

    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT id, completion, facts FROM turns WHERE completion IS NOT NULL ORDER BY at, id"))
        return [(str(row.id), str(row.completion), _fact_number(row.facts)) for row in rows]


def answers_said(engine: "Engine") -> Iterator[tuple[int | None, str]]:
    """Yield (number of its fact, words) of every stored answer, whoever's it is, the oldest first; for the home's own user."""
    import sqlalchemy as sa

    query = sa.text("SELECT * FROM turns WHERE completion IS NOT NULL ORDER BY at, id")
    with engine.connect().execution_options(yield_per=_AT_ONCE) as connection:
        for row in connection.execute(query):
            yield _fact_number(row.facts), _turn(row).message.text


def _fact_number(facts: str | None) -> int | None:
    try:
        number = json.loads(facts).get("seq") if facts else None
    except (ValueError, AttributeError):
        return 0
    return number if isinstance(number, int) or number is None else 0


def get_any_turn(engine: "Engine", turn_id: str) -> Turn | None:
    """Return the turn with this id, whoever's it is; None if there is none (the id is made of the owner, too). For the home's own user."""
    turns = _select(engine, "id = :id", {"id": turn_id})
    return turns[0] if turns else None


def altered_turns(engine: "Engine") -> list[str]:
    """Return the ids of all turns, whoever's they are, that don't hold what their ids are digests of; for the home's own user."""
    import sqlalchemy as sa

    def altered(row: "Row[Any]") -> bool:
        media = [row.media] if row.media else []
        return bool(row.id != _id(row.owner, row.conversation or "", row.parent or "", row.role, row.content, row.completion or "", *media))

    with engine.connect().execution_options(yield_per=_AT_ONCE) as connection:
        return [str(row.id) for row in connection.execute(sa.text("SELECT * FROM turns")) if altered(row)]


def find_text(engine: "Engine", owner: str, texts: Collection[str]) -> tuple[Turn, ...]:
    """Return the owner's turns with one of these texts (see `home.quoting`), the oldest first: in messages, in arguments of tool calls, or
    in an answer's system prompt."""
    import sqlalchemy as sa

    every, is_there = sa.text("SELECT * FROM turns WHERE owner = :owner ORDER BY at, id"), seeker(texts)
    with engine.connect().execution_options(yield_per=_AT_ONCE) as connection:
        turns = map(_turn, connection.execute(every, {"owner": owner}))
        return tuple(turn for turn in turns if any(map(is_there, _words(turn))))


def _words(turn: Turn) -> tuple[str, ...]:
    system = (turn.facts or {}).get("request", {}).get("system") or ()
    return turn.message.text, *(call.arguments for call in turn.message.tool_calls), *map(str, system)


def drop(engine: "Engine", owner: str, turn_id: str) -> int:
    """Delete a turn, all that follows it, and the earlier turns that only led to it. Returns how many were deleted.

    Earlier turns stay from the last one on that is an answer, has other followers, or is where the conversation stands. A conversation that
    stood at a deleted turn goes back to the one before it. The words then leave the database's files too, as far as `scrub` can do that.
    Raises NotKept if the owner has no such turn.
    """
    import sqlalchemy as sa

    of = {"owner": owner, "id": turn_id}
    with writing_for(engine, owner) as connection:
        parent = _climb(connection, owner, turn_id)[0].parent or ""
        moved = f"UPDATE conversations SET leaf = :parent, version = version + 1 WHERE owner = :owner AND leaf IN {_BELOW}"
        connection.execute(sa.text(moved), {**of, "parent": parent})
        dropped, *before = _climb(connection, owner, turn_id)
        unneeded = list(takewhile(lambda row: row.children == 1 and not row.leaves and not row.completion, before))
        # The highest of them has nothing below it but this one branch.
        top = unneeded[-1].id if unneeded else dropped.id
        count = connection.execute(sa.text(f"DELETE FROM turns WHERE owner = :owner AND id IN {_BELOW}"), {**of, "id": top}).rowcount
    scrub(engine)
    return count


def _id(*parts: str) -> str:
    """Return the id of a turn: owner, conversation, parent, role, content, completion, and media if there are any."""
    return digest_bytes(json_text("id", parts).encode())


def _rows(owner: str, conversation: str, parent: str, messages: Sequence[Message], completion: str = "") -> list[dict[str, Any]]:
    rows, at = [], now()
    for message in messages:
        content, media = _content(message), _media(message)
        name = _id(owner, conversation, parent, message.role, content, completion, *([media] if media else []))
        row = {"id": name, "owner": owner, "conversation": conversation or None, "parent": parent or None, "role": message.role}
        rows.append({**row, "content": content, "media": media, "completion": completion or None, "facts": None, "at": at})
        parent = name
    return rows


def _store(engine: "Engine", owner: str, conversation: str, parent: str, rows: list[dict[str, Any]], stays: bool = False) -> str:
    """Insert the rows. `stays`: the conversation moves to them only from `parent`, not from another branch that the user has chosen
    meanwhile."""
    import sqlalchemy as sa

    if not rows:
        return parent
    parent_query = sa.text("SELECT 1 FROM turns WHERE owner = :owner AND id = :id AND COALESCE(conversation, '') = :conversation")
    goes = "CASE WHEN COALESCE(leaf, '') = :parent THEN :leaf ELSE leaf END" if stays else ":leaf"
    moved = sa.text(f"UPDATE conversations SET leaf = {goes}, updated = :at, version = version + 1 WHERE owner = :owner AND id = :id")
    leaf, at = rows[-1]["id"], rows[-1]["at"]
    with writing_for(engine, owner) as connection:
        if parent and not connection.execute(parent_query, {"owner": owner, "id": parent, "conversation": conversation}).first():
            raise _no_turn(parent)
        if conversation:
            of = {"owner": owner, "id": conversation, "leaf": leaf, "at": at} | ({"parent": parent} if stays else {})
            if not connection.execute(moved, of).rowcount:
                raise NotKept(f"conversation {conversation[:40]}", "is not kept here")
        connection.execute(sa.text(_INSERT), rows)
    return str(leaf)


def _climb(connection: "Connection", owner: str, turn_id: str) -> Sequence["Row[Any]"]:
    """Return this turn and those before it, back to the first, with their numbers of `children` and of `leaves` that point there."""
    import sqlalchemy as sa

    rows = connection.execute(sa.text(_PATH), {"owner": owner, "id": turn_id}).all()
    if not rows:
        raise _no_turn(turn_id)
    return rows


def _select(engine: "Engine", which: str, values: dict[str, str]) -> tuple[Turn, ...]:
    import sqlalchemy as sa

    with engine.connect() as connection:
        return tuple(map(_turn, connection.execute(sa.text(f"SELECT * FROM turns WHERE {which} ORDER BY at, id"), values)))


def _turn(row: "Row[Any]") -> Turn:
    with as_written(f"turn {str(row.id)[:12]}"):
        texts, calls, call_id, *origins = json.loads(row.content)
        places = origins[0] if origins else [None] * len(texts)
        media = iter(json.loads(row.media) if row.media else ())
        parts = tuple(_part(next(media, None) if text is None else text, at) for text, at in zip(texts, places, strict=True))
        message = Message(row.role, parts, tuple(ToolCall(*call) for call in calls), call_id)
        facts = json.loads(row.facts) if row.facts else None
    return Turn(row.id, row.owner, row.conversation or "", row.parent or "", message, row.completion or "", facts, row.at)


def _part(stored: Any, at: int | None) -> Part:
    """Return a part from its words, or from kind, media type and base64."""
    origin = None if at is None else ORIGINS[at]
    if isinstance(stored, str):
        return TextPart(stored, origin)
    kind, media_type, data = stored
    return _MEDIA[kind](base64.b64decode(data, validate=True), media_type, origin)


def _media(message: Message) -> str | None:
    kinds = {of: kind for kind, of in _MEDIA.items()}
    media = [part for part in message.parts if not isinstance(part, TextPart)]
    rows = [[kinds[type(part)], part.media_type, base64.b64encode(part.data).decode()] for part in media]
    return json_text("messages", rows) if rows else None


def _content(message: Message) -> str:
    # No keys, and origins by their numbers: a search in this text finds words of the conversation only. null = a picture or a recording.
    parts = message.parts
    texts = [part.text if isinstance(part, TextPart) else None for part in parts]
    origins = [None if part.origin is None else ORIGINS.index(part.origin) for part in parts]
    calls = [[call.id, call.name, call.arguments] for call in message.tool_calls]
    return json_text("messages", [texts, calls, message.tool_call_id, *([origins] if any(part.origin for part in parts) else [])])


def _no_turn(turn_id: str) -> NotKept:
    return NotKept(f"turn {turn_id[:12]}", "is not kept here")
