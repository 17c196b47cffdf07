"""Explanations of stored answers. They hold words of the user's, so each goes with its turn, and with what it quotes."""

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ingle.core.errors import NotKept
from ingle.home.database import as_written, json_text, now, writing_for

if TYPE_CHECKING:
    from sqlalchemy import Engine

_INSERT = """
    INSERT INTO explanations (id, owner, turn, body, at) VALUES (:id, :owner, :turn, :body, :at)
    ON CONFLICT (id, owner) DO UPDATE SET body = excluded.body, at = excluded.at"""


def keep_explanation(engine: "Engine", owner: str, turn: str, id_: str, body: Mapping[str, Any]) -> None:
    """Store an explanation of a turn; a later one of the same id takes its place. Raises NotKept if the turn is gone meanwhile."""
    import sqlalchemy as sa

    row = {"id": id_, "owner": owner, "turn": turn, "body": json_text("explanation", dict(body)), "at": now()}
    with writing_for(engine, owner) as connection:
        if not connection.execute(sa.text("SELECT 1 FROM turns WHERE owner = :owner AND id = :turn"), row).first():
            raise NotKept("answer", "was deleted while it was explained")
        connection.execute(sa.text(_INSERT), row)


def get_explanation(engine: "Engine", owner: str, id_: str) -> dict[str, Any]:
    """Return the owner's explanation of that id. Raises NotKept."""
    import sqlalchemy as sa

    with engine.connect() as connection:
        query = sa.text("SELECT body FROM explanations WHERE owner = :owner AND id = :id")
        row = connection.execute(query, {"owner": owner, "id": id_}).first()
    if row is None:
        raise NotKept("explanation", f"{id_[:40]} is not kept here")
    with as_written(f"explanation {id_[:20]}"):
        body: dict[str, Any] = json.loads(row.body)
    return body


def drop_explanations(engine: "Engine", owner: str, holds: Callable[[str], bool]) -> int:
    """Delete the owner's explanations with a text for which `holds` is true; return how many. The caller scrubs the database."""
    import sqlalchemy as sa

    with writing_for(engine, owner) as connection:
        rows = connection.execute(sa.text("SELECT id, body FROM explanations WHERE owner = :owner"), {"owner": owner}).all()
        gone = [row.id for row in rows if any(map(holds, _texts(json.loads(row.body))))]
        for id_ in gone:
            connection.execute(sa.text("DELETE FROM explanations WHERE owner = :owner AND id = :id"), {"owner": owner, "id": id_})
    return len(gone)


def _texts(value: Any) -> list[str]:
    """Return all texts in plain values."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [text for part in parts for text in _texts(part)]
