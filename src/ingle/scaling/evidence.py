"""Evidence for levers: pairs of runs that differ in one setting, and how far what they show is believed elsewhere.

A lever's offset is the logarithm of a pair's losses beyond what the law says of their places: a hybrid of 0.83 million parameters is not
compared with a transformer of 0.82 million as if both were of one size. What a token costs is compared, too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingle.core.energy import Energy, reported
from ingle.scaling.cost import Speed
from ingle.scaling.interval import Fit
from ingle.scaling.points import Floats, Point
from ingle.scaling.runs import point_of


@dataclass(frozen=True, slots=True)
class ProbePair:
    """Two runs of one size and seed that read as many tokens; one has the lever."""

    lever: str
    changed: Mapping[str, Any]
    """Settings that differ."""
    prepared: str
    """Folder name of the text that the run with the lever read."""
    size: str
    after: Point
    """With the lever."""
    before: Point
    """Without it."""
    seconds: float = 1.0
    """Time of a token, as a multiple of that without the lever, timed side by side."""
    joules: float = 1.0
    """Energy of a token, likewise."""


def pair_of(row: Mapping[str, Any], after: Mapping[str, Any], before: Mapping[str, Any]) -> ProbePair:
    """Return a pair of reports. `row`: its lever, its change, and what a token costs."""
    names = ("lever", "changed", "prepared")
    return ProbePair(*(row[name] for name in names), after["size"], point_of(after), point_of(before), row["seconds"], row["joules"])


def _seconds(report: Mapping[str, Any]) -> float:
    return float(report["seconds"] / report["tokens"])


def _joules(report: Mapping[str, Any]) -> float:
    energy = reported(report)
    return energy.joules / report["tokens"] if energy else 0.0


def speed_at(reports: Sequence[Mapping[str, Any]], parameters: float) -> Speed:
    """Return the cost of a token at some size, from the sweep's own runs: a straight line between the logarithms, the last slope beyond."""
    sizes = sorted({report["parameters"] for report in reports})
    medians = [
        [_median([table for table in reports if table["parameters"] == size], what) for size in sizes] for what in (_seconds, _joules)
    ]
    seconds, joules = (_line(sizes, values, parameters) for values in medians)
    metered = [energy for report in reports if (energy := reported(report))]
    whole = sum(energy.joules for energy in metered) or 1.0
    low, high = (joules * sum(getattr(energy, name) for energy in metered) / whole for name in ("low", "high"))
    return Speed(seconds, Energy(joules, low, high, metered[0].source) if metered else Energy(0.0, 0.0, 0.0, ""))


def _median(reports: Sequence[Mapping[str, Any]], what: Callable[[Mapping[str, Any]], float]) -> float:
    return float(np.median([what(report) for report in reports]))


def _line(sizes: Sequence[float], values: Sequence[float], at: float) -> float:
    """Interpolate between logarithms. Beyond the ends, cost grows in proportion to size, or as between the last two where that is more."""
    if min(values) <= 0:
        return 0.0
    x, y = np.log(sizes), np.log(values)
    wanted = math.log(at)
    if wanted <= x[-1]:
        return float(np.exp(np.interp(wanted, x, y)))
    slope = max(1.0, (y[-1] - y[-2]) / (x[-1] - x[-2])) if len(x) > 1 else 1.0
    return float(np.exp(y[-1] + slope * (wanted - x[-1])))


def residuals(pair: ProbePair, fit: Fit) -> Floats:
    """Return the offset that a pair shows under each drawn law: [draws]."""
    laws = np.log(fit.samples([pair.after, pair.before]))
    result: Floats = math.log(pair.after.loss / pair.before.loss) - (laws[:, 0] - laws[:, 1])
    return result


def differences(pairs: Sequence[ProbePair], fit: Fit) -> float:
    """Return the variance of a lever's true offset between sizes, of all levers together.

    It is believed to be at least that of a run: two sizes are at least as different as two runs of one.
    """
    groups: dict[tuple[str, str], list[float]] = {}
    for pair in pairs:
        groups.setdefault((pair.lever, repr(sorted(pair.changed.items()))), []).append(float(np.median(residuals(pair, fit))))
    freedom = sum(len(group) - 1 for group in groups.values())
    seen = sum(float(np.var(group)) * len(group) for group in groups.values()) / freedom if freedom else 0.0
    return max(seen - 2 * fit.noise**2, fit.noise**2)


def offset(pairs: Sequence[ProbePair], fit: Fit, spread: float, rng: np.random.Generator) -> Floats:
    """Return draws of a change's offset at a new size: [draws]. `spread`: the variance between sizes; zeros without pairs."""
    if not pairs:
        return np.zeros(len(fit.samples([])))
    seen = np.mean([residuals(pair, fit) for pair in pairs], axis=0)
    variance = spread + (2 * fit.noise**2 + spread) / len(pairs)
    result: Floats = seen + math.sqrt(variance) * rng.standard_normal(len(seen))
    return result
