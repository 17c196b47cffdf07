"""Ears and voices for tests: brought once into the home of all tests, as its models are."""

import shutil

from ingle.home.parts import list_parts
from ingle.home.place import Home, find_home
from tests.media.conftest import need_part

PARTS = ("whisper-tiny.en", "voice-joe", "phonemes-en")
"""What hears and speaks English: 134 MB to fetch."""


def bring_parts(*names: str) -> Home:
    """Bring parts into the tests' own home, and return it. Skips where they can't be fetched."""
    for name in names or PARTS:
        need_part(name)
    return find_home()


def with_parts(home: Home, *names: str) -> Home:
    """The home, which was lent its models, with parts of the tests' own home lent to it, and no others."""
    source, folder = bring_parts(*names), home.root / "parts"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for part in list_parts(source):
        if part.name in (names or PARTS):
            shutil.copy(source.root / "parts" / f"{part.name}.json", folder)
    return home
