"""The words of spoken answers by their id: a client may send that id back instead of the words. In memory alone."""

import time
from collections import OrderedDict
from dataclasses import dataclass, field

from ingle.core.errors import NotKept

LIFE_S = 3600
"""Time for which a spoken answer is known by its id."""
_MOST = 1024


@dataclass
class SpokenAnswers:
    """The words of spoken answers by their id, for an hour: OpenAI's clients send that id back. In memory alone."""

    _kept: "OrderedDict[tuple[str, str], tuple[float, str]]" = field(default_factory=OrderedDict)

    def add(self, asker: str, id_: str, text: str) -> int:
        """Remember an answer; returns when it will be forgotten, in seconds since 1970."""
        ends = time.time() + LIFE_S
        self._kept[asker, id_] = ends, text
        while len(self._kept) > _MOST or next(iter(self._kept.values()))[0] < time.time():
            self._kept.popitem(last=False)
        return int(ends)

    def get(self, asker: str, id_: str, place: str) -> str:
        """Return the words of an answer. Raises NotKept for one that is unknown or forgotten."""
        ends, text = self._kept.get((asker, id_), (0.0, ""))
        if ends < time.time():
            raise NotKept(place, "names no spoken answer of the last hour", id_[:80], "Send its transcript as content.")
        return text
