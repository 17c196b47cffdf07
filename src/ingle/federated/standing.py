"""A home's standing in a federation, kept in HOME/federated/KEY, so that it goes on where it was after a kill at any moment.

standing.safetensors     the factors that were learned so far, with what they are in its head; replaced whole
said.json                the highest round that this home ever said anything in, and the homes in each sum that it helped to open
rounds/00000007.round    the last letter of round 7: who was in the sum, all signed votes, and the sum

Every home keeps all rounds that it followed, with the votes that decided them, so that anybody can count them again. So each can tell
another what it missed, and none depends on the coordinator that was there.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ingle.core.digest import canonical_json
from ingle.core.errors import FederatedError, HomeError
from ingle.core.files import os_errors, write_atomic
from ingle.federated.aggregate import Tensors, added_gain, aggregation, first_factors, trained_names
from ingle.federated.home_node import verdict_in
from ingle.federated.invitation import Invitation
from ingle.federated.secure_sum import Opened
from ingle.federated.statement import Letter, from_bytes, to_bytes
from ingle.federated.terms import Whole, from_grid, mean_square, shorter, unpack, usual_square
from ingle.federated.verdict import RoundVerdict, Suspicion
from ingle.home.place import Home

FACTORS, SAID = "standing.safetensors", "said.json"


@dataclass(frozen=True)
class FederationStanding:
    invitation: Invitation
    base: str  # digest of the last accepted verdict; before the first, of the model
    factors: Tensors  # by the names that a delta of the kind `lora` has
    accepted: int = 0  # rounds that were accepted
    settled: int = 0  # the last round whose verdict was followed
    lengths: tuple[Fraction, ...] = ()  # of each accepted round, the squared length of the mean gain, in steps of the grid
    suspicion: Suspicion = field(default_factory=Suspicion)  # findings of split rounds about the homes

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that are trained and sent next. A round that was dropped leaves them as they were."""
        return trained_names(self.factors, self.invitation.aggregation, self.accepted + 1)

    @property
    def length(self) -> int:
        return sum(self.factors[name].size for name in self.names)

    def with_sum(self, total: Whole, homes: int) -> dict[str, npt.NDArray[np.float32]]:
        """Return the factors with the mean of `homes` homes' gains, which is no longer than is usual."""
        grid = self.invitation.terms().grid
        cut = shorter(mean_square(total, homes, grid), self.usual)
        return added_gain(self.factors, from_grid(total, homes, grid).astype(np.float64) * cut, self.names)

    @property
    def usual(self) -> Fraction | None:
        """The squared length that the next gain may have: longer ones are cut to it."""
        turns = len(aggregation(self.invitation.aggregation).trains)
        return usual_square(self.lengths[self.accepted % turns :: turns])

    def after(self, verdict: RoundVerdict, total: Whole) -> "FederationStanding":
        terms, homes = self.invitation.terms(), len(verdict.voters)
        told = replace(self, settled=max(self.settled, verdict.number), suspicion=self.suspicion.after(terms, verdict))
        if not verdict.accepted:
            return told
        square = mean_square(total, homes, terms.grid)
        length = square if self.usual is None else min(square, self.usual)
        return replace(
            told, base=verdict.next_base, factors=self.with_sum(total, homes), accepted=self.accepted + 1, lengths=(*self.lengths, length)
        )


def folder_of(home: Home, invitation: Invitation) -> Path:
    return home.federated / invitation.digest[:16]


def first_standing(invitation: Invitation, shapes: Mapping[str, tuple[int, int]]) -> FederationStanding:
    """Return where all homes begin that train these linears [N, K]. Raises ConfigError for an aggregation that there isn't."""
    aggregation(invitation.aggregation)
    return FederationStanding(invitation, invitation.base, first_factors(shapes, invitation.rank, invitation.seed))


def read_standing(home: Home, invitation: Invitation, shapes: Mapping[str, tuple[int, int]]) -> FederationStanding:
    """Return where this home is in a federation that trains these linears [N, K]; the beginning if it keeps nothing of it.

    Raises HomeError for a file that can't be read, or is of another federation.
    """
    path = folder_of(home, invitation) / FACTORS
    begun = first_standing(invitation, shapes)
    if not path.exists():
        return begun
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            told = file.metadata() or {}
            factors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        lengths = tuple(Fraction(one) for one in json.loads(told["lengths"]))
        refused, suspended, counted = json.loads(told["suspicion"])
        suspicion = Suspicion(tuple((int(seat), int(times)) for seat, times in refused), tuple(map(int, suspended)), str(counted))
        standing = FederationStanding(invitation, told["base"], factors, int(told["accepted"]), int(told["settled"]), lengths, suspicion)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise HomeError(str(path), "must hold what was learned together", error, "Restore it from a backup.") from error
    shaped = {name: values.shape for name, values in factors.items()} == {name: values.shape for name, values in begun.factors.items()}
    if told.get("federation") != invitation.digest or not shaped:
        raise HomeError(str(path), "must be of this federation", told.get("federation", "")[:12], "Move that folder away.")
    return standing


def keep_standing(home: Home, standing: FederationStanding) -> None:
    """Keep where this home is, whole or not at all. Raises HomeError."""
    from safetensors.numpy import save

    told = {
        "federation": standing.invitation.digest, "base": standing.base,
        "accepted": str(standing.accepted), "settled": str(standing.settled),
        "lengths": json.dumps([str(one) for one in standing.lengths]),
        "suspicion": json.dumps(astuple(standing.suspicion)),
    }  # fmt: skip
    tensors = {name: np.ascontiguousarray(values) for name, values in standing.factors.items()}
    write_atomic(_made(home, standing.invitation) / FACTORS, save(tensors, told), mode=0o600)


def read_said(home: Home, invitation: Invitation) -> tuple[int, Opened]:
    """Return the highest round that this home ever said anything in, and the sums that it helped to open.

    Raises HomeError if that is damaged, or came out of a backup.
    """
    path = folder_of(home, invitation) / SAID
    if not path.exists():
        return 0, ()
    if not _here(home, invitation).exists():
        rule = "must be of this very home, and it came out of a backup: since then more may have been said than stands there"
        raise HomeError(str(path), rule, "", "Take part under a new invitation; what both spend of privacy adds up.")
    with os_errors(path):
        data = path.read_bytes()
    try:
        told = json.loads(data)
        return int(told["round"]), tuple((str(base), tuple(int(seat) for seat in homes)) for base, homes in told["opened"])
    except (ValueError, KeyError, TypeError) as error:
        cure = "Leave this federation: without it others could find out what this home sent. A new invitation begins anew."
        raise HomeError(str(path), "must say in which rounds this home took part", error, cure) from error


def keep_said(home: Home, invitation: Invitation, number: int, opened: Opened) -> None:
    """Keep in which rounds this home took part, before it says a word. Raises HomeError."""
    folder, here = _made(home, invitation), _here(home, invitation)
    with os_errors(here):
        here.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not here.exists():
        write_atomic(here, b"", mode=0o600)
    write_atomic(folder / SAID, canonical_json({"round": number, "opened": opened}), mode=0o600)


def _here(home: Home, invitation: Invitation) -> Path:
    """The file that says that this home has not come out of a backup since it took part: backups leave this folder out."""
    return home.root / "locks" / f"federated-{invitation.digest[:16]}.here"


def _made(home: Home, invitation: Invitation) -> Path:
    folder = folder_of(home, invitation)
    with os_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


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
