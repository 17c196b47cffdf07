"""Demand: how many tokens a model will answer, and what serving them costs beside training (arXiv 2401.00448).

A smaller model that trained longer costs more joules once, and fewer for every token. So the more is answered, the smaller is the model
that reaches a loss with the fewest joules in all.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from ingle.core.energy import Energy, amount, reported
from ingle.core.errors import ConfigError
from ingle.energy.label import Label
from ingle.scaling.evidence import speed_at
from ingle.scaling.interval import LEVEL, MOST_EXTRAPOLATION, Fit
from ingle.scaling.points import Floats, Place, short

DAYS = 180
"""Days that a model is used."""
WINDOW_DAYS = 30
"""Latest days of the ledger from which demand is told."""
FORWARD = 1 / 3
"""Share of a training token's operations that reading or writing it takes: 2·N of 6·N."""
_TEXT = re.compile(r"\s*(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*([kmg]?)\s*tok(?:en)?s?\s*/\s*(day|d|hour|h|week|w)\s*", re.IGNORECASE)
_TIMES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_A_DAY = {"h": 24.0, "d": 1.0, "w": 1 / 7}
_DRAWS = 300
_SIZES, _LENGTHS = 49, 73


@dataclass(frozen=True, slots=True)
class Demand:
    """Tokens that are read and written a day."""

    tokens_a_day: float
    source: str
    """How it is known, for people."""


def parse_demand(text: str) -> Demand:
    """Read a demand: 2Mtokens/day, 300ktokens/h. Raises ConfigError."""
    found = _TEXT.fullmatch(text)
    if found and 0 <= (number := float(found[1])) < float("inf"):
        return Demand(number * _TIMES[found[2].lower()] * _A_DAY[found[3][0].lower()], "as you said")
    raise ConfigError("--serves", "must be tokens in a time", text, "For example 2Mtokens/day, 300ktokens/h or 5Mtokens/week.")


def demand_of(answers: Iterable[tuple[str, Mapping[str, Any]]], now: datetime) -> Demand:
    """Return the demand of this home, from the time (UTC, ISO 8601) and facts of each answer in its ledger.

    Days are counted from the first answer within the last WINDOW_DAYS. Tokens that were known from before cost nothing and don't count.
    """
    since = now - timedelta(days=WINDOW_DAYS)
    first, tokens = now, 0
    for at, facts in answers:
        when = datetime.fromisoformat(at)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        if when < since:
            continue
        first = min(first, when)
        read = int(facts.get("prompt_tokens") or 0) - int(facts.get("cached_tokens") or 0)
        tokens += max(0, read) + int(facts.get("completion_tokens") or 0)
    days = max(1.0, (now - first).total_seconds() / 86400)
    return Demand(tokens / days, f"by this home's ledger, the last {days:.3g} days")


def serving_energy(reports: Sequence[Mapping[str, Any]], labels: Sequence[tuple[Label, float]], parameters: float) -> tuple[Energy, str]:
    """Return the energy of a served token at this size, and how it is known.

    `labels`: energy labels of this home, with each model's parameters. Without one, a token in serving is reckoned as a third of one in
    training.
    """
    known = [(label, size) for label, size in labels if size > 0 and _tokens(label)]
    if known:
        label, size = min(known, key=lambda one: abs(np.log(one[1] / parameters)))
        energy = label.parts[0].energy
        for part in label.parts[1:]:
            energy = energy + part.energy
        return energy.scaled(parameters / size / _tokens(label)), f"by the energy label of {label.model}, in proportion to size"
    return speed_at(reports, parameters).energy.scaled(FORWARD), "reckoned as a third of a training token's"


