"""The terms of a sum: who takes part, how many must stay, and the grid of whole numbers on which updates are summed.

All homes have them from the invitation. Sums on a grid are exact, and masks on them hide everything.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError, FederatedError
from ingle.ledger.keys import read_verifier

Whole = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Grid:
    reach: float  # the largest magnitude that the grid holds; what is larger is cut to it
    bits: int = 11  # bits of one home's number: with up to 16 homes in all less than two bytes, and under a quarter of what FedAvg sends
    homes: int = 3  # the most homes in one sum: it takes log2 of them more bits

    def __post_init__(self) -> None:
        if not (0 < self.reach < float("inf")):
            raise ConfigError("reach", "must be above 0 and finite", self.reach)
        if not 2 <= self.bits <= 24:
            raise ConfigError("bits", "must be from 2 to 24", self.bits)
        if not 1 <= self.homes <= 256:
            raise ConfigError("homes", "must be from 1 to 256", self.homes)

    @property
    def half(self) -> int:
        """The whole number that stands for zero, and the steps on each side of it."""
        return (1 << (self.bits - 1)) - 1

    @property
    def step(self) -> float:
        return self.reach / self.half

    @property
    def width(self) -> int:
        """Bits of a sum, and of what goes over the wire: masks are added modulo 2 ** width."""
        return self.bits + (self.homes - 1).bit_length()

    @property
    def modulus_bits(self) -> np.uint32:
        """The bits of a number that count: `& modulus_bits` is modulo 2 ** width."""
        return np.uint32((1 << self.width) - 1)


def to_grid(update: npt.ArrayLike, grid: Grid) -> tuple[Whole, int]:
    """Put numbers on the grid, each to its nearest point. Returns them (one row), and how many were cut to the grid's reach.

    Raises FederatedError for NaN and infinity.
    """
    values = np.asarray(update, np.float64).reshape(-1)
    if wrong := int(values.size - np.isfinite(values).sum()):
        cure = "Training went wrong: lower the learning rate, or look at the data. Nothing was sent."
        raise FederatedError("update", "must hold finite numbers only", f"{wrong} of {values.size} are NaN or infinity", cure)
    steps = np.rint(values / grid.step)
    cut = int((np.abs(steps) > grid.half).sum())
    return (np.clip(steps, -grid.half, grid.half) + grid.half).astype(np.uint32), cut


def from_grid(total: Whole, homes: int, grid: Grid) -> npt.NDArray[np.float32]:
    """Return the mean of the homes' numbers from the sum of `homes` of them on the grid. The sum is exact; it is rounded once, here."""
    steps = total.astype(np.int64) - homes * grid.half
    return (steps * (grid.step / homes)).astype(np.float32)


def filled(total: Whole, missing: int, grid: Grid) -> Whole:
    """Return a sum on the grid as if so many more homes had each sent zeros."""
    return total + np.uint32(missing * grid.half)


def pack(values: Whole, width: int) -> bytes:
    """Return numbers below 2 ** width in `width` bits each: whole bytes first, plane by plane, then single bits."""
    whole, rest = divmod(width, 8)
    planes = [((values >> (8 * at)) & 0xFF).astype(np.uint8).tobytes() for at in range(whole)]
    bits = [np.packbits(((values >> (8 * whole + at)) & 1).astype(np.uint8)).tobytes() for at in range(rest)]
    return b"".join(planes + bits)


