"""The verdict on a round: every home judges the sum by its own gate and signs its vote; two thirds of the homes in the round decide.

A vote says yes or no and not why: reasons are figures about a home's own examples, and stay there. Votes on groups also tell which homes
are left out, and every home comes to the same (`Suspicion`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil, comb, log

from ingle.core.digest import digest_json
from ingle.core.errors import FederatedError
from ingle.core.report import Event, Fact
from ingle.federated.open_round import bearable
from ingle.federated.statement import Statement, believe, state
from ingle.federated.terms import FEWEST, Terms
from ingle.ledger.keys import Signer


@dataclass(frozen=True, slots=True)
class RoundVerdict:
    """How a round ended; all homes count it themselves and come to the same."""

    federation: str
    number: int
    base: str  # digest of what the round started from
    survivors: tuple[int, ...]  # the homes in the sum
    # The homes that may vote: those in the sum; where it is the sum of a group, all homes of the round that was split.
    voters: tuple[int, ...]
    total: str  # SHA-256 of the sum
    yes: tuple[int, ...]
    no: tuple[int, ...]
    groups: tuple["RoundVerdict", ...] = ()  # where a refused round was split: the verdicts on its groups

    @property
    def accepted(self) -> bool:
        """True if enough voters said yes: two thirds, or of a group's sum more than half. Who says nothing says no."""
        of, needed = len(self.voters), len(self.yes)
        return bool(self.survivors) and 3 * needed >= 2 * of

    @property
    def refused(self) -> bool:
        """True if so many said no that no vote that was held back could have changed it."""
        return 3 * len(self.no) > len(self.voters)

    @property
    def digest(self) -> str:
        """SHA-256 of all of it: one number by which homes can compare their ledgers."""
        return digest_json(asdict(self))

    @property
    def next_base(self) -> str:
        return self.digest if self.accepted else self.base


def verdict_event(verdict: RoundVerdict, name: str) -> Event:
    """Return the ledger's fact of a round of the federation `name`: all homes record the same `digest`."""
    facts: dict[str, Fact] = {
        "federation": verdict.federation, "round": verdict.number, "base": verdict.base, "sum": verdict.total,
        "homes": len(verdict.survivors), "digest": verdict.digest,
        "yes": len(verdict.yes), "no": len(verdict.no), "accepted": verdict.accepted,
        "groups": len(verdict.groups), "good": sum(group.accepted for group in verdict.groups),
    }  # fmt: skip
    return Event("federate.round", name, facts)


def cast(signer: Signer, seat: int, terms: Terms, number: int, base: str, survivors: Sequence[int], total: str, yes: bool) -> Statement:
    """Vote on a round's sum."""
    return state(signer, seat, "vote", {**_about(terms, number, base, survivors, total), "yes": yes})


def believe_vote(
    vote: Statement, terms: Terms, number: int, base: str, survivors: Sequence[int], total: str, voters: Sequence[int] | None = None
) -> bool:
    """Check that a home that may vote (by default one in the sum) cast this vote on it, and return it. Raises FederatedError if not."""
    believe(vote, "vote", terms.members, _about(terms, number, base, survivors, total))
    if vote.seat not in (survivors if voters is None else voters):
        raise FederatedError("vote", f"The home in seat {vote.seat} is not in the sum", "", "Its vote doesn't count.")
    if not isinstance(yes := vote.facts.get("yes"), bool):
        raise FederatedError("vote", f"The home in seat {vote.seat} said neither yes nor no", "", "Its vote doesn't count.")
    return yes


def believe_agreed(terms: Terms, number: int, agreed: Sequence[Statement]) -> tuple[int, ...]:
    """Return the homes in a secure sum. Raises FederatedError unless enough homes in it signed one list of them."""
    survivors = agreed[0].facts.get("survivors") if agreed else []
    expected = {"federation": terms.federation, "round": number, "survivors": survivors}
    signed = set()
    for statement in agreed:
        believe(statement, "agree", terms.members, {**expected, "roster": agreed[0].facts.get("roster")})
        signed.add(statement.seat)
    if not isinstance(survivors, list) or len(signed) < terms.threshold or not signed <= set(survivors):
        raise FederatedError("homes", f"must be at least {terms.threshold} that signed one list", len(signed), "The verdict doesn't count.")
    return tuple(survivors)


def count(
    terms: Terms, number: int, base: str, survivors: Sequence[int], votes: Sequence[Statement], total: str,
    voters: Sequence[int] | None = None,
) -> RoundVerdict:  # fmt: skip
    """Count the votes on a sum of these homes. `total` is the SHA-256 of the sum that came with them.

    Raises FederatedError if a vote isn't what a home signed.
    """
    may = tuple(survivors if voters is None else voters)
    said: dict[int, bool] = {}
    for vote in votes:
        yes = believe_vote(vote, terms, number, base, survivors, total, may)
        if said.setdefault(vote.seat, yes) != yes:
            raise FederatedError("vote", f"The home in seat {vote.seat} said yes and no", "", "The verdict doesn't count.")
    in_favour, against = (tuple(sorted(seat for seat, vote in said.items() if vote is side)) for side in (True, False))
    return RoundVerdict(terms.federation, number, base, tuple(survivors), may, total, in_favour, against)


def _about(terms: Terms, number: int, base: str, survivors: Sequence[int], total: str) -> dict[str, object]:
    return {"federation": terms.federation, "round": number, "base": base, "survivors": list(survivors), "total": total}


# A home is suspended when it was in a group that was refused, and in none that was good, in so many split rounds in a row that an honest
# home would be so unlucky once in a hundred federations (`rounds_needed`). Only signed votes count against a home: a group that was not
# summed, or whose votes were held back, begins its homes' counts anew. So who coordinates can spare a home, and can't frame one.


# The chance at the most that any honest home is suspended for its company, if no more homes are poisoned than `bearable` says.
MISTAKE = 0.01


@dataclass(frozen=True, slots=True)
class Suspicion:
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
