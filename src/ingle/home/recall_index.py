"""The full-text index of memories: it finds examples that share words with a question. SQLite's FTS5, PostgreSQL's full text.

Both get the same tokens (no case, no accents; scripts without spaces by single characters) and stem them themselves. One shared word is a
match. SQLite ranks by BM25; PostgreSQL by the sum of the shared words' idf, because its own ranking knows no idf, and "Who is the king of
Zorblax?" would find whatever holds "who is the of". Callers decide which matches to use. Only corrections and facts are indexed: ratings
are no memory.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ingle.core.digest import digest_bytes
from ingle.core.errors import DamagedError
from ingle.home.database import Statement

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_TABLE = "CREATE VIRTUAL TABLE example_words USING fts5 (id UNINDEXED, owner UNINDEXED, words, tokenize = 'porter unicode61')"
# Migration statements for the room "examples".
TABLES: tuple[Statement, ...] = (
    # Snowball without its list of stop words: somebody may well have taught the answer to "Who are you?".
    {"sqlite": "", "postgresql": "CREATE TEXT SEARCH DICTIONARY ingle_stem (TEMPLATE = snowball, Language = english)"},
    {"sqlite": "", "postgresql": "CREATE TEXT SEARCH CONFIGURATION ingle (COPY = simple)"},
    {
        "sqlite": "",
        "postgresql": "ALTER TEXT SEARCH CONFIGURATION ingle ALTER MAPPING FOR asciiword, word WITH ingle_stem",
    },
    {
        "sqlite": _TABLE,
        "postgresql": "CREATE TABLE example_words (id TEXT NOT NULL, owner TEXT NOT NULL, words TSVECTOR, PRIMARY KEY (owner, id))",
    },
)

MOST_TERMS = 64  # most words of a question to search for: the first and the last of a longer one
_TERM_LENGTH = 64
_TERM = re.compile(r"[^\W_]+")
# Chinese, Japanese, Thai, Lao: written without spaces, so a run of them is no word.
UNSPACED = re.compile("([\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f])")
_IN_SQLITE = """
    SELECT example_words.id FROM example_words JOIN examples ON examples.id = example_words.id AND examples.owner = example_words.owner
    WHERE example_words MATCH :query AND example_words.owner = :owner AND examples.state IN ({states})
    ORDER BY bm25(example_words), examples.seq DESC LIMIT :most"""
# Each step reads the one before once, so that no plan can go wrong while the tables' statistics are not there yet.
_IN_POSTGRES = """
    WITH terms AS (
        SELECT number, to_tsquery('ingle', term) AS term FROM unnest(CAST(:terms AS TEXT[])) WITH ORDINALITY AS t (term, number)
    ),
    mine AS (
        SELECT id, seq, (SELECT words FROM example_words WHERE owner = :owner AND example_words.id = examples.id) AS words
        FROM examples WHERE owner = :owner AND kind <> 'rating' AND state IN ({states})
    ),
    hits AS (SELECT id, seq, number, COUNT(*) OVER (PARTITION BY number) AS holding FROM mine JOIN terms ON words @@ term),
    weighed AS (SELECT id, seq, LN(1 + ((SELECT COUNT(*) FROM mine) - holding + 0.5) / (holding + 0.5)) AS idf FROM hits)
    SELECT id FROM weighed GROUP BY id, seq ORDER BY SUM(idf) DESC, seq DESC LIMIT :most"""


def terms(text: str) -> list[str]:
    """Return the words of a text for comparison: in order, without case, accents and punctuation."""
    # Letters that are put together of parts come apart, their marks go, and what is left is put together again.
    apart = unicodedata.normalize("NFKD", text).casefold()
    plain = unicodedata.normalize("NFC", "".join(c for c in apart if unicodedata.category(c) != "Mn"))
    return [term[:_TERM_LENGTH] for term in _TERM.findall(UNSPACED.sub(r" \1 ", plain))]


def likeness(text: str) -> str:
    """Return a digest that is equal for texts whose words differ only in case and accents; equal `sameness` implies equal likeness."""
    return digest_bytes((" ".join(terms(text)) or text.strip()).encode("utf-8", "replace"))


def sameness(text: str) -> str:
    """Return a digest that is equal for texts that differ only in case, spaces and the punctuation of sentences.

    Marks and signs count: schön is not schon, nor C# C++, nor −5 5.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).replace("\u2212", "-")
    words = "".join(" " if _is_punctuation(plain, i) else c for i, c in enumerate(plain)).split()
    return digest_bytes((" ".join(words) or text.strip()).encode("utf-8", "replace"))


