"""Lines of a law for plots: the loss of each size, the best split of each amount of compute, equal loss, and what more compute gains.

All come from the drawn laws of a fit: a line is their median, and its interval holds nine of ten of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ingle.scaling.interval import LEVEL, MOST_EXTRAPOLATION, Fit
from ingle.scaling.plot import Curve, Dot, EqualLoss, Foretold, SizeLine, loss_against_compute
from ingle.scaling.points import FLOPS_A_TOKEN, Floats, Place
from ingle.train.axes import Scale

_AMOUNTS, _SPLITS, _PLACES = 33, 61, 49
"""Points of a line over compute, splits that are tried at each, and points of the other lines."""
_TOKENS_A_PARAMETER = (0.03, 3000.0)
"""Splits that are tried: tokens for each parameter."""
_BEYOND = 3.0
"""Times the largest run's compute that lines go on to, where nothing is foretold."""
QUARTER = 0.25
"""Part of the first gain below which more compute is said to pay little."""


@dataclass(frozen=True, slots=True)
class Curves:
    """Lines of a law. Compute is in FLOPs, loss in the unit of the runs."""

    sizes: tuple[SizeLine, ...]
    frontier: Curve
    """Least loss over compute."""
    best_sizes: Curve
    """Parameters of the best split over compute; the rest of the compute goes into tokens."""
    levels: tuple[EqualLoss, ...]
    gain: Curve
    """Loss that the next FLOP saves, over compute."""
    quarter: float | None
    """Compute at which that is a quarter of what it is at first; None = beyond the line."""
    expected: tuple[float, ...]
    """Loss of each of the fit's runs by the law, in the order of its points."""

    @property
    def path(self) -> Curve:
        """The best split: parameters along, tokens up."""
        tokens = tuple(c / (FLOPS_A_TOKEN * n) for c, n in zip(self.best_sizes.x, self.best_sizes.y, strict=True))
        return Curve(self.best_sizes.y, tokens)


def curves_of(fit: Fit, foretold: Place | None = None, text: float = 0.0) -> Curves:
    """Return the lines of a fit. `text`: how many different tokens there are; what is read beyond them repeats. 0 = as many as wanted."""
    amounts = _amounts(fit, foretold)
    least, sizes = (np.stack(part, axis=1) for part in zip(*(_best(fit, flops, text) for flops in amounts), strict=True))
    gains = -np.gradient(least, np.log(amounts), axis=1) / amounts
    gain = _curve(amounts, gains)
    return Curves(
        tuple(_size_line(fit, size, text) for size in sorted({one.parameters for one in fit.points})),
        _curve(amounts, least),
        _curve(amounts, sizes),
        tuple(_levels(fit, foretold, text)),
        gain,
        _first_below(amounts, np.array(gain.y), QUARTER * gain.y[0]),
        tuple(map(float, np.median(fit.samples(fit.points), axis=0))),
    )


def fit_svg(fit: Fit, foretold: Foretold | None = None, loss_name: str = "loss") -> str:
    """Draw the runs and the law of a fit, anyone's."""
    place = Place(foretold.parameters, foretold.tokens) if foretold else None
    curves = curves_of(fit, place)
    worse = fit.kinds.runs if fit.kinds else ()
    dots = [
        Dot(one.parameters, one.tokens, one.loss, one.compute, law, one in worse)
        for one, law in zip(fit.points, curves.expected, strict=True)
    ]
    return loss_against_compute(dots, curves.sizes, curves.frontier, foretold, loss_name=loss_name)


def _amounts(fit: Fit, foretold: Place | None) -> Floats:
    """Amounts of compute: from the smallest run's on, as far as laws are believed."""
    smallest = min(one.compute for one in fit.points)
    wanted = max(fit.largest * (1 if foretold else _BEYOND), 1.2 * foretold.compute if foretold else 0.0)
    return np.geomspace(smallest, min(wanted, MOST_EXTRAPOLATION * fit.largest), _AMOUNTS)


def _places(parameters: Floats, tokens: Floats, text: float) -> list[Place]:
    return [Place(n, d, min(d, text) if text else 0.0) for n, d in zip(parameters.tolist(), tokens.tolist(), strict=True)]


