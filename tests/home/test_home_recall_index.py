"""Memories are found by the words they share with a question, by their owner alone, and leave no word behind; on both databases."""

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingle.core.errors import NotKept
from ingle.core.example import STATES, Example
from ingle.home import examples, turns
from ingle.home.database import open_database, writing_for
from ingle.home.examples import (
    MEMORY,
    add_example,
    drop_example,
    example_secret,
    new_secret,
    rewrite_example,
    same_asked,
    search_examples,
)  # fmt: skip
from ingle.home.recall_index import likeness, sameness, terms
from tests.states import put_in_state

FACTS = ("Who leads Zorblax?", "Mara Quill"), ("What colour is the door?", "Green"), ("Who is the king of the hill?", "Nobody is")


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    opened = open_database(database_url, {"turns": turns.MIGRATIONS, "examples": examples.MIGRATIONS})
    yield opened
    opened.dispose()


def taught(engine: sa.Engine, question: str, answer: str = "Mara Quill", owner: str = "key-1", model: str = "tiny") -> Example:
    return add_example(engine, Example("", owner, model, "correction", question, answer))


def found(engine: sa.Engine, words: str, owner: str = "key-1", limit: int = 5) -> list[str]:
    return [one.question or one.answer for one in search_examples(engine, owner, words, limit)]


def test_the_rare_word_counts_more_than_the_common_ones(engine: sa.Engine) -> None:
    for question, answer in FACTS:
        taught(engine, question, answer)
    assert found(engine, "And who is the one that is leading zorblax, please?")[0] == "Who leads Zorblax?"
    assert found(engine, "is there a door in the house?")[0] == "What colour is the door?"
    assert found(engine, "that is QUILL")[0] == "Who leads Zorblax?"
    assert len(found(engine, "who is", limit=1)) == 1


def test_a_question_of_common_words_alone_is_found(engine: sa.Engine) -> None:
    taught(engine, "Who are you?", "I am Bert.")
    assert found(engine, "who are you") == ["Who are you?"]


def test_words_without_spaces_and_with_accents_are_found(engine: sa.Engine) -> None:
    taught(engine, "模型是谁写的？", "阿明")
    taught(engine, "Où est le café?", "Ici")
    assert found(engine, "谁写了它") == ["模型是谁写的？"]
    assert found(engine, "CAFE") == ["Où est le café?"]


@pytest.mark.parametrize(
    "words", ["", "?!", "🙂", "\0", '"', 'zorblax" OR owner:*', "'; DROP TABLE examples; --", "a & b | !c <-> (d", "NEAR(a b)"]
)
def test_anything_may_be_searched_for(engine: sa.Engine, words: str) -> None:
    taught(engine, "Who leads Zorblax?")
    assert found(engine, words) in ([], ["Who leads Zorblax?"])
    assert found(engine, "zorblax " + words) == ["Who leads Zorblax?"]


def test_a_very_long_question_is_searched_by_its_ends(engine: sa.Engine) -> None:
    taught(engine, "Who leads Zorblax?")
    assert found(engine, "padding " * 50_000 + "x" * 100_000 + " zorblax") == ["Who leads Zorblax?"]
    taught(engine, "y" * 5_000)
    assert len(found(engine, "y" * 5_000)) == 1


def test_nothing_of_others_is_found(engine: sa.Engine) -> None:
    taught(engine, "Who leads Zorblax?", owner="key-2")
    assert found(engine, "Who leads Zorblax?") == [] and len(found(engine, "Zorblax", "key-2")) == 1 and found(engine, "Zorblax", "") == []


def test_only_what_counts_as_memory_is_found(engine: sa.Engine) -> None:
    made = {state: taught(engine, f"Who leads Zorblax in state {state}?") for state in STATES}
    for state, one in made.items():
        put_in_state(engine, "key-1", [one.id], state)
    add_example(engine, Example("", "key-1", "tiny", "rating", "Who leads Zorblax?", "Nobody", rating=-1))
    assert {one.state for one in search_examples(engine, "key-1", "zorblax", 50)} == set(MEMORY) == set(STATES) - {"superseded", "undone"}


def test_other_words_are_found_once_it_was_edited_and_none_once_it_was_deleted(engine: sa.Engine) -> None:
    made = add_example(engine, Example("", "key-1", "tiny", "fact", "", "The owner keeps bees.", state="kept"))
    secret = example_secret(engine, "key-1", made.id)
    rewrite_example(engine, "key-1", made.id, "The owner keeps goats.", new_secret())
    assert found(engine, "bees") == [] and found(engine, "a goat?") == ["The owner keeps goats."]
    assert example_secret(engine, "key-1", made.id) != secret
    drop_example(engine, "key-1", made.id)
    assert found(engine, "goats") == []
    with pytest.raises(NotKept):
        example_secret(engine, "key-1", made.id)


