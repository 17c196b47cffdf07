"""`ingle say` and `ingle hear`, as people type them; `ingle pull`, `list`, `rm` and `verify` of their parts."""

import json
from pathlib import Path

import pytest

from ingle.home.place import Home
from ingle.media.sound import read_sound
from tests.cli.place import ingle
from tests.homes import lent
from tests.media.conftest import speech_home  # noqa: F401


@pytest.fixture(scope="module")
def home(speech_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A home of its own with the parts of the tests' home."""
    return lent(speech_home, tmp_path_factory.mktemp("speech") / "home").root


@pytest.fixture(scope="module")
def wav(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sounds") / "river.wav"
    assert "is written" in ingle(home, "say", "The river is long and cold.", "--out", str(path)).stdout
    return path


def test_what_is_said_is_heard(home: Path, wav: Path) -> None:
    assert "river is long and cold" in ingle(home, "hear", str(wav)).stdout.lower()
    table = json.loads(ingle(home, "hear", str(wav), "--words", "--json").stdout)
    assert table["file"] == str(wav) and table["language"] == "en"
    assert [word["text"] for word in table["segments"][0]["words"]][-1] == "cold."
    srt = ingle(home, "hear", str(wav), "--format", "srt").stdout
    assert srt.startswith("1\n00:00:00,000 --> 00:00:0") and srt.lower().endswith("the river is long and cold.\n")
    assert ingle(home, "hear", str(wav), "--format", "vtt").stdout.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:0")


def test_several_files_one_of_them_bad(home: Path, wav: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF")
    done = ingle(home, "hear", str(wav), str(bad), str(tmp_path / "gone.wav"), "--format", "srt", "--out", str(tmp_path), code=2)
    assert "river" in (tmp_path / "river.wav.srt").read_text()
    assert f"{bad} was not heard" in done.stderr and "must be WAV, FLAC, Ogg" in done.stderr and "No such file" in done.stderr
    several = json.loads(ingle(home, "hear", str(wav), str(wav), "--json").stdout)
    assert len(several) == 2


def test_one_bad_file_is_an_error(home: Path, tmp_path: Path) -> None:
    silent = tmp_path / "text.wav"
    silent.write_text("no sound")
    assert "must be WAV, FLAC, Ogg" in ingle(home, "hear", str(silent), code=2).stderr
    assert "must be one of txt, srt, vtt, json" in ingle(home, "hear", str(silent), "--format", "doc", code=2).stderr


def test_say_reads_files_and_writes_formats(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    text = tmp_path / "letter.md"
    text.write_text("# Hello\n\n**One** two three.\n\n```\ncode\n```\n")
    for ending in ("wav", "mp3", "ogg", "flac"):
        path = tmp_path / f"letter.{ending}"
        table = json.loads(ingle(home, "say", str(text), "--out", str(path), "--json").stdout)
        assert table["clauses"] == 3 and table["seconds"] > 1.5
        assert abs(read_sound(path.read_bytes()).seconds - table["seconds"]) < 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["say", "Hello", "--out", "x.doc"], "--format must be one of wav, pcm, flac, opus, mp3, not doc"),
        (["say", "***", "--out", "x.wav"], "must hold something that can be spoken"),
        (["say", "Hello", "--json"], "A recording is nothing for a terminal. Add --out FILE"),
        (["say", "Hello", "--speed", "9", "--out", "x.wav"], "speed must be between 0.25 and 4.0"),
    ],
)
def test_what_can_not_be_said(home: Path, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in ingle(home, *arguments, code=2).stderr
    assert not list(tmp_path.iterdir())


def test_without_parts_the_command_is_named(tmp_path: Path, wav: Path) -> None:
    assert "Run: ingle pull hearing" in ingle(tmp_path / "home", "hear", str(wav), code=3).stderr
    assert "Run: ingle pull voice" in ingle(tmp_path / "home", "say", "Hello", "--out", str(tmp_path / "a.wav"), code=3).stderr
    assert ingle(tmp_path / "home", "say", "--voices").stdout.strip() == ""
    assert "Did you mean hearing" in ingle(tmp_path / "home", "pull", "hearin", code=5).stderr


def test_parts_are_listed_verified_and_removed(home: Path) -> None:
    assert "whisper-tiny.en was kept already" in ingle(home, "pull", "whisper-tiny.en").stdout
    rows = json.loads(ingle(home, "list", "--json").stdout)
    assert {row["name"] for row in rows if row.get("part")} >= {"whisper-tiny.en", "voice-joe", "phonemes-en"}
    assert "whisper-base" in ingle(home, "list").stdout
    assert "river" not in ingle(home, "verify", "--models").stdout
    assert "whisper-tiny.en" in ingle(home, "log").stdout, "it is a fact of the ledger"
