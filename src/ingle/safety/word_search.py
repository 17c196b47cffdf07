"""Words and regular expressions that are searched in linear time, in a text that is still growing.

A pattern becomes a nondeterministic automaton; the sets of its states that really come up are remembered, so that most characters cost one
look into a table (a lazy DFA, as in RE2: R. Cox, "Regular Expression Matching in the Wild", 2010). There is no going back in it, so no
pattern can take for ever; what a DFA can't do (look-around, back references) is refused.

Unlike Python's `re`, the longest match counts, not the first alternative: so an answer's end doesn't depend on how it was cut into pieces.
"""

import importlib
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ingle.core.errors import ConfigError
from ingle.safety.holding import Look, Passage, Undecided

Test = str | Callable[[str], bool]  # one character, or a question about it
_PARSER: Any = importlib.import_module("re._parser")
# Of a pattern. Each character of a text may ask all of them.
_MOST_STATES = 2000
_MOST_REMEMBERED = 100_000  # steps in the table, before it is emptied
_DEAD = -1
_CUTS = "Look-around and back references need a search that may take for ever. Write it without them."
# Scripts that set no spaces between words (Thai, Lao, Burmese, Khmer, Chinese, Japanese), or write endings onto them (Korean).
_NO_SPACES = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x10FFFF))


class Walk(NamedTuple):
    """The longest match that begins at one place."""

    end: int  # its end; -1 = there is none
    open: bool  # whether more text could still make another end of it


class Automaton:
    """Something to find. It remembers steps, and nothing of texts."""

    def __init__(self) -> None:
        self._edges: list[list[tuple[Test, int]]] = [[]]
        self._free: list[list[tuple[str, int]]] = [[]]
        self._final: set[int] = set()
        self._conditions = False
        self._most = _MOST_STATES
        self._sets: list[frozenset[int]] = [frozenset((0,))]
        self._numbers: dict[frozenset[int], int] = {self._sets[0]: 0}
        self._steps: dict[tuple[int, int, str], tuple[bool, int]] = {}

    @staticmethod
    def of_pattern(source: str) -> "Automaton":
        """Return the automaton of a regular expression. Raises ConfigError for one that is wrong, too large, or matches nothing at all."""
        made = Automaton()
        try:
            parsed = _PARSER.parse(source)
            if parsed.getwidth()[0] == 0:
                raise ConfigError("patterns", "must not match a text of no characters", repr(source[:80]))
            made._final.add(made._add(parsed, 0, parsed.state.flags))
        except re.error as error:
            raise ConfigError("patterns", "must be regular expressions", source[:80], f"This one fails: {error}.") from None
        except (RecursionError, OverflowError):
            raise ConfigError("patterns", "must not be nested so deep", source[:40]) from None
        return made

    @staticmethod
    def of_words(words: Iterable[str]) -> "Automaton":
        """Return the automaton of words as `folding.folded` gives them. They match whole; one that ends in `*` may go on."""
        made = Automaton()
        made._most = 1 << 30
        bound, loose = made._new(), made._new()
        made._free[0] = [("b", bound), ("", loose)]
        made._conditions = True
        tree: dict[tuple[int, str], int] = {}
        for word in words:
            goes_on = word.endswith("*") and len(word) > 1
            word = word.removesuffix("*") if goes_on else word
            at = bound if _spaced(word[0]) else loose
            for character in word:
                if (at, character) not in tree:
                    tree[at, character] = made._new()
                    made._edges[at].append((character, tree[at, character]))
                at = tree[at, character]
            if goes_on:
                made._final.add(at)
                made._edges[at].append((_spaced, at))
            elif not _spaced(word[-1]):
                made._final.add(at)
            else:
                end = made._new()
                made._free[at].append(("b", end))
                made._final.add(end)
        return made

    def walk(self, text: str, start: int, most: int, before: str, final: bool) -> Walk:
        """Return the longest match from `start` that ends at `most` or earlier. `before`: the character before the text, if any.

        `final`: nothing comes after the text.
        """
        at, state, end, size = start, 0, -1, len(text)
        last = _kind(text[at - 1] if at else before)
        while True:
            if at == size and not final:
                if self._conditions and at < most:
                    return Walk(end, True)
                accepts = bool(self._closed(state, last, "") & self._final) and not self._conditions
                return Walk(at if accepts else end, at < most and self._goes_on(state, last))
            character = text[at] if at < size else ""
            step = self._steps.get((state, last, character))
            if step is None:
                step = self._step(state, last, character)
            if step[0]:
                end = at
            if at == most or step[1] == _DEAD:
                return Walk(end, False)
            state, last, at = step[1], _kind(character), at + 1

    def _step(self, state: int, last: int, character: str) -> tuple[bool, int]:
        """Return whether a match ends before this character ("" = the end of the text), and the number of the states after it."""
        closed = self._closed(state, last, character)
        after = frozenset(to for one in closed for test, to in self._edges[one] if character and _met(test, character))
        if len(self._steps) >= _MOST_REMEMBERED:
            self._steps.clear()
        step = bool(closed & self._final), self._number(after) if after else _DEAD
        self._steps[state, last, character] = step
        return step

    def _number(self, states: frozenset[int]) -> int:
        if states not in self._numbers:
            self._numbers[states] = len(self._sets)
            self._sets.append(states)
        return self._numbers[states]

    def _closed(self, state: int, last: int, character: str) -> set[int]:
        """Return the states, and those that are reached from them for nothing, between two characters."""
        found, waiting = set[int](), [*self._sets[state]]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += [to for condition, to in self._free[one] if not condition or _holds(condition, last, character)]
        return found

    def _goes_on(self, state: int, last: int) -> bool:
        return any(self._edges[one] for one in self._closed(state, last, ""))

    def _new(self) -> int:
        if len(self._edges) >= self._most:
            rule = f"must not come to more than {self._most:,} states"
            raise ConfigError("patterns", rule, "more", "Repeat less: every x{1,100} counts a hundred times.")
        self._edges.append([])
        self._free.append([])
        return len(self._edges) - 1

    def _add(self, items: Iterable[tuple[Any, Any]], at: int, flags: int) -> int:
        """Add parsed items from a state on. Returns the state after them."""
        for op, value in items:
            name = str(op)
            if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
                to = self._new()
                self._edges[at].append((_test(name, value, flags), to))
                at = to
            elif name == "BRANCH":
                at = self._either(value[1], at, flags)
            elif name == "SUBPATTERN":
                at = self._add(value[3], at, (flags | value[1]) & ~value[2])
            elif name == "ATOMIC_GROUP":
                at = self._add(value, at, flags)
            elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
                at = self._repeat(value, at, flags)
            elif name == "AT":
                to = self._new()
                self._free[at].append((_condition(str(value), flags), to))
                self._conditions, at = True, to
            else:
                raise ConfigError("patterns", "must not look around or back", name.lower().replace("_", " "), _CUTS)
        return at

    def _either(self, branches: Sequence[Any], at: int, flags: int) -> int:
        end = self._new()
        for branch in branches:
            begin = self._new()
            self._free[at].append(("", begin))
            self._free[self._add(branch, begin, flags)].append(("", end))
        return end

    def _repeat(self, value: tuple[int, Any, Any], at: int, flags: int) -> int:
        least, most, items = value
        for _ in range(int(least)):
            at = self._add(items, at, flags)
        if most == _PARSER.MAXREPEAT:
            begin = self._new()
            self._free[at].append(("", begin))
            self._free[self._add(items, begin, flags)].append(("", begin))
            return begin
        ends = [at]
        for _ in range(int(most) - int(least)):
            at = self._add(items, at, flags)
            ends.append(at)
        end = self._new()
        for one in ends:
            self._free[one].append(("", end))
        return end


