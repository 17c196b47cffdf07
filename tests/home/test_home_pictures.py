"""Pictures with names out of pinned archives: npm's tarballs and Debian's packages, read in memory."""

import io
import json
import lzma
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from ingle.core.digest import digest_bytes
from ingle.core.errors import NotKept, PullError
from ingle.home import archives, pictures
from ingle.home.archives import archive_file, members
from ingle.home.catalogue import Archive
from ingle.home.pictures import FREE, HELD_OUT, illustrations
from ingle.home.place import Home

GROUPS = {"groups": {"4": "food-drink"}, "subgroups": {"30": "food-fruit"}}
APPLE = {"hexcode": "1F34E", "label": "red apple", "tags": ["fruit", "red"], "group": 4, "subgroup": 30}
NUMBER = {"hexcode": "0023-FE0F-20E3", "label": "keycap: #", "group": 4, "subgroup": 30}
LETTER = {"hexcode": "1F1E6", "label": "regional indicator A"}


def tar(files: dict[str, bytes], mode: Literal["w", "w:gz"]) -> bytes:
    """A tar archive of these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("package/img/twitter/64/1f34f.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return out.getvalue()


def debian(files: dict[str, bytes]) -> bytes:
    """A Debian package of these files."""
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": lzma.compress(tar(files, "w"))}
    out = archives._AR_MAGIC
    for name, data in parts.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return out


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home that already holds small archives of the known names."""
    home = Home(tmp_path)
    twemoji = {"package/img/twitter/64/1f34e.png": b"apple", "package/img/twitter/64/0023-fe0f-20e3.png": b"number",
               "package/img/twitter/64/1f1e6.png": b"no name", "package/img/twitter/sheets/64.png": b"sheet"}  # fmt: skip
    fluent = {"package/assets/1f34e.webp": b"one", "package/assets/1f34e-fe0f.webp": b"another", "package/README.md": b"x"}
    names = {"package/en/data.json": json.dumps([APPLE, NUMBER, LETTER]).encode(), "package/meta/groups.json": json.dumps(GROUPS).encode()}
    clipart = {"./usr/share/openclipart/png/food/fruit/red_apple_01.png": b"clip", "./usr/share/doc/x/copyright": b"free"}
    made = {"twemoji": tar(twemoji, "w:gz"), "fluent": tar(fluent, "w:gz"), "names": tar(names, "w:gz"), "openclipart": debian(clipart)}
    folder = tmp_path / "cache" / "data" / "archives"
    folder.mkdir(parents=True)
    entries = {}
    for name, data in made.items():
        known = pictures._ARCHIVES.get(name, pictures._NAMES)
        entries[name] = replace(known, wheel_size=len(data), wheel_sha256=digest_bytes(data))
        (folder / known.wheel).write_bytes(data)
    monkeypatch.setattr(pictures, "_NAMES", entries.pop("names"))
    monkeypatch.setattr(pictures, "_ARCHIVES", entries)
    return home


def test_emoji_have_unicodes_words_and_variants_in_spelling_are_one(known: Home) -> None:
    number, apple = illustrations(known, "twemoji")
    assert (apple.artist, apple.concept, apple.name, apple.tags) == ("twemoji", "1F34E", "red apple", ("fruit", "red"))
    assert (apple.category, apple.subcategory, apple.data) == ("food-drink", "food-fruit", b"apple")
    assert (number.concept, number.tags) == ("0023-20E3", ())
    [one] = illustrations(known, "fluent")
    assert one.concept == "1F34E"
    assert one.data == b"another"


def test_clip_art_has_the_words_of_its_place(known: Home) -> None:
    [picture] = illustrations(known, "openclipart")
    assert (picture.name, picture.tags, picture.category, picture.subcategory) == ("red apple", ("food", "fruit"), "food", "fruit")
    assert picture.concept == "food/fruit/red_apple_01.png"


def test_unknown_artists_and_damaged_archives_are_refused(known: Home, tmp_path: Path) -> None:
    with pytest.raises(NotKept, match="artist van gogh is not known"):
        illustrations(known, "van gogh")
    bad = tmp_path / "bad.deb"
    for data in (b"", archives._AR_MAGIC, debian({"a": b"b"})[:240], b"x" * 99):
        bad.write_bytes(data)
        with pytest.raises(PullError, match="must be a whole archive"):
            list(members(bad))
    bad = tmp_path / "bad.tgz"
    bad.write_bytes(tar({"a": bytes(range(256))}, "w:gz")[:100])
    with pytest.raises(PullError, match="must be a whole archive"):
        list(members(bad))


def test_an_archive_is_fetched_from_the_place_that_apt_names_and_must_be_the_known_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "there.deb"
    source.write_bytes(debian({"a": b"b"}))
    archive = Archive("some", "1.0.0", "some.deb", source.stat().st_size, digest_bytes(source.read_bytes()))
    monkeypatch.setattr(archives, "_debian_place", lambda _archive: source.as_uri())
    monkeypatch.setattr(archives, "apt_proxy", lambda: None)
    path = archive_file(Home(tmp_path / "home"), archive)
    assert path.read_bytes() == source.read_bytes()
    path.write_bytes(b"changed")
    assert archive_file(Home(tmp_path / "home"), archive).read_bytes() == source.read_bytes()
    with pytest.raises(PullError, match="must have SHA-256"):
        archive_file(Home(tmp_path / "home"), replace(archive, wheel_sha256="0" * 64))


@pytest.mark.parametrize(("name", "cure"), [("some.tgz", "comes by npm, which is not installed"), ("some.deb", "is found by apt")])
def test_without_npm_or_apt_the_cure_is_told(name: str, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PullError, match=cure) as told:
        archive_file(Home(tmp_path / "home"), Archive("some", "1.0.0", name, 1, "0" * 64))
    assert f"put {name} into" in str(told.value)


def test_nobody_is_both_free_and_held_out() -> None:
    assert set(pictures._ARCHIVES) == {*FREE, *HELD_OUT}
    assert not set(FREE) & set(HELD_OUT)
