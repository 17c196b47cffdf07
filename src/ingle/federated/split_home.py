"""A home's side of a split round: it signs one split, sums within its group, works out all groups' sums itself, and votes on each."""

from collections.abc import Mapping, Sequence
from typing import Any

from ingle.core.digest import digest_bytes
from ingle.core.errors import FederatedError
from ingle.federated.halving import split_verdict
from ingle.federated.rounding import Whole, packed_bytes
from ingle.federated.secure_sum import LEAVE, Member
from ingle.federated.split import Group, Split, believe_split, group_member, group_terms
from ingle.federated.statement import read_all
from ingle.federated.terms import Terms
from ingle.federated.verdict import RoundVerdict, count
from ingle.federated.wire import Letter, number_of
from ingle.federated.witness import SAID, witnessed_sum


def join_group(member: Member, split: Split | None, letter: Letter) -> Member:
    """Return this home as a member of the group that is to be summed. Raises FederatedError unless it is of the split that all signed."""
    signed = read_all(letter.head, "split")
    if split is None or believe_split(member.terms, signed) != split:
        raise FederatedError("split", "must be the one that this home signed", "another", "It was started anew; it is in the next round.")
    return group_member(member, split, _group(letter.head.get("group")))


def read_sums(terms: Terms, split: Split, length: int, letter: Letter) -> dict[Group, Whole]:
    """Work out the sums of groups from what their homes said. Raises FederatedError if any of it isn't what they signed."""
    each, sums, at = packed_bytes(length, terms.grid.width), dict[Group, Whole](), 0
    for told in _tables(letter.head):
        group = _group(told.get("homes"))
        if group not in split.groups:
            raise FederatedError("group", "must be one of the split", "another", LEAVE)
        bodies = {seat: letter.body[(at + seat) * each : (at + seat + 1) * each] for seat in range(len(group))}
        at += len(group)
        said = {kind: read_all(told, kind) for kind in SAID}
        sums[group] = witnessed_sum(group_terms(terms, split, group), number_of(letter.head), split.base, length, said, bodies)
    if at * each != len(letter.body):
        raise FederatedError("update", f"must have {at * each} bytes for these groups", len(letter.body), "It was cut on the way.")
    return sums


def read_end(terms: Terms, base: str, letter: Letter) -> RoundVerdict:
    """Count the votes on a split round that began from `base`. Raises FederatedError if the split or a vote isn't what the homes signed."""
    split = believe_split(terms, read_all(letter.head, "split"))
    if split.base != base:
        rule = f"This home goes on from {base[:12]}, and the split round from {split.base[:12]}"
        raise FederatedError("base", rule, "", "Ask for the verdicts before it.")
    votes, verdicts = read_all(letter.head, "votes"), dict[Group, RoundVerdict]()
    for told in _tables(letter.head):
        group, number, total = _group(told.get("homes")), number_of(told), str(told.get("total"))
        about = {"round": number, "survivors": list(group), "total": total}
        own = [vote for vote in votes if all(vote.facts.get(name) == value for name, value in about.items())]
        if not set(group) <= set(split.homes):
            raise FederatedError("group", "must be of the split", "another", LEAVE)
        verdicts[group] = count(terms, number, split.base, group, own, total, split.homes)
    verdict = split_verdict(split, number_of(letter.head), verdicts)
    if verdict.accepted and verdict.total != digest_bytes(letter.body):
        raise FederatedError("sum", "must be the one that the homes voted on", "another", LEAVE)
    return verdict


def groups_of(letter: Letter, sums: Mapping[Group, Whole]) -> list[Group]:
    """Return the groups that a letter names. Raises FederatedError for one whose sum this home hasn't worked out."""
    named = letter.head.get("groups")
    groups = [_group(one) for one in named] if isinstance(named, list) else []
    if not groups or not set(groups) <= set(sums) or len({seat for group in groups for seat in group}) < sum(map(len, groups)):
        raise FederatedError("groups", "must be some whose sums this home has worked out", "others", LEAVE)
    return groups


def seeds_in(letter: Letter) -> dict[int, str]:
    """Return the seeds that came with the verdict on a refused round, by seat; none if it isn't to be split."""
    seeds = letter.head.get("seeds", {})
    return {int(seat): str(seed) for seat, seed in seeds.items() if seat.isdecimal()} if isinstance(seeds, dict) else {}


def _tables(head: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    groups = head.get("groups")
    if not isinstance(groups, list) or not all(isinstance(one, dict) for one in groups):
        raise FederatedError("groups", "must be a list of groups", type(groups).__name__, "Use one version of Ingle everywhere.")
    return groups


def _group(plain: object) -> Group:
    if not isinstance(plain, list) or not plain or not all(type(seat) is int for seat in plain):
        raise FederatedError("group", "must be a list of seats", str(plain)[:40], "Use one version of Ingle everywhere.")
    return tuple(plain)
