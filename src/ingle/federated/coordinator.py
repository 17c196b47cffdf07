"""A federation from its coordinator's side: round after round until all are done, whatever stops in between.

The coordinator is one of the homes. It keeps nothing that the others don't keep too, so any of them can take its place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ingle.core.errors import FederatedError
from ingle.core.progress import silent
from ingle.federated.at_home import Taking
from ingle.federated.rounds import Complaint, EndedRound, Round, gather, run_round
from ingle.federated.standing import FederationStanding, missed, read_said
from ingle.federated.statement import Statement, to_bytes
from ingle.federated.transport import Ask

FAILURES = 3  # rounds in a row that may fail or be refused before the coordinator gives up
FAR = 1 << 20  # a home that says it is more rounds ahead than this is not believed


@dataclass(frozen=True, slots=True)
class SessionWatch:
    """Callbacks that hear how a federation goes."""

    joined: Callable[[tuple[int, ...]], object] = silent  # hears the seats of the homes that are there
    began: Callable[[int, int], object] = silent  # hears a round's number, and how many were accepted before it
    ended: Callable[[EndedRound], object] = silent  # hears how a round ended
    complain: Complaint = silent  # hears what was wrong with a home's answer


def coordinate(
    taking: Taking, ask: Ask, deadline_s: float, stopped: Callable[[], bool], watch: SessionWatch = SessionWatch(),
) -> FederationStanding:  # fmt: skip
    """Run rounds until the invitation's number is accepted, or somebody asked to stop. Returns where this home then is.

    `ask` reaches all homes, this one too. `deadline_s`: seconds that homes have for each stage of a round.
    Raises FederatedError if too few homes are there, or if several rounds in a row came to nothing; the same call goes on.
    """
    invitation = taking.invitation
    terms, failures, there = invitation.terms(), 0, dict[int, Statement]()
    number = read_said(taking.home, invitation)[0]
    while (standing := taking.standing).accepted < invitation.rounds and not stopped():
        if not there:
            there = gather(terms, ask, deadline_s, watch.complain)
            number = max(number, *(_round_of(said, number) for said in there.values()))
            watch.joined(tuple(there))
            _catch_up(taking, standing, there, ask, deadline_s, watch.complain)
        watch.began(number + 1, standing.accepted)
        here = tuple(seat for seat in there if seat not in standing.suspicion.suspended)
        ended = run_round(Round(terms, number + 1, standing.base, standing.length, here), ask, deadline_s, watch.complain)
        number = ended.number
        watch.ended(ended)
        accepted = ended.verdict is not None and ended.verdict.accepted
        failures = 0 if accepted else failures + 1
        if failures == FAILURES and not stopped():
            what = ended.round.failure or "the homes' gates refused what came of it"
            cure = "What was learned before is kept. The same command goes on from there."
            raise FederatedError("rounds", f"{FAILURES} rounds in a row came to nothing", what, cure)
        if not accepted or len(ended.followed) < len(terms.members) - len(standing.suspicion.suspended):
            there = {}  # somebody is missing or behind: all meet again, those who come back too
    return taking.standing


def _round_of(said: Statement, own: int) -> int:
    number = said.facts.get("round")
    return number if type(number) is int and 0 <= number <= own + FAR else 0


def _catch_up(
    taking: Taking, standing: FederationStanding, there: Mapping[int, Statement], ask: Ask, deadline_s: float, complain: Complaint
) -> None:
    """Tell homes that missed verdicts what was decided; they count the votes themselves."""
    for seat, said in there.items():
        base = str(said.facts.get("base"))
        if base == standing.base:
            continue
        letters = missed(taking.home, taking.invitation, base)
        if not letters:
            rule = f"The home in seat {seat} is at {base[:12]}, which this home never was"
            complain(seat, FederatedError("base", rule, "", "It goes on without that home. The one that is ahead must coordinate."))
        for letter in letters:
            list(ask({seat: to_bytes(letter)}, deadline_s))
