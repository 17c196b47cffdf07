"""Names and numbers of a text: an answer that was taken from a sentence about somebody else's is found by them."""

import re

_NAME = re.compile(r"(?<![\w'’-])(?:[A-Z][\w-]*(?:\s+[A-Z][\w-]*)*|\d[\d.,:]*)")
_START = re.compile(r"(?:^|[.!?:\n])[\s\"'“”‘’()*-]*$")
_WORD = re.compile(r"[^\W_]+")
_COMMON_WORDS = """
a an and are as at be been but by can could did do does dr for from give had has have he her here him his how i if in into is it its me
mr mrs ms my name no not of on one or our please question she since so some tell than that the their them then there these they this those
to under was we were what when where which who whom whose why will with would yes you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_REFERS = re.compile(r"\b(?:it|its|he|his|him|she|her|they|their|them|this|that|these|those|there|here)\b", re.IGNORECASE)
_BEFORE = 240  # characters before a sentence in which a name may stand that it refers to


def names_of(text: str, around: str = "") -> tuple[str, ...]:
    """Return the names and numbers of a text, each once, in order.

    One capital word that begins a sentence is a name only if it stands as one within a sentence, here or in `around`.
    """
    found = dict[str, None]()
    unsure = list[str]()
    for match in _NAME.finditer(text):
        words = match.group().split()
        starts = _START.search(text[: match.start()]) is not None
        while words and words[0].lower() in _COMMON:
            words, starts = words[1:], False
        name = " ".join(words).rstrip(".,:-")
        if name and starts and len(words) == 1 and not name[0].isdigit():
            unsure.append(name)
        elif name:
            found[name] = None
    for name in unsure:
        if name in found or _within_sentence(name, around):
            found[name] = None
    return tuple(sorted(found, key=text.find))


def twin(question: str, sentence: str, answer: str, text: str = "") -> tuple[str, str] | None:
    """Return (the sentence's name, the question's name) if the sentence is about another one than the question asks for; else None.

    Either two different words stand in the same place of both, or the question names something that the sentence does not, and the sentence
    names something that is neither in the question nor in the answer. `text`: all that was said, with the sentence in it.
    """
    theirs = [name for name in names_of(sentence, text) if not _named(name, question)]
    asked = [name for name in names_of(question, f"{sentence}\n{text}") if not _named(name, sentence)]
    if (same_place := _same_place(question, sentence, {word.lower() for name in theirs for word in name.split()})) is not None:
        return None if _refers(sentence, same_place[1], text) else same_place
    theirs = [name for name in theirs if not _in(name, answer)]
    return (theirs[0], asked[0]) if theirs and asked and not _refers(sentence, asked[0], text) else None


def _same_place(question: str, sentence: str, names: set[str]) -> tuple[str, str] | None:
    """Return a word of the sentence and one of the question with the same two words before them, neither of which is in the other text.

    Where the sentence's word is no name, the next words must be equal too: *under the lamp in* and *under the mill in*.
    """
    theirs, asked = _WORD.findall(sentence), _WORD.findall(question)
    mine, other = ([word.lower() for word in words] for words in (theirs, asked))
    places: dict[tuple[str, str], list[int]] = {}
    for at in range(2, len(other)):
        places.setdefault((other[at - 2], other[at - 1]), []).append(at)
    for at in range(2, len(mine)):
        for place in places.get((mine[at - 2], mine[at - 1]), ()):
            apart = mine[at] not in other and other[place] not in mine and not {mine[at], other[place]} & _COMMON
            follows = at + 1 < len(mine) and place + 1 < len(other) and mine[at + 1] == other[place + 1]
            if apart and (mine[at] in names or follows):
                return theirs[at], asked[place]
    return None


def _named(name: str, sentence: str) -> bool:
    """Return whether a sentence has a name: all of its words, or the last one, if that is not the end of another name there."""
    words = [word for word in _WORD.findall(name) if word.lower() not in _COMMON] or [name]
    if all(_in(word, sentence) for word in words):
        return True
    others = [one for one in names_of(sentence) if len(one.split()) > 1 and one.split()[-1].lower() == words[-1].lower()]
    return _in(words[-1], sentence) and not others


def _refers(sentence: str, name: str, text: str) -> bool:
    """Return whether a sentence may speak of a name without saying it: it has a pronoun, and the name stands shortly before it."""
    at = text.find(sentence.strip())
    return at > 0 and _REFERS.search(sentence) is not None and _in(name, text[max(0, at - _BEFORE) : at])


def _within_sentence(name: str, text: str) -> bool:
    return any(_START.search(text[: match.start()]) is None for match in re.finditer(rf"(?<![\w'’-]){re.escape(name)}(?!\w)", text))


def _in(name: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None
