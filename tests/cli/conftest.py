"""Fixtures of the command line's tests."""

from pathlib import Path

import pytest

from ingle.home.place import Home
from tests.cli.place import ingle, write_model


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def tiny_home(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A home that keeps the tiny model; one for all tests of a file."""
    home = tmp_path_factory.mktemp("home")
    ingle(home, "pull", str(tiny_folder), "--name", "tiny")
    return home


@pytest.fixture
def own_home(tmp_path: Path, tiny_folder: Path) -> Home:
    """A home of one's own that keeps the tiny model, to do things to."""
    home = Home(tmp_path / "home")
    ingle(home.root, "pull", str(tiny_folder), "--name", "tiny")
    return home