def _tokens(label: Label) -> int:
    return sum(part.prompt_tokens + part.completion_tokens for part in label.parts)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The cheapest model that reaches a loss, over all the days that it is used."""

    parameters: float
    low: float
    """Of `parameters`, by the drawn laws."""
    high: float
    tokens: float
    training: Energy
    serving: Energy

    @property
    def energy(self) -> Energy:
        """Training and serving together."""
        return self.training + self.serving

    def table(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        numbers = {name: getattr(self, name) for name in ("parameters", "low", "high", "tokens")}
        return numbers | {"training": self.training.table(), "serving": self.serving.table()}

    def __str__(self) -> str:
        size = f"{short(self.parameters)} parameters ({short(self.low)} – {short(self.high)}) on {short(self.tokens)} tokens"
        return f"{size}: {amount(self.training.joules)} of training, {amount(self.serving.joules)} of serving"


def cheapest(
    fit: Fit, reports: Sequence[Mapping[str, Any]], labels: Sequence[tuple[Label, float]], loss: float, tokens_a_day: float,
    days: float = DAYS,
) -> Lifetime:  # fmt: skip
    """Return the size that reaches a loss with the fewest joules of training and serving together.

    Raises ConfigError for a loss that no size reaches within what the runs can say, and where runs have no energy.
    """
    if not any(reported(report) for report in reports):
        raise ConfigError("--serves", "needs runs with their energy; this sweep has none")
    sizes = np.geomspace(min(report["parameters"] for report in reports) / 4, max(report["parameters"] for report in reports) * 8, _SIZES)
    training = np.array([speed_at(reports, size).energy.joules for size in sizes])
    served = np.array([serving_energy(reports, labels, size)[0].joules for size in sizes]) * tokens_a_day * days
    lengths = np.geomspace(min(report["tokens"] for report in reports) / 4, max(report["tokens"] for report in reports) * 40, _LENGTHS)
    needed = _needed(fit, sizes, lengths, loss)
    with np.errstate(invalid="ignore"):
        joules = needed * training + served
    joules = np.where(np.isfinite(joules), joules, np.inf)
    can = np.isfinite(joules).any(axis=1)
    if can.mean() < 0.5:
        cure = "Give a smaller budget, or more and larger runs."
        raise ConfigError(
            "--serves", f"can't be answered: no size reaches {loss:.3f} within {MOST_EXTRAPOLATION:g} times the largest run", "", cure
        )
    best = joules[can].argmin(axis=1)
    low, middle, high = np.quantile(sizes[best], [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    at = int(np.abs(np.log(sizes / middle)).argmin())
    tokens = float(np.median(needed[can][:, at][np.isfinite(needed[can][:, at])]))
    train = speed_at(reports, sizes[at]).energy.scaled(tokens)
    serve = serving_energy(reports, labels, sizes[at])[0].scaled(tokens_a_day * days)
    return Lifetime(float(sizes[at]), float(low), float(high), tokens, train, serve)


def _needed(fit: Fit, sizes: Floats, lengths: Floats, loss: float) -> Floats:
    """Return how many tokens each size needs for a loss under each of some drawn laws, [draws, sizes]; inf where it is too far."""
    places = [Place(size, length) for size in sizes for length in lengths]
    laws = fit.samples(places)
    chosen = np.random.default_rng(7).permutation(len(laws))[:_DRAWS]
    losses = laws[chosen].reshape(len(chosen), len(sizes), len(lengths))
    reached = losses <= loss
    first = reached.argmax(axis=2)
    draws, columns = np.indices(first.shape)
    above, below = losses[draws, columns, np.maximum(first - 1, 0)], losses[draws, columns, first]
    share = np.clip((above - loss) / np.maximum(above - below, 1e-12), 0.0, 1.0)
    logs = np.log(lengths)
    tokens: Floats = np.exp(logs[np.maximum(first - 1, 0)] + share * (logs[first] - logs[np.maximum(first - 1, 0)]))
    far = 6.0 * sizes * tokens > MOST_EXTRAPOLATION * fit.largest
    return np.where(reached.any(axis=2) & ~far, tokens, np.inf)
