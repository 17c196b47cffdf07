"""Odds of being right, fitted from questions with known answers: a logistic model of a few signals for each kind of question; and kept."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ingle.core.config import from_table, to_table
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.files import os_errors, write_atomic
from ingle.explain.cause import Nats, Odds, SureSignals
from ingle.home.place import Home

# Kinds that can be told before anybody knows the right answer. `bare`: nothing but the question. `text`: sentences beside it. `yes_no`: the
# same, and the answer begins with yes or no. `elsewhere`: the sentence that decides is about another name. `taught`: a memory or lesson
# acted.
QuestionKind = Literal["bare", "text", "yes_no", "elsewhere", "taught"]
KINDS: tuple[QuestionKind, ...] = get_args(QuestionKind)
LEAST_ITEMS = 40  # a kind with fewer questions is not measured
# Signals, those that tell most first. A kind of which few answers were right, or few wrong, is fitted with the first ones only.
FEATURES = ("telling", "explained", "mean", "telling_least", "least", "telling_entropy", "length")
_EACH = 10  # right answers, and wrong ones, for each signal that is used: the usual rule of thumb
_RIDGE = 1.0  # pull of the weights towards 0, in questions
_ROUNDS = 100
_LONGER = 2  # answers up to so many times as long as the longest that was measured are like those
_Z = 1.959964
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class KindOdds:
    """The fitted model of one kind of question."""

    kind: QuestionKind
    n: int
    right: int
    longest: int  # most tokens of an answer that is like those measured
    low: tuple[float, ...]  # the least value of each of FEATURES that was seen; what lies below counts as this
    high: tuple[float, ...]
    middle: tuple[float, ...]
    spread: tuple[float, ...]
    weights: tuple[float, ...]  # the first one stands by itself, the others belong to FEATURES, in spreads from the middle
    covariance: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        width = len(FEATURES)
        tables = (self.low, self.high, self.middle, self.spread, self.weights[1:], *(row[1:] for row in self.covariance))
        if any(len(table) != width for table in tables) or len(self.covariance) != width + 1 or min(self.spread) <= 0:
            raise ValueError(f"a kind's figures must be of {width} signals")

    def odds(self, signals: SureSignals) -> Odds:
        """Return the odds of being right, with a 95 % interval."""
        row = _row(np.clip(features(signals), self.low, self.high)[None], np.array(self.middle), np.array(self.spread))[0]
        at = float(row @ np.array(self.weights))
        wide = _Z * math.sqrt(max(0.0, float(row @ np.array(self.covariance) @ row)))
        p, low, high = (round(_share(value), 4) for value in (at, at - wide, at + wide))
        return Odds(p, low, high, self.n, self.right)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration of one model: how often it is right, by kind of question."""

    model: str  # digest of the model as it answers
    made: str  # the day
    kinds: tuple[KindOdds, ...]

    def fit(self, kind: QuestionKind) -> KindOdds | None:
        return next((one for one in self.kinds if one.kind == kind), None)

    def odds(self, kind: QuestionKind, signals: SureSignals) -> Odds | None:
        """Return the odds of being right about a question of this kind; None where it was not measured."""
        fit = self.fit(kind)
        return None if fit is None else fit.odds(signals)


def features(signals: SureSignals) -> Nats:
    few = (signals.telling, signals.explained, signals.mean)
    return np.array([*few, signals.telling_least, signals.least, signals.telling_entropy, math.log(signals.tokens)])


