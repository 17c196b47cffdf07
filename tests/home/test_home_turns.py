"""Turns are kept once, branch, are found by their owner only, and go when nothing needs them; on both databases."""

import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingle.core.errors import DamagedError, HomeError, NotKept, RequestError
from ingle.core.message import AudioPart, ImagePart, Message, TextPart, ToolCall
from ingle.home.conversations import ConversationChange, change_conversation, create_conversation, delete_conversation, get_conversation
from ingle.home.database import open_database, scrub, writing_for
from ingle.home.turns import MIGRATIONS, Turn, altered_turns, children, drop, find_any_completion, find_completion, keep, keep_answer, path
from tests.waiting import PATIENCE_S, for_a_while

SYSTEM, HELLO, HI = Message.of("system", "Be brief."), Message.of("user", "Hello"), Message.of("assistant", "Hi!")


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    opened = open_database(database_url, {"turns": MIGRATIONS})
    yield opened
    opened.dispose()


def count(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.text("SELECT COUNT(*) FROM turns")).scalar_one())


def words(turns: tuple[Turn, ...]) -> list[str]:
    return [turn.message.text for turn in turns]


def test_a_history_comes_back_as_it_was(engine: sa.Engine) -> None:
    messages = (
        SYSTEM,
        Message("user", (TextPart('Quote: " and \\ and \n'), TextPart("\0 é 模型 🙂"))),
        Message("assistant", (), (ToolCall("c1", "clock", '{"zone": "UTC"}'), ToolCall("c2", "clock", "{broken"))),
        Message("tool", (TextPart("12:00"),), tool_call_id="c1"),
        Message("user", (TextPart(""),)),
    )
    last = keep(engine, "key-1", messages)
    turns = path(engine, "key-1", last)
    assert tuple(turn.message for turn in turns) == messages
    assert turns[-1].id == last and turns[0].parent == "" and all(turn.owner == "key-1" for turn in turns)
    assert [turn.parent for turn in turns[1:]] == [turn.id for turn in turns[:-1]]
    assert all((turn.completion, turn.facts, turn.conversation) == ("", None, "") for turn in turns)
    assert path(engine, "key-1", "") == ()
    assert keep(engine, "key-1", (), last) == last


def test_the_same_history_is_the_same_rows_and_another_one_branches(engine: sa.Engine) -> None:
    first = keep(engine, "a", (SYSTEM, HELLO))
    before = path(engine, "a", first)
    assert keep(engine, "a", (SYSTEM, HELLO)) == first
    assert path(engine, "a", first) == before and count(engine) == 2
    assert keep(engine, "a", (HELLO,), before[0].id) == first
    other = keep(engine, "a", (SYSTEM, Message.of("user", "Bye")))
    assert count(engine) == 3
    assert [turn.id for turn in children(engine, "a", before[0].id)] == [first, other]
    assert keep(engine, "b", (SYSTEM, HELLO)) != first and count(engine) == 5
    # What is alike only when it is strung together is another turn all the same.
    parts = [Message("user", (TextPart("ab"), TextPart("c"))), Message("user", (TextPart("a"), TextPart("bc"))), Message.of("user", "abc")]
    assert len({keep(engine, "a", (message,)) for message in parts}) == 3


def test_answers_have_facts_and_are_found(engine: sa.Engine) -> None:
    facts = {"model": "smollm2", "seed": 2**63 - 1, "tokens_per_s": 12.5, "event": 7, "sampling": {"temperature": 0.0}, "none": None}
    parent = keep(engine, "a", (HELLO,))
    one = keep_answer(engine, "a", parent, HI, "chatcmpl-1", facts)
    two = keep_answer(engine, "a", parent, HI, "chatcmpl-2", None)
    assert keep_answer(engine, "a", parent, HI, "chatcmpl-1", {"model": "another"}) == one
    assert one != two and [turn.id for turn in children(engine, "a", parent)] == [one, two]
    found = find_completion(engine, "a", "chatcmpl-1")
    assert found is not None and found.id == one and found.facts == facts and found.message == HI and found.parent == parent
    assert words(path(engine, "a", found.id)) == ["Hello", "Hi!"]
    assert find_any_completion(engine, "chatcmpl-1") == found
    assert find_completion(engine, "a", "chatcmpl-3") is None and find_completion(engine, "a", "") is None
    assert find_any_completion(engine, "") is None


