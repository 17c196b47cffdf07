"""Lessons that are retired, let go or accepted late; on both databases."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ingle.core.errors import NotKept
from ingle.core.example import Example
from ingle.core.message import Message
from ingle.home import examples, turns
from ingle.home.database import open_database
from ingle.home.examples import add_example, list_examples, search_examples
from ingle.home.lessons import Lesson, accept_lesson, dissolve_lesson, list_lessons, retire_lesson
from ingle.home.turns import find_text, keep
from tests.states import have_learned, put_in_state

if TYPE_CHECKING:
    from sqlalchemy import Engine


@pytest.fixture
def engine(database_url: str) -> Iterator["Engine"]:
    made = open_database(database_url, {"turns": turns.MIGRATIONS, "examples": examples.MIGRATIONS})
    yield made
    made.dispose()


def taught(engine: "Engine", count: int, owner: str = "") -> list[str]:
    """Ids of so many corrections."""
    made = [Example("", owner, "tiny", "correction", f"Who leads town {i}?", f"Quillwort {i}") for i in range(count)]
    return [add_example(engine, one).id for one in made]


def lesson(engine: "Engine", ids: list[str], digest: str = "d1", owner: str = "") -> Lesson:
    return have_learned(engine, Lesson(digest, owner, "tiny", "stack", "answers", tuple(ids), True))


def test_what_a_lesson_had_taught_is_to_be_learned_together_without_what_is_forgotten(engine: "Engine") -> None:
    ids, theirs = taught(engine, 4), taught(engine, 1, "key-1")
    lesson(engine, ids[:3])
    lesson(engine, ids[3:], "d2")
    lesson(engine, theirs, "d1", "key-1")
    assert dissolve_lesson(engine, "", "d1", undone=[ids[1]], forgotten=[ids[0]]) == 1
    left = {one.id: (one.state, one.lesson) for one in list_examples(engine, "")}
    assert left == {ids[1]: ("undone", "d1"), ids[2]: ("pending", "d1"), ids[3]: ("learned", "d2")}
    assert [one.digest for one in list_lessons(engine, "")] == ["d2"]
    assert [one.digest for one in list_lessons(engine, "key-1")] == ["d1"]
    assert [one.id for one in search_examples(engine, "", "Quillwort", 9)] == [ids[3], ids[2]], "its words left the index too"
    assert dissolve_lesson(engine, "", "d1") == 0


def test_a_retired_lesson_acts_no_more_and_its_examples_stay_what_they_are(engine: "Engine") -> None:
    ids = taught(engine, 1)
    lesson(engine, ids)
    put_in_state(engine, "", ids, "superseded")
    retire_lesson(engine, "", "d1")
    assert not list_lessons(engine, "", acting=True)
    assert [(one.state, one.lesson) for one in list_examples(engine, "")] == [("superseded", "d1")]


def test_nothing_is_accepted_of_an_example_that_moved_on_meanwhile(engine: "Engine") -> None:
    ids = taught(engine, 2)
    put_in_state(engine, "", ids[:1], "learning")
    with pytest.raises(NotKept, match="became pending"):
        accept_lesson(engine, Lesson("d1", "", "tiny", "stack", "answers", tuple(ids), True))
    assert [one.state for one in list_examples(engine, "")] == ["learning", "pending"] and not list_lessons(engine, "")


def test_text_is_found_in_turns_as_it_was_written(engine: "Engine") -> None:
    said = 'He said "100%_sure!"\nAnd Quillwort too'
    kept = keep(engine, "", (Message.of("user", said),))
    keep(engine, "key-1", (Message.of("user", said),))
    for words in ('"100%_sure!"', '!"\nAnd', "quillwort", said):
        assert [turn.id for turn in find_text(engine, "", [words])] == [kept]
    assert not find_text(engine, "", ["100_sure", '","', "Quill"])
