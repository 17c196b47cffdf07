"""The rounds after a refused one, as the coordinator sees them: a value that goes from stage to stage, like a `Round`.

    sums → judge → (sums → judge …) → union → end

All groups of one level of the split are summed at once, each by a `Round` of its own; then all homes judge all of these sums.
Good groups go in, the others are halved as far as the split goes. What is good makes one sum, on which all vote once more: a change goes
in only as a whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ingle.core.digest import digest_bytes
from ingle.core.errors import FederatedError
from ingle.federated import round as rounds
from ingle.federated.round import Round
from ingle.federated.rounding import Whole, filled, pack, unpack
from ingle.federated.split import Group, Split, group_terms
from ingle.federated.statement import Statement
from ingle.federated.summing import plain_sum
from ingle.federated.terms import Terms
from ingle.federated.verdict import RoundVerdict, believe_vote, count
from ingle.federated.wire import Letter
from ingle.federated.witness import SAID


@dataclass(frozen=True)
class Halving:
    """The rounds after a refused one."""

    terms: Terms
    split: Split
    signed: tuple[Statement, ...]  # the homes' signatures on it
    length: int  # numbers in an update
    number: int  # of this level's rounds; a new one for each level
    stage: str = "sums"
    rounds: Mapping[Group, Round] = field(default_factory=dict)  # this level's
    sums: Mapping[Group, Whole] = field(default_factory=dict, repr=False)  # sums that were opened
    votes: Mapping[Group, Mapping[int, Statement]] = field(default_factory=dict)  # on each sum, by seat
    verdicts: Mapping[Group, RoundVerdict] = field(default_factory=dict)  # on groups, and in the end on their union
    verdict: RoundVerdict | None = None

    @property
    def good(self) -> tuple[Group, ...]:
        """The groups of the split that were found good."""
        return tuple(group for group, verdict in self.verdicts.items() if verdict.accepted and group in self.split.groups)

    @property
    def union(self) -> Group:
        """The homes of all good groups."""
        return tuple(sorted(seat for group in self.good for seat in group))

    def total(self, group: Group) -> bytes:
        """The judged sum of a group, packed: its part of the mean of all, as if the other homes had sent zeros."""
        return pack(filled(self.sums[group], len(self.split.homes) - len(group), self.terms.grid), self.terms.grid.width)

    @property
    def asked(self) -> tuple[Group, ...]:
        """The sums that are judged in this stage."""
        return (self.union,) if self.stage == "union" else tuple(group for group in self.rounds if group in self.sums)


def begin_halving(terms: Terms, split: Split, signed: tuple[Statement, ...], length: int, number: int) -> Halving:
    """Begin with the two halves of the refused round, as round `number`."""
    return _level(Halving(terms, split, signed, length, number), split.halves[split.homes])


def requests(now: Halving) -> dict[int, Letter]:
    """Return what to ask of whom in this stage."""
    match now.stage:
        case "sums":
            return {group[at]: _of_group(now, group, letter) for group, one in now.rounds.items() for at, letter in _asks(one).items()}
        case "judge":
            groups = [{"homes": list(group), **{kind: _plain(now.rounds[group].said(kind)) for kind in SAID}} for group in now.asked]
            body = b"".join(now.rounds[group].bodies[at] for group in now.asked for at in range(len(group)))
            return dict.fromkeys(now.split.homes, Letter("judge", {"round": now.number, "groups": groups}, body))
        case "union":
            head = {"round": now.number, "groups": [list(group) for group in now.good]}
            return dict.fromkeys(now.split.homes, Letter("union", head))
    assert now.verdict
    groups = [{"homes": list(group), "round": one.number, "total": one.total} for group, one in now.verdicts.items()]
    votes = [vote.plain() for on in now.votes.values() for vote in on.values()]
    head = {"round": now.number, "split": [one.plain() for one in now.signed], "groups": groups, "votes": votes}
    body = now.total(now.verdict.survivors) if now.verdict.survivors else b""
    return dict.fromkeys(range(len(now.terms.members)), Letter("end", head, body))


def hear(now: Halving, seat: int, reply: Letter) -> Halving:
    """Take in the reply of one home. Raises FederatedError if it isn't what was asked for."""
    if now.stage == "sums":
        group = next((group for group in now.rounds if seat in group), None)
        if group is None:
            raise FederatedError("seat", f"The home in seat {seat} was not asked", "", "Its answer is left out.")
        return replace(now, rounds={**now.rounds, group: rounds.hear(now.rounds[group], group.index(seat), reply)})
    if reply.kind == "refused":
        raise FederatedError("home", f"The home in seat {seat} refused", str(reply.head.get("rule", "no reason"))[:200])
    plain = reply.head.get("votes")
    votes = [Statement.read(one) for one in plain] if isinstance(plain, list) else []
    if len(votes) != len(now.asked) or any(vote.seat != seat for vote in votes):
        raise FederatedError("vote", f"The home in seat {seat} must vote on each sum", len(votes), "Its votes are left out.")
    for group, vote in zip(now.asked, votes, strict=True):
        believe_vote(vote, now.terms, now.number, now.split.base, group, digest_bytes(now.total(group)), now.split.homes)
    return replace(
        now, votes={**now.votes, **{on: {**now.votes.get(on, {}), seat: vote} for on, vote in zip(now.asked, votes, strict=True)}}
    )


