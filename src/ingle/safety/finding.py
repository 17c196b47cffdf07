"""Finding the words and patterns of a policy in an answer that is still being written."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache

from ingle.core.errors import ConfigError
from ingle.safety.automaton import Automaton
from ingle.safety.folding import folded, view
from ingle.safety.holding import Look, Passage, Undecided

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
