"""The chart of held-out loss is what the ledger says, and shows nobody the lessons of somebody else."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingle.adapt.undo import undo
from ingle.app.house import open_rooms
from ingle.app.loss_chart import loss_chart
from ingle.core.example import Example
from ingle.core.report import Event
from ingle.home.examples import add_example
from ingle.home.lessons import Lesson
from ingle.home.place import Home
from ingle.ledger.chain import Ledger
from tests.states import have_learned


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def engine(home: Home) -> Iterator[Engine]:
    opened = open_rooms(home)
    yield opened
    opened.dispose()


def judged(ledger: Ledger, delta: str, kind: str = "gate.accept", maker: str = "lesson", subject: str = "m+x", bits: float = 1.25) -> None:
    figures = {"bits_before": 1.2, "bits_after": bits, "bits_rise_percent": 4.2} if bits else {}
    ledger.append(Event(kind, subject, {"delta": delta, "maker": maker, **figures}))


def learned(engine: Engine, ledger: Ledger, owner: str, delta: str) -> str:
    """What the learner does when the gate lets something in."""
    made = add_example(engine, Example("", owner, "m", "correction", f"q {delta}", "a"))
    judged(ledger, delta)
    have_learned(engine, Lesson(delta, owner, "m", "stack", "answers", (made.id,), True))
    ledger.append(Event("lesson.accept", "m", {"lesson": delta, "example": made.id}))
    return made.id


def refused(engine: Engine, ledger: Ledger, owner: str, delta: str) -> None:
    made = add_example(engine, Example("", owner, "m", "correction", f"q {delta}", "a"))
    judged(ledger, delta, "gate.refuse", bits=2.5)
    ledger.append(Event("lesson.refuse", "m", {"example": made.id}))


def states(engine: Engine, home: Home, owner: str, model: str = "m") -> list[tuple[object, object]]:
    return [(point["maker"], point["state"]) for point in loss_chart(engine, home.keys, owner, model)["points"]]


def test_everybody_sees_their_own_lessons_and_what_was_tuned(home: Home, engine: Engine) -> None:
    ledger = Ledger(engine, home.keys)
    assert states(engine, home, "ann") == []
    judged(ledger, "d-tuned", maker="tune", subject="m+tuned")
    judged(ledger, "d-unmeasured", maker="tune", subject="m+other", bits=0.0)
    anns = learned(engine, ledger, "ann", "d-ann")
    learned(engine, ledger, "bob", "d-bob")
    refused(engine, ledger, "bob", "d-bob-2")
    refused(engine, ledger, "ann", "d-ann-2")
    assert states(engine, home, "ann") == [("tune", "accepted"), ("lesson", "accepted"), ("lesson", "refused")]
    assert states(engine, home, "eve") == [("tune", "accepted")]
    assert states(engine, home, "ann", "m+tuned") == [("tune", "accepted")] and states(engine, home, "ann", "mm") == []
    [_, point, other] = loss_chart(engine, home.keys, "ann", "m")["points"]
    assert (point["before"], point["bits"], point["rise"], other["bits"]) == (1.2, 1.25, 4.2, 2.5)

    undo(home, engine, "ann", anns, ledger.append)
    assert states(engine, home, "ann") == [("tune", "accepted"), ("lesson", "undone"), ("lesson", "refused")]