def test_history_and_answer_are_kept_together_or_not_at_all(engine: sa.Engine) -> None:
    turn = keep_answer(engine, "a", "", HI, "chatcmpl-1", {"n": 1}, history=(SYSTEM, HELLO))
    assert words(path(engine, "a", turn)) == ["Be brief.", "Hello", "Hi!"]
    for wrong in ({"x": float("nan")}, {"x": "\ud800"}, {"x": object()}):
        with pytest.raises(RequestError, match="facts"):
            keep_answer(engine, "a", "", HI, "chatcmpl-2", wrong, history=(Message.of("user", "Another"),))
    with pytest.raises(NotKept, match="conversation conv-none"):
        keep_answer(engine, "a", "", HI, "chatcmpl-2", {}, history=(Message.of("user", "Another"),), conversation="conv-none")
    assert count(engine) == 3


@pytest.mark.parametrize(
    "message",
    [
        Message.of("user", "half \ud83d of a character"),
        Message("assistant", (), (ToolCall("c", "f", "\udc00"),)),
    ],
)
def test_what_cannot_be_kept_is_refused_whole(engine: sa.Engine, message: Message) -> None:
    with pytest.raises(RequestError, match="messages"):
        keep(engine, "a", (HELLO, message))
    assert count(engine) == 0


def test_pictures_and_recordings_are_kept_with_their_words_and_go_with_them(engine: sa.Engine) -> None:
    shown = Message(
        "user", (TextPart("see "), ImagePart(b"\x89png", "image/png"), TextPart(" and "), AudioPart(b"wav", "audio/wav", "tool"))
    )
    turn = keep_answer(engine, "a", "", HI, "chatcmpl-1", {}, history=(shown,))
    kept = path(engine, "a", turn)[0]
    assert kept.message == shown
    assert not altered_turns(engine)
    assert keep(engine, "a", (shown,)) == kept.id, "the same picture is the same turn"
    other = keep(engine, "a", (Message("user", (*shown.parts[:1], ImagePart(b"\x89pnG", "image/png"), *shown.parts[2:])),))
    assert other != kept.id
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE turns SET media = REPLACE(media, 'audio/wav', 'audio/mp3') WHERE id = :id"), {"id": other})
    assert altered_turns(engine) == [other]
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE turns SET media = '[]' WHERE id = :id"), {"id": other})
    with pytest.raises(DamagedError, match="can't be read"):
        path(engine, "a", other)
    drop(engine, "a", turn)
    assert count(engine) == 1


@pytest.mark.parametrize("name", ["nowhere", "0" * 64, "", "half \ud83d", "\0", "' OR 1=1 --", "x" * 100_000])
def test_ids_that_nobody_gave_out(engine: sa.Engine, name: str) -> None:
    keep(engine, "a", (HELLO,))
    calls = [
        lambda: keep(engine, "a", (HI,), name), lambda: path(engine, "a", name), lambda: drop(engine, "a", name),
        lambda: keep(engine, "a", (HI,), "", f"conv{name}"),
    ]  # fmt: skip
    for call in calls[2:] if name == "" else calls:
        with pytest.raises((NotKept, RequestError)):
            call()
    assert count(engine) == 1
    for find in (lambda: find_completion(engine, "a", f"c{name}"), lambda: children(engine, "a", f"t{name}")):
        try:
            assert not find()
        except RequestError:
            assert name in ("half \ud83d", "\0"), "only what no database can hold"


