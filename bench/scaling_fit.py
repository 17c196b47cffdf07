"""How honest the intervals of `ingle scale fit` are, and how near its predictions, on runs drawn from laws that are known.

    python bench/scaling_fit.py [--draws 200] [--designs 3x3,4x3,4x3+2] [--settings 0.3%,1%,kinds] [--family report] [--bootstrap]

Each draw is a law of its own (exponents, and the shares of E, size and data in the loss, all at random), runs of a design with noise, and
one new run at 4.1 times the largest compute. Rivals see the same runs: Approach 2 (parabolas at equal compute), Hoffmann's five
parameters by L-BFGS from many starts, a straight line in log compute, and the loss of the largest run. The method was tuned on the family
`tune` only; `report` has other numbers, `farseer` a law that Chinchilla's form can't say, `published` the laws of two papers.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from harness import finish, show
from ingle.core.errors import ConfigError
from ingle.measure.intervals import wilson
from ingle.scaling.interval import fit_points
from ingle.scaling.law import FORMS, fit_problem, problem_of
from ingle.scaling.points import Floats, Place, Point, places_array

SIZES, DATA = (0.24e6, 0.82e6, 1.19e6, 2.76e6), (0.75e6, 1.5e6, 3e6)
FAR = Place(6.43e6, 5.25e6)
SEEDS = {"tune": 10_000_000, "report": 40_000_000, "farseer": 20_000_000, "published": 30_000_000}
PUBLISHED = ((0.34, 0.28, 1.69, 406.4, 410.7), (0.3478, 0.3658, 1.8172, 482.01, 2085.43))
"""alpha, beta, E, A, B: Hoffmann's, and those of Epoch's replication (arXiv 2404.10102)."""


@dataclass(frozen=True)
class Truth:
    """A law: E + A·(N/N₀)^−α + B·(N/N₀)^γ·(D/D₀)^−β, with its middle at the middle of the designs."""

    alpha: float
    beta: float
    floor: float
    size: float
    data: float
    gamma: float = 0.0

    def loss(self, parameters: float, tokens: float) -> float:
        n, d = parameters / 0.9e6, tokens / 1.5e6
        return self.floor + self.size * n**-self.alpha + self.data * n**self.gamma * d**-self.beta


def truth(family: str, rng: np.random.Generator) -> Truth:
    if family == "published":
        alpha, beta, floor, size, data = PUBLISHED[rng.integers(2)]
        return Truth(alpha, beta, floor, size * 0.9e6**-alpha, data * 1.5e6**-beta)
    alpha, beta = rng.uniform(0.2, 0.65, 2)
    floor, part = rng.uniform(0.3, 0.8), rng.uniform(0.25, 0.75)
    scale = rng.uniform(1.5, 4.0)
    gamma = rng.uniform(-0.1, 0.1) if family == "farseer" else 0.0
    return Truth(alpha, beta, scale * floor, scale * (1 - floor) * part, scale * (1 - floor) * (1 - part), gamma)


def design(name: str) -> list[tuple[float, float, int]]:
    sizes = SIZES[:3] if name == "3x3" else SIZES
    seeds = {size: (2 if name.endswith("+2") and number < 2 else 1) for number, size in enumerate(sizes)}
    return [(size, data, seed) for size in sizes for data in DATA for seed in range(seeds[size])]


def runs(law: Truth, name: str, setting: str, rng: np.random.Generator) -> tuple[list[Point], float]:
    """Return the runs of a design, and the loss of the new run: with two kinds, one of the better kind."""
    noise = {"0%": 0.0, "0.3%": 0.003, "1%": 0.01, "kinds": 0.005}[setting]
    gap = rng.uniform(0.05, 0.1) if setting == "kinds" else 0.0
    points = []
    for size, data, seed in design(name):
        worse = 1 + gap * (rng.random() < 0.5)
        points.append(Point(size, data, law.loss(size, data) * worse * math.exp(noise * rng.standard_normal()), seed=seed))
    return points, law.loss(FAR.parameters, FAR.tokens) * math.exp(noise * rng.standard_normal())


def approach_2(points: Sequence[Point]) -> float:
    """Parabolas in log size at equal compute, through losses interpolated along each size; lines through their bottoms."""
    sizes = sorted({one.parameters for one in points})
    curves = {}
    for size in sizes:
        some = [one for one in points if one.parameters == size]
        curves[size] = np.polyfit([math.log(one.tokens) for one in some], [one.loss for one in some], 2)
    low = max(size * DATA[0] for size in sizes)
    high = min(size * DATA[-1] for size in sizes)
    budgets = np.exp(np.linspace(math.log(min(low, high)), math.log(max(low, high)), 4))
    bottoms = []
    for budget in budgets:
        losses = [float(np.polyval(curves[size], math.log(budget / size))) for size in sizes]
        bend, slope, level = np.polyfit(np.log(sizes), losses, 2)
        if bend > 0:
            best = float(np.clip(-slope / (2 * bend), math.log(sizes[0]) - 2, math.log(sizes[-1]) + 2))
            bottoms.append((math.log(budget), best, level + slope * best + bend * best**2, bend))
    if len(bottoms) < 2:
        return straight_line(points)
    compute, best, loss, bend = map(np.array, zip(*bottoms, strict=True))
    far = math.log(FAR.parameters * FAR.tokens)
    size_then = np.polyval(np.polyfit(compute, best, 1), far)
    loss_then = math.exp(np.polyval(np.polyfit(compute, np.log(np.maximum(loss, 1e-3)), 1), far))
    return loss_then + float(bend.mean()) * (math.log(FAR.parameters) - size_then) ** 2


def hoffmann(points: Sequence[Point]) -> float:
    """Five parameters, Huber's loss of log losses (δ = 1e-3), L-BFGS from 12 starts; compute units that keep the numbers small."""
    n, d = (np.array([getattr(one, name) for one in points]) for name in ("parameters", "tokens"))
    seen, delta = np.log([one.loss for one in points]), 1e-3

    def height(at: Floats) -> tuple[float, Floats]:
        alpha, beta = at[3], at[4]
        parts = np.stack([np.full(len(n), at[0]), at[1] - alpha * np.log(n / 1e6), at[2] - beta * np.log(d / 1e6)])
        whole = logsumexp(parts, axis=0)
        apart = whole - seen
        pull = np.clip(apart / delta, -1, 1)
        cost = np.where(np.abs(apart) < delta, 0.5 * apart**2 / delta, np.abs(apart) - 0.5 * delta).sum()
        shares = np.exp(parts - whole) * pull
        slope = np.array([*shares.sum(axis=1), -(shares[1] * np.log(n / 1e6)).sum(), -(shares[2] * np.log(d / 1e6)).sum()])
        return float(cost), slope

    lowest = float(seen.min())
    starts = itertools.product((lowest - 1.5, lowest - 0.5, lowest - 0.1), (lowest - 1.0,), (0.2, 0.5), (0.2, 0.5))
    tries = [minimize(height, np.array([e, a, a, x, y]), jac=True, method="L-BFGS-B", options={"maxiter": 300}) for e, a, x, y in starts]
    e, a, b, alpha, beta = min(tries, key=lambda one: one.fun).x
    return math.exp(e) + math.exp(a) * (FAR.parameters / 1e6) ** -alpha + math.exp(b) * (FAR.tokens / 1e6) ** -beta


