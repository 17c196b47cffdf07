"""Slows those who try keys, by the address that they come from, and tells of it. A good key never waits for others' wrong ones."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

from ingle.core.clock import REAL, Clock
from ingle.core.errors import Busy
from ingle.core.report import Event
from ingle.serve.logs import log

FREE = 30  # wrong keys from one address that are answered at once: somebody who mistypes, or a program with an old key
PAUSE_S = 1.0  # after those, one wrong key is answered in this time
MOST_WAIT_S = 10.0  # longest wait for such an answer; whoever would wait longer is sent away at once
MOST_ADDRESSES = 4096  # addresses that are remembered, the latest ones: so that nobody can fill the memory with them
FACT_S = 600.0  # shortest time between two facts about wrong keys: so that nobody can fill the ledger with them


@dataclass
class WrongKeys:
    """Wrong keys of one server."""

    record: Callable[[Event], object]
    count: Callable[[], None] = lambda: None
    clock: Clock = REAL
    # By address: when all its wrong keys so far would be answered, had none been free.
    _due: OrderedDict[str, float] = field(default_factory=OrderedDict)
    _tries: int = 0  # since the last fact
    _slowed: set[str] = field(default_factory=set)  # addresses that were slowed since the last fact
    _told: float | None = None

    async def slow(self, address: str) -> None:
        """Counts a wrong key, and waits if there were many from this address. Raises Busy if too many wait already."""
        wait = self.wrong(address)
        if wait > MOST_WAIT_S:
            raise Busy("Authorization", "Too many wrong keys came from this address", "", "Ask again later, with a good key.", wait)
        await self.clock.pause(wait)

    def wrong(self, address: str) -> float:
        """Count a wrong key from this address. Returns the seconds until it may be answered."""
        now, place = self.clock.now(), _place(address)
        self._tries += 1
        self.count()
        due = max(self._due.pop(place, now), now) + PAUSE_S
        wait = max(0.0, due - now - FREE * PAUSE_S)
        self._due[place] = due if wait <= MOST_WAIT_S else due - PAUSE_S  # who is sent away makes nobody wait longer
        while len(self._due) > MOST_ADDRESSES:
            self._due.popitem(last=False)
        if wait:
            self._tell(place, now)
        return wait

    def _tell(self, place: str, now: float) -> None:
        """Tell of a burst: the log with the address, the ledger, which nobody can delete from, without."""
        if place not in self._slowed and len(self._slowed) < MOST_ADDRESSES:
            self._slowed.add(place)
            log("wrong keys", {"address": place})
        if self._told is not None and now - self._told < FACT_S:
            return
        self.record(Event("key.wrong", "", {"tries": self._tries, "addresses": len(self._slowed)}))
        self._told, self._tries = now, 0
        self._slowed.clear()


def _place(address: str) -> str:
    """Return the address, or the network of an IPv6 address: one house has 2^64 of those."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if not isinstance(ip, IPv6Address):
        return str(ip)
    return str(ip.ipv4_mapped or IPv6Address(int(ip) >> 64 << 64))
