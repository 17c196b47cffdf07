"""Debian's descriptions: from the mirror that apt names, checked against its release, pinned from then on."""

import bz2
import hashlib
import lzma
from pathlib import Path

import pytest
from site_servers import Site

from ingle.core.errors import HomeError, PullError
from ingle.home import debian_descriptions
from ingle.home.debian_descriptions import Mirror, apt_mirrors, descriptions, stanzas
from ingle.home.fetch import WrongBytes
from ingle.home.place import Home

ENGLISH = """Package: cat
Description-md5: aaaa
Description-en: animal that sleeps
 A cat sleeps.
 .
 It also eats: fish
  - and mice

Package: dog
Description-md5: bbbb
Description-en: animal that barks
""" + "\n".join(f"\nPackage: p{i}\nDescription-md5: {i:032x}\nDescription-en: thing {i * i}\n" for i in range(300))


def put(site: Site, release: str, files: dict[str, bytes]) -> Mirror:
    """A release with these files, as a mirror has it."""
    listed = "\n".join(f" {hashlib.sha256(data).hexdigest()} {len(data)} {path}" for path, data in files.items())
    site.paths[f"/debian/dists/{release}/InRelease"] = f"Suite: {release}\nMD5Sum:\n {'0' * 32} 5 main/x\nSHA256:\n{listed}\n".encode()
    for path, data in files.items():
        site.paths[f"/debian/dists/{release}/{path}"] = data
    return Mirror(f"{site.address}/debian/", release)


@pytest.fixture
def mirror(site: Site) -> Mirror:
    return put(site, "stable", {"main/i18n/Translation-en.xz": lzma.compress(ENGLISH.encode())})


def test_it_is_fetched_once_and_read(home: Home, site: Site, mirror: Mirror) -> None:
    path, sha256 = descriptions(home, "Translation-en", mirrors=(mirror,))
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    first, second, *rest = stanzas(path)
    assert first["Description-en"] == "animal that sleeps\nA cat sleeps.\n.\nIt also eats: fish\n - and mice"
    assert second == {"Package": "dog", "Description-md5": "bbbb", "Description-en": "animal that barks"}
    assert len(rest) == 300
    site.requests.clear()
    assert descriptions(home, "Translation-en", mirrors=(mirror,)) == (path, sha256)
    assert site.requests == []
    assert list(home.downloads.iterdir()) == []


def test_the_rest_of_another_release_is_not_gone_on_with(home: Home, mirror: Mirror) -> None:
    home.create()
    (home.downloads / "InRelease.part").write_bytes(b"x" * 100)  # of another day: what follows begins in the midst of a digest
    assert descriptions(home, "Translation-en", mirrors=(mirror,))[0].exists()


def test_what_was_altered_or_lost_comes_again(home: Home, mirror: Mirror) -> None:
    path, sha256 = descriptions(home, "Translation-en", mirrors=(mirror,))
    path.write_bytes(b"something else")
    assert descriptions(home, "Translation-en", mirrors=(mirror,)) == (path, sha256)
    path.unlink()
    assert descriptions(home, "Translation-en", mirrors=(mirror,))[1] == sha256


def test_the_first_release_that_has_it(home: Home, site: Site, mirror: Mirror) -> None:
    small = put(
        site, "updates", {"main/i18n/Translation-en.bz2": bz2.compress(b"Package: x\n"), "main/i18n/Translation-fr.bz2": b"x" * 2000}
    )
    other = put(site, "other", {"main/i18n/Translation-de.bz2": bz2.compress(ENGLISH.encode())})
    mirrors = (small, mirror, other)
    assert descriptions(home, "Translation-en", mirrors=mirrors)[0].suffix == ".xz"
    assert descriptions(home, "Translation-de", mirrors=mirrors)[0].suffix == ".bz2"
    path, _ = descriptions(home, "Translation-fr", mirrors=mirrors)
    with pytest.raises(PullError, match="must be a list of packages"):
        list(stanzas(path))
    with pytest.raises(PullError, match="stable"):
        descriptions(home, "Translation-eo", mirrors=mirrors)
    with pytest.raises(PullError, match="no mirror"):
        descriptions(home, "Translation-eo", mirrors=())


def test_a_mirror_that_sends_something_else_is_refused(home: Home, site: Site, mirror: Mirror) -> None:
    path = "/debian/dists/stable/main/i18n/Translation-en.xz"
    data = site.paths[path]
    site.paths[path] = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(WrongBytes):
        descriptions(home, "Translation-en", mirrors=(mirror,))
    site.paths[path] = data
    descriptions(home, "Translation-en", mirrors=(mirror,))


def test_a_damaged_manifest_is_said(home: Home, mirror: Mirror) -> None:
    path, _ = descriptions(home, "Translation-en", mirrors=(mirror,))
    (path.parent / "manifest.json").write_text('{"Translation-en": 3}')
    with pytest.raises(HomeError, match="Delete it"):
        descriptions(home, "Translation-en", mirrors=(mirror,))


def program(folder: Path, name: str, words: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{words}\n")
    (folder / name).chmod(0o755)


def test_apt_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("http://one.example/debian/ stable main", "file:/srv/x/ ./ $(COMPONENT)", "https://two.example stable contrib")
    lines += ("http://one.example/debian/ stable main", "cdrom://[x]/ stable main", "https://two.example/d stable-updates main")
    program(tmp_path / "bin", "apt-get", "\n".join(f"echo '{line}'" for line in lines))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert apt_mirrors() == (Mirror("http://one.example/debian/", "stable"), Mirror("https://two.example/d/", "stable-updates"))
    program(tmp_path / "bin", "apt-config", "echo \"PROXY='http://proxy.example:3142'\"")
    assert debian_descriptions.apt_proxy() == "http://proxy.example:3142"
    program(tmp_path / "bin", "apt-config", "echo \"PROXY='DIRECT'\"")
    assert debian_descriptions.apt_proxy() is None
    program(tmp_path / "bin", "apt-get", "echo broken >&2; exit 100")
    with pytest.raises(PullError, match="broken"):
        apt_mirrors()


def test_without_apt_it_says_so(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PullError, match="this machine has no apt"):
        descriptions(home, "Translation-en")