def straight_line(points: Sequence[Point]) -> float:
    """A line through log loss over log compute."""
    line = np.polyfit([math.log(one.compute) for one in points], [math.log(one.loss) for one in points], 1)
    return math.exp(np.polyval(line, math.log(FAR.compute)))


def last_value(points: Sequence[Point]) -> float:
    """The loss of the largest run."""
    return max(points, key=lambda one: one.compute).loss


RIVALS: dict[str, Callable[[Sequence[Point]], float]] = {
    "Approach 2": approach_2, "L-BFGS, five parameters": hoffmann, "line in log compute": straight_line, "last value": last_value,
}  # fmt: skip


def bootstrap(points: Sequence[Point], rng: np.random.Generator, draws: int = 40) -> tuple[float, float, float]:
    """The interval of the design paper: cells drawn with replacement, seeds inside, one form, plus residual noise."""
    form = FORMS["chinchilla"]
    cells = sorted({(one.parameters, one.tokens) for one in points})
    far, found = places_array([FAR]), []
    for number in range(draws):
        drawn = cells if not number else [cells[i] for i in rng.integers(len(cells), size=len(cells))]
        some = [one for cell in drawn for one in points if (one.parameters, one.tokens) == cell]
        problem = problem_of(some, form)
        near = fit_problem(problem)
        loss = float((form.columns(far, near.exponents) @ problem.natural(near.exponents, near.coefficients))[0])
        noise = near.noise if not number else found[0][1]
        found.append((loss, noise))
    kicks = np.array([loss for loss, _ in found])[:, None] * np.exp(found[0][1] * rng.standard_normal((draws, 200)))
    low, high = np.quantile(kicks, [0.05, 0.95])
    return found[0][0], float(low), float(high)