def packed_bytes(count: int, width: int) -> int:
    """Return how many bytes `pack` gives for `count` numbers."""
    whole, rest = divmod(width, 8)
    return whole * count + rest * -(-count // 8)


def unpack(data: bytes, count: int, width: int) -> Whole:
    """Return the numbers that `pack` wrote. Raises FederatedError if the length is another."""
    if len(data) != packed_bytes(count, width):
        raise FederatedError("update", f"must have {packed_bytes(count, width)} bytes", len(data), "It was cut, or made for another model.")
    whole, rest = divmod(width, 8)
    values = np.zeros(count, np.uint32)
    for at in range(whole):
        values |= np.frombuffer(data, np.uint8, count, at * count).astype(np.uint32) << np.uint32(8 * at)
    packed = -(-count // 8)
    for at in range(rest):
        plane = np.frombuffer(data, np.uint8, packed, whole * count + at * packed)
        values |= np.unpackbits(plane, count=count).astype(np.uint32) << np.uint32(8 * whole + at)
    return values


FEWEST = 3  # in a sum of two, each of them can work out the other's update


@dataclass(frozen=True, slots=True)
class Terms:
    """Checks that every home makes by itself, whatever a coordinator says."""

    federation: str  # digest of the invitation
    members: tuple[str, ...]  # the ledger's public key of each home, 64 hex digits; a home's seat is its place here
    threshold: int  # the fewest homes that a sum is made of; that many are also needed to open it
    grid: Grid
    # How updates are combined in the open (federated/rules). Empty: secure, and no single update is ever shown.
    rule: str = ""
    # True if only sums of all may be opened: where each home adds its share of a noise that hides records in the sum of all only.
    whole: bool = False
    root: int = -1  # seat of the coordinator's home; −1 if it doesn't take part

    def __post_init__(self) -> None:
        homes = len(self.members)
        if homes < FEWEST:
            cure = "Invite more homes: in a sum of two, each can work out what the other sent."
            raise ConfigError("members", f"must be at least {FEWEST}", homes, cure)
        if len(set(self.members)) < homes:
            raise ConfigError("members", "must be different", "the same key twice", "Each home has a ledger's key of its own.")
        for public in self.members:
            try:
                read_verifier(public)
            except ValueError as error:
                raise ConfigError("members", "must be public keys of 64 hex digits", public[:70]) from error
        least = fewest_of(homes)
        if not least <= self.threshold <= homes:
            cure = "With fewer, a coordinator could open two different sums of one round, and subtract them."
            raise ConfigError("threshold", f"must be from {least} to {homes} for {homes} homes", self.threshold, cure)
        if self.grid.homes < homes:
            raise ConfigError("grid", f"must have room for {homes} homes", self.grid.homes)

    @property
    def traitors(self) -> int:
        """The most homes that may tell everything to the coordinator, before it can open more than one sum of a round."""
        return max(0, 2 * self.threshold - len(self.members) - 1)


def fewest_of(homes: int) -> int:
    """Return the lowest threshold that a home accepts: two thirds, and three."""
    return max(FEWEST, -(-2 * homes // 3))


FEWEST_BEFORE = 3  # a median of fewer says little
Steps = npt.NDArray[np.int64]  # numbers on a grid, 0 for zero; below 2 ** 32 in size


def exact_dot(left: Steps, right: Steps) -> int:
    if left.size and int(np.abs(left).max()) * int(np.abs(right).max()) * left.size < 1 << 62:
        return int(left @ right)
    # Halves of 16 bits: no sum of their products leaves 64 bits.
    high, low, other_high, other_low = left >> 16, left & 0xFFFF, right >> 16, right & 0xFFFF
    return (int(high @ other_high) << 32) + ((int(high @ other_low) + int(low @ other_high)) << 16) + int(low @ other_low)


def shorter(square: Fraction | int, most: Fraction | int | None) -> float:
    """Return the factor that makes a row of this squared length no longer than √most, 1 at the most. None is no limit."""
    return 1.0 if most is None or square <= most else math.sqrt(Fraction(most) / Fraction(square))


def mean_square(total: Whole, homes: int, grid: Grid) -> Fraction:
    """Return the squared length of the mean of `homes` updates in a sum, in steps of the grid."""
    steps = total.astype(np.int64) - homes * grid.half
    return Fraction(exact_dot(steps, steps), homes * homes)


def usual_square(before: Sequence[Fraction]) -> Fraction | None:
    """Return the squared length that a gain may have: the median of those that were accepted before; None while they are too few."""
    return sorted(before)[(len(before) - 1) // 2] if len(before) >= FEWEST_BEFORE else None
