"""A home's side of a federation: it answers a coordinator's letters, and decides by itself what it believes, does and votes.

`answer` goes from value to value. `responder` holds the newest one and turns every failure into a letter that says why, so that a transport
only carries bytes.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ingle.core.digest import digest_bytes
from ingle.core.errors import FederatedError, IngleError, fault_of
from ingle.federated.open_round import believe_shown, combine_shown, show, split_bodies
from ingle.federated.rounds import split_verdict
from ingle.federated.secure_sum import (
    LEAVE,
    SAID,
    Member,
    Opened,
    RoundPart,
    agree,
    begin,
    check_new,
    greet,
    hide,
    meet,
    plain_sum,
    reveal,
    witnessed_sum,
)
from ingle.federated.split import Group, Split, believe_split, draw_split, group_member, group_terms, may_split, sign_split
from ingle.federated.statement import Letter, from_bytes, number_of, read_all, to_bytes
from ingle.federated.terms import Terms, Whole, filled, pack, packed_bytes, unpack
from ingle.federated.verdict import RoundVerdict, Suspicion, believe_agreed, cast, count

# A split round: the home signs one split, sums within its group, works out all groups' sums itself, and votes on each.


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


# Reading of a round's last letter, whatever kind of round it was: the verdict, counted from what the homes signed.


def verdict_in(terms: Terms, base: str, letter: Letter) -> RoundVerdict:
    """Count the votes on a round that began from `base`. Raises FederatedError if any of them isn't what the homes signed."""
    number, digest = number_of(letter.head), digest_bytes(letter.body)
    if "split" in letter.head:
        return read_end(terms, base, letter)
    if terms.rule:
        homes = believe_shown(terms, number, base, read_all(letter.head, "show"))
    else:
        homes = believe_agreed(terms, number, read_all(letter.head, "agree"))
    return count(terms, number, base, homes, read_all(letter.head, "votes"), digest)


@dataclass(frozen=True, slots=True)
class RoundWork:
    train: Callable[[int], Whole]  # round → the update, on the grid
    judge: Callable[[int, Whole, int], bool]  # round, sum, how many homes are in it → whether this home's own gate accepts it
    # Keeps `last_round` and `opened` of `Member` before a word leaves: after a kill this home must say nothing more in that round.
    remember: Callable[[int, Opened], None]
    settle: Callable[[RoundVerdict, Whole, Letter], None]  # does what was decided, and records it with the letter that proves it


@dataclass(frozen=True)
class HomeNode:
    member: Member
    base: str  # digest of what it has so far
    length: Callable[[int], int]  # round → numbers in an update
    work: RoundWork
    part: RoundPart | None = None  # the round that it is in
    update: Whole = field(default_factory=lambda: np.zeros(0, np.uint32), repr=False)  # its update for that round
    shown: int = 0  # the round in which it showed its update and has not voted; 0 = none
    split: Split | None = None  # how the round that was refused is split, as it signed it
    sums: Mapping[Group, Whole] = field(default_factory=dict, repr=False)  # the sums of groups that it worked out, and voted on
    suspicion: Suspicion = field(default_factory=Suspicion)  # findings of split rounds about the homes so far
    settled: int = 0  # the last round whose verdict it followed