def measured(family: str, name: str, setting: str, draws: int, with_bootstrap: bool, rivals: bool) -> dict[str, float]:
    """One row: a design and a setting, over so many draws."""
    errors: dict[str, list[float]] = {}
    inside, widths, seconds, refused = [], [], [], 0
    for number in range(draws):
        rng = np.random.default_rng(SEEDS[family] + number)
        points, seen = runs(truth(family, rng), name, setting, rng)
        began = time.perf_counter()
        if with_bootstrap:
            loss, low, high = bootstrap(points, rng)
        else:
            try:
                one = fit_points(points).predict([FAR])[0]
            except ConfigError:
                refused += 1
                continue
            loss, low, high = one.loss, one.low, one.high
        seconds.append(time.perf_counter() - began)
        inside.append(low <= seen <= high)
        widths.append((high - low) / loss)
        for rival, guess in {"Ingle": lambda _, loss=loss: loss, **(RIVALS if rivals else {})}.items():
            errors.setdefault(rival, []).append(abs(guess(points) / seen - 1))
    share = wilson(sum(inside), len(inside))
    return {
        "coverage": sum(inside) / len(inside),
        "coverage_low": share.low,
        "coverage_high": share.high,
        "refused": refused,
        "width": float(np.median(widths)),
        "seconds": float(np.median(seconds)),
        "slowest": max(seconds),
        **{rival: float(np.median(some)) for rival, some in errors.items()},
    }


def main() -> None:
    """Prints a row for each design and setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--designs", default="3x3,4x3,4x3+2")
    parser.add_argument("--settings", default="0.3%,1%,kinds")
    parser.add_argument("--family", default="report", choices=list(SEEDS))
    parser.add_argument("--bootstrap", action="store_true", help="the interval by bootstrap instead")
    parser.add_argument("--alone", action="store_true", help="without the rivals")
    options = parser.parse_args()
    names = ["Ingle", *([] if options.alone else RIVALS)]
    rows: list[Sequence[object]] = [
        ("design", "noise", "coverage of 90 %", "width %", "refused", "s a fit", *(f"error %: {name}" for name in names))
    ]
    table = []
    for name, setting in itertools.product(options.designs.split(","), options.settings.split(",")):
        one = measured(options.family, name, setting, options.draws, options.bootstrap, not options.alone)
        covered = f"{one['coverage']:.3f} ({one['coverage_low']:.2f} – {one['coverage_high']:.2f})"
        errors = [f"{100 * one[rival]:.2f}" for rival in names]
        rows.append((name, setting, covered, f"{100 * one['width']:.2f}", one["refused"], f"{one['seconds']:.2f}", *errors))
        table.append({"design": name, "noise": setting} | one)
        print(rows[-1], flush=True)
    show(f"{options.draws} draws of the family {options.family}, a new run at 4.1 times the largest compute", rows)
    finish("scaling_fit", {"family": options.family, "draws": options.draws, "bootstrap": options.bootstrap, "rows": table})


if __name__ == "__main__":
    main()
