"""Updates as whole numbers on a grid: sums of them are exact, and masks on them hide everything."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError, FederatedError

Whole = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Grid:
    """The whole numbers that stand for an update's numbers."""

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
        """How far two neighbours on the grid are apart."""
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
