"""Fixtures of the tests of training from scratch."""

from pathlib import Path

import pytest

from ingle.home.place import Home
from tests.scaling.place import write_texts


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home of one's own."""
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of texts."""
    return write_texts(tmp_path_factory.mktemp("texts") / "texts.jsonl")


@pytest.fixture(scope="session")
def long_texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with as much text as the longest run of a tiny sweep reads."""
    return write_texts(tmp_path_factory.mktemp("texts") / "long.jsonl", 900)
