"""Privacy of noise: ε for given noise, sampling and steps, and whether learning is left under it.

One unit (a record, or a home) is in a step with probability `share`; what it adds has at most the length C; the sum gets Gaussian noise of
`noise` · C. Whoever sees all steps' sums can tell a run with the unit from one without by a factor e^ε at the most, but for a chance of δ.
Both directions count (add or remove one).

The privacy loss of one step is written on a grid, rounded up, and added to itself `steps` times by FFT (privacy loss distributions: Koskela
et al. 2021, Doroshenko et al. 2022). So ε is never too low; it is too high by at most steps · grid, and usually by half of that.
`bench/federated_privacy.py` compares with Google's dp-accounting, which is no dependency: it asks for SciPy, and for versions older than
other parts have.

Noise is put on a grid afterwards, which costs nothing: invitation.py says why, and how homes share it.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import numpy.typing as npt

from ingle.core.config import Bounds, check_bounds
from ingle.core.errors import ConfigError

UNITS = ("record", "home")
# Noise in a step's mean, as a multiple of the longest mean: above it nothing is learned in the rounds that homes have patience for.
MOST_NOISE = 2.0
LEAST_NOISE = 0.3  # below it hardly anything is promised
LEAST_DELTA = 1e-9  # below it the FFT's own rounding would be part of the answer
MOST_POINTS = 1 << 22  # about as many points has a sum's grid; where losses are huge the grid is coarser
TAIL = 1e-15  # the chance, in all steps together, that is counted as lost in place of being followed
REACH = 9.0  # outcomes further out than this many standard deviations are counted as lost: 1e-19

Row = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PrivacyPlan:
    """A plan: noise, sampling and steps, and for whom privacy is promised."""

    unit: str  # who is protected: `record`, one example of one home; `home`, all that a home has
    noise: float  # standard deviation of the noise in a sum, in lengths of the longest update of a unit
    # Chance of a unit to be in a step; each is drawn by itself, in its home, and nobody else knows.
    share: Annotated[float, Bounds(gt=0, le=1)]
    steps: int  # sums that leave: rounds, for the unit `home`; steps of training over all rounds, for `record`
    delta: float  # the chance with which the promise may fail

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ConfigError("unit", f"must be one of {', '.join(UNITS)}", self.unit)
        if not LEAST_NOISE <= self.noise <= 1000:
            raise ConfigError("noise", f"must be from {LEAST_NOISE} to 1000", self.noise, "With less there is no privacy worth its name.")
        check_bounds(self)
        if not 1 <= self.steps <= 100_000:
            raise ConfigError("steps", "must be from 1 to 100000", self.steps)
        if not LEAST_DELTA <= self.delta < 1:
            raise ConfigError("delta", f"must be at least {LEAST_DELTA:g} and below 1", self.delta)


def epsilon(plan: PrivacyPlan) -> float:
    """Return ε of the whole plan, rounded up."""
    return max(_epsilon(plan, removed) for removed in (True, False))


def noise_for(plan: PrivacyPlan, wanted: float) -> float:
    """Return the least noise, to 0.01, that keeps the plan's ε at `wanted` or below; the plan's own noise doesn't matter."""
    if wanted <= 0:
        raise ConfigError("epsilon", "must be above 0", wanted)
    low = high = round(100 * LEAST_NOISE)
    while epsilon(replace(plan, noise=high / 100)) > wanted:
        low, high = high, 2 * high
        if high > 100_000:
            raise ConfigError("epsilon", "can't be kept with any noise up to 1000", wanted, "Take fewer steps, or a smaller share.")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if epsilon(replace(plan, noise=middle / 100)) <= wanted else (middle, high)
    return high / 100


def noise_to_signal(noise: float, numbers: int, units: float) -> float:
    """Return the length of the noise in a step's mean, against the longest mean: noise · √numbers / units in a step."""
    return noise * math.sqrt(numbers) / units


def check_learnable(plan: PrivacyPlan, numbers: int, units: float) -> float:
    """Return `noise_to_signal` of a plan that trains `numbers` numbers with `units` units in a step (the expected number).

    Raises ConfigError with the figure where the noise would drown what is learned.
    """
    ratio = noise_to_signal(plan.noise, numbers, units)
    if ratio > MOST_NOISE:
        needed = math.ceil(plan.noise * math.sqrt(numbers) / MOST_NOISE)
        fewer = int((MOST_NOISE * units / plan.noise) ** 2)
        rule = f"Privacy of one {plan.unit} would put noise of {ratio:,.1f} times the signal into each step, and {MOST_NOISE:g} is the most"
        cure = f"Have {needed:,} {plan.unit}s in a step instead of {units:,.0f}, or train {fewer:,} numbers instead of {numbers:,}"
        cure += "; or promise it for a record." if plan.unit == "home" else "."
        raise ConfigError("unit", rule, "", cure)
    return ratio


def noise_share(noise: float, longest: float, honest: int) -> float:
    """Return the standard deviation of what each home adds, so that `honest` of them together add noise · longest.

    `honest` are the fewest homes in a sum less those that may be traitors: who tells its noise adds none.
    """
    if honest < 1:
        raise ConfigError("honest", "must be at least 1", honest, "Invite more homes, or raise the threshold.")
    return noise * longest / math.sqrt(honest)


