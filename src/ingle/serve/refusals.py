"""Tells the ledger of every refusal that no other fact tells of: by which door, for which key, and why; never a word of the request.

The first ones of an asker leave a fact each. The rest of a burst is counted, and told in one fact when its time is over, so that nobody can
fill the ledger by being refused.
"""

from collections import Counter
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from ingle.app.facts import REFUSED, field_fact
from ingle.core.clock import REAL, Clock
from ingle.core.errors import HomeError, IngleError
from ingle.core.report import Event, Fact

FREE = 30  # refusals of one asker that leave a fact of their own within BURST_S
BURST_S = 600.0
MOST_ASKERS = 4096  # askers that are told apart within BURST_S; the others share one count
KEY = "ingle.key"  # where a request's scope has its key, once it was checked
_WHY = "ingle.refusal"
_OTHERS = "others"


def asker_in(scope: MutableMapping[str, Any]) -> str:
    """Return the id of the key that a request came with; "" without one."""
    key = scope.get(KEY)
    return "" if key is None else str(key.id)


def explain(scope: MutableMapping[str, Any], error: str, field_: str = "", told: bool = False) -> None:
    """Note in a request's scope why it is refused. `told`: whether a fact of it stands in the ledger already."""
    scope[_WHY] = error, field_, told


@dataclass
class Refusals:
    """Refusals of one server."""

    record: Callable[[Event], object]
    clock: Clock = REAL
    _since: float = 0.0
    _seen: Counter[str] = field(default_factory=Counter)
    _counted: Counter[str] = field(default_factory=Counter)

    def answered(self, scope: MutableMapping[str, Any], door: str, status: int, asker: str) -> None:
        """Tell of a response, if it is a refusal. `door`: the route's path."""
        error, field_, told = scope.get(_WHY, ("", "", False))
        if 400 <= status < 499 and not told and (door or status not in (404, 405)):  # browsers ask for much
            self.tell(door, status, error, field_, asker)

    def refused(self, door: str, error: IngleError, asker: str) -> None:
        """Tell of an error that refuses something over a WebSocket; not of a home that can't be written."""
        if not error.told and not isinstance(error, HomeError):
            self.tell(door, error.http_status, type(error).__name__, error.field, asker)

    def tell(self, door: str, status: int, error: str, field_: str, asker: str) -> None:
        """Tell of one refusal."""
        self.sweep()
        asker = asker if asker in self._seen or len(self._seen) < MOST_ASKERS else _OTHERS
        self._seen[asker] += 1
        if self._seen[asker] > FREE:
            self._counted[asker] += 1
            return
        facts: dict[str, Fact] = {"status": status, "error": error, "field": field_fact(field_), "key": asker}
        self.record(Event(REFUSED, door, {name: value for name, value in facts.items() if value}))

    def sweep(self, now: bool = False) -> None:
        """Tell of what was only counted, when its time is over, or `now`."""
        if not now and self.clock.now() - self._since < BURST_S:
            return
        for asker, times in self._counted.items():
            self.record(Event(REFUSED, "requests", {"times": times} | ({"key": asker} if asker else {})))
        self._since = self.clock.now()
        self._seen.clear()
        self._counted.clear()
