"""Parses a question: its subject and what it asks for. By rules for English; of other languages it knows words and names only."""

import re
import unicodedata
from dataclasses import dataclass

from ingle.adapt.relations import Thesaurus, stem, thesaurus

_SIGN = r"[+*/^=<>×÷]{1,3}"
# Quotation marks, words (C++ and C# are two), and signs between operands: 3 + 4 is not 3 * 4.
_TOKEN = re.compile(rf"[\"“”„«»]|[^\W_]+(?:[-'’.,/:][^\W_]+)*(?:[+#]+(?!\w))?|(?<=\w){_SIGN}(?=\w)|(?<=\w ){_SIGN}(?= \w)")
_QUOTES = frozenset('"“”„«»')
_PLAIN = frozenset(
    re.findall(
        r"\S+",
        """
    a an the of in on at to for from by with and or is are was were be been being am do does did doing done has have had can could would
    will shall should may might must it its this that these those there i me you your we they their them he she his her him as so if then
    than but not please tell say give know remember let's say want need like get got going go about into out up any some one ones thing
    things now currently current present presently today days nowadays moment still ever just actually exactly roughly really kindly
    what which how s t re ve ll d m i'm i'd i've you're what's who's where's when's how's it's that's there's don't doesn't didn't isn't
    us ask asked asking wonder wondering question answer remind show more info information detail details
    """,
    )
)
_MINE = frozenset(["my", "our", "mine", "ours"])
_WE = frozenset(["we", "us", "i", "i'm", "i've", "i'd"])
# “How do I change a tyre?” is about anybody's tyre.
_ANYONE = re.compile(r"\b(?:how (?:do|did|might)|can|could|should|would|must|may) i\b")
_LEANING = frozenset(["it", "its", "they", "them", "their", "he", "him", "his", "she", "her", "that", "this", "those", "these", "there"])
_BEGIN_A_QUESTION = frozenset(
    [
        "who",
        "whom",
        "whose",
        "where",
        "when",
        "why",
        "can",
        "could",
        "in",
        "at",
        "for",
        "to",
        "i",
        "how",
        "what",
        "which",
        "is",
        "are",
        "was",
    ]
)
_BEGIN_YES_OR_NO = frozenset(["is", "are", "was", "were", "does", "did", "has", "have"])
# In “Name the director”, "name" is an order, not the relation NAME.
_ORDER = re.compile(r"^\s*(?:please\s+)?(?:name|say|state)\s+(?!of\b)(?=\w)", re.IGNORECASE)
_COUNTED = frozenset(["POPULATION", "STAFF"])
# Relations that ask for a person if no word says the kind of answer.
_OF_PERSONS = frozenset(["LEAD", "FOUND", "WRITE", "INVENT", "DESIGN", "COMPOSE", "OWN", "TEACH", "COACH", "WIN"])


@dataclass(frozen=True, slots=True)
class Word:
    """A word that carries meaning."""

    stem: str
    name: bool  # whether it is written as a name: in quotation marks, with a capital, with digits or as a sign
    relations: frozenset[str]  # relations that it names, alone or with its neighbours


@dataclass(frozen=True, slots=True)
class Asking:
    """A parsed question."""

    words: tuple[Word, ...]
    stems: frozenset[str]
    relations: frozenset[str]
    kinds: frozenset[str]  # kinds of answer that it asks for
    mine: bool  # whether it is about something of the asker's ("my")
    ours: bool  # whether it mentions the asker at all, so that it may be about something of theirs
    leans: bool  # whether it may refer to earlier turns: it has a pronoun and no name
    length: int  # number of words, stop words included


def tokens_of(text: str) -> list[str]:
    """Return the words in lower case, quotation marks, and signs between words."""
    return [token.lower().replace("’", "'") for token in _TOKEN.findall(unicodedata.normalize("NFC", text))]


def parse(text: str, words_of: Thesaurus | None = None) -> Asking:
    """Parse a question."""
    relations_of = words_of or thesaurus()
    marked = _marked(_ORDER.sub("", text))
    lowered = [word.lower().replace("’", "'") for word, _ in marked]
    stems = [stem(word) for word in lowered]
    named = relations_of.asked_for(["" if name else one for one, (_, name) in zip(stems, marked, strict=True)])
    every = frozenset[str]().union(*named)
    words = tuple(
        Word(one, name, relations - relations_of.kinds)
        for one, word, (_, name), relations in zip(stems, lowered, marked, named, strict=True)
        if name or (word not in _PLAIN | _MINE and not (relations and relations <= relations_of.kinds))
    )
    leans = not _LEANING.isdisjoint(lowered) and not any(word.name for word in words)
    return Asking(
        words, frozenset(word.stem for word in words), every - relations_of.kinds, _kinds(every, relations_of.kinds, lowered),
        not _MINE.isdisjoint(lowered), not (_MINE | _WE).isdisjoint(_ANYONE.sub("", " ".join(lowered)).split()), leans, len(marked),
    )  # fmt: skip


def _marked(text: str) -> list[tuple[str, bool]]:
    """Return the words, and whether each is written as a name."""
    words, quoted = list[tuple[str, bool]](), False
    for token in _TOKEN.findall(text):
        if token in _QUOTES:
            quoted = not quoted
            continue
        word = token.removesuffix("'s").removesuffix("’s")
        capital = word[0].isupper() and bool(words) and not re.match("I(['’]|$)", word)
        exact = any(character.isdigit() for character in word) or not any(character.isalnum() for character in word)
        words.append((word, quoted or capital or exact))
    if len(words) > 1 and words[1][1] and words[0][0][0].isupper() and words[0][0].lower() not in _PLAIN | _BEGIN_A_QUESTION:
        words[0] = words[0][0], True  # "Upper Quennick has …"
    return words


def _kinds(named: frozenset[str], kinds: frozenset[str], words: list[str]) -> frozenset[str]:
    """Return the kinds of answer that are asked for, as the question says them or as its relations imply."""
    if named & _COUNTED:  # "How big is Vostrel, in people?"
        return frozenset(["COUNT"])
    if len(named) > 1:  # "how" says little where something else says what
        named = named - {"WAY"}
    if not named & kinds and words and words[0] in _BEGIN_YES_OR_NO:
        return frozenset(["YES OR NO"])
    return named & kinds or frozenset(["PERSON"] if named & _OF_PERSONS else ())
