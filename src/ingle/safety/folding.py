"""A text as its reader sees it, with the place of every character in the text as it was written.

Words are found in spite of their case, width and accents' spelling (NFKD, case-folded), characters that nobody sees, and the escapes of
JSON, as in the arguments of a tool call: `\\u0073ecret`.
"""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})(?:(?<=[dD][89abAB]..)\\u([dD][c-fC-F][0-9a-fA-F]{2}))?|([\"\\/bfnrt]))")
# An escape that the text's end cuts.
_OPEN = re.compile(r"\\(?:u[0-9a-fA-F]{0,3}|u[dD][89abAB][0-9a-fA-F]{2}\\?(?:u[0-9a-fA-F]{0,3})?)?\Z")
_MEANT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class FoldedText(NamedTuple):
    """A text to search in."""

    text: str
    starts: list[int]  # for each of its characters, where it begins in the original
    ends: list[int]  # and where it ends there
    whole: int  # length of the original as far as it was read: an escape that is cut at its end was not


def view(original: str, words: bool, final: bool) -> FoldedText:
    """Return what to search for words (folded, white space as one space), or for patterns (as it is meant). `final`: nothing follows."""
    if "\\" not in original and not words and original.isascii():
        return FoldedText(original, list(range(len(original))), list(range(1, len(original) + 1)), len(original))
    text: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    while at < len(original):
        character, end = original[at], at + 1
        if character == "\\":
            if not final and _OPEN.match(original, at):
                break
            if escape := _ESCAPE.match(original, at):
                character, end = _meant(escape), escape.end()
        for one in fold(character) if words else shown(character):
            if words and one == " " and text and text[-1] == " ":
                ends[-1] = end
                continue
            text.append(one)
            starts.append(at)
            ends.append(end)
        at = end
    return FoldedText("".join(text), starts, ends, at)


def folded(word: str) -> str:
    """Return a word of a policy as `view` shows it."""
    return re.sub(" +", " ", "".join(map(fold, word))).strip()


@lru_cache(1 << 16)
def fold(character: str) -> str:
    """Return a character without case, width and unseen parts; "" for one that nobody sees."""
    if character.isspace():
        return " "
    return "".join(one for one in unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold()) if shown(one))


def shown(character: str) -> str:
    """Return the character; "" for one that nobody sees: joiners, marks of direction, soft hyphens, variation selectors."""
    unseen = unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f" if len(character) == 1 else False
    return "" if unseen else character


def _meant(escape: re.Match[str]) -> str:
    high, low, letter = escape.groups()
    if letter:
        return _MEANT.get(letter, letter)
    code = int(high, 16)
    if low:
        code = 0x10000 + ((code - 0xD800) << 10) + (int(low, 16) - 0xDC00)
    return chr(code)