def test_edited_and_deleted_words_leave_the_files(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    engine = open_database(f"sqlite:///{path}", {"turns": turns.MIGRATIONS, "examples": examples.MIGRATIONS})
    for i in range(20):
        taught(engine, f"Which quillwort number {i}?", f"plumbago{i}")
    gone = taught(engine, "Who grows xanthorrhoea?", "Fenwick")
    edited = taught(engine, "Who grows yuccafrond?", "Gladstonbury")
    rewrite_example(engine, "key-1", edited.id, "Harrowgate", new_secret())
    drop_example(engine, "key-1", gone.id)
    left = [word for word in ("xanthorrhoea", "fenwick", "gladstonbury", "harrowgate") if found(engine, word)]
    engine.dispose()
    there = b"".join(one.read_bytes() for one in tmp_path.iterdir()).lower()
    assert left == ["harrowgate"] and b"harrowgate" in there
    assert all(word not in there for word in (b"xanthorr", b"fenwick", b"gladston"))


def test_the_same_question_is_known_again(engine: sa.Engine) -> None:
    first = taught(engine, "Who leads Zorblax?")
    taught(engine, "Who leads Zorblax?", model="other")
    taught(engine, "Who leads Zorblax?", owner="key-2")
    taught(engine, "Who led Zorblax?")
    undone = taught(engine, "who leads zorblax")
    put_in_state(engine, "key-1", [undone.id], "undone")
    with writing_for(engine, "key-1") as connection:
        assert same_asked(connection, Example("", "key-1", "tiny", "correction", " who LEADS\n“Zorblax” ", "Otto")) == (first,)
        assert same_asked(connection, Example("", "key-1", "tiny", "correction", "Who leads Zörblax?", "Otto")) == ()
        assert same_asked(connection, Example("", "key-1", "tiny", "fact", "", "Who leads Zorblax?")) == ()


def test_terms() -> None:
    assert terms("Où est l’ami, snake_case: 3.5 km²?") == ["ou", "est", "l", "ami", "snake", "case", "3", "5", "km2"]
    assert sameness("🙂") != sameness("🙁") and sameness("Hello!") == sameness("hello")
    for pair in (
        ("What is C++?", "What is C#?"), ("What is 5+3?", "What is 5-3?"), ("2*3", "2/3"), ("Is it -5 degrees?", "Is it 5 degrees?"),
        ("Is it \u22125 degrees?", "Is it 5 degrees?"), ("फल", "फूल"), ("मेल", "मैल"), ("かぎ", "かき"), ("Bàn ở đâu?", "Bạn ở đâu?"),
        ("ปี", "ปู"), ("schon", "schön"),
    ):  # fmt: skip
        assert sameness(pair[0]) != sameness(pair[1]), pair
    for pair in (
        ("Où est le café Müller ?", unicodedata.normalize("NFD", "où est  le café Müller")), ("“Who's well-known?”", "who s WELL KNOWN"),
        ("¿Qué es 5-3?", "qué es 5-3"), ("Straße", "STRASSE"), ("２０", "20"), ("What is\nC#?", "what is c#"),
    ):  # fmt: skip
        assert sameness(pair[0]) == sameness(pair[1]) and likeness(pair[0]) == likeness(pair[1]), pair


DAMAGES = {
    "a segment": "UPDATE example_words_data SET block = zeroblob(length(block)) WHERE id > 10",
    "the structure": "UPDATE example_words_data SET block = x'ffffffffffffffff' WHERE id = 10",
    "no structure": "DELETE FROM example_words_data WHERE id = 10",
    "a number of the format": "UPDATE example_words_config SET v = 99 WHERE k = 'version'",
    "a word": "UPDATE example_words_content SET c2 = 'wasps'",
    "a row": "DELETE FROM example_words_content WHERE id = 1",
    "a part": "DROP TABLE example_words_docsize",
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_index_is_made_anew_from_the_rows(tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    def opened() -> sa.Engine:
        return open_database(f"sqlite:///{tmp_path / 'facts.db'}", {"turns": turns.MIGRATIONS, "examples": examples.MIGRATIONS})

    engine = opened()
    for question, answer in FACTS:
        taught(engine, question, answer)
    before = found(engine, "who is that who leads the hill")
    assert not examples.mend_index(engine) and len(before) == 3
    with engine.begin() as connection:
        connection.exec_driver_sql(DAMAGES[what])
    engine.dispose()
    engine = opened()
    if what in ("the structure", "no structure", "a number of the format", "a part"):
        assert found(engine, "who is that who leads the hill") == before, "whoever meets the damage mends it"
    else:
        assert examples.mend_index(engine), "the server looks when it starts"
    assert [record.message for record in caplog.records] == [
        "The index of memories was damaged. It was made anew from the rows; nothing is lost."
    ]
    assert found(engine, "who is that who leads the hill") == before and not examples.mend_index(engine)
    taught(engine, "Who leads Wexlow?")
    assert "Who leads Wexlow?" in found(engine, "wexlow")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalars().all() == ["ok"]
    engine.dispose()
