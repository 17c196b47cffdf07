"""Examples that users taught, as rows: the only place where the words of corrections, facts and ratings are stored.

Every query names the owner. An example is written once; only its state changes (`example_states`), or all of it goes (`drop_example`).
"""

import json
import logging
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ingle.core.errors import DamagedError, NotKept
from ingle.core.example import Example, State
from ingle.core.media import PictureLook
from ingle.home.database import Migrations, as_written, json_text, now, scrub, writing, writing_for
from ingle.home.example_states import COUNTING, move
from ingle.home.recall_index import (
    TABLES,
    find_words,
    index_words,
    likeness,
    rebuild_words,
    sameness,
    unindex_words,
    words_are_whole,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Row

# The room "examples": (number, statements), oldest first.
MIGRATIONS: Migrations = (
    (
        1,
        (
            """
            CREATE TABLE examples (
                id TEXT NOT NULL, owner TEXT NOT NULL, seq INTEGER NOT NULL, model TEXT NOT NULL, kind TEXT NOT NULL,
                question TEXT NOT NULL, answer TEXT NOT NULL, refused TEXT NOT NULL, before TEXT NOT NULL, rating INTEGER NOT NULL,
                comment TEXT NOT NULL, completion TEXT NOT NULL, learn INTEGER NOT NULL, state TEXT NOT NULL, reasons TEXT NOT NULL,
                lesson TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (id, owner)
            )""",
            "CREATE UNIQUE INDEX examples_order ON examples (owner, seq)",
            "CREATE INDEX examples_state ON examples (state, owner)",
            """
            CREATE TABLE lessons (
                digest TEXT NOT NULL, owner TEXT NOT NULL, model TEXT NOT NULL, stack TEXT NOT NULL, kind TEXT NOT NULL,
                examples TEXT NOT NULL, acting INTEGER NOT NULL, seq INTEGER NOT NULL, at TEXT NOT NULL, PRIMARY KEY (digest, owner)
            )""",
            "CREATE INDEX lessons_stack ON lessons (stack, owner)",
            "CREATE TABLE consents (owner TEXT NOT NULL PRIMARY KEY, learn INTEGER NOT NULL)",
        ),
    ),
    (
        2,
        (
            *TABLES,
            # By which what may be the same question is found again (`likeness`); and the key of its digests in the ledger.
            "ALTER TABLE examples ADD COLUMN asked TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE examples ADD COLUMN secret TEXT NOT NULL DEFAULT ''",
            "CREATE INDEX examples_asked ON examples (owner, asked)",
        ),
    ),
    (3, ("ALTER TABLE examples ADD COLUMN picture TEXT NOT NULL DEFAULT ''",)),
)
MEMORY = COUNTING  # states in which a correction or a fact is remembered, even if the weights could not learn it

_COLUMNS = (
    "id", "owner", "seq", "model", "kind", "question", "answer", "refused", "before", "rating", "comment", "completion", "learn", "state",
    "reasons", "lesson", "at", "picture",
)  # fmt: skip


def add_example(engine: "Engine", example: Example, supersede: Sequence[str] = ()) -> Example:
    """Keep an example, with an id, a time and its owner's next number; the examples that it replaces become `superseded`, in one step.

    Raises RequestError for text that no database can hold, HomeError.
    """
    with writing_for(engine, example.owner) as connection:
        return insert_example(connection, example, supersede)


def insert_example(connection: "Connection", example: Example, supersede: Sequence[str] = ()) -> Example:
    """Do `add_example` inside a transaction that writes for its owner."""
    import sqlalchemy as sa

    last = connection.execute(sa.text("SELECT COALESCE(MAX(seq), 0) FROM examples WHERE owner = :owner"), {"owner": example.owner}).scalar()
    stored = replace(example, id=example.id or f"ex-{secrets.token_hex(12)}", at=example.at or now(), seq=int(last or 0) + 1)
    row = _plain(stored) | {"asked": likeness(stored.question or stored.answer), "secret": new_secret()}
    names, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    connection.execute(sa.text(f"INSERT INTO examples ({names}) VALUES ({values})"), row)
    if stored.kind != "rating":
        index_words(connection, stored.owner, stored.id, f"{stored.question} {stored.answer}")
    for other in supersede:
        move(connection, stored.owner, other, "supersede")
    return stored


def same_asked(connection: "Connection", like: Example) -> tuple[Example, ...]:
    """Return earlier examples that still stand: on the same question, with the same fact, or rating the same answer."""
    import sqlalchemy as sa

    which = "owner = :owner AND model = :model AND kind = :kind AND asked = :asked AND id <> :id"
    values = {"owner": like.owner, "model": like.model, "kind": like.kind, "asked": likeness(like.question or like.answer), "id": like.id}
    if like.kind == "rating":
        which += " AND completion = :completion AND answer = :answer"
        values |= {"completion": like.completion, "answer": like.answer}
    query = f"SELECT {', '.join(_COLUMNS)} FROM examples WHERE {which} AND state NOT IN ('superseded', 'undone') ORDER BY seq"
    similar = map(_example, connection.execute(sa.text(query), values))
    asked = sameness(like.question or like.answer)
    return tuple(one for one in similar if sameness(one.question or one.answer) == asked and _same_picture(one, like))


def _same_picture(one: Example, other: Example) -> bool:
    if not one.picture or not other.picture:
        return one.picture == other.picture
    return PictureLook.of(one.picture).content == PictureLook.of(other.picture).content


def search_examples(engine: "Engine", owner: str, words: str, limit: int) -> tuple[Example, ...]:
    """Return the owner's remembered corrections and facts that share a word with `words`, the best match first; about any model."""
    try:
        order = find_words(engine, owner, words, limit, MEMORY)
    except DamagedError:
        if not mend_index(engine):
            raise
        order = find_words(engine, owner, words, limit, MEMORY)
    if not order:
        return ()
    names = {f"id{i}": id_ for i, id_ in enumerate(order)}
    examples = select_examples(engine, f"owner = :owner AND id IN ({', '.join(f':{name}' for name in names)})", {**names, "owner": owner})
    return tuple(sorted(examples, key=lambda example: order.index(example.id)))


def mend_index(engine: "Engine") -> bool:
    """Make the index of memories anew if it is damaged: the rows are the truth. Returns whether it was, and warns if so.

    PostgreSQL looks after its own. Raises DamagedError where the rows can't be read either.
    """
    import sqlalchemy as sa

    if engine.dialect.name != "sqlite":
        return False
    with writing(engine) as connection:
        rows = connection.execute(sa.text("SELECT owner, id, question, answer FROM examples WHERE kind <> 'rating'"))
        texts = {(row.owner, row.id): f"{row.question} {row.answer}" for row in rows}
        if words_are_whole(connection, texts):
            return False
        rebuild_words(connection, texts)
    logging.getLogger("ingle").warning("The index of memories was damaged. It was made anew from the rows; nothing is lost.")
    return True


def new_secret() -> str:
    """Return a new key for an example's digests, in hexadecimal."""
    return secrets.token_hex(32)


def example_secret(engine: "Engine", owner: str, id_: str) -> bytes:
    """Return the key of this example's digests in the ledger; editing or deleting the example destroys it. Raises NotKept."""
    import sqlalchemy as sa

    query = "SELECT secret FROM examples WHERE owner = :owner AND id = :id"
    with engine.connect() as connection:
        secret = connection.execute(sa.text(query), {"owner": owner, "id": id_}).scalar()
    if secret is None:
        raise NotKept(f"example {id_[:40]}", "is not kept here")
    with as_written(f"the key of example {id_[:40]}"):
        return bytes.fromhex(secret)


def get_example(engine: "Engine", owner: str, id_: str) -> Example:
    """Return the owner's example with that id. Raises NotKept if there is none."""
    examples = select_examples(engine, "owner = :owner AND id = :id", {"owner": owner, "id": id_})
    if not examples:
        raise NotKept(f"example {id_[:40]}", "is not kept here", "", "`ingle memory` lists what is.")
    return examples[0]


def list_examples(
    engine: "Engine", owner: str | None, states: Iterable[State] = (), model: str = "", limit: int | None = None, newest: bool = False
) -> tuple[Example, ...]:
    """Return the owner's examples (None = everybody's, for the learner), the oldest first unless `newest`; filtered by state and model."""
    which, values = ["1 = 1"], dict[str, Any]()
    for name, value in (("owner", owner), ("model", model or None)):
        if value is not None:
            which.append(f"{name} = :{name}")
            values[name] = value
    if state_list := list(states):
        which.append(f"state IN ({', '.join(f':state{i}' for i in range(len(state_list)))})")
        values |= {f"state{i}": state for i, state in enumerate(state_list)}
    order = "at DESC, seq DESC" if newest else "at, seq"
    if owner is not None:
        order = "seq DESC" if newest else "seq"
    if limit is not None:
        order += f" LIMIT {int(limit)}"
    return select_examples(engine, " AND ".join(which), values, order)


def count_examples(engine: "Engine", owner: str) -> dict[str, int]:
    """Return the number of examples in each state."""
    import sqlalchemy as sa

    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT state, COUNT(*) FROM examples WHERE owner = :owner GROUP BY state"), {"owner": owner})
        return {str(state): int(count) for state, count in rows}


def count_since(connection: "Connection", owner: str, since: str, until: str) -> tuple[int, int]:
    """Return the owner's number of examples, and the number between `since` and `until`: a clock that was wrong counts for nothing."""
    import sqlalchemy as sa

    query = """
        SELECT COUNT(*), COALESCE(SUM(CASE WHEN at > :since AND at <= :until THEN 1 ELSE 0 END), 0) FROM examples WHERE owner = :owner"""
    every, recent = connection.execute(sa.text(query), {"owner": owner, "since": since, "until": until}).one()
    return int(every), int(recent)


def begin_learning(engine: "Engine", owner: str, examples: Sequence[Example], ids: Collection[str]) -> None:
    """Make these examples `learning`, if all are as they were read. Raises NotKept if one is gone or has changed."""
    import sqlalchemy as sa

    query = sa.text(f"SELECT {', '.join(_COLUMNS)} FROM examples WHERE owner = :owner AND id = :id")
    with writing_for(engine, owner) as connection:
        for one in examples:
            if (row := connection.execute(query, {"owner": owner, "id": one.id}).one_or_none()) is None or _example(row) != one:
                raise NotKept(f"example {one.id}", "is not kept here any more, or has changed since")
        for id_ in ids:
            move(connection, owner, id_, "begin")


def rewrite_example(engine: "Engine", owner: str, id_: str, answer: str, secret: str) -> Example:
    """Replace an example's answer and its secret; it is then learned again if it may be. Raises NotKept."""
    import sqlalchemy as sa

    before = get_example(engine, owner, id_)
    statement = "UPDATE examples SET answer = :answer, asked = :asked, secret = :secret WHERE owner = :owner AND id = :id"
    row = {"answer": answer, "asked": likeness(before.question or answer), "secret": secret}
    with writing_for(engine, owner) as connection:
        connection.execute(sa.text(statement), {**row, "owner": owner, "id": id_})
        move(connection, owner, id_, "renew" if before.learn and before.kind == "correction" else "keep")
        if before.kind != "rating":
            unindex_words(connection, owner, id_)
            index_words(connection, owner, id_, f"{before.question} {answer}")
    scrub(engine)  # the words that were there
    return get_example(engine, owner, id_)


def drop_turns_before(engine: "Engine", owner: str, ids: Iterable[str]) -> None:
    """Drop the turns before these examples' questions; those being learned with them are to be learned again."""
    import sqlalchemy as sa

    with writing_for(engine, owner) as connection:
        for id_ in ids:
            connection.execute(sa.text("UPDATE examples SET before = '[]' WHERE owner = :owner AND id = :id"), {"owner": owner, "id": id_})
            move(connection, owner, id_, "release")


def drop_example(engine: "Engine", owner: str, id_: str) -> bool:
    """Delete an example with its words. Returns whether they have left all files of the database (see `scrub`). Raises NotKept."""
    import sqlalchemy as sa

    with writing_for(engine, owner) as connection:
        if not connection.execute(sa.text("DELETE FROM examples WHERE owner = :owner AND id = :id"), {"owner": owner, "id": id_}).rowcount:
            raise NotKept(f"example {id_[:40]}", "is not kept here")
        unindex_words(connection, owner, id_)
    return scrub(engine)


def may_learn(engine: "Engine", owner: str, default: bool = True) -> bool:
    """Return whether the weights may learn from this owner, where a request doesn't say."""
    import sqlalchemy as sa

    with engine.connect() as connection:
        consent = connection.execute(sa.text("SELECT learn FROM consents WHERE owner = :owner"), {"owner": owner}).scalar()
    return default if consent is None else bool(consent)


def set_consent(engine: "Engine", owner: str, learn: bool) -> None:
    """Store the owner's consent for everything taught from now on."""
    import sqlalchemy as sa

    upsert = "INSERT INTO consents (owner, learn) VALUES (:owner, :learn) ON CONFLICT (owner) DO UPDATE SET learn = :learn"
    with writing_for(engine, owner) as connection:
        connection.execute(sa.text(upsert), {"owner": owner, "learn": int(learn)})


def _plain(example: Example) -> dict[str, Any]:
    row: Mapping[str, Any] = asdict(example)
    return {
        **row, "learn": int(example.learn), "before": json_text("messages", [list(turn) for turn in example.before]),
        "reasons": json_text("reasons", list(example.reasons)),
    }  # fmt: skip


def select_examples(engine: "Engine", which: str, values: Mapping[str, Any], order: str = "seq") -> tuple[Example, ...]:
    """Return the examples that match a condition in SQL, which names the owner. For this room."""
    import sqlalchemy as sa

    query = f"SELECT {', '.join(_COLUMNS)} FROM examples WHERE {which} ORDER BY {order}"
    with engine.connect() as connection:
        return tuple(map(_example, connection.execute(sa.text(query), dict(values))))


def _example(row: "Row[Any]") -> Example:
    values = dict(row._mapping)
    with as_written(f"example {str(values['id'])[:40]}"):
        before = tuple((str(role), str(text)) for role, text in json.loads(values["before"]))
        return Example(**{**values, "learn": bool(values["learn"]), "before": before, "reasons": tuple(json.loads(values["reasons"]))})
