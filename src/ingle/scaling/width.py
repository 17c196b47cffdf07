"""How sure a law will be, said before a single run: the sweep is simulated, and the width of its prediction measured."""

import statistics

import numpy as np

from ingle.scaling.interval import fit_points
from ingle.scaling.points import Place, Point
from ingle.scaling.prepared import Prepared
from ingle.scaling.runs import RunSettings
from ingle.scaling.sweep_settings import SweepSettings, foretold_of, runs_of

NOISE = 0.006
"""Spread of one run around the law, relative to its loss, as these sweeps have it (docs/scaling.md)."""
_FLOOR, _SIZE, _DATA = 0.9, (9.0, 0.25), (14.0, 0.25)
"""A law like those that these sweeps gave, in bits per byte: floor, and factor and exponent of parameters and of tokens."""
_ROUNDS = 5


def expected_width(settings: SweepSettings, prepared: Prepared) -> float:
    """Return the width of the prediction's 90 % interval to expect, relative to the loss: the median of a few simulated sweeps."""
    runs, foretold = runs_of(settings, prepared), foretold_of(settings, prepared)
    draw, widths = np.random.default_rng(0), []
    for _ in range(_ROUNDS):
        kicks = np.exp(NOISE * draw.standard_normal(len(runs)))
        points = [
            Point(run.parameters, run.tokens, _loss(run) * float(kick), run.unique or run.tokens, run.train.seed)
            for run, kick in zip(runs, kicks, strict=True)
        ]
        [said] = fit_points(points).predict([Place(foretold.parameters, foretold.tokens, foretold.unique or foretold.tokens)])
        widths.append((said.high - said.low) / said.loss)
    return statistics.median(widths)


def _loss(run: RunSettings) -> float:
    loss: float = _FLOOR + _SIZE[0] * run.parameters ** -_SIZE[1] + _DATA[0] * run.tokens ** -_DATA[1]
    return loss
