"""Pictures with words to learn to see from: a folder of one's own, or the drawings of free artists."""

import csv
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import ConfigError
from ingle.core.files import os_errors
from ingle.home.fetch import FetchProgress
from ingle.home.pictures import FREE, Illustration, illustrations
from ingle.home.place import Home

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
_CLIPART = (
    "animals", "buildings", "containers", "education", "electronics", "food", "office", "people", "plants", "recreation", "science",
    "tools", "transportation",
)  # fmt: skip
"""Folders of clip art whose pictures show things; the others are icons, patterns and playing cards by the hundred."""
_SMALL = frozenset(
    ["a", "an", "and", "as", "at", "by", "for", "from", "in", "into", "is", "it", "its", "of", "on", "or", "the", "to", "with"]
)
_KINDS = (
    ("animal, cat-face, monkey-face", "an animal"), ("plant", "a plant"), ("food, drink", "food or drink"),
    ("transport-sign", "a sign"), ("transport", "a vehicle"), ("place, hotel, building", "a place or a building"),
    ("sky", "something of the sky"), ("time", "a clock"), ("sport, award", "something for sport"), ("game", "a game"),
    ("event, arts, recreation", "something for a feast"), ("clothing", "something to wear"), ("musical", "a musical instrument"),
    ("music, sound", "something of music"), ("phone, computer, light, electronics", "an electric device"),
    ("book, writing, office, mail, education", "something for the office"), ("money", "money"), ("lock", "a lock or a key"),
    ("tool", "a tool"), ("science, medical", "something of science"),
    ("household, dishware, furniture, container", "something for the house"),
    ("face, emotion, heart", "a face or a feeling"), ("hand, body", "a part of the body"), ("person, people, family", "a person"),
    ("other-object", "an object"),
)  # fmt: skip
"""Beginnings of a subcategory's name, and what such a thing is called in an answer; the first that fits."""


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture to learn from, with its words."""

    data: bytes
    """The file."""
    name: str
    """Its name, or its caption."""
    tags: tuple[str, ...] = ()
    """Words that go with it."""
    kind: str = ""
    """The sort of thing that it is, as words of an answer: `an animal`; empty = unknown."""
    group: str = ""
    """Pictures of one group are alike in manner (one artist's): what is learnt from one group is tried on another."""
    family: str = ""
    """Pictures of one family show things of one sort."""


def words_of(text: str) -> tuple[str, ...]:
    """Return the words that say something, in small letters, each once."""
    return tuple(dict.fromkeys(word for word in re.findall(r"[^\W\d_]+", text.lower()) if word not in _SMALL and len(word) > 1))


def kind_of(*folders: str) -> str:
    """Return the sort of thing that subcategories or folders stand for, the innermost that says it; `a symbol` if none does."""
    for folder in reversed(folders):
        for beginnings, kind in _KINDS:
            if folder.startswith(tuple(beginnings.split(", "))):
                return kind
    return "a symbol"


def digest_of(pictures: Sequence[ShownPicture]) -> str:
    """Digest of all that is learnt from."""
    rows = [[digest_bytes(one.data), one.name, list(one.tags), one.kind, one.group, one.family] for one in pictures]
    return digest_json(rows)


def drawn_by(home: Home, artists: Collection[str], progress: FetchProgress) -> list[ShownPicture]:
    """Return the drawings of these artists that have words. Raises the errors of fetching."""
    found: list[ShownPicture] = []
    drawings = {artist: illustrations(home, artist, progress) for artist in artists}
    known = {
        word for artist, some in drawings.items() if artist != "openclipart" for one in some for word in (*words_of(one.name), *one.tags)
    }
    for artist, some in drawings.items():
        for one in some:
            shown = _clipart(one, known) if artist == "openclipart" else _emoji(one)
            if shown is not None:
                found.append(shown)
    return found


def _emoji(one: Illustration) -> ShownPicture | None:
    if one.category in ("flags", "component"):
        return None  # nobody can tell 270 flags at 64 pixels, and a patch of skin is nothing
    tags = tuple(tag for tag in dict.fromkeys(one.tags) if re.fullmatch(r"[a-z]{2,}", tag))
    return ShownPicture(one.data, one.name, tags, kind_of(one.subcategory), one.artist, one.subcategory)


def _clipart(one: Illustration, known: Collection[str]) -> ShownPicture | None:
    """File names end with their author's name: only words that emoji know, too, are taken for words."""
    if one.category not in _CLIPART or "cards" in one.tags:
        return None
    name = [word for word in words_of(one.name) if word in known]
    tags = [word for tag in one.tags for word in words_of(tag)]
    if not name:
        return None
    return ShownPicture(
        one.data, " ".join(name), tuple(dict.fromkeys((*name, *tags))), kind_of(one.category, *one.tags[1:]), one.artist, one.category
    )


def free_drawings(home: Home, progress: FetchProgress) -> list[ShownPicture]:
    """Return the drawings that anyone may learn from."""
    return drawn_by(home, FREE, progress)


def from_folder(folder: Path) -> list[ShownPicture]:
    """Return a folder's pictures with their captions: from captions.csv or .jsonl (`file`, `caption`), or from a .txt beside each picture.

    Raises ConfigError for a folder without such, for captions without a picture, and for fewer than eight pictures.
    """
    if not folder.is_dir():
        raise ConfigError("--from", "must be a folder of pictures with captions", str(folder))
    with os_errors(folder):
        files = {path.name: path for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDINGS}
        tables = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".csv", ".jsonl")]
        captions = dict[str, str]()
        for table in tables:
            captions |= dict(_rows(table, files))
        for name, path in files.items():
            beside = path.with_suffix(".txt")
            if name not in captions and beside.is_file():
                captions[name] = " ".join(beside.read_text("utf-8", "replace").split())
        shown = [
            ShownPicture(files[name].read_bytes(), text, words_of(text), group=str(i % 4))
            for i, (name, text) in enumerate(captions.items())
            if text
        ]
    if len(shown) < 8:
        cure = "Put a table captions.csv (file,caption), captions.jsonl, or a .txt with the same name beside each picture."
        raise ConfigError("--from", "must hold at least eight pictures with captions", len(shown), cure)
    return shown


def _rows(table: Path, files: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    text = table.read_text("utf-8", "replace")
    try:
        rows = (
            list(csv.DictReader(text.splitlines()))
            if table.suffix.lower() == ".csv"
            else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
    except ValueError as error:
        raise ConfigError(str(table), "must hold a JSON object a line", error) from error
    for number, row in enumerate(rows, 1):
        where = f"{table.name}, row {number}"
        if not isinstance(row, dict) or not isinstance(row.get("file"), str) or not isinstance(row.get("caption"), str):
            raise ConfigError(where, "must have file and caption", str(row)[:80])
        if row["file"] not in files:
            raise ConfigError(where, "must name a picture of this folder", row["file"])
        yield row["file"], " ".join(row["caption"].split())