def _is_punctuation(text: str, i: int) -> bool:
    if text[i] == "-":
        return not text[i + 1 : i + 2].isdigit()
    return unicodedata.category(text[i]).startswith("P") and text[i] not in "#%&*/@"


def index_words(connection: "Connection", owner: str, id_: str, text: str) -> None:
    """Index an example by the words of `text`."""
    import sqlalchemy as sa

    words = ":words" if connection.dialect.name == "sqlite" else "to_tsvector('ingle', :words)"
    insert = f"INSERT INTO example_words (id, owner, words) VALUES (:id, :owner, {words})"
    connection.execute(sa.text(insert), {"id": id_, "owner": owner, "words": " ".join(terms(text))})


def unindex_words(connection: "Connection", owner: str, id_: str) -> None:
    """Remove an example and its words from the index."""
    import sqlalchemy as sa

    of = {"id": id_, "owner": owner}
    gone = connection.execute(sa.text("DELETE FROM example_words WHERE id = :id AND owner = :owner"), of).rowcount
    if gone and connection.dialect.name == "sqlite":
        # FTS5 only notes that a row went; its words stay until segments happen to be merged. So the index is made anew.
        connection.execute(sa.text("INSERT INTO example_words (example_words) VALUES ('rebuild')"))


def words_are_whole(connection: "Connection", texts: Mapping[tuple[str, str], str]) -> bool:
    """Return whether the index holds these texts, by (owner, id), and no others, and is sound in itself. SQLite's only."""
    import sqlalchemy as sa

    try:
        connection.execute(sa.text("INSERT INTO example_words (example_words) VALUES ('integrity-check')"))
        rows = connection.execute(sa.text("SELECT owner, id, words FROM example_words"))
        return {(row.owner, row.id): row.words for row in rows} == {key: " ".join(terms(text)) for key, text in texts.items()}
    except DamagedError:
        return False


def rebuild_words(connection: "Connection", texts: Mapping[tuple[str, str], str]) -> None:
    """Make SQLite's index anew of these texts, by (owner, id). Raises DamagedError where the file is too damaged for that."""
    try:
        connection.exec_driver_sql("DROP TABLE example_words")
    except DamagedError:  # it can't even be opened: then its entry goes first, and its parts are tables like any other
        connection.exec_driver_sql("PRAGMA writable_schema = ON")
        connection.exec_driver_sql("DELETE FROM sqlite_schema WHERE name = 'example_words'")
        connection.exec_driver_sql("PRAGMA writable_schema = RESET")
        for part in ("data", "idx", "content", "docsize", "config"):
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS example_words_{part}")
    connection.exec_driver_sql(_TABLE)
    for (owner, id_), text in texts.items():
        index_words(connection, owner, id_, text)


def find_words(engine: "Engine", owner: str, words: str, limit: int, states: Sequence[str]) -> list[str]:
    """Return ids of the owner's examples in these states that share a word with `words`, the best match first."""
    import sqlalchemy as sa

    search_terms = terms(words)
    if len(search_terms) > MOST_TERMS:
        search_terms = search_terms[: MOST_TERMS // 2] + search_terms[-MOST_TERMS // 2 :]
    if not search_terms or not states or limit < 1:
        return []
    state_names = {f"state{i}": state for i, state in enumerate(states)}
    values = {**state_names, "owner": owner, "most": limit}
    if engine.dialect.name == "sqlite":
        query, values["query"] = _IN_SQLITE, " OR ".join(f'"{term}"' for term in dict.fromkeys(search_terms))
    else:
        query, values["terms"] = _IN_POSTGRES, list(dict.fromkeys(search_terms))
    with engine.connect() as connection:
        rows = connection.execute(sa.text(query.format(states=", ".join(f":{name}" for name in state_names))), values)
        return [str(row.id) for row in rows]
