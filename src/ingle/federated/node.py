"""A home's side of a federation: it answers a coordinator's letters, and decides by itself what it believes, does and votes.

`answer` goes from value to value. `responder` holds the newest one and turns every failure into a letter that says why, so that a transport
only carries bytes.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ingle.core.digest import digest_bytes
from ingle.core.errors import FederatedError, IngleError, fault_of
from ingle.federated.message import Letter, from_bytes, to_bytes
from ingle.federated.quantise import Whole, unpack
from ingle.federated.secure_sum import Member, Opened, RoundPart, agree, begin, check_new, greet, hide, meet, reveal
from ingle.federated.statement import Statement
from ingle.federated.verdict import RoundVerdict, cast, count


@dataclass(frozen=True, slots=True)
class RoundWork:
    """A home's own deeds in a round."""

    train: Callable[[int], Whole]
    """Round → the update, on the grid."""
    judge: Callable[[int, Whole, int], bool]
    """Round, sum, how many homes are in it → whether this home's own gate accepts it."""
    remember: Callable[[int, Opened], None]
    """Keeps `last_round` and `opened` of `Member` before a word leaves: after a kill this home must say nothing more in that round."""
    settle: Callable[[RoundVerdict, Whole, Letter], None]
    """Does what was decided, and records it with the letter that proves it."""


@dataclass(frozen=True)
class HomeNode:
    """A home that takes part."""

    member: Member
    base: str
    """Digest of what it has so far."""
    length: Callable[[int], int]
    """Round → numbers in an update."""
    work: RoundWork
    part: RoundPart | None = None
    """The round that it is in."""
    update: Whole = field(default_factory=lambda: np.zeros(0, np.uint32), repr=False)
    """Its update for that round."""
    settled: int = 0
    """The last round whose verdict it followed."""


def answer(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    """Answer one letter. Raises FederatedError for whatever this home doesn't do, and the errors of its own work."""
    if letter.kind not in _ANSWERS:
        raise FederatedError("message", f"must be one of {', '.join(_ANSWERS)}", letter.kind, "Use one version of Ingle everywhere.")
    return _ANSWERS[letter.kind](node, letter)


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
    return replace(node, member=meet(node.member, _statements(letter, "joined"))), Letter("met")


def _keys(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    number, base = _number(letter), letter.head.get("base")
    if base != node.base:
        rule = f"This home goes on from {node.base[:12]}, and the round from {str(base)[:12]}"
        raise FederatedError("base", rule, "", "One of the two missed a verdict, or has another model. Ask for the verdicts since then.")
    check_new(node.member, number)
    # Learning comes first: who is slow is not waited for in the middle of a sum, where others must make good for it.
    update = node.work.train(number)
    node.work.remember(number, node.member.opened)
    part, said = begin(node.member, number, node.base)
    reply = {"statement": said["statement"].plain(), "sealed": {str(seat): share for seat, share in said["sealed"].items()}}
    return replace(node, member=part.member, part=part, update=update), Letter("keys", reply)


def _update(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    part = _part(node)
    sealed = letter.head.get("sealed")
    by_seat = {int(seat): share for seat, share in sealed.items() if seat.isdecimal()} if isinstance(sealed, dict) else {}
    part, said, body = hide(part, _statements(letter, "keys"), by_seat, node.update)
    return replace(node, part=part), Letter("update", {"statement": said.plain()}, body)


def _agree(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    part, said = agree(_part(node), _statements(letter, "heard"))
    return replace(node, part=part), Letter("agree", {"statement": said.plain()})


def _shares(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    part, said = reveal(_part(node), _statements(letter, "heard"))
    node.work.remember(part.number, part.member.opened)
    return replace(node, part=part, member=replace(node.member, opened=part.member.opened)), Letter("shares", {"statement": said.plain()})


def _vote(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    part, member = _part(node), node.member
    if "shares" not in part.said or "vote" in part.said:
        raise FederatedError("round", "There is no sum to vote on, or this home has voted", part.number, "Each home votes once a round.")
    total = _total(node, part.number, letter.body)
    yes = node.work.judge(part.number, total, len(part.survivors))
    said = cast(member.signer, member.seat, member.terms, part.number, node.base, part.survivors, digest_bytes(letter.body), yes)
    return replace(node, part=replace(part, said={**part.said, "vote": said})), Letter("vote", {"statement": said.plain()})


def _end(node: HomeNode, letter: Letter) -> tuple[HomeNode, Letter]:
    number, terms = _number(letter), node.member.terms
    agreed, votes = _statements(letter, "agreed"), _statements(letter, "votes")
    verdict = count(terms, number, node.base, agreed, votes, digest_bytes(letter.body))
    # Votes that were held back look like homes that said nothing. So more of them may still turn a refusal, while nothing came after it.
    if number <= node.settled and not verdict.accepted:
        raise FederatedError("round", f"The verdict on round {number} was followed before", "", "It stands.")
    node.work.settle(verdict, _total(node, number, letter.body), letter)
    # Of what other rounds started from, nothing can be subtracted any more.
    opened = tuple((base, homes) for base, homes in node.member.opened if base == verdict.next_base)
    return replace(
        node, member=replace(node.member, opened=opened), base=verdict.next_base, settled=max(number, node.settled), part=None
    ), Letter("ended", {"digest": verdict.digest})


_ANSWERS: Mapping[str, Callable[[HomeNode, Letter], tuple[HomeNode, Letter]]] = {
    "join": _join, "meet": _meet, "keys": _keys, "update": _update, "agree": _agree, "shares": _shares, "vote": _vote, "end": _end,
}  # fmt: skip


def _part(node: HomeNode) -> RoundPart:
    if node.part is None:
        raise FederatedError("round", "This home is in no round", "", "Begin one: it was started anew, or the round has ended.")
    return node.part


def _total(node: HomeNode, number: int, body: bytes) -> Whole:
    return unpack(body, node.length(number), node.member.terms.grid.width)


def _number(letter: Letter) -> int:
    number: Any = letter.head.get("round")
    if type(number) is not int or not 1 <= number < 1 << 31:
        raise FederatedError("round", "must be a number from 1", str(number)[:20], "Use one version of Ingle everywhere.")
    return number


def _statements(letter: Letter, name: str) -> list[Statement]:
    plain = letter.head.get(name)
    if not isinstance(plain, list):
        raise FederatedError(name, "must be a list of statements", type(plain).__name__, "Use one version of Ingle everywhere.")
    return [Statement.read(one) for one in plain]
