"""Ears and voices for the tests, in the home that all tests share: pulled once."""

import pytest

from ingle.core.errors import PullError
from ingle.core.progress import silent
from ingle.home.catalogue import PARTS
from ingle.home.fetch import WrongBytes
from ingle.home.place import Home, find_home
from ingle.home.pull_part import pull_part


@pytest.fixture(scope="session")
def speech_home() -> Home:
    """A home that keeps both ears, the voice joe and the dictionary."""
    for name in ("phonemes-en", "voice-joe", "whisper-tiny.en", "whisper-base"):
        need_part(name)
    return find_home()


def need_part(name: str) -> None:
    """Have a part in the tests' home, or skip the test."""
    pytest.importorskip("ctranslate2")
    pytest.importorskip("onnxruntime")
    try:
        pull_part(find_home(), PARTS[name], silent)
    except WrongBytes:
        raise
    except PullError as error:
        pytest.skip(f"{name} is not kept, and can't be pulled: {error}")
