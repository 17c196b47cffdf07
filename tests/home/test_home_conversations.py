"""Conversations are listed, searched and changed, and their words are gone when they are deleted; on both databases."""

import random
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingle.core.errors import NotKept, RequestError
from ingle.core.message import Message, ToolCall
from ingle.home.conversations import (
    MAX_TITLE,
    Conversation,
    ConversationChange,
    change_conversation,
    create_conversation,
    delete_conversation,
    get_conversation,
    list_conversations,
)
from ingle.home.database import open_database, scrub
from ingle.home.turns import MIGRATIONS, drop, keep, keep_answer, path


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    opened = open_database(database_url, {"turns": MIGRATIONS})
    yield opened
    opened.dispose()


def say(engine: sa.Engine, conversation: Conversation, text: str, parent: str = "") -> str:
    return keep(engine, conversation.owner, (Message.of("user", text),), parent, conversation.id)


def found(engine: sa.Engine, words: str, owner: str = "a") -> list[str]:
    return sorted(conversation.title for conversation in list_conversations(engine, owner, words))


def test_what_is_changed_is_what_is_read(engine: sa.Engine) -> None:
    settings = {"model": "smollm2", "system": "Be brief.\n", "sampling": {"temperature": 0.5, "stop": ["é", None]}}
    made = create_conversation(engine, "a", "  Plans\nfor\x00 \ud83d Monday ", settings)
    assert made.title == "Plans for Monday" and made.leaf == "" and made.created == made.updated
    assert get_conversation(engine, "a", made.id) == made and made.settings == settings
    renamed = change_conversation(engine, "a", made.id, ConversationChange(title="x" * 500))
    assert renamed.title == "x" * MAX_TITLE and renamed.updated == made.updated
    assert change_conversation(engine, "a", made.id, ConversationChange(settings={"model": "other"})).settings == {"model": "other"}
    assert create_conversation(engine, "a").settings == {}
    for wrong in (float("nan"), "\udc00", object()):
        with pytest.raises(RequestError, match="settings"):
            change_conversation(engine, "a", made.id, ConversationChange(settings={"x": wrong}))
    assert get_conversation(engine, "a", made.id).settings == {"model": "other"}


def test_newest_first_in_pages(engine: sa.Engine) -> None:
    made = [create_conversation(engine, "a", str(number)) for number in range(7)]
    create_conversation(engine, "b", "another's")
    say(engine, made[2], "again")
    order = ["2", "6", "5", "4", "3", "1", "0"]
    assert [conversation.title for conversation in list_conversations(engine, "a")] == order
    pages, behind = [], None
    while page := list_conversations(engine, "a", behind=behind, limit=3):
        pages.append([conversation.title for conversation in page])
        behind = page[-1]
    assert pages == [order[:3], order[3:6], order[6:]]
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE conversations SET updated = 'same'"))
    seen, behind = [], None
    while page := list_conversations(engine, "a", behind=behind, limit=2):
        seen += [conversation.title for conversation in page]
        behind = page[-1]
    assert sorted(seen) == sorted(order), "equal times neither repeat nor skip any"


def test_nobody_elses_is_read_or_changed(engine: sa.Engine) -> None:
    made = create_conversation(engine, "a", "mine")
    leaf = say(engine, made, "secret")
    for owner, name in (("b", made.id), ("", made.id), ("a", "conv-none"), ("a", ""), ("a", "%"), ("a", "x" * 100_000)):
        for call in (
            lambda o=owner, n=name: get_conversation(engine, o, n),
            lambda o=owner, n=name: change_conversation(engine, o, n, ConversationChange(title="stolen")),
            lambda o=owner, n=name: change_conversation(engine, o, n, ConversationChange(settings={})),
            lambda o=owner, n=name: change_conversation(engine, o, n, ConversationChange(leaf=leaf)),
            lambda o=owner, n=name: delete_conversation(engine, o, n),
        ):
            with pytest.raises(NotKept, match="conversation"):
                call()
    assert list_conversations(engine, "b") == list_conversations(engine, "", "secret") == ()
    assert found(engine, "secret") == ["mine"]


def test_the_leaf_moves_within_its_own_tree(engine: sa.Engine) -> None:
    made, other = create_conversation(engine, "a"), create_conversation(engine, "a")
    one = say(engine, made, "one")
    two = say(engine, made, "two", one)
    elsewhere = say(engine, other, "one")
    assert change_conversation(engine, "a", made.id, ConversationChange(leaf=one)).leaf == one
    assert change_conversation(engine, "a", made.id, ConversationChange(leaf="")).leaf == ""
    assert change_conversation(engine, "a", made.id, ConversationChange(leaf=two)).leaf == two
    for leaf in (elsewhere, keep(engine, "a", (Message.of("user", "one"),)), "nowhere"):
        with pytest.raises(NotKept, match="is not part of this conversation"):
            change_conversation(engine, "a", made.id, ConversationChange(leaf=leaf))
    assert get_conversation(engine, "a", made.id).leaf == two


