"""What the page asks of what was taught, on both databases: by owner, and only what stands."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from ingle.core.example import Example
from ingle.home import examples
from ingle.home.database import open_database
from ingle.home.examples import add_example, set_consent
from ingle.home.lessons import Lesson
from ingle.home.teachings import change_mark, examples_about, examples_called, remembered_facts
from tests.states import have_learned, put_in_state

RATING = Example("", "ann", "m", "rating", "q", "a", rating=1, completion="c-1")
FACT = Example("", "ann", "m", "fact", "", "The gate is  green.", learn=False, state="kept")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_database(database_url, {"examples": examples.MIGRATIONS})
    yield opened
    opened.dispose()


def test_about_an_answer_only_what_stands_and_is_ones_own(engine: Engine) -> None:
    first = add_example(engine, RATING)
    second = add_example(engine, replace(RATING, rating=-1), [first.id])
    corrected = add_example(engine, replace(RATING, kind="correction", rating=0))
    add_example(engine, replace(RATING, owner="bob"))
    add_example(engine, replace(RATING, completion="c-2"))
    assert [one.id for one in examples_about(engine, "ann", ["c-1", "c-3", ""])] == [second.id, corrected.id]
    assert examples_about(engine, "ann", [""]) == () == examples_about(engine, "eve", ["c-1"])
    many = [*(f"none-{i}" for i in range(1200)), first.id, corrected.id]
    assert [one.id for one in examples_called(engine, "ann", many)] == [first.id, corrected.id]
    assert examples_called(engine, "bob", [first.id]) == ()


def test_a_fact_is_known_again_by_its_words(engine: Engine) -> None:
    kept = add_example(engine, FACT)
    assert [one.id for one in remembered_facts(engine, "ann", ["the gate IS green", "something else"])] == [kept.id]
    assert remembered_facts(engine, "bob", [FACT.answer]) == ()
    put_in_state(engine, "ann", [kept.id], "superseded")
    assert remembered_facts(engine, "ann", [FACT.answer]) == ()


def test_the_mark_changes_with_everything_of_ones_own_and_nothing_else(engine: Engine) -> None:
    marks = [change_mark(engine, "ann")]

    def other() -> bool:
        marks.append(change_mark(engine, "ann"))
        return marks[-1] not in marks[:-1]

    made = add_example(engine, replace(RATING, kind="correction"))
    assert other()
    put_in_state(engine, "ann", [made.id], "learning")
    assert other()
    have_learned(engine, Lesson("d", "ann", "m", "s", "answers", (made.id,), True))
    assert other()
    set_consent(engine, "ann", False)
    assert other()
    add_example(engine, replace(FACT, owner="bob"))
    set_consent(engine, "bob", False)
    assert not other()