def test_nothing_crosses_owners(engine: sa.Engine) -> None:
    parent = keep(engine, "a", (HELLO,))
    answer = keep_answer(engine, "a", parent, HI, "chatcmpl-1", {})
    for stranger in ("b", "", "A", "a "):
        calls = [
            lambda owner=stranger: path(engine, owner, answer), lambda owner=stranger: drop(engine, owner, parent),
            lambda owner=stranger: keep(engine, owner, (HI,), answer),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(NotKept):
                call()
        assert find_completion(engine, stranger, "chatcmpl-1") is None
        assert children(engine, stranger, parent) == () == children(engine, stranger, "")
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:  # nor could a query that forgot to ask
        connection.execute(
            sa.text("INSERT INTO turns (owner, id, parent, role, content, at) VALUES ('b', 'x', :parent, 'user', '', '')"),
            {"parent": answer},
        )
    keep_answer(engine, "b", keep(engine, "b", (HELLO,)), HI, "chatcmpl-1", {})
    assert drop(engine, "b", find_completion(engine, "b", "chatcmpl-1").id) == 2  # type: ignore[union-attr]
    assert count(engine) == 2


def test_a_dropped_answer_takes_with_it_what_was_there_for_its_sake(engine: sa.Engine) -> None:
    short = keep_answer(engine, "a", "", HI, "c1", {}, history=(SYSTEM, HELLO))
    on_it = keep_answer(engine, "a", short, HI, "c2", {}, history=(Message.of("user", "And?"),))
    beside = keep_answer(engine, "a", "", HI, "c3", {}, history=(SYSTEM, HELLO, HI, Message.of("user", "Why?")))
    assert count(engine) == 8
    assert drop(engine, "a", on_it) == 2  # the question too, but not c1, which somebody may still ask for
    assert words(path(engine, "a", short)) == ["Be brief.", "Hello", "Hi!"]
    assert drop(engine, "a", beside) == 3
    assert count(engine) == 3
    assert drop(engine, "a", short) == 3
    assert count(engine) == 0
    with pytest.raises(NotKept):
        drop(engine, "a", short)


def test_a_dropped_turn_takes_all_branches_below_it(engine: sa.Engine) -> None:
    root = keep(engine, "a", (SYSTEM,))
    hello = keep(engine, "a", (HELLO,), root)
    for number in range(5):
        answer = keep_answer(engine, "a", hello, HI, f"c{number}", {})
        keep(engine, "a", [Message.of("user", str(n)) for n in range(number)], answer)
    keep(engine, "a", (Message.of("user", "Stays"),), root)
    assert drop(engine, "a", hello) == 1 + 5 + 10
    assert count(engine) == 2


def test_a_conversation_stands_where_it_was_last_added_to(engine: sa.Engine) -> None:
    talk = create_conversation(engine, "a")
    hello = keep(engine, "a", (HELLO,), "", talk.id)
    assert get_conversation(engine, "a", talk.id).leaf == hello
    one = keep_answer(engine, "a", hello, HI, "c1", {}, conversation=talk.id)
    two = keep_answer(engine, "a", hello, HI, "c2", {}, conversation=talk.id)
    kept = get_conversation(engine, "a", talk.id)
    assert kept.leaf == one and kept.updated > talk.updated and kept.created == talk.created
    change_conversation(engine, "a", talk.id, ConversationChange(leaf=hello))
    three = keep_answer(engine, "a", hello, HI, "c3", {}, conversation=talk.id)
    assert get_conversation(engine, "a", talk.id).leaf == three, "there it stood when it was asked"
    assert drop(engine, "a", three) == 1
    assert {turn.conversation for turn in path(engine, "a", two)} == {talk.id}
    assert [turn.id for turn in children(engine, "a", hello)] == [one, two]
    edited = keep(engine, "a", (Message.of("user", "Hello!"),), "", talk.id)
    assert [turn.id for turn in children(engine, "a", "", talk.id)] == [hello, edited]
    assert children(engine, "a", "") == ()
    # Dropping the turn that it stands at lets it go back, and holds what it stands at then.
    change_conversation(engine, "a", talk.id, ConversationChange(leaf=one))
    assert drop(engine, "a", one) == 1 and get_conversation(engine, "a", talk.id).leaf == hello
    assert drop(engine, "a", two) == 1 and drop(engine, "a", edited) == 1
    assert words(path(engine, "a", hello)) == ["Hello"]
    assert drop(engine, "a", hello) == 1 and get_conversation(engine, "a", talk.id).leaf == ""


def test_a_turn_hangs_on_one_of_the_same_tree(engine: sa.Engine) -> None:
    talk, other = create_conversation(engine, "a"), create_conversation(engine, "a")
    inside, outside = keep(engine, "a", (HELLO,), "", talk.id), keep(engine, "a", (HELLO,))
    assert inside != outside
    for parent, conversation in ((inside, ""), (outside, talk.id), (inside, other.id)):
        with pytest.raises(NotKept):
            keep(engine, "a", (HI,), parent, conversation)
    assert count(engine) == 2


def test_long_histories(engine: sa.Engine) -> None:
    messages = [Message.of("user" if number % 2 == 0 else "assistant", f"{number} " * 20) for number in range(3000)]
    last = keep(engine, "a", messages)
    assert len(path(engine, "a", last)) == 3000
    big = Message.of("user", "token " * 1_700_000)
    assert path(engine, "a", keep(engine, "a", (big,)))[0].message == big
    assert drop(engine, "a", last) == 3000


def test_many_at_once_keep_and_drop(engine: sa.Engine) -> None:
    """All of them keep the same beginning, and drop it again while others hang their answers on it."""

    def work(worker: int) -> None:
        for number in range(20):
            answer = keep_answer(engine, "a", "", HI, f"c{worker}-{number}", {"n": number}, history=(SYSTEM, HELLO))
            assert words(path(engine, "a", answer)) == ["Be brief.", "Hello", "Hi!"]
            if number < 19:
                drop(engine, "a", answer)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    hello = keep(engine, "a", (SYSTEM, HELLO))
    assert {turn.completion for turn in children(engine, "a", hello)} == {f"c{worker}-19" for worker in range(4)}
    assert count(engine) == 2 + 4


def test_whoever_writes_for_an_owner_waits_for_the_others(engine: sa.Engine) -> None:
    """A turn that looks unneeded may be about to get a child."""
    answer = keep_answer(engine, "a", "", HI, "c1", {}, history=(HELLO,))
    with ThreadPoolExecutor(1) as pool:
        with writing_for(engine, "a"):
            if engine.dialect.name == "postgresql":
                keep(engine, "b", (HELLO,))
            dropping = pool.submit(drop, engine, "a", answer)
            for_a_while(0.2)
            assert not dropping.done()
        assert dropping.result(PATIENCE_S) == 2


@pytest.mark.skipif(os.name == "nt", reason="forks")
def test_processes_at_once_lose_nothing(engine: sa.Engine, database_url: str) -> None:
    engine.dispose()
    pids = []
    for worker in range(3):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                own = open_database(database_url, {"turns": MIGRATIONS})
                for number in range(20):
                    keep_answer(
                        own, "a", "", HI, f"c{worker}-{number}", None, history=(SYSTEM, replace(HELLO, parts=(TextPart(str(number)),)))
                    )
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0, 0]
    assert all(find_completion(engine, "a", f"c{worker}-{number}") for worker in range(3) for number in range(20))
    assert count(engine) == 1 + 20 + 60


