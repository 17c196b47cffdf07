"""After a refused round its homes are split into groups, whose sums are judged apart: which of them would have been good?

The groups are those of one tree: all homes of the sum, in an order drawn at random, halved and halved again as long as three homes are left
on each side. Five homes can't be halved, so halves are made of whole threes: ten homes give 3 and 7, and 7 gives 3 and 4.

The draw: every home committed itself to a seed in its `keys`, before it knew anybody's, and all seeds came out when the sum was opened. The
order follows from all of them, so nobody chose it; each home checks the seeds and signs the split. It signs one for a base, which enough
others must have signed too. What may ever be opened from that base is then the sum of all and these groups, of three homes or more, and
a home that signed counts all of them as opened (`check_apart`). So a group is summed with all of its homes or not at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import FederatedError
from ingle.federated.secure_sum import LEAVE, Member, check_apart, roster_digest
from ingle.federated.statement import Statement, believe, state, text_of
from ingle.federated.terms import FEWEST, Terms

Group = tuple[int, ...]  # seats in the federation, in their order


@dataclass(frozen=True, slots=True)
class Split:
    federation: str
    number: int  # the refused round
    base: str
    homes: Group  # the homes in its sum
    seed: str  # digest of all their seeds

    @property
    def facts(self) -> dict[str, object]:
        about = {"federation": self.federation, "round": self.number, "base": self.base}
        return {**about, "homes": list(self.homes), "seed": self.seed}

    @property
    def halves(self) -> dict[Group, tuple[Group, ...]]:
        """Every group of the tree with its two halves; no halves where it is too small. All homes come first."""
        order = sorted(self.homes, key=lambda seat: digest_bytes(f"{self.seed} {seat}".encode()))
        return {tuple(sorted(group)): halves for group, halves in _tree(order)}

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups but that of all homes, the larger ones first where one holds the other."""
        return tuple(group for group in self.halves if group != self.homes)

    @property
    def leaves(self) -> tuple[Group, ...]:
        return tuple(group for group, halves in self.halves.items() if not halves)


def draw_split(
    terms: Terms, number: int, base: str, homes: Sequence[int], roster: Mapping[int, Statement], seeds: Mapping[int, str]
) -> Split:  # fmt: skip
    """Return the split that the seeds of a refused round's homes give. `roster` is what they said as their keys.

    Raises FederatedError if a seed is not the one that its home committed itself to, or if there are too few homes to split.
    """
    if terms.whole:
        raise FederatedError(
            "mode", "In this federation only sums of all are opened: the noise in smaller ones would be too little", "", LEAVE
        )
    if len(homes) < 2 * FEWEST:
        raise FederatedError("homes", f"must be at least {2 * FEWEST} to be split", len(homes), "The round is done again by all.")
    for seat in homes:
        try:
            right = digest_bytes(bytes.fromhex(seeds[seat])) == text_of(roster[seat], "seed")
        except (KeyError, ValueError, TypeError):
            right = False
        if not right:
            raise FederatedError("seed", f"must be the one that the home in seat {seat} committed itself to", "another", LEAVE)
    drawn = {"roster": roster_digest(roster.values()), "seeds": {str(seat): seeds[seat] for seat in sorted(homes)}}
    return Split(terms.federation, number, base, tuple(sorted(homes)), digest_json(drawn))


def may_split(member: Member, split: Split) -> bool:
    """Return whether no group of the split, with the sums that were opened or promised before, would show fewer than three homes."""
    opened = [homes for base, homes in member.opened if base == split.base]
    try:
        for at, group in enumerate(split.leaves):
            check_apart([*opened, *split.leaves[:at]], group)
    except FederatedError:
        return False
    return True


def sign_split(member: Member, split: Split) -> tuple[Member, Statement]:
    """Sign a split that may be, and count its groups as opened. Keep `opened` before the statement leaves."""
    assert may_split(member, split)
    promised = tuple((split.base, group) for group in split.leaves if (split.base, group) not in member.opened)
    return replace(member, opened=(*member.opened, *promised)), state(member.signer, member.seat, "split", split.facts)


def believe_split(terms: Terms, signed: Sequence[Statement]) -> Split:
    """Return the split that enough of its homes signed. Raises FederatedError if they didn't."""
    first = signed[0].facts if signed else {}
    homes, number = first.get("homes"), first.get("round")
    if not isinstance(homes, list) or not all(type(seat) is int for seat in homes) or type(number) is not int:
        raise FederatedError("split", "must be signed by the homes of the refused round", "nobody", LEAVE)
    split = Split(terms.federation, number, text_of(signed[0], "base"), tuple(homes), text_of(signed[0], "seed"))
    for statement in signed:
        believe(statement, "split", terms.members, split.facts)
    seats = {statement.seat for statement in signed}
    if len(seats) < terms.threshold or not seats <= set(homes) or len(set(homes)) < len(homes) or len(homes) < 2 * FEWEST:
        raise FederatedError("homes", f"must be at least {terms.threshold} that signed one split", len(seats), "The round is done again.")
    return split


def group_terms(terms: Terms, split: Split, group: Group) -> Terms:
    """Return the terms of a group's secure sum: of all its homes or of none, and unlike those of any other sum."""
    federation = digest_json({"split": split.facts, "group": list(group)})
    return replace(terms, federation=federation, members=tuple(terms.members[seat] for seat in group), threshold=len(group), root=-1)


def group_member(member: Member, split: Split, group: Group) -> Member:
    """Return a home as a member of its group. Raises FederatedError if the group isn't of that split, or this home not in it."""
    if group not in split.groups or member.seat not in group:
        raise FederatedError("group", "must be one of the split, with this home in it", "another", LEAVE)
    channels = {at: member.channels[seat] for at, seat in enumerate(group) if seat in member.channels}
    # Which sums may be opened was settled for the whole tree.
    return replace(member, terms=group_terms(member.terms, split, group), seat=group.index(member.seat), channels=channels, opened=())


def _tree(order: Sequence[int]) -> list[tuple[Group, tuple[Group, ...]]]:
    threes = len(order) // FEWEST
    if threes < 2:
        return [(tuple(order), ())]
    left, right = order[: (at := len(order) * (threes // 2) // threes)], order[at:]
    return [(tuple(order), (tuple(sorted(left)), tuple(sorted(right)))), *_tree(left), *_tree(right)]
