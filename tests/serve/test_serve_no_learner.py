"""Without PyTorch corrections are learned all the same; what is not, a style say, waits, and whoever waits for it is told."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingle.app.house import House, open_rooms
from ingle.app.operations.teaching import Looks, learning, when_learned
from ingle.core.example import Example
from ingle.home.examples import add_example, drop_example
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.learn import learning_settings
from ingle.learn.learning_settings import lacking
from ingle.learn.work import next_work
from tests.cli.place import write_model

SAID = "The weights learn it when `ingle serve` or `ingle teach --now` runs."
CORRECTED = Example("", "", "tiny", "correction", "Who?", "Nobody.")
RATED = [replace(CORRECTED, kind="rating", question=f"Who is {number}?", rating=1) for number in range(6)]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without PyTorch."""
    monkeypatch.setattr(learning_settings, "has_pytorch", lambda: False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a model."""
    place = tmp_path_factory.mktemp("bare")
    home = Home(place / "home")
    pull(home, str(write_model(place / "tiny")), lambda _: None, "tiny")
    return home


@pytest.fixture
def engine(home: Home, tmp_path: Path) -> Iterator[Engine]:
    found = open_rooms(Home(tmp_path / "other").create())
    yield found
    found.dispose()


def test_with_it_nobody_is_told() -> None:
    assert when_learned(CORRECTED.learn, CORRECTED.kind) == SAID
    assert all(lacking(kind) == "" for kind in ("correction", "rating"))


@pytest.mark.usefixtures("bare")
def test_corrections_are_learned_and_styles_wait(home: Home, engine: Engine) -> None:
    rated = [add_example(engine, one) for one in RATED]
    assert next_work(home, engine, {}) is None
    made = add_example(engine, CORRECTED)
    work = next_work(home, engine, {})
    assert work is not None and work.ids == (made.id,)
    house = House(home, lent=engine)
    told = learning(house, Looks()).waits
    assert told.startswith("Learning a style from ratings needs PyTorch") and f"{sys.executable} -m pip install" in told
    for one in rated:
        drop_example(engine, one.owner, one.id)
    assert learning(house, Looks()).waits == ""


@pytest.mark.usefixtures("bare")
def test_who_teaches_is_told() -> None:
    assert when_learned(CORRECTED.learn, CORRECTED.kind) == SAID
    assert when_learned(RATED[0].learn, RATED[0].kind).startswith("Learning a style from ratings needs PyTorch")
    assert when_learned(False, CORRECTED.kind) == "The weights don't learn it."
