"""A home with a tiny model, and texts that need no network."""

import pytest

from ingle.compress import pruning, quantising, search
from ingle.home.place import Home
from tests.compress.place import some_texts
from tests.tuning.conftest import suites, tiny_files, tiny_home

__all__ = ["suites", "tiny_files", "tiny_home"]


@pytest.fixture
def some_home(tiny_home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with a tiny model, which is shown texts without meaning."""
    texts = some_texts()
    for module in (pruning, quantising, search):
        monkeypatch.setattr(module, "read_texts", lambda _home, _progress: texts)
    return tiny_home
