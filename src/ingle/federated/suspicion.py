"""Which homes are left out, and by what: counted from signed votes on groups, so that every home comes to the same.

A home is suspended when it was in a group that was refused, and in none that was good, in so many split rounds in a row that an honest home
would be so unlucky once in a hundred federations (`rounds_needed`). Only signed votes count against a home: a group that was not
summed, or whose votes were held back, begins its homes' counts anew. So who coordinates can spare a home, and can't frame one.
"""

from dataclasses import dataclass
from math import ceil, comb, log

from ingle.core.report import Event, Fact
from ingle.federated.combine import bearable
from ingle.federated.terms import FEWEST, Terms
from ingle.federated.verdict import RoundVerdict

# The chance at the most that any honest home is suspended for its company, if no more homes are poisoned than `bearable` says.
MISTAKE = 0.01


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Findings of split rounds about the homes."""

    refused: tuple[tuple[int, int], ...] = ()  # seats, and in how many split rounds in a row each was in refused groups only
    suspended: tuple[int, ...] = ()  # seats that are left out for as long as the federation lives
    # Digest of the start of the last counted round. From there all are split alike, so once more tells nothing new.
    base: str = ""

    def after(self, terms: Terms, verdict: RoundVerdict) -> "Suspicion":
        """Return what is known after a verdict. A round that wasn't split tells nothing."""
        most = bearable(len(terms.members))
        refused_leaves = [one for one in verdict.groups if one.refused and len(one.survivors) < 2 * FEWEST]
        if not verdict.groups or verdict.base == self.base or len(refused_leaves) > most:
            return self  # with more refused groups than poisoned homes, a clean one was refused: such a round blames nobody
        counts = dict(self.refused)
        for seat in verdict.voters:
            counts[seat] = counts.get(seat, 0) + 1 if _only_refused(verdict, seat) else 0
        needed = rounds_needed(len(terms.members))
        new = tuple(seat for seat in sorted(counts) if counts[seat] >= needed and seat not in self.suspended)
        # More of them than are reckoned with: then the reckoning is wrong, and nobody is blamed by it.
        suspended = tuple(sorted((*self.suspended, *new))) if len(self.suspended) + len(new) <= most else self.suspended
        return Suspicion(tuple(sorted((seat, times) for seat, times in counts.items() if times)), suspended, verdict.base)


def suspension_event(terms: Terms, verdict: RoundVerdict, seat: int, name: str) -> Event:
    """Return the ledger's fact that the home in this seat is left out from now on, by the votes of this round."""
    facts: dict[str, Fact] = {
        "federation": verdict.federation, "round": verdict.number, "digest": verdict.digest,
        "seat": seat, "key": terms.members[seat], "refused": rounds_needed(len(terms.members)),
    }  # fmt: skip
    return Event("federate.suspended", name, facts)


def rounds_needed(homes: int) -> int:
    """Return after how many split rounds in a row in refused groups only a home is suspended."""
    chance = bad_company(homes)
    return max(1, ceil(log(MISTAKE / homes) / log(chance))) if 0 < chance < 1 else homes


def bad_company(homes: int) -> float:
    """Return how likely a random split puts an honest home into the smallest group with a poisoned one."""
    poisoned, threes = bearable(homes), max(1, homes // FEWEST)
    chance = 0.0
    for at in range(threes):  # the sizes differ by one at the most
        size = homes // threes + (at < homes % threes)
        alone = comb(homes - size, poisoned) / comb(homes - 1, poisoned)
        chance += size / homes * (1 - alone)
    return chance


def _only_refused(verdict: RoundVerdict, seat: int) -> bool:
    """True if a group with this home that can't be halved was refused for certain, and no group with it was good."""
    own = [group for group in verdict.groups if seat in group.survivors]
    return any(group.refused and len(group.survivors) < 2 * FEWEST for group in own) and not any(group.accepted for group in own)
