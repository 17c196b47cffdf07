"""Examples in the states that tests begin with, as if they had come there by themselves."""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from ingle.core.example import State
from ingle.home.database import writing_for
from ingle.home.lessons import Lesson, accept_lesson


def put_in_state(engine: sa.Engine, owner: str, ids: Iterable[str], state: State) -> None:
    """Gives examples a state, whichever they have."""
    with writing_for(engine, owner) as connection:
        for id_ in ids:
            row = {"owner": owner, "id": id_, "state": state}
            assert connection.execute(sa.text("UPDATE examples SET state = :state WHERE owner = :owner AND id = :id"), row).rowcount == 1


def have_learned(engine: sa.Engine, lesson: Lesson, instead_of: Sequence[str] = ()) -> Lesson:
    """Has a lesson's examples learned by it, whatever their states were."""
    put_in_state(engine, lesson.owner, lesson.examples, "learning")
    return accept_lesson(engine, lesson, instead_of)
