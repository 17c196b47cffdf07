"""Names and numbers of a text: an answer that was taken from a sentence about somebody else's is found by them."""

import re

_NAME = re.compile(r"\b[A-Z][\w'’-]+(?:\s+[A-Z][\w'’-]+)*|\b\d[\d.,]*\b")
_COMMON_WORDS = """
a an and are as at but by can could did do does for from give had has have he her his how i if in is it its name on one or please question
she since some tell that the their there these they this those to under was we were what when where which who whom whose why will with would
you your
"""
_COMMON = frozenset(_COMMON_WORDS.title().split())


def names_of(text: str) -> tuple[str, ...]:
    """Return the names and numbers of a text, each once, in order. A capital at a sentence's start makes a word a name only if it is
    no common word."""
    found = []
    for match in _NAME.finditer(text):
        words = match.group().split()
        while words and words[0] in _COMMON:
            words = words[1:]
        if words:
            found.append(" ".join(words).rstrip(".,"))
    return tuple(dict.fromkeys(found))


def twin(question: str, sentence: str, answer: str) -> tuple[str, str] | None:
    """Return (the sentence's name, the question's name) if the sentence is about another one than the question asks for; else None.

    The question names something that the sentence does not, and the sentence names something that is neither in the question nor in the
    answer.
    """
    asked = [name for name in names_of(question) if not _in(name, sentence)]
    theirs = [name for name in names_of(sentence) if not _in(name, question) and not _in(name, answer)]
    return (theirs[0], asked[0]) if asked and theirs else None


def _in(name: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None
