"""How to split compute between size and data, and what one can stand in for of the other."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ingle.core.errors import ConfigError
from ingle.scaling.interval import LEVEL, Fit, Prediction
from ingle.scaling.points import FLOPS_A_TOKEN, Floats, Place, short

OUTSIDE = 10.0
"""Sizes are searched from the smallest fitted over this to the largest fitted times this."""
_SIZES = 160


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure with its interval."""

    value: float
    low: float
    high: float

    def table(self) -> dict[str, float]:
        """Return it as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Allocation:
    """The split of some compute that the laws think best."""

    flops: float
    parameters: Spread
    """Best size on average over the laws; the interval holds what single laws think best."""
    tokens: Spread
    loss: Prediction
    """Of a new run at this split."""
    notes: tuple[str, ...]

    def table(self) -> dict[str, Any]:
        """Return it as plain values."""
        sizes = {"parameters": self.parameters.table(), "tokens": self.tokens.table()}
        return {"flops": self.flops, **sizes, "loss": self.loss.table(), "notes": list(self.notes)}


def sizes_to_search(fit: Fit, count: int = _SIZES) -> Floats:
    """Return sizes around those that were fitted, evenly in their logarithm."""
    fitted = [one.parameters for one in fit.points]
    return np.geomspace(min(fitted) / OUTSIDE, max(fitted) * OUTSIDE, count)


def at_compute(flops: float, sizes: Floats, unique: float = 0.0) -> list[Place]:
    """Return the places on the line of equal compute."""
    return [Place(float(size), flops / (FLOPS_A_TOKEN * float(size)), unique) for size in sizes]


def split(fit: Fit, flops: float, unique: float = 0.0, level: float = LEVEL) -> Allocation:
    """Return the best size and amount of data for so much compute. Raises ConfigError beyond what these runs can say.

    `unique`: different tokens that there are; 0 = as many as wanted.
    """
    if not flops > 0:
        raise ConfigError("flops", "must be above 0", flops)
    fit.check_compute(flops, f"{short(flops)} FLOP")
    sizes = sizes_to_search(fit)
    losses = fit.samples(at_compute(flops, sizes, unique))
    best = float(sizes[losses.mean(axis=0).argmin()])
    low, high = np.quantile(sizes[losses.argmin(axis=1)], [(1 - level) / 2, (1 + level) / 2])
    place = at_compute(flops, np.array([best]), unique)[0]
    tokens = Spread(place.tokens, flops / (FLOPS_A_TOKEN * float(high)), flops / (FLOPS_A_TOKEN * float(low)))
    notes = _notes(fit, best, float(low), float(high), sizes)
    return Allocation(flops, Spread(best, min(best, float(low)), max(best, float(high))), tokens, fit.predict([place], level)[0], notes)


def _notes(fit: Fit, best: float, low: float, high: float, sizes: Floats) -> tuple[str, ...]:
    fitted = [one.parameters for one in fit.points]
    if low <= sizes[0] * 1.01 or high >= sizes[-1] * 0.99:
        return ("The runs don't say which split is best: some of their laws want a size at the edge of what was searched",)
    if not min(fitted) / 3 <= best <= max(fitted) * 3:
        return (f"The best size, {short(best)}, is far from the sizes that were run ({short(min(fitted))} to {short(max(fitted))})",)
    return ()


def iso_loss(fit: Fit, loss: float, sizes: Sequence[float], level: float = LEVEL) -> list[Spread]:
    """Return the tokens that each size must read to come to a loss; infinite where no amount is enough, or more than was searched."""
    read = [one.tokens for one in fit.points]
    tokens = np.geomspace(min(read) / 30, max(read) * 100, 120)
    found = []
    for size in sizes:
        losses = fit.samples([Place(size, float(count)) for count in tokens])
        needed = _crossing(losses, np.log(tokens), loss)
        low, middle, high = np.quantile(needed, [(1 - level) / 2, 0.5, (1 + level) / 2], method="nearest")
        found.append(Spread(float(middle), float(low), float(high)))
    return found


def _crossing(losses: Floats, logs: Floats, loss: float) -> Floats:
    """Return where each falling row comes to a loss, between two columns by a straight line."""
    above = (losses > loss).sum(axis=1)
    before = np.clip(above - 1, 0, len(logs) - 2)
    rows = np.arange(len(losses))
    left, right = losses[rows, before], losses[rows, before + 1]
    part = np.clip((left - loss) / np.maximum(left - right, 1e-300), 0, 1)
    result = np.exp(logs[before] + part * (logs[before + 1] - logs[before]))
    return np.where(above == len(logs), np.inf, result)