def _spaced(character: str) -> bool:
    """Whether a word that begins or ends with this character stands alone."""
    return _kind(character) == 1 and not any(low <= ord(character) <= high for low, high in _NO_SPACES)


def _kind(character: str) -> int:
    """0: there is none; 1: of a word, accents too; 2: a line's end; 3: another one."""
    if not character:
        return 0
    if character.isalnum() or character == "_" or (character > "\u02ff" and unicodedata.category(character)[0] == "M"):
        return 1
    return 2 if character == "\n" else 3


def _holds(condition: str, last: int, character: str) -> bool:
    within = (last == 1) == (_kind(character) == 1)
    return {
        "b": not within, "B": within, "begin": last == 0, "end": not character, "line": last in (0, 2), "line end": character in ("", "\n"),
    }[condition]  # fmt: skip


def _condition(at: str, flags: int) -> str:
    lines = bool(flags & re.MULTILINE)
    names = {
        "AT_BEGINNING": "line" if lines else "begin", "AT_BEGINNING_STRING": "begin", "AT_END": "line end" if lines else "end",
        "AT_END_STRING": "end", "AT_BOUNDARY": "b", "AT_NON_BOUNDARY": "B",
    }  # fmt: skip
    return names[at]


def _met(test: Test, character: str) -> bool:
    return character == test if isinstance(test, str) else test(character)


def _test(name: str, value: Any, flags: int) -> Test:
    """Return the question that a parsed item asks about a character."""
    if name == "ANY":
        return (lambda _: True) if flags & re.DOTALL else (lambda character: character != "\n")
    if name == "LITERAL" and not flags & re.IGNORECASE:
        return chr(value)
    source = {"LITERAL": "", "NOT_LITERAL": "^"}.get(name)
    options = re.IGNORECASE if flags & re.IGNORECASE else 0
    if flags & re.ASCII:
        options |= re.ASCII
    pattern = f"[{source}{_escaped(value)}]" if source is not None else _class(value)
    compiled = re.compile(pattern, options)
    return lambda character: compiled.match(character) is not None


