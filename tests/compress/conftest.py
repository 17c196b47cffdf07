"""A home with a tiny model, and texts that need no network."""

import random
from pathlib import Path

import pytest

from ingle.compress import quantising
from ingle.home.place import Home
from ingle.measure.items import Text
from tests.tuning.conftest import tiny_files, tiny_home

__all__ = ["tiny_files", "tiny_home"]
_WORDS = tuple("abcdefghijklmnopqr"[i : i + 4] for i in range(14))


@pytest.fixture
def some_home(tiny_home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Home:
    """A home with a tiny model, which is shown texts without meaning."""
    draw = random.Random(0)
    texts = [Text(str(i), str(i), " ".join(draw.choices(_WORDS, k=200))) for i in range(12)]
    monkeypatch.setattr(quantising, "read_texts", lambda _home, _progress: texts)
    return tiny_home