def close(now: Halving) -> Halving:
    """End a stage: go on with what was answered. A group that lacks one of its homes has no sum."""
    if now.stage == "sums":
        after = replace(now, rounds={group: rounds.close(one) if _asks(one) else one for group, one in now.rounds.items()})
        if any(_asks(one) for one in after.rounds.values()):
            return after
        width = now.terms.grid.width
        opened = {group: unpack(one.total, now.length, width) for group, one in after.rounds.items() if one.total}
        after = replace(after, stage="judge", sums={**now.sums, **opened})
        return after if after.asked else _next(after)
    counted = {
        group: count(now.terms, now.number, now.split.base, group, list(now.votes.get(group, {}).values()),
                     digest_bytes(now.total(group)), now.split.homes)
        for group in now.asked
    }  # fmt: skip
    after = replace(now, verdicts={**now.verdicts, **counted})
    return _end(after) if now.stage == "union" else _next(after)


def _next(now: Halving) -> Halving:
    """Halve the groups of this level that weren't found good; if none can be, judge what is."""
    smaller = tuple(half for group in now.rounds if group not in now.good for half in now.split.halves[group])
    if smaller:
        return _level(replace(now, number=now.number + 1), smaller)
    if not now.good or now.union in now.verdicts:
        return _end(now)
    return replace(now, stage="union", sums={**now.sums, now.union: plain_sum(now.sums[group] for group in now.good)})


def _level(now: Halving, groups: tuple[Group, ...]) -> Halving:
    def begun(group: Group) -> Round:
        terms = group_terms(now.terms, now.split, group)
        return Round(terms, now.number, now.split.base, now.length, tuple(range(len(group))))

    return replace(now, stage="sums", rounds={group: begun(group) for group in groups})


def _end(now: Halving) -> Halving:
    return replace(now, stage="end", verdict=split_verdict(now.split, now.number, now.verdicts))


def split_verdict(split: Split, number: int, verdicts: Mapping[Group, RoundVerdict]) -> RoundVerdict:
    """Return the verdict on a split round: that on the union of its good groups; if it was refused, on the best one."""
    groups = {group: verdicts[group] for group in sorted(verdicts) if group in split.groups}
    good = {group: one for group, one in groups.items() if one.accepted}
    nothing = RoundVerdict(split.federation, number, split.base, (), split.homes, digest_bytes(b""), (), ())
    best = max(good.values(), key=lambda one: (len(one.yes), len(one.survivors), one.survivors), default=nothing)
    union = verdicts.get(tuple(sorted(seat for group in good for seat in group)), nothing)
    return replace(union if union.accepted else best, number=number, groups=tuple(groups.values()))


def _asks(one: Round) -> dict[int, Letter]:
    """Return what a group's round asks for: nothing once its sum is opened, since all homes judge it."""
    return {} if one.over or one.stage == "vote" else rounds.requests(one)


def _of_group(now: Halving, group: Group, letter: Letter) -> Letter:
    if letter.kind != "keys":
        return letter
    return replace(letter, head={**letter.head, "group": list(group), "split": [one.plain() for one in now.signed]})


def _plain(statements: Mapping[int, Statement]) -> list[dict[str, Any]]:
    return [statements[seat].plain() for seat in sorted(statements)]
