"""Debian's package descriptions as items: translation into French and German, and classification into eight topics.

Licence: a description is as free as its package; a translation is the Debian translators' under the GPL or as free. The content depends
on the release that this machine's apt uses; the counts below are Debian 13's.
"""

from dataclasses import dataclass

from ingle.core.errors import PullError
from ingle.home.debian_descriptions import descriptions, stanzas
from ingle.home.fetch import FetchProgress
from ingle.home.place import Home
from ingle.measure.items import Exercise, Groups, Question, Text

ASK = "Translate into {language}:\n\n{text}"
LANGUAGES = {"fr": "French", "de": "German"}
TOPICS = ("fonts", "games", "graphics", "mail", "math", "net", "science", "sound")
"""Sections of the archive whose topic the descriptions tell."""
SHORTEST, LONGEST = 80, 400
"""Characters of an English paragraph. Shorter ones stand in hundreds of packages; longer ones are few."""


@dataclass(frozen=True, slots=True)
class Description:
    """A package's description."""

    package: str
    short: str
    paragraphs: tuple[str, ...]
    """Paragraphs, their lines joined; a list or a table keeps its line breaks."""


def parse(text: str) -> tuple[str, tuple[str, ...]]:
    """Split a description into its first line and its paragraphs."""
    short, *lines = text.split("\n")
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip() == ".":
            paragraphs.append([])
        else:
            paragraphs[-1].append(line)
    return short.strip(), tuple(joined for joined in map(_join, paragraphs) if joined)


def _join(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split()) if all(map(_is_prose, lines)) else "\n".join(lines)


def _is_prose(text: str) -> bool:
    return "\n" not in text and not text.startswith((" ", "* ", "- ", "+ ", "o "))


def read_descriptions(home: Home, language: str, progress: FetchProgress) -> dict[str, Description]:
    """Read all descriptions in a language, by the MD5 of the English one."""
    path, _ = descriptions(home, f"Translation-{language}", progress)
    by_digest: dict[str, Description] = {}
    for fields in stanzas(path):
        text = fields.get(f"Description-{language}")
        if text and "Description-md5" in fields:
            by_digest.setdefault(fields["Description-md5"], Description(fields.get("Package", ""), *parse(text)))
    if not by_digest:
        raise PullError(str(path), f"must hold descriptions in {language}", "none", "Delete it; it will be fetched again.")
    return by_digest


def translations(home: Home, progress: FetchProgress, language: str) -> list[Exercise]:
    """Paragraphs of 80 to 400 characters with their translation: 24,000 different ones into French, 12,000 into German. Baseline: a copy.

    A description and its translation are matched by MD5 and have the same number of paragraphs; lists, and paragraphs that the translators
    left in English or marked as unfinished, are left out. Packages that share a paragraph are one document. Quirks: names of packages and
    programs stay as they are, so a copy already scores about 35 chrF; a hundred people translated in twenty years, each in their way.
    """
    english, other = read_descriptions(home, "en", progress), read_descriptions(home, language, progress)
    groups, pairs = Groups(), dict[str, tuple[str, str]]()
    for digest, theirs in other.items():
        ours = english.get(digest)
        if ours is None or len(ours.paragraphs) != len(theirs.paragraphs):
            continue
        groups.add(digest, (text for text in ours.paragraphs if len(text) >= SHORTEST))
        for source, target in zip(ours.paragraphs, theirs.paragraphs, strict=True):
            done = source != target and "<trans>" not in target
            if done and SHORTEST <= len(source) <= LONGEST and _is_prose(source) and _is_prose(target):
                pairs.setdefault(source, (target, digest))
    exercises = []
    for number, (source, (target, digest)) in enumerate(pairs.items()):
        ask = ASK.replace("{language}", LANGUAGES[language]).replace("{text}", source)
        exercises.append(Exercise(f"debian-{language}/{number}", groups.of(digest), ask, target, source))
    return exercises


def topics(home: Home, progress: FetchProgress) -> list[Question]:
    """The first line and first paragraph of 5,000 packages: which of eight sections of the archive is it? A quarter are `net`.

    Packages of one source, and those that share a paragraph, are one document. Quirk: a section is where its maintainer put a package,
    so some would fit two, and libraries are elsewhere.
    """
    path, _ = descriptions(home, "Packages", progress)
    english = read_descriptions(home, "en", progress)
    groups, topic_of = Groups(), dict[str, tuple[str, str, str]]()
    for fields in stanzas(path):
        section, described = fields.get("Section", ""), english.get(fields.get("Description-md5", ""))
        if section not in TOPICS or described is None or not described.paragraphs:
            continue
        name = fields["Package"]
        source = fields.get("Source", name).partition(" ")[0]
        groups.add(name, [f"source {source}", *(text for text in described.paragraphs if len(text) >= SHORTEST)])
        first = " ".join(described.paragraphs[0].split())[:LONGEST]
        topic_of.setdefault(first, (name, f"{described.short}. {first}", section))
    return [
        Question(f"debian-topic/{name}", groups.of(name), text, TOPICS, TOPICS.index(section)) for name, text, section in topic_of.values()
    ]


def texts(home: Home, progress: FetchProgress) -> list[Text]:
    """Debian's English package descriptions: 55,000 texts, 19 MB; every paragraph stands there once, where it comes first.

    Packages that share a paragraph of 80 characters or more are one document. Licence: as free as the packages.
    """
    by_digest, groups, seen = read_descriptions(home, "en", progress), Groups(), set[str]()
    for digest, description in by_digest.items():
        groups.add(digest, (text for text in description.paragraphs if len(text) >= SHORTEST))
    items = []
    for digest, description in by_digest.items():
        new = [text for text in description.paragraphs if text not in seen]
        seen.update(new)
        if new:
            items.append(Text(f"debian/{digest}", groups.of(digest), "\n\n".join([description.short, *new])))
    return items
