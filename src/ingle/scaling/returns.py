"""Diminishing returns: how much loss the next unit of compute takes off, and where that has fallen to a quarter of the first unit's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingle.core.errors import ConfigError
from ingle.scaling.interval import LEVEL, MOST_EXTRAPOLATION, Fit
from ingle.scaling.optimal import Spread, at_compute, sizes_to_search
from ingle.scaling.points import Floats, short

STOPS = 0.25
"""Gain of a unit, as a part of the first unit's, below which compute no longer pays."""
_DRAWS, _SIZES, _BUDGETS = 400, 48, 40


@dataclass(frozen=True, slots=True)
class Returns:
    """Gains of more compute, split at its best."""

    start: float
    """FLOP that are spent already."""
    unit: float
    """FLOP of one more unit."""
    gains: tuple[Spread, ...]
    """Loss that each further unit takes off: the first, the second, …"""
    stops: Spread
    """FLOP after which a unit gains less than `STOPS` of the first; infinite = not within what these runs can say."""

    def table(self) -> dict[str, Any]:
        """Return it as plain values; None stands for infinite."""
        stops = {name: value if np.isfinite(value) else None for name, value in self.stops.table().items()}
        return {"start_flops": self.start, "unit_flops": self.unit, "gains": [one.table() for one in self.gains], "stops_flops": stops}


def best_losses(fit: Fit, budgets: Sequence[float], unique: float = 0.0) -> Floats:
    """Return the loss of each drawn law at its own best split, float64 [draws, budgets]."""
    sizes = sizes_to_search(fit, _SIZES)
    few = fit.thinned(_DRAWS)
    return np.stack([_bottoms(few.samples(at_compute(flops, sizes, unique))) for flops in budgets], axis=1)


def _bottoms(losses: Floats) -> Floats:
    """Return the bottom of each row, by the parabola through its lowest number and the two beside."""
    best = np.clip(losses.argmin(axis=1), 1, losses.shape[1] - 2)
    rows = np.arange(len(losses))
    left, middle, right = (losses[rows, best + step] for step in (-1, 0, 1))
    bend = np.maximum(left - 2 * middle + right, 1e-300)
    bottom: Floats = np.minimum(middle - (left - right) ** 2 / (8 * bend), losses.min(axis=1))
    return np.where((losses.argmin(axis=1) == best) & (bend > 1e-12), bottom, losses.min(axis=1))


def returns(fit: Fit, start: float = 0.0, unit: float = 0.0, unique: float = 0.0, level: float = LEVEL) -> Returns:
    """Return what further units of compute buy. Raises ConfigError beyond what these runs can say.

    `start`: FLOP that are spent already, by default those of the largest run; `unit`: by default as many.
    """
    start = start or fit.largest
    unit = unit or start
    if not (start > 0 and unit > 0):
        raise ConfigError("unit", "must be above 0", unit)
    most = MOST_EXTRAPOLATION * fit.largest
    fit.check_compute(start + unit, f"{short(start)} FLOP and a unit of {short(unit)}")
    count = int(min(8, (most * (1 + 1e-9) - start) // unit))
    whole = best_losses(fit, [start + number * unit for number in range(count + 1)], unique)
    ends = [(1 - level) / 2, 0.5, (1 + level) / 2]
    gains = [Spread(float(b), float(a), float(c)) for a, b, c in np.quantile(-np.diff(whole, axis=1), ends, axis=0).T]
    return Returns(start, unit, tuple(gains), _stops(fit, start, unit, most, unique, ends))


def _stops(fit: Fit, start: float, unit: float, most: float, unique: float, ends: Sequence[float]) -> Spread:
    """Return the compute at which the gain of one more unit is `STOPS` of the first's, for each law, as an interval."""
    spent = np.geomspace(start, most - unit, _BUDGETS) if most - unit > start else np.array([start])
    gains = best_losses(fit, list(spent), unique) - best_losses(fit, list(spent + unit), unique)
    enough = gains >= STOPS * gains[:, :1]
    last = np.where(enough.all(axis=1), len(spent), np.argmin(enough, axis=1))
    reached = np.append(spent, np.inf)[last]
    low, middle, high = np.quantile(reached, ends, method="nearest")
    return Spread(float(middle), float(low), float(high))
