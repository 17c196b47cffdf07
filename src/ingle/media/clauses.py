"""A stream of text → clauses worth saying, each as soon as it is complete.

The first clause is short, so that a voice begins early; the next ones may be longer, because they are made while the ones before are heard.
What can't be read aloud is announced (code) or left out (rulers of tables, marks). Nothing is lost, however fast or slowly the text comes.
"""

import re
from collections.abc import Iterator

from ingle.media.reading import ABBREVIATIONS, spoken

_SOFT_WORDS = (2, 5, 9, 14)
"""Fewest words before a comma that ends a clause: of the first clause, the second, the third, and all others."""
_MOST_WORDS = (9, 16, 26, 40)
"""Words after which a clause ends wherever it is."""
_MOST_LETTERS = 600
_CODE = "Here is some code."
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})", re.M)
_HARD = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?=\s)|\n[ \t]*\n|\n(?=[ \t]*[^\sa-z])|[:;](?=\s)")
_SOFT = re.compile(r",(?=\s)|\s[–—-](?=\s)|\)(?=\s)|—(?=\w)")
_INITIAL = re.compile(r"(?:^|[\s(\"“])(?:[A-Za-z]\.)+$|(?:^|\n)\s*\d+[.)]$")


def clauses(pieces: Iterator[str]) -> Iterator[str]:
    """Yield the words of each clause of a text that comes in pieces."""
    cutter = Cutter()
    for piece in pieces:
        yield from cutter.take(piece)
    yield from cutter.finish()


class Cutter:
    """Holds what has come and was not said yet."""

    def __init__(self) -> None:
        """Begins a text."""
        self._held, self._said, self._fence = "", 0, ""

    def take(self, piece: str) -> Iterator[str]:
        """Yield the clauses that are complete with this piece."""
        self._held += piece
        yield from self._cut(final=False)

    def finish(self) -> Iterator[str]:
        """Yield the rest."""
        self._held += "\n"
        yield from self._cut(final=True)

    def _cut(self, final: bool) -> Iterator[str]:
        while True:
            text = self._next(final)
            if text is None:
                return
            if re.search(r"\w", said := spoken(text)):
                self._said += 1
                yield said

    def _next(self, final: bool) -> str | None:
        """Take the next clause off what is held; None if there is none yet, "" if something was left out."""
        if self._fence:
            return self._inside_fence(final)
        held = self._held.lstrip("\n") if self._held[:1] == "\n" else self._held
        self._held = held
        if not held.strip() and not final:
            return None
        fence = _FENCE.search(held)
        if fence is not None and not held[: fence.start()].strip():
            if "\n" not in held[fence.end() :] and not final:
                return None
            self._fence = fence[1]
            self._held = held[fence.end() :].partition("\n")[2]
            return _CODE
        if re.match(r"^ {0,3}(?:`{1,2}|~{1,2})$", held) and not final:
            return None  # perhaps the beginning of code
        if held.lstrip(" ").startswith("|"):
            return self._row(final)
        end = self._end(held if fence is None else held[: fence.start()], final or fence is not None)
        if end is None:
            if not final:
                return None
            end = len(held)
        self._held = held[end:]
        return held[:end] if held[:end] or not final else None

    def _inside_fence(self, final: bool) -> str | None:
        found = re.search(rf"^ {{0,3}}{re.escape(self._fence)}+[ \t]*(?:\n|$)", self._held, re.M)
        if found is None or (not self._held[found.start() :].endswith("\n") and "\n" not in self._held[found.start() :] and not final):
            if final:
                self._held, self._fence = "", ""
                return None
            self._held = self._held[self._held.rfind("\n") + 1 :]  # only an unfinished line may still be the fence
            return None
        self._held, self._fence = self._held[found.end() :], ""
        return ""

    def _row(self, final: bool) -> str | None:
        """Take a row of a table: its cells, separated by commas."""
        row, line, rest = self._held.partition("\n")
        if not line and not final:
            return None
        self._held = rest
        cells = [cell.strip() for cell in row.strip().strip("|").split("|")]
        if all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            return ""
        return ", ".join(cell for cell in cells if cell) + "."

    def _end(self, held: str, final: bool) -> int | None:
        """Return where the next clause ends."""
        step = min(self._said, len(_SOFT_WORDS) - 1)
        hard = next((found.end() for found in _HARD.finditer(held) if _ends(held, found)), None)
        for found in _SOFT.finditer(held, 0, hard or len(held)):
            words = len(held[: found.start()].split())
            if words >= _SOFT_WORDS[step] and len(held[found.end() : hard].split()) > 1:
                return found.end()
        words_at = [found.end() for found in re.finditer(r"\S+(?=\s)", held[: hard or len(held)])]
        if len(words_at) > _MOST_WORDS[step] and (hard is None or len(held[words_at[_MOST_WORDS[step] - 1] : hard].split()) > 2):
            return _before_joint(held, words_at, _MOST_WORDS[step])
        if (hard or len(held)) > _MOST_LETTERS:
            return max((end for end in words_at if end <= _MOST_LETTERS), default=_MOST_LETTERS)
        return len(held) if hard is None and final else hard


def _ends(held: str, found: re.Match[str]) -> bool:
    """Return whether a full stop ends a sentence: not after an abbreviation, an initial or the number of a list's item."""
    if found[0][:1] != "." or found[0].startswith(".."):
        return True
    before = held[: found.start() + 1]
    word = before.rsplit(None, 1)[-1].lstrip("(\"“'*_") if before.strip() else ""
    if _INITIAL.search(before):
        following = held[found.end() :].lstrip()[:1]
        return bool(re.search(r"(?:[A-Za-z]\.){2,}$", before)) and following.isupper()
    if word in ABBREVIATIONS and word not in ("etc.", "Inc.", "Ltd.", "Corp.", "Co.", "Jr.", "Sr.", "a.m.", "p.m.", "no.", "p."):
        return False
    following = held[found.end() :].lstrip()[:1]
    return word not in ABBREVIATIONS or not following.islower()


def _before_joint(held: str, words_at: list[int], most: int) -> int:
    """Return the end of a clause that has no punctuation: before a word that joins clauses, if there is one in its second half."""
    joints = [
        found.start()
        for found in re.finditer(r"\s(?:and|or|but|because|which|that|who|when|while|where|if|so|to|with|for|in|on|of|from|by)\s", held)
        if words_at[most // 2] <= found.start() <= words_at[most - 1]
    ]
    return joints[-1] if joints else words_at[most - 1]
