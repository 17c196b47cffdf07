"""Debian's package descriptions, and their translations, from the mirror that this machine's apt uses.

`apt-get indextargets` lists these mirrors. A release lists the SHA-256 of every file; fetched files are pinned in a manifest, so that the
data stay the same while they are in the cache. The release's signature is not checked: these are texts to measure on.

Licence: descriptions are part of their packages and as free as these; translations are the Debian translators', under the GPL or as free.
"""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingle.core.config import from_table, to_table
from ingle.core.digest import canonical_json, digest_file
from ingle.core.errors import ConfigError, HomeError, PullError
from ingle.core.files import os_errors, write_atomic
from ingle.core.progress import FetchProgress, silent
from ingle.home.fetch import Remote, fetch, make_opener, need_space
from ingle.home.place import Home

_SUFFIXES = (".xz", ".bz2", ".gz")
# The architecture whose list is read. All have the same descriptions; this one has them all.
_ARCHIVE = "binary-amd64"
_CURE = "Use Debian or Ubuntu, or copy the folder cache/data/debian from a home on such a machine."


@dataclass(frozen=True, slots=True)
class Mirror:
    """A release that apt is configured for."""

    uri: str  # ends with a slash
    release: str


@dataclass(frozen=True, slots=True)
class Pinned:
    """A fetched file."""

    file: str  # name in the cache
    url: str
    size: int
    sha256: str


def descriptions(home: Home, name: str, progress: FetchProgress = silent, mirrors: tuple[Mirror, ...] | None = None) -> tuple[Path, str]:
    """Return the path of a compressed list and its SHA-256: `Packages`, `Translation-en`, `Translation-fr`, `Translation-de`, …

    It is fetched unless the cache holds it as in the manifest. Raises PullError if there is no apt, no mirror has the file or the download
    fails; HomeError if the manifest is damaged or the disk refuses.
    """
    folder = home.root / "cache" / "data" / "debian"
    home.create()
    with home.lock("data-debian"):
        manifest = _read_manifest(folder)
        cached = manifest.get(name)
        if cached and (folder / cached.file).exists() and digest_file(folder / cached.file) == cached.sha256:
            return folder / cached.file, cached.sha256
        pinned = _fetch(folder, home.downloads, name, progress, apt_mirrors() if mirrors is None else mirrors)
        with os_errors(folder):
            write_atomic(folder / "manifest.json", canonical_json(to_table({**manifest, name: pinned})))
    return folder / pinned.file, pinned.sha256


def stanzas(path: Path) -> Iterator[dict[str, str]]:
    """Yield the stanzas of a list, by field; continuation lines are joined by line breaks. Raises PullError for another kind of file."""
    import bz2
    import gzip
    import lzma

    openers: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".bz2": bz2.open, ".gz": gzip.open}
    fields: dict[str, str] = {}
    key = ""
    try:
        with openers[path.suffix](path, "rt", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                text = line.rstrip("\n")
                if not text:
                    if fields:
                        yield fields
                    fields, key = {}, ""
                elif text.startswith((" ", "\t")):
                    fields[key] = f"{fields.get(key, '')}\n{text[1:]}"
                else:
                    key, _, value = text.partition(":")
                    fields[key] = value.strip()
    except (EOFError, OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise PullError(str(path), "must be a list of packages", error, "Delete it; it will be fetched again.") from error
    if fields:
        yield fields


def apt_mirrors() -> tuple[Mirror, ...]:
    """Return the releases with a main part that apt fetches over HTTP, in its order. Raises PullError where apt is missing."""
    command = shutil.which("apt-get")
    if command is None:
        raise PullError("Debian's descriptions", "come from the mirror that apt uses, and this machine has no apt", "", _CURE)
    output = _run(command, "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    targets = [line.split() for line in output.splitlines()]
    usable = [words for words in targets if len(words) == 3 and words[2] == "main" and words[0].startswith(("http://", "https://"))]
    return tuple(dict.fromkeys(Mirror(words[0].rstrip("/") + "/", words[1]) for words in usable))


def _fetch(folder: Path, downloads: Path, name: str, progress: FetchProgress, mirrors: tuple[Mirror, ...]) -> Pinned:
    opener = make_opener(proxy=apt_proxy())
    path = f"main/{_ARCHIVE}/{name}" if name == "Packages" else f"main/i18n/{name}"
    for mirror in mirrors:
        base = f"{mirror.uri}dists/{mirror.release}/"
        listed = _released(downloads, base, opener)
        for suffix in _SUFFIXES:
            # A release that only adds to another one (updates, security) has lists too, of a few packages.
            sha256, size = listed.get(path + suffix, ("", 0))
            if size < 1000:
                continue
            target = folder / (name + suffix)
            with os_errors(folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
            need_space(folder, size)
            fetch(Remote(name + suffix, base + path + suffix, size, sha256), target, progress, opener)
            return Pinned(target.name, base + path + suffix, size, sha256)
    tried = ", ".join(f"{mirror.uri} {mirror.release}" for mirror in mirrors) or "no mirror with a main part over HTTP"
    raise PullError(name, "must be in a release that apt is configured for", tried, _CURE)


def _released(downloads: Path, base: str, opener: urllib.request.OpenerDirector) -> dict[str, tuple[str, int]]:
    """Return SHA-256 and size of every file of a release."""
    path = downloads / "InRelease"
    for left in (path, path.with_name("InRelease.part")):  # of another mirror, or of another day
        left.unlink(missing_ok=True)
    try:
        fetch(Remote("InRelease", f"{base}InRelease"), path, opener=opener)
        text = path.read_text("utf-8")
    finally:
        path.unlink(missing_ok=True)
    rows = (line.split() for line in text.partition("\nSHA256:")[2].splitlines()[1:] if line.startswith(" "))
    return {row[2]: (row[0], int(row[1])) for row in rows if len(row) == 3 and len(row[0]) == 64}


def apt_proxy() -> str | None:
    """Return the URL of apt's proxy; None where it has none."""
    command = shutil.which("apt-config")
    line = _run(command, "shell", "PROXY", "Acquire::http::Proxy").strip() if command else ""
    value = line.partition("=")[2].strip("'\"")
    return value if value.startswith("http") else None


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if result.returncode:
        raise PullError(
            Path(command[0]).name, "must say what apt is configured for", result.stderr.strip()[-200:], "Does `apt-get update` work?"
        )
    return result.stdout


def _read_manifest(folder: Path) -> dict[str, Pinned]:
    path = folder / "manifest.json"
    if not path.exists():
        return {}
    try:
        return {name: from_table(Pinned, table) for name, table in json.loads(path.read_bytes()).items()}
    except (ValueError, TypeError, AttributeError, ConfigError) as error:
        raise HomeError(str(path), "must be the list of what was fetched", error, "Delete it; the files will be fetched again.") from error
