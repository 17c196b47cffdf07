"""Every move of an example between its states, from every state; on both databases."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

import ingle
from ingle.core.errors import NotKept
from ingle.core.example import STATES, Example, State
from ingle.home import examples, turns
from ingle.home.database import open_database, writing_for
from ingle.home.example_states import MOVES, Move, end_learning, move, move_all, restore
from ingle.home.examples import add_example, get_example, list_examples
from tests.states import put_in_state

if TYPE_CHECKING:
    from sqlalchemy import Engine


@pytest.fixture
def engine(database_url: str) -> Iterator["Engine"]:
    made = open_database(database_url, {"turns": turns.MIGRATIONS, "examples": examples.MIGRATIONS})
    yield made
    made.dispose()


def taught(engine: "Engine", state: State = "pending") -> Example:
    made = add_example(engine, Example("", "ann", "tiny", "correction", "Who leads the town?", "Mara.", lesson="d1", reasons=("no",)))
    put_in_state(engine, "ann", [made.id], state)
    return get_example(engine, "ann", made.id)


def test_every_move_has_a_step() -> None:
    assert set(MOVES) == set(get_args(Move))


@pytest.mark.parametrize("what", MOVES)
def test_a_move_leads_on_from_its_states_alone(engine: "Engine", what: Move) -> None:
    step = MOVES[what]
    for state in STATES:
        before = taught(engine, state)
        with writing_for(engine, "ann") as connection:
            found = move(connection, "ann", before.id, what)
        after = get_example(engine, "ann", before.id)
        assert found == after.state == (step.after if state in step.before else state)
        if state in step.before:
            assert (after.reasons, after.lesson) == ((), "" if step.leaves_lesson else "d1")
        else:
            assert after == before


def test_a_move_belongs_to_the_owner_and_tells_what_is_gone(engine: "Engine") -> None:
    one = taught(engine)
    with writing_for(engine, "bob") as connection:
        assert move(connection, "bob", one.id, "begin") is None
    with pytest.raises(NotKept):
        move_all(engine, "bob", [one.id], "undo")
    end_learning(engine, "ann", ["ex-gone"], "release")
    assert get_example(engine, "ann", one.id) == one


def test_what_was_superseded_for_nothing_is_as_it_was(engine: "Engine") -> None:
    refused, undone = taught(engine, "refused"), taught(engine, "undone")
    move_all(engine, "ann", [refused.id], "supersede")
    restore(engine, "ann", [refused])
    assert list_examples(engine, "ann") == (refused, undone)


def test_nothing_else_writes_a_state() -> None:
    writes = re.compile(r"SET\b[^\n]*\bstate = ")
    files = Path(ingle.__file__).parent.rglob("*.py")
    assert {path.name for path in files if writes.search(path.read_text("utf-8"))} == {"example_states.py"}
