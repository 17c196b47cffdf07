"""Fixtures of the tests of conversions."""

import random
from pathlib import Path

import pytest

from ingle.home.place import Home
from ingle.hybridize import hybridizing
from tests.tuning.conftest import tiny_files, tiny_home

__all__ = ["tiny_files", "tiny_home"]
_WORDS = tuple("abcdefghijklmnopqr"[i : i + 4] for i in range(14))


@pytest.fixture(scope="session")
def texts() -> list[list[str]]:
    """Texts without meaning, in sentences, of one source."""
    draw, found = random.Random(0), []
    for _ in range(12):
        sentences = [" ".join(draw.choices(_WORDS, k=draw.randrange(4, 12))).capitalize() + "." for _ in range(30)]
        found.append(" ".join(sentences))
    return [found]


@pytest.fixture
def some_home(tiny_home: Home, texts: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Home:
    """A home with a tiny model, whose lessons need no network."""
    monkeypatch.setattr(hybridizing, "read_texts", lambda _home, _suites, _progress: texts)
    return tiny_home
