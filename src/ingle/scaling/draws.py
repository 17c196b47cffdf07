"""Laws that may stand behind some runs, drawn as often as the runs make them likely.

Given exponents and noise, coefficients are normal (a linear model); so only exponents and noise are sampled, and coefficients follow in
closed form. Samples come from a few rounds of importance sampling: the first from what is believed beforehand and from a wide cloud
around the nearest law, each later one from the cloud that the weights so far show. All rounds are weighed together, so none is lost.
Draws with a coefficient below 0 are thrown away, which is what "coefficients are ≥ 0" means to a posterior.
"""

import math
from dataclasses import dataclass

import numpy as np

from ingle.scaling.fit import USUAL_NOISE, LawProblem, Nearest, fit_problem, normal_equations, solve
from ingle.scaling.points import Floats

NOISE_SPREAD = 0.8
"""Belief about the noise: e^±0.8 times `USUAL_NOISE`, with long tails (Student's t, three degrees)."""
_TAIL = 3.0
_ROUNDS, _SAMPLES = 5, 600
_COEFFICIENTS = 12_000
_FREE = 5.0
"""Degrees of freedom of the clouds: heavier tails than what they cover."""
_STEP = 1e-4
_QUIETEST = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Equally likely laws of one form."""

    exponents: Floats
    """[draws, axes]."""
    coefficients: Floats
    """[draws, terms], in the unit of the loss."""
    noise: Floats
    """[draws]: relative spread of one run."""
    gap: Floats
    """[draws]: part of their loss by which runs of the worse kind are worse; 0 where there is one kind."""
    evidence: float
    """Logarithm of how likely the form makes the runs; comparable between forms of the same runs."""
    nearest: Nearest
    positive: float
    """Part of the draws that had no coefficient below 0 and were not thrown away."""


@dataclass(frozen=True, slots=True, eq=False)
class _Cloud:
    centre: Floats
    root: Floats
    """Cholesky factor of the spread."""

    def sample(self, count: int, rng: np.random.Generator) -> Floats:
        normal = rng.standard_normal((count, len(self.centre))) @ self.root.T
        result: Floats = self.centre + normal / np.sqrt(rng.chisquare(_FREE, (count, 1)) / _FREE)
        return result

    def log_density(self, samples: Floats) -> Floats:
        size = len(self.centre)
        whitened = np.linalg.solve(self.root, (samples - self.centre).T)
        spread = np.log(np.diag(self.root)).sum()
        result: Floats = -0.5 * (_FREE + size) * np.log1p((whitened**2).sum(axis=0) / _FREE) - spread
        return result + _log_norm(size)


def _log_norm(size: int) -> float:
    return math.lgamma(0.5 * (_FREE + size)) - math.lgamma(0.5 * _FREE) - 0.5 * size * math.log(_FREE * math.pi)


def draw_laws(problem: LawProblem, count: int, seed: int = 0) -> Draws:
    """Return so many equally likely laws."""
    rng = np.random.default_rng(seed)
    nearest = fit_problem(problem)
    samples, log_weights = _importance(problem, nearest, rng)
    most = log_weights.max()
    weights = np.exp(log_weights - most)
    picked = samples[_systematic(weights / weights.sum(), _COEFFICIENTS, rng)]
    exponents, noise = picked[:, :-1], np.exp(picked[:, -1])
    mean, root = _conditional(problem, nearest.weights, exponents, noise)[:2]
    normal = rng.standard_normal((_COEFFICIENTS, mean.shape[-1], 1))
    coefficients = mean + np.linalg.solve(np.swapaxes(root, -1, -2), normal)[..., 0]
    good = np.flatnonzero((coefficients >= 0).all(axis=-1))
    positive = good.size / _COEFFICIENTS
    if not good.size:
        good, coefficients = np.arange(_COEFFICIENTS), np.maximum(coefficients, 0)
    chosen = good[np.linspace(0, good.size - 1, count).round().astype(np.int64)] if good.size >= count else rng.choice(good, count)
    evidence = float(most + np.log(weights.mean()) + np.log(max(positive, 0.1 / _COEFFICIENTS)))
    natural = problem.natural(exponents[chosen], coefficients[chosen])
    gap = coefficients[chosen, -1] if problem.worse is not None else np.zeros(count)
    return Draws(exponents[chosen], natural, noise[chosen], gap, evidence, nearest, positive)


def _importance(problem: LawProblem, nearest: Nearest, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return samples of exponents and log noise, and their log weights."""
    axes = problem.form.axes
    believed = np.array([*(axis.middle for axis in axes), np.log(USUAL_NOISE)])
    spread = np.array([*(axis.spread for axis in axes), NOISE_SPREAD])
    clouds = [_Cloud(believed, np.diag(spread)), _around(problem, nearest, spread[:-1])]
    samples = np.concatenate([cloud.sample(_SAMPLES, rng) for cloud in clouds])
    target = log_target(problem, nearest.weights, samples)
    for _ in range(_ROUNDS - 2):
        log_weights = target - _mixture(clouds, samples)
        clouds.append(_fitted(samples, log_weights, clouds[1]))
        new = clouds[-1].sample(_SAMPLES, rng)
        samples, target = np.concatenate([samples, new]), np.concatenate([target, log_target(problem, nearest.weights, new)])
    return samples, target - _mixture(clouds, samples)


