"""Pictures with names: the emoji of five artists, and the clip art of Debian, from pinned packages in the home's cache.

| artist | package | drawings' licence | concepts |
|---|---|---|---|
| twemoji | npm emoji-datasource-twitter | CC-BY-4.0 (Twitter and others) | 64×64, flat |
| noto | npm emoji-datasource-google | Apache-2.0 (Google) | 64×64, shaded |
| fluent | npm @lobehub/fluent-emoji-3d | MIT (Microsoft) | 256×256, three-dimensional |
| openclipart | Debian openclipart-png | public domain | any size, by hundreds of people |
| apple, facebook | npm emoji-datasource-apple, -facebook | their owners' | 64×64, held out: for figures alone |

Nothing that ships was trained on the held-out artists. Names and tags are Unicode's, from npm emojibase-data (MIT); clip art has only the
names of its file and folders.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ingle.core.errors import NotKept, PullError
from ingle.core.progress import FetchProgress, silent
from ingle.home.archives import archive_file, members
from ingle.home.catalogue import Archive
from ingle.home.place import Home


def _datasource(artist: str, size: int, sha256: str) -> Archive:
    package = f"emoji-datasource-{artist}"
    return Archive(package, "16.0.0", f"{package}-16.0.0.tgz", size, sha256)


_ARCHIVES = {
    "twemoji": _datasource("twitter", 61683754, "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877"),
    "noto": _datasource("google", 74344091, "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"),
    "fluent": Archive(
        "@lobehub/fluent-emoji-3d", "1.1.0",
        "lobehub-fluent-emoji-3d-1.1.0.tgz", 15792027, "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    ),
    "openclipart": Archive(
        "openclipart-png", "1:0.18+dfsg-19",
        "openclipart-png_0.18+dfsg-19_all.deb", 130910028, "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
    ),
    "apple": _datasource("apple", 99291668, "b34d1665e136f163b0d4433318df151895b785186e8c729b2211b43017945075"),
    "facebook": _datasource("facebook", 102958917, "017038cf5a4e7fcf03dd9133cbed43d4c281c4b3ce7b927c7160261b92b8821e"),
}  # fmt: skip
_NAMES = Archive(
    "emojibase-data", "17.0.0",
    "emojibase-data-17.0.0.tgz", 6711091, "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
)  # fmt: skip
_ENTRIES, _GROUPS = "package/en/data.json", "package/meta/groups.json"
FREE = ("twemoji", "noto", "fluent", "openclipart")  # artists whose drawings anyone may learn from and pass on what was learnt
HELD_OUT = ("apple", "facebook")  # artists for figures and local tests alone
_EMOJI_FOLDER = re.compile(r"package/(?:img/\w+/64|assets)")
_CLIPART_ROOT = "usr/share/openclipart/png/"


@dataclass(frozen=True, slots=True)
class Illustration:
    """One picture by one artist, with its words."""

    artist: str
    concept: str  # the thing that is drawn, the same for all artists: code points as `1F34E` or `1F468-200D-1F373`; for clip art its path
    name: str  # for example `red apple`
    tags: tuple[str, ...]  # other words for it
    category: str  # for example `food-drink`; for clip art its first folder
    subcategory: str  # for example `food-fruit`; for clip art its second folder, or empty
    # The file: PNG, or WebP by fluent. It may have a transparent ground.
    data: bytes


def illustrations(home: Home, artist: str, progress: FetchProgress = silent) -> tuple[Illustration, ...]:
    """Return an artist's drawings, in the order of their concepts; each concept once, without its variants of skin colour.

    Raises NotKept for an unknown artist, and the errors of fetching.
    """
    if artist not in _ARCHIVES:
        raise NotKept(f"artist {artist}", "is not known", "", f"Known: {', '.join(_ARCHIVES)}.")
    archive = _ARCHIVES[artist]
    files = members(archive_file(home, archive, progress))
    found = _clipart(files) if artist == "openclipart" else _emoji(artist, files, _words(home, progress))
    first = {one.concept: one for one in sorted(found, key=lambda one: one.data, reverse=True)}
    return tuple(first[concept] for concept in sorted(first))


def _emoji(artist: str, files: Iterator[tuple[str, bytes]], words: Mapping[str, Mapping[str, Any]]) -> Iterator[Illustration]:
    for name, data in files:
        path = PurePosixPath(name)
        concept = _concept(path.stem)
        if not _EMOJI_FOLDER.fullmatch(str(path.parent)) or concept not in words:
            continue
        entry = words[concept]
        yield Illustration(artist, concept, entry["label"], tuple(entry["tags"]), entry["category"], entry["subcategory"], data)


def _clipart(files: Iterator[tuple[str, bytes]]) -> Iterator[Illustration]:
    for name, data in files:
        path = PurePosixPath(name.removeprefix(_CLIPART_ROOT))
        folders = path.parts[:-1]
        if path.suffix != ".png" or not folders or not name.startswith(_CLIPART_ROOT):
            continue
        words = " ".join(re.sub(r"[\d_\W]+", " ", path.stem).split())
        tags = tuple(folder.replace("_", " ") for folder in folders)
        yield Illustration("openclipart", str(path), words or tags[-1], tags, folders[0], "/".join(folders[1:2]), data)


def _concept(code: str) -> str:
    """Return code points in one spelling: capitals, four digits at least, without the selector that asks for a picture."""
    return "-".join(part.zfill(4) for part in code.upper().split("-") if part != "FE0F")


def _words(home: Home, progress: FetchProgress) -> dict[str, dict[str, Any]]:
    """Return label, tags, category and subcategory by concept."""
    tables: dict[str, Any] = {}
    for name, data in members(archive_file(home, _NAMES, progress)):
        if name in (_ENTRIES, _GROUPS):
            tables[name] = json.loads(data)
    if len(tables) < 2:
        raise PullError(_NAMES.wheel, "must hold the names of emoji", "neither", "Delete it; it will be fetched again.")
    groups = tables[_GROUPS]
    return {
        _concept(entry["hexcode"]): {
            "label": entry["label"],
            "tags": entry.get("tags", ()),
            "category": groups["groups"][str(entry["group"])],
            "subcategory": groups["subgroups"][str(entry["subgroup"])],
        }
        for entry in tables[_ENTRIES]
        if "group" in entry
    }