def fitted(kind: QuestionKind, answers: Sequence[tuple[SureSignals, bool]]) -> KindOdds | None:
    """Fit one kind from signals of answers and whether they were right; None if there are fewer than LEAST_ITEMS.

    Half a right and half a wrong answer in the middle are added, so that a kind that was always right has odds too, below 1.
    """
    if len(answers) < LEAST_ITEMS:
        return None
    values, right = np.array([features(one) for one, _ in answers]), np.array([was for _, was in answers], bool)
    middle, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    rows = np.concatenate([_row(values, middle, spread), np.eye(1, len(FEATURES) + 1).repeat(2, axis=0)])
    used = 1 + min(len(FEATURES), int(min(right.sum(), (~right).sum())) // _EACH)
    outcomes, counts = np.concatenate([right, [True, False]]), np.concatenate([np.ones(len(right)), [0.5, 0.5]])
    weights, covariance = np.zeros(rows.shape[1]), np.zeros((rows.shape[1], rows.shape[1]))
    weights[:used], covariance[:used, :used] = _logistic(rows[:, :used], outcomes, counts)
    longest = _LONGER * max(one.tokens for one, _ in answers)
    low, high = _rounded(values.min(axis=0)), _rounded(values.max(axis=0))
    wide = tuple(map(_rounded, covariance))
    return KindOdds(kind, len(answers), int(right.sum()), longest, low, high, _rounded(middle), _rounded(spread), _rounded(weights), wide)


def _rounded(values: Nats) -> tuple[float, ...]:
    return tuple(float(f"{value:.8g}") for value in values)


def _row(values: Nats, middle: Nats, spread: Nats) -> Nats:
    return np.concatenate([np.ones((len(values), 1)), (values - middle) / spread], axis=1)


def _logistic(rows: Nats, right: Flags, counts: Nats) -> tuple[Nats, Nats]:
    """Return the weights that make the outcomes likeliest, less a ridge on all but the first, and their covariance (Laplace's)."""
    ridge = _RIDGE * np.diag([0.0, *np.ones(rows.shape[1] - 1)])
    weights = np.zeros(rows.shape[1])
    for _ in range(_ROUNDS):
        shares = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        bend = (rows * (counts * np.maximum(shares * (1 - shares), 1e-9))[:, None]).T @ rows + ridge
        step = np.linalg.solve(bend, rows.T @ (counts * (right - shares)) - ridge @ weights)
        weights = weights + step * min(1.0, 4.0 / max(1e-12, float(np.abs(step).max())))  # far steps would jump past the peak
        if np.abs(step).max() < 1e-9:
            break
    return weights, np.asarray(np.linalg.inv(bend), np.float64)


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, logit))))


def auroc(scores: Sequence[float] | Nats, right: Sequence[bool] | Flags) -> float:
    """Return how often a right answer's score is above a wrong one's (ties count half); NaN if all are right or all wrong."""
    values, flags = np.asarray(scores, float), np.asarray(right, bool)
    if flags.all() or not flags.any():
        return math.nan
    _, numbers, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[numbers]
    n, m = int(flags.sum()), int((~flags).sum())
    return float((ranks[flags].sum() - n * (n + 1) / 2) / (n * m))


def calibration_error(shares: Sequence[float] | Nats, right: Sequence[bool] | Flags, bins: int = 10) -> float:
    """Return the expected calibration error: the mean distance between said and seen shares, in bins of equal width."""
    values, flags = np.asarray(shares, float), np.asarray(right, float)
    numbers = np.minimum((values * bins).astype(int), bins - 1)
    return float(sum(abs(flags[numbers == i].sum() - values[numbers == i].sum()) for i in range(bins)) / len(values))


# Calibrations as they are kept: one JSON file for each model, by its digest.
# A file that is damaged, or of another model, counts as none.


VERSION = 1  # changes when an answer is looked at in another way, so that what was fitted before no longer counts
SHIPPED = Path(__file__).parent / "calibrations"


def keep_calibration(home: Home, calibration: Calibration) -> Path:
    """Write a calibration into the home's cache. Raises HomeError."""
    path = _path(home.root / "cache" / "sure", calibration.model)
    with os_errors(path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, sealed(calibration))
    return path


def sealed(calibration: Calibration) -> bytes:
    """Return a calibration as JSON with a digest of itself."""
    body = {"version": VERSION, **to_table(calibration)}
    return json.dumps({"digest": digest_json(body), **body}, indent=1).encode() + b"\n"


def find_calibration(home: Home, model: str) -> Calibration | None:
    """Return the calibration of a model by its digest: the home's, else the one that Ingle brings; None if it was not measured."""
    return _read(_path(home.root / "cache" / "sure", model), model) or _read(_path(SHIPPED, model), model)


def _path(folder: Path, model: str) -> Path:
    return folder / f"{digest_json(model)[:32]}.json"


def _read(path: Path, model: str) -> Calibration | None:
    """Return what a file holds; None if it is not there, damaged, of another version or of another model."""
    try:
        table: dict[str, Any] = json.loads(path.read_bytes())
        digest, version = table.pop("digest"), table["version"]
        if digest_json(table) != digest or version != VERSION or table["model"] != model:
            return None
        del table["version"]
        return from_table(Calibration, table)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError):
        return None
