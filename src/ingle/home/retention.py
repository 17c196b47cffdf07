"""Deletes conversations and stored answers that are older than the owner keeps them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ingle.core.errors import NotKept
from ingle.core.report import Event, Sink
from ingle.home.conversations import delete_conversation
from ingle.home.turns import drop

if TYPE_CHECKING:
    from sqlalchemy import Engine

_OLD = "SELECT owner, id FROM conversations WHERE updated < :before"
_ENDS = """
    SELECT owner, id, completion FROM turns WHERE conversation IS NULL AND at < :before AND NOT EXISTS (
        SELECT 1 FROM turns AS after WHERE after.parent = turns.id AND after.owner = turns.owner)"""


@dataclass(frozen=True, slots=True)
class Swept:
    """Counts of what was deleted."""

    conversations: int
    answers: int  # answers and messages that were stored by themselves, by their last turns


def sweep_old(
    engine: "Engine", days: int, sink: Sink, forget_states: Callable[[str, str], None] = lambda _owner, _label: None,
    now: datetime | None = None,
) -> Swept:  # fmt: skip
    """Delete what has not changed for so many days, of every owner; 0 = nothing. One fact says how much, if it was anything.

    `forget_states` is called with the owner and the id under which states of it may be saved. An answer that somebody went on from stays
    until what follows it is old, too. After a kill, the next call goes on.
    """
    import sqlalchemy as sa

    if not days:
        return Swept(0, 0)
    before = {"before": ((now or datetime.now(UTC)) - timedelta(days=days)).isoformat(timespec="microseconds")}
    with engine.connect() as connection:
        old = connection.execute(sa.text(_OLD), before).all()
    for row in old:
        with suppress(NotKept):  # its owner was faster
            delete_conversation(engine, row.owner, row.id)
        forget_states(row.owner, row.id)
    answers = 0
    while True:
        with engine.connect() as connection:
            ends = connection.execute(sa.text(_ENDS), before).all()
        if not ends:
            break
        for row in ends:
            with suppress(NotKept):
                drop(engine, row.owner, row.id)
            forget_states(row.owner, row.completion or row.id)
        answers += len(ends)
    swept = Swept(len(old), answers)
    if old or answers:
        sink(Event("retention", "", {"days": days, "conversations": swept.conversations, "answers": swept.answers}))
    return swept
