"""The verdict on a round: every home judges the sum by its own gate and signs its vote; two thirds of the homes in the round decide.

A vote says yes or no and not why: reasons are figures about a home's own examples, and stay there.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ingle.core.digest import digest_json
from ingle.core.errors import FederatedError
from ingle.core.report import Event, Fact
from ingle.federated.statement import Statement, believe, state
from ingle.federated.terms import Terms
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
        """Digest of what the next round starts from."""
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