def _epsilon(plan: PrivacyPlan, removed: bool) -> float:
    grid = min(1e-3, max(1e-5, 0.01 / plan.steps))
    highest = float(_loss(np.array([1 + REACH * plan.noise]), plan.noise, plan.share)[0])
    rough = highest / 2000
    low, high = _window(*_one_step(plan.noise, plan.share, rough, removed)[:2], plan.steps, rough)
    grid = max(grid, (high - low) * rough / MOST_POINTS)
    first, masses, lost = _one_step(plan.noise, plan.share, grid, removed)
    first, masses = _composed(first, masses, plan.steps, grid)
    lost = -math.expm1(plan.steps * math.log1p(-lost)) + 2 * TAIL
    losses = (first + np.arange(masses.size)) * grid
    masses, losses = masses[losses > 0], losses[losses > 0]
    if lost >= plan.delta:
        return math.inf
    # δ(ε) = lost + Σ over losses above ε of mass · (1 − e^(ε − loss)), at every loss of the grid as ε.
    above = np.append(np.cumsum(masses[::-1])[::-1], 0.0)
    scaled = np.append(np.cumsum((masses * np.exp(-losses))[::-1])[::-1], 0.0)
    at = np.append(0.0, losses)
    # Where e^ε is too large a number, what is subtracted is left out: too high is allowed.
    deltas = lost + above - np.where(at < 700, np.exp(np.minimum(at, 700)) * scaled, 0.0)
    return float(at[np.argmax(deltas <= plan.delta)]) if (deltas <= plan.delta).any() else math.inf


def _one_step(noise: float, share: float, grid: float, removed: bool) -> tuple[int, Row, float]:
    """Return the loss of one step: the first point's number, masses on the grid (each rounded up), and what is beyond the last.

    With the unit the sum is drawn from (1 − share) N(0, noise²) + share N(1, noise²), without from N(0, noise²).
    """
    ends = np.array([-REACH * noise, 1.0 + REACH * noise])
    low, high = sorted(float(loss) for loss in _loss(ends, noise, share) * (1 if removed else -1))
    first = math.floor(low / grid)
    edges: Row = np.arange(first, math.ceil(high / grid) + 1).astype(np.float64) * grid
    if removed:
        points = _where_loss(edges, noise, share)
        under = (1 - share) * _below(points / noise) + share * _below((points - 1) / noise)
        over = (1 - share) * _below(-points / noise) + share * _below((1 - points) / noise)
    else:
        points = _where_loss(-edges, noise, share)
        under, over = _below(-points / noise), _below(points / noise)
    # A difference of two numbers near 1 has lost its digits; of the two tails one is small.
    inner = np.where(under[1:] < 0.5, under[1:] - under[:-1], over[:-1] - over[1:])
    return first, np.maximum(np.append(under[0], inner), 0.0), float(over[-1])


def _loss(points: Row, noise: float, share: float) -> Row:
    """ln of how much likelier each outcome is with the unit than without."""
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.log1p(-share), math.log(share) + (2 * points - 1) / (2 * noise**2))


def _where_loss(losses: Row, noise: float, share: float) -> Row:
    """The outcome at which the loss is this; −∞ where no loss is so low."""
    room = np.exp(losses) - (1 - share)
    with np.errstate(divide="ignore", invalid="ignore"):
        points = noise**2 * (np.log(room) - math.log(share)) + 0.5
    return np.where(room > 0, points, -np.inf)


def _composed(first: int, masses: Row, steps: int, grid: float) -> tuple[int, Row]:
    """Return the masses of the sum of `steps` losses: the number of its first point, and a row."""
    low, high = _window(first, masses, steps, grid)
    size = 1 << max(high - low, masses.size).bit_length()
    spectrum = np.fft.rfft(masses, size) ** steps
    # The sum begins at steps · first; turned round, it begins at `low`.
    total = np.roll(np.fft.irfft(spectrum, size), (steps * first - low) % size)
    return low, np.maximum(total[: high - low + 1], 0.0)


def _window(first: int, masses: Row, steps: int, grid: float) -> tuple[int, int]:
    """Return the first and last point that the sum of `steps` losses reaches, but for a chance of TAIL on each side (Chernoff)."""
    losses = (first + np.arange(masses.size)) * grid
    kept = masses > 0
    rates = np.geomspace(1e-3, 1e3, 60)
    logs = np.log(masses[kept])
    ends = []
    for sign in (-1, 1):
        moments = np.array([_log_sum(logs + sign * rate * losses[kept]) for rate in rates])
        ends.append(sign * float(np.min((steps * moments - math.log(TAIL)) / rates)))
    low = max(steps * first, math.floor(ends[0] / grid))
    return low, min(steps * (first + masses.size - 1), math.ceil(ends[1] / grid))


def _log_sum(values: Row) -> float:
    most = float(values.max())
    return most + math.log(float(np.exp(values - most).sum()))


def _below(points: Row) -> Row:
    """The standard normal distribution function."""
    return 0.5 * np.array([math.erfc(-point * math.sqrt(0.5)) for point in points])
