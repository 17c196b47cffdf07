"""Abilities beside words: which are missing, and why they can't be had."""

import shutil
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.serve import abilities
from ingle.serve.abilities import KNOWN, lacks
from tests.cli.place import ingle
from tests.homes import lent


@pytest.fixture
def home(tmp_path: Path, smollm2_home: Home) -> Home:
    """A home with smollm2 and no parts."""
    home = lent(smollm2_home, tmp_path / "home")
    shutil.rmtree(home.root / "parts", ignore_errors=True)
    return home


def test_a_model_of_words_lacks_all_and_can_get_all(home: Home) -> None:
    found = lacks(home, get_kept(home, "smollm2"))
    assert list(found) == list(KNOWN) and not any(lack.why for lack in found.values())
    assert KNOWN["draw"].nbytes == 0 and KNOWN["see"].nbytes == 17_364_911


def test_what_was_brought_is_no_longer_missing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    ingle(home.root, "pull", "painter")
    assert "draw" not in lacks(home, get_kept(home, "smollm2"))
    assert "draw" not in lacks(home, get_kept(home, "smollm2+painter"))
    kept = {"whisper-base", "phonemes-en"}
    monkeypatch.setattr(abilities, "is_kept", lambda _home, name: name in kept)
    assert "hear" not in lacks(home, get_kept(home, "smollm2")), "one ear is enough"
    assert "speak" in lacks(home, get_kept(home, "smollm2")), "a dictionary alone says nothing"
    kept.add("kokoro")
    assert "speak" not in lacks(home, get_kept(home, "smollm2"))


def test_what_is_in_the_way_is_said(home: Home, kept_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, ModuleSpec] = {"onnxruntime": ModuleSpec("onnxruntime", None)}
    monkeypatch.setattr(abilities, "find_spec", found.get)
    why = {name: lack.why for name, lack in lacks(home, get_kept(home, "smollm2")).items()}
    assert "ctranslate2, which isn't installed" in why["hear"] and why["speak"] == ""
    tiny = lacks(Home(kept_home), get_kept(Home(kept_home), "tiny"))
    assert tiny["see"].why == "tiny can't see pictures. smollm2 can learn to."
