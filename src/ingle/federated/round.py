"""A round as its coordinator sees it: a value that goes from stage to stage. It does nothing by itself and carries no bytes.

    keys → update → agree → shares → vote → end       secure: sums only
    show → vote → end                                 open: single updates, combined by a rule

In each stage `requests` says what to ask of whom, `hear` takes a reply in, and `close` ends the stage when all replies are there or the
time is up. A round fails where too few homes are left; nothing is known then of any update, and the next number begins anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ingle.core.digest import digest_bytes
from ingle.core.errors import FederatedError
from ingle.federated.opened import combine_shown, read_shown
from ingle.federated.rounding import Whole, pack, packed_bytes
from ingle.federated.sealing import common_key, new_private
from ingle.federated.secure_sum import roster_digest
from ingle.federated.statement import Statement, believe, text_of
from ingle.federated.summing import open_sum, seeds_of
from ingle.federated.terms import FEWEST, Terms
from ingle.federated.verdict import RoundVerdict, believe_vote, count
from ingle.federated.wire import Letter

STAGES = ("keys", "update", "agree", "shares", "vote", "end")
OPEN_STAGES = ("show", "vote", "end")


@dataclass(frozen=True)
class Round:
    """One round."""

    terms: Terms
    number: int
    base: str  # digest of what it starts from
    length: int  # numbers in an update
    joined: tuple[int, ...]  # the homes that are there, by seat
    stage: str = ""  # one of `stages`; the first if it isn't given
    # Messages of the homes, by stage and seat; each was verified.
    heard: Mapping[str, Mapping[int, Statement]] = field(default_factory=dict)
    # Sealed shares by the seat that sent them and the seat (as text) that they are for.
    sealed: Mapping[int, Mapping[str, str]] = field(default_factory=dict, repr=False)
    bodies: Mapping[int, bytes] = field(default_factory=dict, repr=False)  # updates: masked, or in the open
    total: bytes = field(default=b"", repr=False)  # the sum, packed; in the open, the combination as a sum of so many equal updates
    verdict: RoundVerdict | None = None
    failure: str = ""  # why it failed; empty if it didn't

    def __post_init__(self) -> None:
        object.__setattr__(self, "stage", self.stage or self.stages[0])

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of this federation's rounds."""
        return OPEN_STAGES if self.terms.rule else STAGES

    @property
    def splits(self) -> bool:
        """True if it was refused, and its homes can be split."""
        refused = self.verdict is not None and not self.verdict.accepted
        return refused and not self.terms.rule and not self.terms.whole and len(self.bodies) >= 2 * FEWEST

    @property
    def evidence(self) -> str:
        """The stage whose statements say which homes are in the sum."""
        return "show" if self.terms.rule else "agree"

    @property
    def over(self) -> bool:
        """True if nothing more is to be asked for a verdict: only to be told."""
        return self.stage == "end" or bool(self.failure)

    def said(self, stage: str) -> Mapping[int, Statement]:
        """Return what the homes said in a stage."""
        return self.heard.get(stage, {})


def requests(now: Round) -> dict[int, Letter]:
    """Return what to ask of whom in this stage."""
    if now.failure:
        return {}
    match now.stage:
        case "keys" | "show":
            return dict.fromkeys(now.joined, Letter(now.stage, {"round": now.number, "base": now.base}))
        case "update":
            keys = _plain(now.said("keys"))
            return {
                seat: Letter(
                    "update", {"keys": keys, "sealed": {str(by): of[str(seat)] for by, of in now.sealed.items() if str(seat) in of}}
                )
                for seat in now.said("keys")
            }
        case "agree" | "shares":
            before = now.said(now.stages[now.stages.index(now.stage) - 1])
            return dict.fromkeys(before, Letter(now.stage, {"heard": _plain(before)}))
        case "vote" if now.terms.rule:
            letter = Letter("vote", {"show": _plain(now.said("show"))}, b"".join(now.bodies[seat] for seat in sorted(now.bodies)))
            return dict.fromkeys(now.said("show"), letter)
        case "vote":
            return dict.fromkeys(now.said("shares"), Letter("vote", {"homes": len(now.bodies)}, now.total))
    head = {"round": now.number, now.evidence: _plain(now.said(now.evidence)), "votes": _plain(now.said("vote"))}
    if now.splits:
        head["seeds"] = {str(seat): seed for seat, seed in seeds_of(now.terms, now.said("keys"), now.bodies, now.said("shares")).items()}
    letter = Letter("end", head, now.total)
    return dict.fromkeys(now.joined, letter)