def test_a_conversation_that_is_deleted_meanwhile_is_not_added_to(engine: sa.Engine) -> None:
    talk = create_conversation(engine, "a")
    hello = keep(engine, "a", (HELLO,), "", talk.id)
    delete_conversation(engine, "a", talk.id)
    for parent in (hello, ""):
        with pytest.raises(NotKept):
            keep_answer(engine, "a", parent, HI, "c1", {}, conversation=talk.id)
    assert count(engine) == 0


def test_a_full_disk_is_said_and_what_was_kept_is_there(small_disk: Path) -> None:
    engine = open_database(f"sqlite:///{small_disk / 'facts.db'}", {"turns": MIGRATIONS})
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    kept = []
    with pytest.raises(HomeError, match="Free some disk space"):
        for number in range(1000):
            kept.append(keep(engine, "a", (Message.of("user", f"number {number} " * 1000),)))
    assert len(kept) > 20
    assert words(path(engine, "a", kept[-1])) == [f"number {len(kept) - 1} " * 1000]
    ballast.unlink()
    # There is room now to say that a turn goes, though not to write the whole file anew. It goes all the same.
    assert drop(engine, "a", kept[0]) == 1
    assert scrub(engine) is False
    assert count(engine) == len(kept) - 1
    engine.dispose()


def test_a_database_that_stays_locked_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.home.database.BUSY_TIMEOUT_S", 0.1)
    engine = open_database(f"sqlite:///{tmp_path / 'facts.db'}", {"turns": MIGRATIONS})
    other = sqlite3.connect(tmp_path / "facts.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(HomeError, match=r"locked.*Another process"):
        keep(engine, "a", (HELLO,))
    other.rollback()
    other.close()
    keep(engine, "a", (HELLO,))
    engine.dispose()
