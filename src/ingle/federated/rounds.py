"""Rounds as their coordinator sees them: values that go from stage to stage, and do nothing by themselves; and how they are run.

    keys → update → agree → shares → vote → end       secure: sums only
    show → vote → end                                 open: single updates, combined by a rule
    sums → judge → (sums → judge …) → union → end     after a refused one

In each stage `requests` says what to ask of whom, `hear` takes a reply in, and `close` ends the stage when all replies are there or the
time is up. A round fails where too few homes are left; nothing is known then of any update, and the next number begins anew.

After a refused round all groups of one level of the split are summed at once, each by a `Round` of its own; then all homes judge all of
these sums. Good groups go in, the others are halved as far as the split goes. What is good makes one sum, on which all vote once more: a
change goes in only as a whole.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from ingle.core.digest import digest_bytes
from ingle.core.errors import FederatedError
from ingle.federated.open_round import combine_shown, read_shown
from ingle.federated.sealing import common_key, new_private
from ingle.federated.secure_sum import SAID, open_sum, plain_sum, roster_digest, seeds_of
from ingle.federated.split import Group, Split, believe_split, group_terms
from ingle.federated.statement import Letter, Statement, believe, from_bytes, text_of, to_bytes
from ingle.federated.terms import FEWEST, Terms, Whole, filled, pack, packed_bytes, unpack
from ingle.federated.transport import Ask
from ingle.federated.verdict import RoundVerdict, believe_vote, count

STAGES = ("keys", "update", "agree", "shares", "vote", "end")
OPEN_STAGES = ("show", "vote", "end")


@dataclass(frozen=True)
class Round:
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


# The rounds after a refused one.


@dataclass(frozen=True)
class Halving:
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
        return tuple(group for group, verdict in self.verdicts.items() if verdict.accepted and group in self.split.groups)

    @property
    def union(self) -> Group:
        return tuple(sorted(seat for group in self.good for seat in group))

    def total(self, group: Group) -> bytes:
        """The judged sum of a group, packed: its part of the mean of all, as if the other homes had sent zeros."""
        return pack(filled(self.sums[group], len(self.split.homes) - len(group), self.terms.grid), self.terms.grid.width)

    @property
    def asked(self) -> tuple[Group, ...]:
        return (self.union,) if self.stage == "union" else tuple(group for group in self.rounds if group in self.sums)


def begin_halving(terms: Terms, split: Split, signed: tuple[Statement, ...], length: int, number: int) -> Halving:
    """Begin with the two halves of the refused round, as round `number`."""
    return _level(Halving(terms, split, signed, length, number), split.halves[split.homes])


def halving_requests(now: Halving) -> dict[int, Letter]:
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


def halving_hears(now: Halving, seat: int, reply: Letter) -> Halving:
    """Take in the reply of one home. Raises FederatedError if it isn't what was asked for."""
    if now.stage == "sums":
        group = next((group for group in now.rounds if seat in group), None)
        if group is None:
            raise FederatedError("seat", f"The home in seat {seat} was not asked", "", "Its answer is left out.")
        return replace(now, rounds={**now.rounds, group: hear(now.rounds[group], group.index(seat), reply)})
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


def halving_closes(now: Halving) -> Halving:
    """End a stage: go on with what was answered. A group that lacks one of its homes has no sum."""
    if now.stage == "sums":
        after = replace(now, rounds={group: close(one) if _asks(one) else one for group, one in now.rounds.items()})
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
    return {} if one.over or one.stage == "vote" else requests(one)


def _of_group(now: Halving, group: Group, letter: Letter) -> Letter:
    if letter.kind != "keys":
        return letter
    return replace(letter, head={**letter.head, "group": list(group), "split": [one.plain() for one in now.signed]})


# Rounds over a transport: ask, hear, close, until there is a verdict or too few homes are left.


Stage = TypeVar("Stage", Round, Halving)
Complaint = Callable[[int, FederatedError], object]  # hears what was wrong with the answer of the home in a seat


@dataclass(frozen=True, slots=True)
class EndedRound:
    """The end of a round, and of its groups' rounds where it was refused and split."""

    round: Round
    # The last one: on the groups where it was split. None if too few homes were left.
    verdict: RoundVerdict | None
    number: int  # the last number that was used: rounds of groups have numbers of their own
    followed: tuple[int, ...]  # the homes that came to the same verdict; the others must be told again before they can take part
    telling: Mapping[int, Letter]  # letters that tell the homes the verdict, by seat