def test_search(engine: sa.Engine) -> None:
    plain, odd, tools = (create_conversation(engine, "a", title) for title in ("Plain 100%", "Odd_one", "Tools!"))
    say(engine, plain, 'She said "hello"\nand left')
    first = say(engine, odd, "C:\\temp\tü 模型")
    say(engine, odd, "an abandoned branch")
    change_conversation(engine, "a", odd.id, ConversationChange(leaf=first))
    keep(engine, "a", (Message("assistant", (), (ToolCall("c1", "forecast", '{"town": "Oslo"}'),)),), "", tools.id)
    keep(engine, "a", (Message.of("user", "hello through the API"),))
    for words, titles in {
        "hello": ["Plain 100%"], "HELLO": ["Plain 100%"], '"hello"': ["Plain 100%"], 'said "hello"\nand': ["Plain 100%"],
        "plain": ["Plain 100%"], "100%": ["Plain 100%"], "0%": ["Plain 100%"], "1%0": [], "%": ["Plain 100%"],
        "_": ["Odd_one"], "O_d": [], "C:\\temp": ["Odd_one"], "\\temp\tü": ["Odd_one"], "模型": ["Odd_one"], "ü": ["Odd_one"],
        "abandoned": ["Odd_one"], "forecast": ["Tools!"], '"town": "Oslo"': ["Tools!"], "!": ["Tools!"], "'": [], "' OR 1=1 --": [],
        "text": [], "tool_calls": [], "user": [], "null": [], "nowhere": [],
    }.items():  # fmt: skip
        assert found(engine, words) == titles, words
    everything = ["Odd_one", "Plain 100%", "Tools!"]
    assert found(engine, "") == found(engine, " \n") == found(engine, "\0") == everything
    assert found(engine, "hello", "b") == []
    with pytest.raises(RequestError, match="1000 characters"):
        list_conversations(engine, "a", "x" * 1001)
    with pytest.raises(RequestError, match="words"):
        list_conversations(engine, "a", "half \ud83d")


def test_a_deleted_conversation_takes_all_its_branches_and_nothing_else(engine: sa.Engine) -> None:
    made, other = create_conversation(engine, "a", "made"), create_conversation(engine, "a", "other")
    for conversation in (made, other):
        hello = say(engine, conversation, "hello")
        for number in range(3):
            keep_answer(engine, "a", hello, Message.of("assistant", f"hi {number}"), f"c{number}", {}, conversation=conversation.id)
    through_api = keep_answer(engine, "a", "", Message.of("assistant", "hi 0"), "c9", {}, history=(Message.of("user", "hello"),))
    delete_conversation(engine, "a", made.id)
    with pytest.raises(NotKept):
        delete_conversation(engine, "a", made.id)
    with engine.connect() as connection:
        kept = connection.execute(sa.text("SELECT COALESCE(conversation, ''), COUNT(*) FROM turns GROUP BY 1 ORDER BY 1")).all()
    assert [tuple(row) for row in kept] == [("", 2), (other.id, 4)]
    assert len(path(engine, "a", through_api)) == 2
    assert found(engine, "") == ["other"]


def holding(folder: Path, marks: list[str]) -> list[tuple[str, str]]:
    """Which of the words, whole or by half, stand in which file."""
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    halves = [half for mark in marks for half in (mark[:16], mark[16:])]
    return [(name, half) for name, data in files.items() for half in halves if half.encode() in data]


def test_deleted_words_are_in_no_file_of_the_database(tmp_path: Path) -> None:
    """Many conversations of many sizes come and go, because pages that are merged and split leave copies behind."""
    engine = open_database(f"sqlite:///{tmp_path / 'facts.db'}", {"turns": MIGRATIONS})
    luck = random.Random(5)
    live: dict[str, list[str]] = {}

    def talk(name: str) -> None:
        mark = secrets.token_hex(16)
        keep(engine, "a", (Message.of("user", f"{mark} " * luck.choice([1, 3, 10, 30, 300])),), "", name)
        live[name].append(mark)

    for _ in range(120):
        if luck.random() < 0.6 or not live:
            title, system = secrets.token_hex(16), secrets.token_hex(16)
            made = create_conversation(engine, "a", title, {"system": system})
            live[made.id] = [title, system]
            for _ in range(luck.randint(0, 10)):
                talk(made.id)
            talk(luck.choice(list(live)))
        else:
            name = luck.choice(list(live))
            marks = live.pop(name)
            assert holding(tmp_path, marks)
            assert delete_conversation(engine, "a", name) is True
            assert holding(tmp_path, marks) == []
    assert len(live) > 5
    assert all(holding(tmp_path, marks) for marks in live.values())
    turn = keep(engine, "a", (Message.of("user", mark := secrets.token_hex(16)),))
    assert holding(tmp_path, [mark])
    drop(engine, "a", turn)
    assert holding(tmp_path, [mark]) == []
    engine.dispose()


def test_deleted_rows_are_overwritten_where_the_file_cannot_be_written_anew(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'facts.db'}", {"turns": MIGRATIONS})
    made = create_conversation(engine, "a")
    say(engine, made, (mark := secrets.token_hex(16)) * 500)
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM conversations"))
    engine.dispose()
    assert holding(tmp_path, [mark]) == []


def test_a_reader_in_the_way_is_said_and_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.home.database.SCRUB_TIMEOUT_S", 0.1)
    engine = open_database(f"sqlite:///{tmp_path / 'facts.db'}", {"turns": MIGRATIONS})
    mark = secrets.token_hex(16)
    made = create_conversation(engine, "a", mark)
    reader = sqlite3.connect(tmp_path / "facts.db", isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT title FROM conversations").fetchall() == [(mark,)]
    assert delete_conversation(engine, "a", made.id) is False
    assert list_conversations(engine, "a") == ()
    assert holding(tmp_path, [mark]), "the reader still sees what was there when it began"
    reader.execute("COMMIT")
    assert scrub(engine) is True
    assert holding(tmp_path, [mark]) == []
    reader.close()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one() == 10_000
    engine.dispose()


def test_postgresql_promises_nothing_about_its_files(postgres_url: str) -> None:
    engine = open_database(postgres_url, {"turns": MIGRATIONS})
    assert delete_conversation(engine, "a", create_conversation(engine, "a").id) is False
    engine.dispose()
