"""Rounds that a home followed, kept with the votes that decided them, so that anybody can count them again.

HOME/federated/KEY/rounds/00000007.round    the last letter of round 7: who was in the sum, all signed votes, and the sum

Every home keeps all of them. So each can tell another what it missed, and none depends on the coordinator that was there.
"""

from collections.abc import Iterator

from ingle.core.errors import FederatedError, HomeError
from ingle.core.files import os_errors, write_atomic
from ingle.federated.aggregate import Tensors
from ingle.federated.decided import verdict_in
from ingle.federated.invitation import Invitation
from ingle.federated.rounding import unpack
from ingle.federated.standing import FederationStanding, folder_of
from ingle.federated.verdict import RoundVerdict
from ingle.federated.wire import Letter, from_bytes, to_bytes
from ingle.home.place import Home

ROUNDS = "rounds"


def keep_round(home: Home, invitation: Invitation, verdict: RoundVerdict, letter: Letter) -> None:
    """Keep the letter that proves a verdict. Raises HomeError."""
    folder = folder_of(home, invitation) / ROUNDS
    with os_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(folder / f"{verdict.number:08d}.round", to_bytes(letter), mode=0o600)


def kept_rounds(home: Home, invitation: Invitation) -> Iterator[tuple[RoundVerdict, Letter]]:
    """Yield the rounds that a home followed, oldest first, with their votes counted again.

    Raises HomeError for a round that can't be read, was altered, or doesn't follow from the one before.
    """
    terms, base = invitation.terms(), invitation.base
    for path in sorted((folder_of(home, invitation) / ROUNDS).glob("*.round")):
        try:
            with os_errors(path):
                letter = from_bytes(path.read_bytes())
            verdict = verdict_in(terms, base, letter)
        except FederatedError as error:
            cure = "Restore it from a backup, or from another home."
            raise HomeError(str(path), f"must be as the homes signed it, and follow from {base[:12]}", error, cure) from error
        yield verdict, letter
        base = verdict.next_base


def missed(home: Home, invitation: Invitation, base: str) -> list[Letter]:
    """Return the letters that bring a home from `base` to where this one is, in order; none if it is there, or this one never was.

    Raises HomeError.
    """
    letters, reached = list[Letter](), base == invitation.base
    for verdict, letter in kept_rounds(home, invitation):
        if reached and verdict.accepted:
            letters.append(letter)
        reached = reached or verdict.next_base == base
    return letters


def replay(home: Home, start: FederationStanding) -> tuple[FederationStanding, list[RoundVerdict]]:
    """Count every kept round again, from the first, and add up the sums: where the home must be now. Raises HomeError."""
    standing, verdicts, terms = start, list[RoundVerdict](), start.invitation.terms()
    for verdict, letter in kept_rounds(home, start.invitation):
        body = letter.body if verdict.accepted else b""
        standing = standing.after(verdict, unpack(body, standing.length if body else 0, terms.grid.width))
        verdicts.append(verdict)
    return standing, verdicts


def same_factors(one: Tensors, other: Tensors) -> bool:
    """Return whether two homes' factors are the same, to the last bit."""
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)
