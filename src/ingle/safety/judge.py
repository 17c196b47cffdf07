"""Linear judges in one file: weights, biases, and the thresholds at which so many harmless texts would alarm.

The file ships with Ingle, made by `ingle guard train`; a home may have its own. It is safetensors, sealed by its digest: a file that was
changed is refused.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.safety.features import SIZE, Sparse, grams, logit, vector
from ingle.safety.taught import Pull, Teaching, read_taught, taught_file
from ingle.safety.views import views

SHIPPED = Path(__file__).with_name("judge.safetensors")
REQUESTS = ("harm", "attack")
"""Judges of a request: of its content, and of its form."""
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
"""False-alarm rates with a threshold each."""
_WINDOW, _STEP = 180, 90
"""Characters of a long text that are judged by themselves, and how far the next ones begin."""
_MOST_WINDOWS = 48
_UNKNOWN = 1.5
"""Log-odds above the bias that any alarm takes: a text in unknown words, of another language say, says nothing."""
_SURELY = 0.3
"""Log-odds by which a corrected text passes the threshold."""
_ROUNDING = 0.01
"""Log-odds that are no difference."""
_NEAR = 0.5
"""Cosine from which a taught text acts on another one."""
_CURE = "Delete it, and the judge that ships with Ingle is used; `ingle guard train` makes another."


@dataclass(frozen=True)
class Nearby:
    """Texts with a change of the log-odds each, which near texts share."""

    places: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    values: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    """Vectors of length 1, one after the other."""
    starts: tuple[int, ...] = ()
    changes: tuple[float, ...] = ()

    def with_one(self, text: Sparse, change: float) -> "Nearby":
        """Return these and one more."""
        places, values = text
        return Nearby(
            np.concatenate([self.places, places]), np.concatenate([self.values, values / _length(text)]), (*self.starts, len(self.places)),
            (*self.changes, change),
        )  # fmt: skip

    def change(self, text: Sparse) -> float:
        """Return the change of a text's log-odds: a share of each correction, from 0 at the cosine `_NEAR` to 1 for the same text."""
        if not self.changes:
            return 0.0
        dense = np.zeros(SIZE, np.float32)
        np.add.at(dense, text[0], text[1] / _length(text))
        cosines = np.add.reduceat(dense[self.places] * self.values, self.starts)
        return float(np.clip((cosines - _NEAR) / (1 - _NEAR), 0, 1) @ np.array(self.changes))


def _length(text: Sparse) -> float:
    """Return the length of a vector whose places may come twice."""
    _, where = np.unique(text[0], return_inverse=True)
    return max(float(np.sqrt((np.bincount(where, text[1]) ** 2).sum())), 1e-9)


@dataclass(frozen=True)
class Judge:
    """Linear judges by name."""

    weights: Mapping[str, npt.NDArray[np.float32]]
    biases: Mapping[str, float]
    thresholds: Mapping[str, Mapping[str, float]]
    """By judge and false-alarm rate: the log-odds above which a text alarms."""
    digest: str
    about: Mapping[str, Any]
    """Its ingredients: digests of data, counts."""
    nearby: Mapping[str, Nearby] = field(default_factory=dict)
    """By judge: what an owner taught it."""

    def probability(self, name: str, text: Sparse) -> float:
        """Return a judge's probability for a vector."""
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, self.log_odds(name, text)))))

    def log_odds(self, name: str, text: Sparse) -> float:
        """Return a judge's log-odds for a vector."""
        known = logit(self.weights[name], self.biases[name], text)
        return known + self.nearby[name].change(text) if name in self.nearby else known

    def scores(self, text: str) -> dict[str, float]:
        """Return the log-odds of harm and of attack: of the worst view and window of the text."""
        return {name: max(values) for name, values in self.by_window(text).items()}

    def by_window(self, text: str) -> dict[str, list[float]]:
        """Return the log-odds of every view and window."""
        vectors = [request_vector(part) for part in parts(text)]
        return {name: [self.log_odds(name, one) for one in vectors] for name in REQUESTS}

    def alarm(self, name: str, rate: float) -> float:
        """Return the log-odds above which a share of `rate` of harmless texts alarms; between and beyond the rates of the file, by
        interpolation."""
        rates = sorted(map(float, self.thresholds[name]))
        values = [self.thresholds[name][str(one)] for one in rates]
        known = float(np.interp(math.log(rate), np.log(rates), values))
        return max(known, self.biases[name] + _UNKNOWN)