def hear(now: Round, seat: int, reply: Letter) -> Round:
    """Take in the reply of one home. Raises FederatedError if it isn't what was asked for; the round then goes on without that home."""
    if reply.kind == "refused":
        reason = str(reply.head.get("rule", "no reason"))[:200]
        raise FederatedError("home", f"The home in seat {seat} refused", reason, "It goes on without that home, if enough are left.")
    statement = Statement.read(reply.head.get("statement"))
    if statement.seat != seat or seat not in requests(now):
        raise FederatedError("seat", f"The home in seat {seat} was not asked, or answered for another", "", "Its answer is left out.")
    _checks(now, statement, reply)
    heard = {**now.heard, now.stage: {**now.said(now.stage), seat: statement}}
    if now.stage == "keys":
        return replace(now, heard=heard, sealed={**now.sealed, seat: _sealed(reply)})
    if now.stage in ("update", "show"):
        return replace(now, heard=heard, bodies={**now.bodies, seat: reply.body})
    return replace(now, heard=heard)


def close(now: Round) -> Round:
    """End a stage: go on to the next with the homes that answered, or fail with the reason if they are too few."""
    assert not now.over
    there = len(now.said(now.stage))
    if now.stage != "vote" and there < now.terms.threshold:
        rule = f"{there} homes of {len(now.terms.members)} answered ({now.stage}), and {now.terms.threshold} is the fewest"
        return replace(now, failure=f"{rule}. Nothing is known of any update.")
    after = replace(now, stage=now.stages[now.stages.index(now.stage) + 1])
    if after.stage == "vote":
        try:
            return replace(after, total=pack(_total(now), now.terms.grid.width))
        except FederatedError as error:
            return replace(now, failure=error.sentence)
    if now.stage == "vote":
        votes = list(now.said("vote").values())
        return replace(after, verdict=count(now.terms, now.number, now.base, sorted(now.bodies), votes, digest_bytes(now.total)))
    return after


def _total(now: Round) -> Whole:
    if now.terms.rule:
        return combine_shown(now.terms, now.number, now.base, now.length, now.said("show"), now.bodies)
    return open_sum(now.terms, now.number, now.length, now.said("keys"), now.bodies, now.said("shares"))


def _checks(now: Round, statement: Statement, reply: Letter) -> None:
    """Check a reply as the other homes will: one bad one would otherwise end the round for all."""
    expected: dict[str, Any] = {"federation": now.terms.federation, "round": now.number}
    match now.stage:
        case "keys":
            expected["base"] = now.base
            common_key(new_private(), text_of(statement, "key"), {})  # raises for a key that is none
            text_of(statement, "seed")
        case "show":
            read_shown(now.terms, now.number, now.base, now.length, statement, reply.body)
        case "update":
            expected |= {"roster": roster_digest(now.said("keys").values()), "numbers": digest_bytes(reply.body)}
            if len(reply.body) != (right := packed_bytes(now.length, now.terms.grid.width)):
                raise FederatedError("update", f"must have {right} bytes", len(reply.body), "That home has another model or rank.")
        case "agree":
            expected |= {"roster": roster_digest(now.said("keys").values()), "survivors": sorted(now.said("update"))}
        case "shares":
            expected["survivors"] = sorted(now.said("update"))
        case "vote":
            believe_vote(statement, now.terms, now.number, now.base, sorted(now.bodies), digest_bytes(now.total))
            return
    believe(statement, now.stage, now.terms.members, expected)


def _sealed(reply: Letter) -> dict[str, str]:
    sealed = reply.head.get("sealed")
    if not isinstance(sealed, dict) or not all(isinstance(share, str) for share in sealed.values()):
        raise FederatedError("sealed", "must hold a share for each home", "something else", "Its answer is left out.")
    return sealed


def _plain(statements: Mapping[int, Statement]) -> list[dict[str, Any]]:
    return [statements[seat].plain() for seat in sorted(statements)]