def _best(fit: Fit, flops: float, text: float) -> tuple[Floats, Floats]:
    """Return least loss and its parameters by each drawn law, [draws] each: the lowest of a few splits, and a parabola through it."""
    ratio = np.geomspace(*_TOKENS_A_PARAMETER[::-1], _SPLITS)
    parameters = np.sqrt(flops / (FLOPS_A_TOKEN * ratio))  # [splits], rising in equal factors
    losses = fit.samples(_places(parameters, ratio * parameters, text))
    low = np.clip(losses.argmin(axis=1), 1, _SPLITS - 2)
    rows = np.arange(len(losses))
    before, here, after = (losses[rows, low + step] for step in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = np.clip(np.divide(before - after, 2 * bend, out=np.zeros_like(bend), where=bend > 0), -1, 1)
    step = np.log(parameters[1] / parameters[0])
    return here - (before - after) * shift / 4, parameters[low] * np.exp(step * shift)


def _size_line(fit: Fit, size: float, text: float) -> SizeLine:
    read = [one.tokens for one in fit.points if one.parameters == size]
    tokens = np.geomspace(min(read) / 1.3, max(read) * 1.6, _PLACES)
    losses = np.median(fit.samples(_places(np.full(_PLACES, size), tokens, text)), axis=0)
    return SizeLine(size, Curve(_plain(FLOPS_A_TOKEN * size * tokens), _plain(losses)))


def _levels(fit: Fit, foretold: Place | None, text: float) -> list[EqualLoss]:
    """Lines of equal loss at round values between the worst run and the best."""
    places: Sequence[Place] = [*(Place(one.parameters, one.tokens) for one in fit.points), *([foretold] if foretold else [])]
    parameters, tokens = (
        np.geomspace(min(values) / 1.6, max(values) * 1.6, _PLACES)
        for values in ([one.parameters for one in places], [one.tokens for one in places])
    )
    rows = [np.median(fit.samples(_places(np.full(_PLACES, size), tokens, text)), axis=0) for size in parameters]
    losses = [one.loss for one in fit.points]
    lowest = min(*losses, *(row.min() for row in rows)) if foretold else min(losses)
    found = []
    for loss in Scale(lowest, max(losses) + 1e-9).ticks(10):
        crossings = [(size, _crossing(row, tokens, loss)) for size, row in zip(parameters.tolist(), rows, strict=True)]
        inside = [(size, at) for size, at in crossings if at is not None]
        if len(inside) > 1:
            found.append(EqualLoss(float(f"{loss:.6g}"), Curve(tuple(x for x, _ in inside), tuple(y for _, y in inside))))
    return found


def _crossing(losses: Floats, tokens: Floats, loss: float) -> float | None:
    """Return the tokens at which a size reaches this loss, or None."""
    falling = np.minimum.accumulate(losses)
    if not falling[-1] <= loss <= falling[0]:
        return None
    return float(np.exp(np.interp(loss, falling[::-1], np.log(tokens)[::-1])))


def _first_below(amounts: Floats, values: Floats, limit: float) -> float | None:
    """Return where a falling line goes below a limit, between its points in equal factors; None = it doesn't."""
    below = np.flatnonzero(values <= limit)
    if not len(below) or not below[0] or values[below[0]] <= 0:
        return None
    i = below[0]
    high, low = np.log(values[i - 1 : i + 1])
    share = (high - np.log(limit)) / (high - low)
    return float(np.exp(np.log(amounts[i - 1]) * (1 - share) + np.log(amounts[i]) * share))


def _curve(amounts: Floats, drawn: Floats) -> Curve:
    """Return the median of drawn lines [draws, amounts], and what holds nine of ten."""
    low, middle, high = np.quantile(drawn, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2], axis=0)
    return Curve(_plain(amounts), _plain(middle), _plain(low), _plain(high))


def _plain(values: Floats) -> tuple[float, ...]:
    """Return values for a file: seven digits are more than any plot shows."""
    return tuple(float(f"{value:.7g}") for value in values)