def gather(terms: Terms, ask: Ask, deadline_s: float, complain: Complaint) -> dict[int, Statement]:
    """Let the homes that are there know each other's keys. Returns by seat what each of them said.

    Raises FederatedError if they are too few.
    """
    joined: dict[int, Statement] = {}
    for seat, data in ask(dict.fromkeys(range(len(terms.members)), to_bytes(Letter("join"))), deadline_s):
        try:
            joined[seat] = _joined(terms, seat, data)
        except FederatedError as error:
            complain(seat, error)
    _enough(terms, len(joined))
    letter = to_bytes(Letter("meet", {"joined": [joined[seat].plain() for seat in sorted(joined)]}))
    met = [seat for seat, data in ask(dict.fromkeys(joined, letter), deadline_s) if _is(data, "met", seat, complain)]
    _enough(terms, len(met))
    return {seat: joined[seat] for seat in sorted(met)}


def run_round(now: Round, ask: Ask, deadline_s: float, complain: Complaint) -> EndedRound:
    """Run a round to its end, `deadline_s` for each stage. An answer that is wrong counts as none.

    A secure round that was refused is split, and its groups' sums are judged.
    """
    while not now.over:
        now = close(_asked(now, requests(now), hear, ask, deadline_s, complain))
    telling = requests(now)
    letters = _tell(telling, ask, deadline_s, complain)
    ended = EndedRound(now, now.verdict, now.number, _followed(letters, now.verdict), telling)
    if not now.splits:
        return ended
    signed = [said for seat, letter in letters.items() if (said := _signed(now.terms, seat, letter, complain)) is not None]
    same = max(([one for one in signed if one.facts == said.facts] for said in signed), key=len, default=[])
    if len(same) < now.terms.threshold:
        return ended
    return _run_halving(ended, believe_split(now.terms, same), tuple(same), ask, deadline_s, complain)


def _run_halving(
    before: EndedRound, split: Split, signed: tuple[Statement, ...], ask: Ask, deadline_s: float, complain: Complaint
) -> EndedRound:  # fmt: skip
    now = begin_halving(before.round.terms, split, signed, before.round.length, before.number + 1)
    while now.stage != "end":
        now = halving_closes(_asked(now, halving_requests(now), halving_hears, ask, deadline_s, complain))
    telling = halving_requests(now)
    letters = _tell(telling, ask, deadline_s, complain)
    return EndedRound(before.round, now.verdict, now.number, _followed(letters, now.verdict), telling)


def _asked(
    now: Stage, letters: Mapping[int, Letter], hear: Callable[[Stage, int, Letter], Stage], ask: Ask, deadline_s: float, complain: Complaint
) -> Stage:  # fmt: skip
    for seat, data in ask({seat: to_bytes(letter) for seat, letter in letters.items()}, deadline_s):
        try:
            now = hear(now, seat, from_bytes(data))
        except FederatedError as error:
            complain(seat, error)
    return now


def _tell(letters: Mapping[int, Letter], ask: Ask, deadline_s: float, complain: Complaint) -> dict[int, Letter]:
    told = ask({seat: to_bytes(letter) for seat, letter in letters.items()}, deadline_s)
    return {seat: letter for seat, data in told if (letter := _is(data, "ended", seat, complain)) is not None}


def _followed(letters: Mapping[int, Letter], verdict: RoundVerdict | None) -> tuple[int, ...]:
    digest = verdict.digest if verdict else ""
    return tuple(sorted(seat for seat, letter in letters.items() if letter.head.get("digest") == digest))


def _signed(terms: Terms, seat: int, letter: Letter, complain: Complaint) -> Statement | None:
    if "split" not in letter.head:
        return None
    try:
        said = Statement.read(letter.head["split"])
        believe(said, "split", terms.members, {"federation": terms.federation})
    except FederatedError as error:
        complain(seat, error)
        return None
    return said


def _joined(terms: Terms, seat: int, data: bytes) -> Statement:
    """Return what a home said when it took its seat; raises FederatedError if it isn't that home's."""
    statement = Statement.read(from_bytes(data).head.get("statement"))
    believe(statement, "join", terms.members, {"federation": terms.federation})
    if statement.seat != seat:
        raise FederatedError("seat", f"The home in seat {seat} answered for another", statement.seat, "It is left out.")
    return statement


def _is(data: bytes, kind: str, seat: int, complain: Complaint) -> Letter | None:
    """Return a reply if it is of this kind; complain if it isn't."""
    try:
        letter = from_bytes(data)
    except FederatedError as error:
        complain(seat, error)
        return None
    if letter.kind == kind:
        return letter
    complain(seat, FederatedError("home", f"The home in seat {seat} refused", str(letter.head.get("rule", letter.kind))[:200]))
    return None


def _enough(terms: Terms, homes: int) -> None:
    if homes < terms.threshold:
        raise FederatedError("homes", f"must be at least {terms.threshold} to begin", homes, "Wait until more homes have joined.")
