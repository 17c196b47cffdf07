"""Rounds that a home followed, kept with the votes that decided them, so that anybody can count them again.

HOME/federated/KEY/rounds/00000007.round    the last letter of round 7: who was in the sum, all signed votes, and the sum

Every home keeps all of them. So each can tell another what it missed, and none depends on the coordinator that was there.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ingle.core.digest import digest_bytes
from ingle.core.errors import FederatedError, HomeError
from ingle.core.files import os_errors, write_atomic
from ingle.federated.aggregate import Tensors
from ingle.federated.invitation import Invitation
from ingle.federated.message import Letter, from_bytes, to_bytes
from ingle.federated.quantise import unpack
from ingle.federated.standing import FederationStanding, folder_of
from ingle.federated.statement import Statement
from ingle.federated.verdict import RoundVerdict, count
from ingle.home.place import Home

ROUNDS = "rounds"


def keep_round(home: Home, invitation: Invitation, verdict: RoundVerdict, letter: Letter) -> None:
    """Keep the letter that proves a verdict. Raises HomeError."""
    folder = folder_of(home, invitation) / ROUNDS
    with os_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(folder / f"{verdict.number:08d}.round", to_bytes(letter), mode=0o600)


def kept_rounds(home: Home, invitation: Invitation) -> Iterator[tuple[Path, Letter]]:
    """Yield the rounds that a home followed, oldest first. Raises HomeError for one that can't be read."""
    for path in sorted((folder_of(home, invitation) / ROUNDS).glob("*.round")):
        try:
            with os_errors(path):
                yield path, from_bytes(path.read_bytes())
        except FederatedError as error:
            raise HomeError(str(path), "must be a whole round", error, "Restore it from a backup, or from another home.") from error


def missed(home: Home, invitation: Invitation, base: str) -> list[Letter]:
    """Return the letters that bring a home from `base` to where this one is, in order; none if it is there, or this one never was.

    Raises HomeError.
    """
    letters: list[Letter] = []
    reached = base == invitation.base
    for path, letter in kept_rounds(home, invitation):
        verdict = recount(invitation, letter, path)
        if reached and verdict.accepted:
            letters.append(letter)
        reached = reached or verdict.next_base == base
    return letters


def recount(invitation: Invitation, letter: Letter, path: Path) -> RoundVerdict:
    """Count the signed votes of a kept round again. Raises HomeError if they aren't what the homes signed."""
    try:
        agreed, votes = (_statements(letter, name) for name in ("agreed", "votes"))
        # Nobody signed for a wrong number: whatever stands there, `count` finds it.
        number, base = letter.head.get("round", 0), next((str(vote.facts.get("base")) for vote in votes), "")
        return count(invitation.terms(), number, base, agreed, votes, digest_bytes(letter.body))
    except FederatedError as error:
        raise HomeError(str(path), "must be as the homes signed it", error, "Restore it from a backup, or from another home.") from error


def replay(home: Home, start: FederationStanding) -> tuple[FederationStanding, list[RoundVerdict]]:
    """Count every kept round again, from the first, and add up the sums: where the home must be now.

    Raises HomeError if a round was altered, is missing, or doesn't follow from the one before.
    """
    standing, verdicts = start, list[RoundVerdict]()
    for path, letter in kept_rounds(home, start.invitation):
        verdict = recount(start.invitation, letter, path)
        if (verdict.yes or verdict.no) and verdict.base != standing.base:
            rule = f"must begin where the round before it ended ({standing.base[:12]})"
            raise HomeError(str(path), rule, verdict.base[:12], "A round between them is missing: restore it from another home.")
        standing = standing.after(verdict, unpack(letter.body, standing.length, start.invitation.terms().grid.width))
        verdicts.append(verdict)
    return standing, verdicts


def same_factors(one: Tensors, other: Tensors) -> bool:
    """Return whether two homes' factors are the same, to the last bit."""
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def _statements(letter: Letter, name: str) -> Sequence[Statement]:
    plain = letter.head.get(name)
    return [Statement.read(one) for one in plain] if isinstance(plain, list) else []