def request_vector(text: str) -> Sparse:
    """Return what the judges of requests see of one view or window."""
    return vector(grams(text))


def parts(text: str) -> list[str]:
    """Return the views of a text, and the windows of the long ones: what is asked for may be one sentence of a long role."""
    found = list[str]()
    for view in views(text):
        found.append(view)
        if len(view) > 1.5 * _WINDOW:
            found += [view[at : at + _WINDOW] for at in range(0, len(view), _STEP)]
    return found[: _MOST_WINDOWS + 1]


def save_judge(
    path: Path, weights: Mapping[str, npt.NDArray[np.float32]], biases: Mapping[str, float], thresholds: Mapping[str, Mapping[str, float]],
    about: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write a judge's file. Raises HomeError."""
    from safetensors.numpy import save

    small = {name: value.astype(np.float16) for name, value in weights.items()}
    table = {"biases": dict(biases), "thresholds": {name: dict(one) for name, one in thresholds.items()}, "about": dict(about)}
    seal = _seal(small, table)
    write_atomic(path, save(small, {"judge": json.dumps(table, sort_keys=True), "seal": seal}))


def load_judge(path: Path | None = None) -> Judge:
    """Return the judge in a file, or the one that ships with Ingle where there is none, with what it was taught (taught.py).

    A file that has changed is read again.

    Raises ConfigError for one that is damaged, or of another version.
    """
    taught = path and _mark(taught_file(path))
    return _load_taught(path, _mark(path), taught_file(path), taught) if path and taught else base_judge(path)


def base_judge(path: Path | None = None) -> Judge:
    """Return the judge in a file, or the one that ships with Ingle, without what it was taught. Raises as `load_judge` does."""
    own = _mark(path) if path is not None else ()
    return _load(path if path is not None and own else SHIPPED, own)


def _mark(path: Path) -> tuple[int, ...]:
    """Return what changes with a file; nothing if there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return ()
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def gap(judge: Judge, pull: Pull, harmful: bool) -> float:
    """Return how far a vector's log-odds must move to lie surely on its side of the threshold; 0.0 if they lie there."""
    away = judge.alarm(pull.judge, pull.rate) + (_SURELY if harmful else -_SURELY) - judge.log_odds(pull.judge, pull.text)
    return away if (away > 0) == harmful and abs(away) > _ROUNDING else 0.0


def corrected(judge: Judge, taught: Sequence[Teaching]) -> Judge:
    """Return the judge with corrections by which taught texts fall on the right side, the later ones surely.

    A correction acts in full on its own text, less on texts that share most of their n-grams with it, and on no others. To change the
    weights instead moved everything: ten corrections halved what was found of other requests for harm.
    """
    hasher = hashlib.sha256(judge.digest.encode())
    for one in taught:
        for pull in one.pulls:
            places, values = pull.text
            if change := gap(judge, pull, one.harmful):
                before = judge.nearby.get(pull.judge, Nearby())
                judge = replace(judge, nearby={**judge.nearby, pull.judge: before.with_one(pull.text, change)})
            hasher.update(f"{pull.judge} {pull.rate} {one.harmful} ".encode() + places.tobytes() + values.tobytes())
    return replace(judge, digest=hasher.hexdigest()) if taught else judge


@lru_cache(maxsize=4)
def _load_taught(path: Path, _own: tuple[int, ...], taught: Path, _taught: tuple[int, ...]) -> Judge:
    return corrected(base_judge(path), read_taught(taught))


@lru_cache(maxsize=4)
def _load(path: Path, _mark: tuple[int, ...]) -> Judge:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            small = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            metadata = file.metadata() or {}
        table: dict[str, Any] = json.loads(metadata["judge"])
        sealed = _seal(small, table) == metadata["seal"] and all(value.shape == (SIZE,) for value in small.values())
        weights = {name: value.astype(np.float32) for name, value in small.items()}
        judge = Judge(weights, table["biases"], table["thresholds"], metadata["seal"], table["about"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(str(path), "must be a judge's file of this version", error, _CURE) from error
    if not sealed:
        raise ConfigError(str(path), "must be as it was written", "a changed file", _CURE)
    return judge


def _seal(small: Mapping[str, npt.NDArray[Any]], table: Mapping[str, Any]) -> str:
    hasher = hashlib.sha256(json.dumps(table, sort_keys=True).encode())
    for name in sorted(small):
        hasher.update(name.encode() + small[name].tobytes())
    return hasher.hexdigest()
