"""Run a round over a transport: ask, hear, close, until there is a verdict or too few homes are left."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ingle.core.errors import FederatedError
from ingle.federated import halving
from ingle.federated.halving import Halving, begin_halving
from ingle.federated.round import Round, close, hear, requests
from ingle.federated.split import Split, believe_split
from ingle.federated.statement import Statement, believe
from ingle.federated.terms import Terms
from ingle.federated.transport import Ask
from ingle.federated.verdict import RoundVerdict
from ingle.federated.wire import Letter, from_bytes, to_bytes

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
        now = halving.close(_asked(now, halving.requests(now), halving.hear, ask, deadline_s, complain))
    telling = halving.requests(now)
    letters = _tell(telling, ask, deadline_s, complain)
    return EndedRound(before.round, now.verdict, now.number, _followed(letters, now.verdict), telling)


def _asked(
    now: Stage, letters: Mapping[int, Letter], hear: Callable[[Stage, int, Letter], Stage], ask: Ask, deadline_s: float, complain: Complaint
) -> Stage:  # fmt: skip
    """Ask what a stage asks, and take in the answers."""
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
    """Return a home's signature on the split, if it gave one."""
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
