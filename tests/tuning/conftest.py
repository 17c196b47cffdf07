"""Fixtures of the tests of tuning."""

from pathlib import Path

import pytest

from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.measure.suites import SUITES
from tests.cli.place import write_model
from tests.measure.test_run import BITS, CHOICE


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama of the command line's tests."""
    return write_model(tmp_path_factory.mktemp("tuning") / "tiny")


@pytest.fixture
def tiny_home(tmp_path: Path, tiny_files: Path) -> Home:
    """A home of one's own that keeps it."""
    home = Home(tmp_path / "home")
    pull(home, str(tiny_files), lambda _: None, "tiny")
    return home


@pytest.fixture
def suites(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites whose data need no network."""
    for suite in (BITS, CHOICE):
        monkeypatch.setitem(SUITES, suite.name, suite)