def answer(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    """Answer one letter. Raises FederatedError for whatever this home doesn't do, and the errors of its own work."""
    answers = _OPEN if node.member.terms.rule else _SECURE
    if letter.kind in _OPEN and letter.kind not in answers:
        rule = "This federation is secure: no home shows its update"
        raise FederatedError("mode", rule, letter.kind, "Do not go on with this coordinator: it is not what the invitation says.")
    if letter.kind not in answers:
        raise FederatedError("message", f"must be one of {', '.join(answers)}", letter.kind, "Use one version of Ingle everywhere.")
    return answers[letter.kind](node, letter)


def responder(node: HomeNode) -> Callable[[bytes], bytes]:
    """Return what a transport calls with a request's bytes, from any thread: it returns those of the reply."""
    lock, current = threading.Lock(), [node]

    def respond(data: bytes) -> bytes:
        with lock:
            try:
                current[0], reply = answer(current[0], from_bytes(data))
            except IngleError as error:
                reply = Letter("refused", fault_of(error))
            return to_bytes(reply)

    return respond


def _join(node: HomeNode, _: Letter) -> tuple[HomeNode, Letter]:
    return node, Letter("join", {"statement": greet(node.member, node.base).plain()})


def _meet(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    return replace(node, member=meet(node.member, read_all(letter.head, "joined"))), Letter("met")


def _learned(node: HomeNode, letter: Letter) -> tuple[int, Whole]:
    """Return the number of a new round and this home's update for it."""
    number = _new(node, letter)
    # Learning comes first: who is slow is not waited for in the middle of a sum, where others must make good for it.
    update = node.work.train(number)
    node.work.remember(number, node.member.opened)
    return number, update


def _keys(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    if "group" in letter.head:  # the same update as in the round that was refused
        number, update, member = _new(node, letter), node.update, join_group(node.member, node.split, letter)
        node.work.remember(number, node.member.opened)
    else:
        (number, update), member = _learned(node, letter), replace(node.member, suspended=node.suspicion.suspended)
        node = replace(node, sums={})
    part, said = begin(member, number, node.base)
    reply = {"statement": said["statement"].plain(), "sealed": {str(seat): share for seat, share in said["sealed"].items()}}
    return replace(node, member=replace(node.member, last_round=number), part=part, update=update), Letter("keys", reply)


def _show(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    number, update = _learned(node, letter)
    said, body = show(node.member, number, node.base, update)
    return replace(node, member=replace(node.member, last_round=number), shown=number), Letter("show", {"statement": said.plain()}, body)


def _update(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    part = _part(node)
    sealed = letter.head.get("sealed")
    by_seat = {int(seat): share for seat, share in sealed.items() if seat.isdecimal()} if isinstance(sealed, dict) else {}
    part, said, body = hide(part, read_all(letter.head, "keys"), by_seat, node.update)
    return replace(node, part=part), Letter("update", {"statement": said.plain()}, body)


def _agree(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    part, said = agree(_part(node), read_all(letter.head, "heard"))
    return replace(node, part=part), Letter("agree", {"statement": said.plain()})


def _shares(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    part, said = reveal(_part(node), read_all(letter.head, "heard"))
    opened = node.member.opened if _of_group(node, part) else part.member.opened
    node.work.remember(part.number, opened)
    return replace(node, part=part, member=replace(node.member, opened=opened)), Letter("shares", {"statement": said.plain()})


def _vote(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    part, member = _part(node), node.member
    if "shares" not in part.said or "vote" in part.said or _of_group(node, part):
        raise FederatedError("round", "There is no sum to vote on, or this home has voted", part.number, "Each home votes once a round.")
    total = _total(node, part.number, letter.body)
    yes = node.work.judge(part.number, total, len(part.survivors))
    said = cast(member.signer, member.seat, member.terms, part.number, node.base, part.survivors, digest_bytes(letter.body), yes)
    return replace(node, part=replace(part, said={**part.said, "vote": said})), Letter("vote", {"statement": said.plain()})


def _open_vote(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    number, member = node.shown, node.member
    if not number:
        raise FederatedError("round", "This home has shown nothing, or has voted", "", "Each home votes once a round.")
    shown = {said.seat: said for said in read_all(letter.head, "show")}
    if member.seat not in shown:
        raise FederatedError("update", "This home's own update is not among them", "", "It came too late, or was left out.")
    length = node.length(number)
    total = combine_shown(member.terms, number, node.base, length, shown, split_bodies(member.terms, length, sorted(shown), letter.body))
    yes = node.work.judge(number, total, len(shown))
    digest = digest_bytes(pack(total, member.terms.grid.width))
    said = cast(member.signer, member.seat, member.terms, number, node.base, sorted(shown), digest, yes)
    return replace(node, shown=0), Letter("vote", {"statement": said.plain()})


def _judge(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    return _voted(node, letter, read_sums(node.member.terms, _split(node), node.length(number_of(letter.head)), letter))


def _union(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    groups = groups_of(letter, node.sums)
    homes = tuple(sorted(seat for group in groups for seat in group))
    return _voted(node, letter, {homes: plain_sum(node.sums[group] for group in groups)})


def _voted(node: HomeNode, letter: Letter, sums: Mapping[Group, Whole]) -> tuple[HomeNode, Letter]:
    """Vote on sums of parts of the homes: each is judged as if the others had sent zeros, which is its part of the mean of all."""
    number, member, votes, of = number_of(letter.head), node.member, [], len(_split(node).homes)
    if not set(sums).isdisjoint(node.sums):
        raise FederatedError("round", "This home has voted on one of these sums", number, "Each home votes once on each sum.")
    for group, raw in sums.items():
        total = filled(raw, of - len(group), member.terms.grid)
        yes = node.work.judge(number, total, of)
        digest = digest_bytes(pack(total, member.terms.grid.width))
        votes.append(cast(member.signer, member.seat, member.terms, number, node.base, group, digest, yes).plain())
    return replace(node, sums={**node.sums, **sums}), Letter("votes", {"votes": votes})


def _end(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    number, verdict = number_of(letter.head), verdict_in(node.member.terms, node.base, letter)
    # Votes that were held back look like homes that said nothing. So more of them may still turn a refusal, while nothing came after it.
    if number <= node.settled and not verdict.accepted:
        raise FederatedError("round", f"The verdict on round {number} was followed before", "", "It stands.")
    node, signed = _promised(replace(node, sums={}), verdict, letter)
    node.work.settle(verdict, _total(node, number, letter.body) if letter.body else node.update[:0], letter)
    # Of what other rounds started from, nothing can be subtracted any more.
    opened = tuple((base, homes) for base, homes in node.member.opened if base == verdict.next_base)
    after = replace(
        node, member=replace(node.member, opened=opened), base=verdict.next_base, settled=max(number, node.settled), part=None,
        split=node.split if node.split and node.split.base == verdict.next_base else None,
        suspicion=node.suspicion.after(node.member.terms, verdict),
    )  # fmt: skip
    return after, Letter("ended", {"digest": verdict.digest, **signed})


def _promised(node: HomeNode, verdict: RoundVerdict, letter: Letter) -> tuple[HomeNode, dict[str, Any]]:
    """Sign the split of a refused round that this home took part in, if it is to be split."""
    part, seeds = node.part, seeds_in(letter)
    if not seeds or verdict.accepted or part is None or part.number != verdict.number or node.member.seat not in verdict.survivors:
        return node, {}
    split = draw_split(node.member.terms, verdict.number, verdict.base, verdict.survivors, part.roster, seeds)
    if node.split and (node.split.base, node.split.homes) == (split.base, split.homes):
        split = node.split  # from one base there is one: the groups of before, with what their homes send now
    if not may_split(node.member, split):
        return node, {}
    member, said = sign_split(node.member, split)
    node.work.remember(member.last_round, member.opened)
    return replace(node, member=member, split=split), {"split": said.plain()}


_OPEN: Mapping[str, Callable[[HomeNode, Letter], tuple[HomeNode, Letter]]] = {
    "join": _join, "meet": _meet, "show": _show, "vote": _open_vote, "end": _end,
}  # fmt: skip
_SECURE: Mapping[str, Callable[[HomeNode, Letter], tuple[HomeNode, Letter]]] = {
    "join": _join, "meet": _meet, "keys": _keys, "update": _update, "agree": _agree, "shares": _shares, "vote": _vote, "end": _end,
    "judge": _judge, "union": _union,
}  # fmt: skip


def _part(node: HomeNode) -> RoundPart:
    if node.part is None:
        raise FederatedError("round", "This home is in no round", "", "Begin one: it was started anew, or the round has ended.")
    return node.part


def _of_group(node: HomeNode, part: RoundPart) -> bool:
    """True if a sum is one of a group: its homes don't vote on it alone, and what may be opened was kept when the split was signed."""
    return part.member.terms != node.member.terms


def _split(node: HomeNode) -> Split:
    if node.split is None:
        raise FederatedError("split", "This home signed no split", "", "It was started anew, or nothing was refused.")
    return node.split


def _total(node: HomeNode, number: int, body: bytes) -> Whole:
    return unpack(body, node.length(number), node.member.terms.grid.width)


def _new(node: HomeNode, letter: Letter) -> int:
    number, base = number_of(letter.head), letter.head.get("base")
    if base != node.base:
        rule = f"This home goes on from {node.base[:12]}, and the round from {str(base)[:12]}"
        raise FederatedError("base", rule, "", "One of the two missed a verdict, or has another model. Ask for the verdicts since then.")
    check_new(node.member, number)
    return number
