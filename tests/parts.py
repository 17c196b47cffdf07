"""Ears and voices for tests: brought once into the home of all tests, as its models are."""

import shutil

import pytest

from ingle.home.place import Home, find_home

PARTS = ("whisper-tiny.en", "voice-joe", "phonemes-en")
"""What hears and speaks English: 134 MB to fetch."""


def bring_parts(*names: str) -> Home:
    """Bring parts into the tests' own home, and return it. Skips where they can't be fetched."""
    from ingle.core.errors import PullError
    from ingle.home.fetch import WrongBytes
    from ingle.home.part_catalogue import parts_called
    from ingle.home.pull_part import pull_part

    home = find_home()
    for name in names or PARTS:
        try:
            [entry] = parts_called(name)
            pull_part(home, entry, lambda *_progress: None)
        except WrongBytes:
            raise
        except PullError as error:
            pytest.skip(f"{name} is not kept in {home.root}, and can't be pulled: {error}")
    return home


def with_parts(home: Home, *names: str) -> Home:
    """The home, with parts of the tests' own home lent to it."""
    from ingle.home.parts import list_parts

    source = bring_parts(*names)
    (home.root / "parts").mkdir(exist_ok=True)
    for part in list_parts(source):
        if part.name in (names or PARTS):
            shutil.copy(source.root / "parts" / f"{part.name}.json", home.root / "parts")
            if not (home.bases / part.base).exists():  # a home that was lent its models sees all bases already
                (home.bases / part.base).symlink_to(source.base_folder(part.base), target_is_directory=True)
    return home
