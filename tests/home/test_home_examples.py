"""What users taught: kept in order, by owner, with its words gone when it goes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ingle.core.errors import NotKept
from ingle.core.example import Example
from ingle.home import examples, turns
from ingle.home.database import open_database
from ingle.home.example_states import move_all
from ingle.home.examples import add_example, count_examples, drop_example, get_example, list_examples, may_learn, set_consent
from ingle.home.lessons import Lesson, accept_lesson, get_lesson, list_lessons, set_acting
from ingle.home.place import Home
from tests.states import have_learned

if TYPE_CHECKING:
    from sqlalchemy import Engine


@pytest.fixture
def engine(home: Home) -> Iterator["Engine"]:
    made = open_database(home.database_url, {"turns": turns.MIGRATIONS, "examples": examples.MIGRATIONS})
    yield made
    made.dispose()


def taught(owner: str = "", question: str = "Who leads Zorblax?", answer: str = "Mara Quill") -> Example:
    return Example("", owner, "smollm2", "correction", question, answer, before=(("system", "Be brief."),))


def test_an_example_comes_back_as_it_was_kept(engine: "Engine") -> None:
    made = add_example(engine, taught())
    assert get_example(engine, "", made.id) == made
    assert made.seq == 1 and made.at and made.before == (("system", "Be brief."),)


def test_each_owner_counts_for_themselves_and_sees_nothing_of_others(engine: "Engine") -> None:
    mine = [add_example(engine, taught("key-1")) for _ in range(2)]
    theirs = add_example(engine, taught("key-2"))
    assert [one.seq for one in mine] == [1, 2] and theirs.seq == 1
    assert list_examples(engine, "key-1") == tuple(mine)
    with pytest.raises(NotKept):
        get_example(engine, "key-1", theirs.id)
    with pytest.raises(NotKept):
        drop_example(engine, "key-1", theirs.id)
    assert len(list_examples(engine, None)) == 3


def test_a_later_one_stands_in_the_place_of_an_earlier_one(engine: "Engine") -> None:
    first = add_example(engine, taught())
    add_example(engine, taught(answer="Otto Lund"), supersede=[first.id])
    assert [one.state for one in list_examples(engine, "")] == ["superseded", "pending"]
    assert count_examples(engine, "") == {"superseded": 1, "pending": 1}


def test_a_dropped_example_leaves_no_word_in_the_files(engine: "Engine", home: Home) -> None:
    made = add_example(engine, taught(answer="Quillwortfeather"))
    assert drop_example(engine, "", made.id)
    engine.dispose()
    assert all(b"Quillwortfeather" not in path.read_bytes() for path in home.root.rglob("*") if path.is_file())


def test_consent_is_each_owners_own(engine: "Engine") -> None:
    assert may_learn(engine, "key-1")
    set_consent(engine, "key-1", False)
    assert not may_learn(engine, "key-1") and may_learn(engine, "key-2") and not may_learn(engine, "key-3", default=False)


def test_a_lesson_and_its_examples_move_together(engine: "Engine") -> None:
    made = [add_example(engine, taught()) for _ in range(2)]
    earlier = have_learned(engine, Lesson("d1", "", "smollm2", "stack", "answers", (made[0].id,), True))
    both = Lesson("d2", "", "smollm2", "stack", "answers", (made[0].id, made[1].id), True)
    have_learned(engine, both, instead_of=[earlier.digest])
    accept_lesson(engine, both, instead_of=[earlier.digest])
    assert [(one.digest, one.seq, one.acting) for one in list_lessons(engine, "")] == [("d1", 1, False), ("d2", 2, True)]
    assert {one.lesson for one in list_examples(engine, "", ["learned"])} == {"d2"}
    set_acting(engine, "", "d2", False)
    assert not get_lesson(engine, "", "d2").acting and {one.state for one in list_examples(engine, "")} == {"undone"}


def test_nothing_is_accepted_of_an_example_that_is_gone(engine: "Engine") -> None:
    made = add_example(engine, taught())
    drop_example(engine, "", made.id)
    with pytest.raises(NotKept):
        accept_lesson(engine, Lesson("d1", "", "smollm2", "stack", "answers", (made.id,), True))
    assert list_lessons(engine, "") == ()


def test_changing_the_state_of_several_is_one_step(engine: "Engine") -> None:
    made = add_example(engine, taught())
    with pytest.raises(NotKept):
        move_all(engine, "", [made.id, "ex-nothing"], "undo")
    assert get_example(engine, "", made.id).state == "pending"