def _mixture(clouds: list[_Cloud], samples: Floats) -> Floats:
    result: Floats = np.logaddexp.reduce([cloud.log_density(samples) for cloud in clouds], axis=0) - np.log(len(clouds))
    return result


def _around(problem: LawProblem, nearest: Nearest, spread: Floats) -> _Cloud:
    """Return the cloud that the residuals' slopes show around the nearest law."""
    size = len(nearest.exponents)
    noise = max(nearest.noise, _QUIETEST)
    low, high = (np.array([getattr(axis, name) for axis in problem.form.axes]) for name in ("low", "high"))
    steps = np.eye(size) * np.minimum(_STEP, 0.1 * spread)
    above, below = np.minimum(nearest.exponents + steps, high), np.maximum(nearest.exponents - steps, low)
    ups, downs = (solve(problem, side, nearest.weights, noise)[1] for side in (above, below))
    slopes = (ups - downs) / np.diag(above - below)[:, None]
    precision = np.diag(1 / spread**2) + (slopes * nearest.weights) @ slopes.T / noise**2
    covariance = np.zeros((size + 1, size + 1))
    covariance[:size, :size] = 1.5 * np.linalg.inv(precision)
    covariance[size, size] = 1.0 / max(1, len(problem.loss) - size - problem.terms) + 0.05
    root: Floats = np.linalg.cholesky(covariance).astype(np.float64)
    return _Cloud(np.append(nearest.exponents, np.log(noise)), root)


def _fitted(samples: Floats, log_weights: Floats, fallback: _Cloud) -> _Cloud:
    """Return the cloud of weighted samples."""
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    if 1 / (weights**2).sum() < 3 * samples.shape[1]:
        return fallback
    centre = weights @ samples
    apart = samples - centre
    covariance = 1.2 * (apart * weights[:, None]).T @ apart
    covariance += np.diag(1e-6 * np.diag(covariance) + 1e-300)
    try:
        return _Cloud(centre, np.linalg.cholesky(covariance))
    except np.linalg.LinAlgError:
        return fallback


def log_target(problem: LawProblem, weights: Floats, samples: Floats) -> Floats:
    """Return the log density of exponents and log noise [samples, axes + 1] given the runs, coefficients integrated out."""
    axes = problem.form.axes
    low, high, middle, spread = (np.array([getattr(axis, name) for axis in axes]) for name in ("low", "high", "middle", "spread"))
    exponents = np.clip(samples[:, :-1], low, high)
    inside = (samples[:, :-1] == exponents).all(axis=-1)
    noise = np.exp(np.maximum(samples[:, -1], np.log(_QUIETEST)))
    _, root, squares = _conditional(problem, weights, exponents, noise)
    beliefs = -0.5 * (((exponents - middle) / spread) ** 2).sum(axis=-1) - np.log(spread).sum()
    usual = (samples[:, -1] - np.log(USUAL_NOISE)) / NOISE_SPREAD
    believed_noise = -0.5 * (_TAIL + 1) * np.log1p(usual**2 / _TAIL)
    log_root = np.log(np.einsum("...ii->...i", root)).sum(axis=-1)
    result = -len(weights) * np.log(noise) - 0.5 * squares - log_root + beliefs + believed_noise
    return np.where(inside & (samples[:, -1] > np.log(_QUIETEST)), result, -np.inf)


def _conditional(problem: LawProblem, weights: Floats, exponents: Floats, noise: Floats) -> tuple[Floats, Floats, Floats]:
    """Return mean and Cholesky root of the precision of the coefficients, and the squares of what is left, in units of the noise."""
    design = problem.design(exponents)
    gram, moment = normal_equations(problem, design, weights, noise)
    middle, firmness = problem.beliefs
    gram += 1e-12 * np.eye(problem.terms) * np.einsum("...ii->...i", gram).max(axis=-1)[..., None, None]
    mean: Floats = np.linalg.solve(gram, moment[..., None])[..., 0].astype(np.float64)
    residuals = 1.0 - (design @ mean[..., None])[..., 0]
    squares: Floats = (weights * residuals**2).sum(axis=-1) / noise**2 + ((mean - middle) ** 2 * firmness).sum(axis=-1)
    root: Floats = np.linalg.cholesky(gram / (noise**2)[:, None, None]).astype(np.float64)
    return mean, root, squares


def _systematic(shares: Floats, count: int, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return indices, each as often as its share says, spread in random order."""
    marks = (np.arange(count) + rng.random()) / count
    index = np.minimum(np.searchsorted(np.cumsum(shares), marks), len(shares) - 1).astype(np.int64)
    return rng.permutation(index)
