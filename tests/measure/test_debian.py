"""Debian's descriptions as items: aligned paragraphs, what is left out, and which packages are one document."""

import hashlib
import json
import lzma
import textwrap
from pathlib import Path

import pytest

from ingle.core.progress import silent
from ingle.home.place import Home
from ingle.measure import data_sets
from ingle.measure.data_sets import Description, parse, topics, translations

BLURB = "Cats is a suite of small programs that sleep in the sun for most of the day, and wake at night."
BLURB_DE = "Cats ist eine Sammlung kleiner Programme, die den größten Teil des Tages in der Sonne schlafen."
LAST = "This package holds everything that one needs to build programs that are meant to sleep like a cat."
LAST_DE = "Dieses Paket enthält alles, was man braucht, um Programme zu bauen, die wie eine Katze schlafen."
DOGS = "Dogs is another suite, which barks whenever somebody comes near to the door of the house or leaves."
DOGS_DE = "Dogs ist eine andere Sammlung, die bellt, wenn jemand der Haustür nahe kommt oder sie verlässt."


def wrapped(text: str) -> str:
    return "\n".join(f" {line}" for line in textwrap.wrap(text, 40))


def stanza(package: str, md5: str, language: str, *paragraphs: str) -> str:
    body = "\n .\n".join(wrapped(p) if not p.startswith(" ") else p for p in paragraphs)
    return f"Package: {package}\nDescription-md5: {md5}\nDescription-{language}: short of {package}\n{body}\n"


ENGLISH = [
    stanza("cats", "01", "en", BLURB, "Short one."),
    stanza("cats-dev", "02", "en", BLURB, LAST),
    stanza("dogs", "03", "en", DOGS),
    stanza("odd", "04", "en", DOGS + " Odd.", LAST + " Odd."),
    stanza("same", "05", "en", DOGS + " Same."),
    stanza("list", "06", "en", "  * a list of things that is longer than eighty characters, certainly, and must not be taken"),
]
GERMAN = [
    stanza("cats", "01", "de", BLURB_DE, "Kurz."),
    stanza("cats-dev", "02", "de", BLURB_DE, LAST_DE),
    stanza("dogs", "03", "de", DOGS_DE),
    stanza("odd", "04", "de", DOGS_DE + " Merkwürdig."),
    stanza("same", "05", "de", DOGS + " Same."),
    stanza("gone", "07", "de", DOGS_DE + " Weg."),
    stanza("list", "06", "de", "  * eine Liste von Dingen, die länger als achtzig Zeichen ist, ganz gewiss, und nicht genommen"),
]
PACKAGES = [
    "Package: cats\nSource: felis (1.0)\nSection: games\nDescription-md5: 01\n",
    "Package: cats-dev\nSource: felis\nSection: sound\nDescription-md5: 02\n",
    "Package: dogs\nSection: net\nDescription-md5: 03\n",
    "Package: other\nSection: libs\nDescription-md5: 05\n",
    "Package: nobody\nSection: net\nDescription-md5: 99\n",
]


@pytest.fixture
def filled(home: Home) -> Home:
    """A home whose cache holds these lists, pinned."""
    folder, manifest = home.root / "cache" / "data" / "debian", {}
    folder.mkdir(parents=True)
    for name, parts in (("Translation-en", ENGLISH), ("Translation-de", GERMAN), ("Packages", PACKAGES)):
        data = lzma.compress("\n".join(parts).encode())
        Path(folder / f"{name}.xz").write_bytes(data)
        manifest[name] = {"file": f"{name}.xz", "url": "", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return home


def test_pairs_of_paragraphs(filled: Home) -> None:
    items = translations(filled, silent, "de")
    assert [(item.baseline, item.reference) for item in items] == [(BLURB, BLURB_DE), (LAST, LAST_DE), (DOGS, DOGS_DE)]
    assert items[0].ask == f"Translate into German:\n\n{BLURB}"
    assert items[0].group == items[1].group == "01"
    assert items[2].group == "03"


def test_topics(filled: Home) -> None:
    cats, dogs = topics(filled, silent)
    assert (cats.ask, cats.options[cats.gold]) == (f"short of cats. {BLURB}", "games")
    assert dogs.options[dogs.gold] == "net"
    assert cats.group != dogs.group


def test_a_description_in_parts() -> None:
    assert parse("short\nA line\nand another.\n.\n * one\n * two\n.\nEnd.") == ("short", ("A line and another.", " * one\n * two", "End."))
    assert parse("alone") == ("alone", ())


def test_paragraphs_of_debian_stand_there_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, long = (
        "Short and shared.",
        "A paragraph that is long enough to say that two packages belong together, whatever their names are.",
    )
    found = {
        "a": Description("one", "first", ("Its own.", long, shared)),
        "b": Description("two", "second", (long,)),
        "c": Description("three", "third", (shared, "Another.")),
        "d": Description("four", "fourth", (long, "More.")),
    }
    monkeypatch.setattr(data_sets, "read_descriptions", lambda *_: found)
    texts = data_sets.texts(home, lambda *_: None)
    assert [text.text for text in texts] == [f"first\n\nIts own.\n\n{long}\n\n{shared}", "third\n\nAnother.", "fourth\n\nMore."]
    assert texts[0].group == texts[2].group != texts[1].group
