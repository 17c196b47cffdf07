"""Find a quoted text in other text, as whole words (so that Rome is not found in Chrome), whatever its line ends."""

import re
from collections.abc import Callable, Collection

from ingle.home.recall_index import UNSPACED

# Controls but tab and newline, halves of characters, and what nobody sees but a model reads: overrides, tags, noncharacters.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)


def with_line_feeds(text: str) -> str:
    """Return the text with line feeds as its only line ends."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def cleaned(text: str) -> str:
    """Return the text without invisible characters and surrounding space."""
    return UNSEEN.sub("", with_line_feeds(text)).strip()


def seeker(texts: Collection[str]) -> Callable[[str], bool]:
    """Return a function that says whether one of these texts stands in a given text, in any case of letters: anywhere in scripts without
    spaces, else as whole words. A text of invisible characters is never found."""
    patterns = [re.compile(_pattern(text.lower())) for text in map(cleaned, texts) if text]

    def stands_in(text: str) -> bool:
        lowered = cleaned(text).lower()
        return any(pattern.search(lowered) for pattern in patterns)

    return stands_in


def _pattern(text: str) -> str:
    return ("(?<!\\w)" if _is_spaced(text[0]) else "") + re.escape(text) + ("(?!\\w)" if _is_spaced(text[-1]) else "")


def _is_spaced(character: str) -> bool:
    return re.match(r"\w", character) is not None and not UNSPACED.match(character)
