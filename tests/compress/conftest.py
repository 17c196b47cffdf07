"""Fixtures of the tests of compression."""

import pytest

from ingle.compress import prune
from ingle.home.place import Home
from tests.compress.place import some_texts
from tests.tuning.conftest import tiny_files, tiny_home

__all__ = ["tiny_files", "tiny_home"]


@pytest.fixture
def some_home(tiny_home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with a tiny model, whose texts need no network."""
    texts = some_texts()
    monkeypatch.setattr(prune, "read_texts", lambda _home, _progress: texts)
    return tiny_home
