"""Whether somebody's words stand in a text: as whole words, so that Rome does not stand in Chrome."""

import re
from collections.abc import Collection

from ingle.home.recall_index import UNSPACED


def holds(said: str, texts: Collection[str]) -> bool:
    """Whether one of these texts stands in `said`, in any case of letters. In scripts without spaces anywhere, else between other words."""
    lowered = said.lower()
    return any(re.search(_pattern(text.lower()), lowered) for text in texts)


def _pattern(text: str) -> str:
    begins, ends = (_is_spaced(text[0]), _is_spaced(text[-1])) if text else (False, False)
    return ("(?<!\\w)" if begins else "") + re.escape(text) + ("(?!\\w)" if ends else "")


def _is_spaced(character: str) -> bool:
    return re.match(r"\w", character) is not None and not UNSPACED.match(character)
