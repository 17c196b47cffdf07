"""Sounds of the last hour, in memory alone: the words of spoken answers by their id, for a client may send that id back instead of the
words; and the words of recordings and in pictures, for most clients send a conversation's media again with every turn."""

from collections import OrderedDict
from dataclasses import InitVar, dataclass, field
from typing import Generic, TypeVar

from ingle.core.clock import REAL, Clock
from ingle.core.errors import NotKept
from ingle.media.speech import Heard

T = TypeVar("T")
LIFE_S = 3600  # time for which something is known
_MOST = 1024


@dataclass
class _Lately(Generic[T]):
    """Values by asker and name, for a while, and the newest of them only."""

    clock: Clock
    _kept: "OrderedDict[tuple[str, str], tuple[float, T]]" = field(default_factory=OrderedDict)

    def put(self, asker: str, name: str, value: T) -> float:
        ends = self.clock.wall() + LIFE_S
        self._kept[asker, name] = ends, value
        while len(self._kept) > _MOST or next(iter(self._kept.values()))[0] < self.clock.wall():
            self._kept.popitem(last=False)
        return ends

    def get(self, asker: str, name: str) -> T | None:
        ends, value = self._kept.get((asker, name), (0.0, None))
        return value if ends >= self.clock.wall() else None


@dataclass(frozen=True, slots=True)
class HeardSound:
    """A recording's words, and the fact of when it was heard."""

    heard: Heard
    about: "dict[str, object]"  # ingle's own field of a response


@dataclass
class SoundMemory:
    """Sounds that one server spoke and heard lately. Each asker finds only their own."""

    clock: InitVar[Clock] = REAL
    _spoken: _Lately[str] = field(init=False)
    _heard: _Lately[HeardSound] = field(init=False)
    _printed: _Lately[str] = field(init=False)

    def __post_init__(self, clock: Clock) -> None:
        self._spoken, self._heard, self._printed = _Lately(clock), _Lately(clock), _Lately(clock)

    def spoke(self, asker: str, id_: str, text: str) -> int:
        """Remember a spoken answer; returns when it will be forgotten, in seconds since 1970."""
        return int(self._spoken.put(asker, id_, text))

    def words_of(self, asker: str, id_: str, place: str) -> str:
        """Return the words of a spoken answer. Raises NotKept for one that is unknown or forgotten."""
        text = self._spoken.get(asker, id_)
        if text is None:
            raise NotKept(place, "names no spoken answer of the last hour", id_[:80], "Send its transcript as content.")
        return text

    def heard(self, asker: str, digest: str, sound: HeardSound) -> None:
        """Remember a recording by the digest of its bytes."""
        self._heard.put(asker, digest, sound)

    def heard_before(self, asker: str, digest: str) -> HeardSound | None:
        """Return what a recording says, if it was heard lately."""
        return self._heard.get(asker, digest)

    def printed(self, asker: str, digest: str, words: str) -> None:
        """Remember the words in a picture by the digest of its bytes."""
        self._printed.put(asker, digest, words)

    def printed_before(self, asker: str, digest: str) -> str | None:
        """Return the words in a picture, if it was read lately."""
        return self._printed.get(asker, digest)