def _class(items: Iterable[tuple[Any, Any]]) -> str:
    """Spell a parsed class of characters again."""
    spelled = []
    for op, value in items:
        name = str(op)
        if name == "RANGE":
            spelled.append(f"{_escaped(value[0])}-{_escaped(value[1])}")
        elif name == "CATEGORY":
            spelled.append(_CATEGORIES[str(value)])
        else:
            spelled.append("^" if name == "NEGATE" else _escaped(value))
    return f"[{''.join(spelled)}]"


def _escaped(code: int) -> str:
    return f"\\U{code:08x}"


_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d", "CATEGORY_NOT_DIGIT": r"\D", "CATEGORY_SPACE": r"\s", "CATEGORY_NOT_SPACE": r"\S", "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}  # fmt: skip


# A text as its reader sees it, with the place of every character in the text as it was written.
# Words are found in spite of their case, width and accents' spelling (NFKD, case-folded), characters that nobody sees, and the escapes of
# JSON, as in the arguments of a tool call: `\u0073ecret`.


_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})(?:(?<=[dD][89abAB]..)\\u([dD][c-fC-F][0-9a-fA-F]{2}))?|([\"\\/bfnrt]))")
# An escape that the text's end cuts.
_OPEN = re.compile(r"\\(?:u[0-9a-fA-F]{0,3}|u[dD][89abAB][0-9a-fA-F]{2}\\?(?:u[0-9a-fA-F]{0,3})?)?\Z")
_MEANT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class FoldedText(NamedTuple):
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


# Finding the words and patterns of a policy in an answer that is still being written.


LONGEST = 256  # most characters of a match, as written; what a pattern would go on to match beyond is not looked at
MOST_WORDS, MOST_PATTERNS = 20_000, 100


@lru_cache(64)
def find_words(words: tuple[str, ...], instead: str) -> Look:
    """Return a look for words of a policy, and the text to put in their place.

    Raises ConfigError for too many, and for those of which nothing is left to find.
    """
    if len(words) > MOST_WORDS:
        raise ConfigError("words", f"must be at most {MOST_WORDS:,}", f"{len(words):,}")
    plain = [folded(word) for word in words]
    for word, left in zip(words, plain, strict=True):
        if not left.strip("* ") or len(left) > LONGEST // 6:
            rule = f"must have 1 to {LONGEST // 6} characters that one can see"
            raise ConfigError("words", rule, repr(word[:40]), "A longer phrase: give its beginning, with * at the end.")
    numbers = {word.removesuffix("*"): number for number, word in reversed([*enumerate(plain, 1)])}

    def name(found: str) -> str:
        return f"words {next(numbers[found[:length]] for length in range(len(found), 0, -1) if found[:length] in numbers)}"

    return _look(Automaton.of_words(plain), True, name, instead)


@lru_cache(64)
def find_patterns(patterns: tuple[str, ...], instead: str) -> tuple[Look, ...]:
    """Return a look for each pattern of a policy, and the text to put in their place. Raises ConfigError for wrong patterns."""
    if len(patterns) > MOST_PATTERNS:
        raise ConfigError("patterns", f"must be at most {MOST_PATTERNS}", len(patterns))
    return tuple(_pattern(source, f"patterns {number}", instead) for number, source in enumerate(patterns, 1))


def _pattern(source: str, name: str, instead: str) -> Look:
    return _look(Automaton.of_pattern(source), False, lambda _found: name, instead)


def _look(automaton: Automaton, words: bool, name: Callable[[str], str], instead: str) -> Look:
    def look(held: Undecided) -> tuple[Sequence[Passage], int]:
        seen = view(held.text, words, held.final)
        spans: list[Passage] = []
        at, size = 0, len(seen.text)
        before = _last(held.before, words)
        while at < size:
            most = bisect_left(seen.starts, seen.starts[at] + LONGEST, at)
            end, open_ = automaton.walk(seen.text, at, most if most < size else size + 1, before, held.final)
            if open_:
                return spans, seen.starts[at]
            if end > at:
                spans.append(Passage(seen.starts[at], seen.ends[end - 1], name(seen.text[at:end]), instead))
                at = end
            else:
                at += 1
        return spans, seen.whole

    return look


def _last(text: str, words: bool) -> str:
    """Return the last character that a reader sees; "" if there is none."""
    if text[-1:].isascii() and "\\" not in text[-12:]:
        return text[-1:]
    return (view(text[-16:], words, True).text or view(text, words, True).text)[-1:]
