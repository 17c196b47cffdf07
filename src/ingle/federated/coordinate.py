"""Run a round over a transport: ask, hear, close, until there is a verdict or too few homes are left."""

from collections.abc import Callable
from dataclasses import dataclass

from ingle.core.errors import FederatedError
from ingle.federated.message import Letter, from_bytes, to_bytes
from ingle.federated.round import Round, close, hear, requests
from ingle.federated.statement import Statement, believe
from ingle.federated.terms import Terms
from ingle.federated.transport import Ask

Complaint = Callable[[int, FederatedError], object]
"""Hears what was wrong with the answer of the home in a seat."""


@dataclass(frozen=True, slots=True)
class EndedRound:
    """The end of a round."""

    round: Round
    followed: tuple[int, ...]
    """The homes that came to the same verdict; the others must be told again before they can take part."""


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
    """Run a round to its end, `deadline_s` for each stage. An answer that is wrong counts as none."""
    while not now.over:
        for seat, data in ask({seat: to_bytes(letter) for seat, letter in requests(now).items()}, deadline_s):
            try:
                now = hear(now, seat, from_bytes(data))
            except FederatedError as error:
                complain(seat, error)
        now = close(now)
    told = ask({seat: to_bytes(letter) for seat, letter in requests(now).items()}, deadline_s)
    digest = now.verdict.digest if now.verdict else ""
    letters = {seat: _is(data, "ended", seat, complain) for seat, data in told}
    followed = [seat for seat, letter in letters.items() if letter is not None and letter.head.get("digest") == digest]
    return EndedRound(now, tuple(sorted(followed)))


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
