"""Linear judges in one file: weights, biases, and the thresholds at which so many harmless texts would alarm; and an owner's corrections.

The file ships with Ingle, made by `ingle home guards train`; a home may have its own. It is safetensors, sealed by its digest: a file that
was changed is refused. The judge of harm goes by an encoder of meaning, too, that lies beside it.

A correction is a text's n-grams, and the side of the threshold on which they belong. Corrections lie in a file of their own beside the
judge, and act on whichever judge is there: what is taught outlives a better judge, and once a correction is taken back, the judge is to the
bit what it was without it. The file holds hashed n-grams and no words; nobody but its owner may read it.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError, RequestError
from ingle.core.files import write_atomic
from ingle.safety.features import FOLDER, SIZE, Meaning, Sparse, load_meaning, logit
from ingle.safety.reading import REQUESTS, ReadPart, read_text

# An owner's lessons: texts with a change of the score each, which texts that share most of their n-grams share. Other wordings are not
# reached: neither an encoder's vectors nor a network that compares questions tells them from near requests that mean something else
# (LOG.md).


# Cosines of n-grams from which a taught text acts on another one, and from which it acts in full. What is stopped is the same request in
# another frame, too. What is let through must be the same text: a single word may turn it into harm.
STOPPED, LET_THROUGH = (0.6, 0.75), (0.5, 1.0)


@dataclass(frozen=True)
class Nearby:
    places: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    values: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))  # vectors of length 1, one after the other
    starts: tuple[int, ...] = ()
    changes: tuple[float, ...] = ()

    def with_one(self, text: Sparse, change: float) -> "Nearby":
        places, values = text
        longer = np.concatenate([self.places, places]), np.concatenate([self.values, values / _length(text)])
        return Nearby(*longer, (*self.starts, len(self.places)), (*self.changes, change))

    def change(self, text: Sparse) -> float:
        """Return the change of a text's score: a share of each correction, from 0 where it begins to be near to 1."""
        if not self.changes:
            return 0.0
        dense = np.zeros(SIZE, np.float32)
        np.add.at(dense, text[0], text[1] / _length(text))
        cosines = np.add.reduceat(dense[self.places] * self.values, self.starts)
        changes = np.array(self.changes)
        near, full = np.where(changes[:, None] > 0, STOPPED, LET_THROUGH).T
        change = float(np.clip((cosines - near) / (full - near), 0, 1) @ changes)
        return change if math.isfinite(change) else 0.0


def _length(text: Sparse) -> float:
    """Return the length of a vector whose places may come twice."""
    _, where = np.unique(text[0], return_inverse=True)
    return max(float(np.sqrt((np.bincount(where, text[1]) ** 2).sum())), 1e-9)


Arrays = dict[str, npt.NDArray[Any]]
T = TypeVar("T")
MOST_BYTES = 16 << 20  # of the file: a correction takes some kilobytes, and the first request after a change reads them all
_TAUGHT_CURE = "Take back all that was taught: `ingle home guards reset`."


@dataclass(frozen=True, slots=True)
class Pull:
    """One part of a text on the wrong side of a judge's threshold."""

    judge: str
    rate: float  # rate of false alarms whose threshold is meant
    text: Sparse
    whole: bool = True  # whether it is a whole text, or a piece of one: they have different thresholds
    encoder: str = ""  # digest of the encoder that read it; "" = it was judged by n-grams alone
    odds: float = 0.0  # its score by that encoder


@dataclass(frozen=True, slots=True)
class Teaching:
    """One correction: texts that should alarm, or should not."""

    id: str  # of the answer that it is about, or one of its own
    at: str  # UTC, ISO 8601
    harmful: bool
    pulls: tuple[Pull, ...]


def taught_file(judge: Path) -> Path:
    """Return where the corrections lie that act on a judge's file."""
    return judge.with_name("taught.safetensors")


def read_taught(path: Path) -> tuple[Teaching, ...]:
    """Return the corrections in a file, the oldest first; none without a file. Raises ConfigError for a damaged one."""
    if not path.exists():
        return ()
    return _unsealed(path, "taught", "a file of corrections", _TAUGHT_CURE, lambda arrays, table, _: _unpacked(arrays, table))


def write_taught(path: Path, taught: Sequence[Teaching]) -> None:
    """Write corrections in the place of those that are there; with none, remove the file. Raises HomeError, RequestError if it is full."""
    from safetensors.numpy import save

    if not taught:
        path.unlink(missing_ok=True)
        return
    pulls = [pull for one in taught for pull in one.pulls]
    texts = [pull.text for pull in pulls]
    arrays: Arrays = {
        "places": np.concatenate([places for places, _ in texts]).astype(np.int32),
        "values": np.concatenate([values for _, values in texts]).astype(np.float32),
        "ends": np.cumsum([len(places) for places, _ in texts], dtype=np.int64),
    }
    said = [(one, [[pull.judge, pull.rate, pull.whole, pull.encoder, pull.odds] for pull in one.pulls]) for one in taught]
    table = json.dumps([{"id": one.id, "at": one.at, "harmful": one.harmful, "pulls": pulls} for one, pulls in said])
    data = save(arrays, {"taught": table, "seal": _seal(arrays, table)})
    if len(data) > MOST_BYTES:
        cure = "Take some of it back first: `ingle home guards undo`, or all: `ingle home guards reset`."
        raise RequestError("text", f"All that the guards were taught must fit in {MOST_BYTES >> 20} MB", f"{len(data) >> 20} MB", cure)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, data, mode=0o600)


def _unpacked(arrays: Arrays, table: list[dict[str, Any]]) -> tuple[Teaching, ...]:
    places, values, ends = arrays["places"].astype(np.int64), arrays["values"], arrays["ends"].tolist()
    if len(places) != len(values) or sum(len(one["pulls"]) for one in table) != len(ends) or not ((places >= 0) & (places < SIZE)).all():
        raise ValueError("places and values don't fit together")
    texts = iter([(places[start:end], values[start:end]) for start, end in zip([0, *ends], ends, strict=False)])

    def pulls(rows: list[list[Any]]) -> tuple[Pull, ...]:
        return tuple(Pull(row[0], row[1], next(texts), row[2], *row[-2:]) for row in rows)  # older files have words between

    return tuple(Teaching(one["id"], one["at"], one["harmful"], pulls(one["pulls"])) for one in table)


def _unsealed(path: Path, key: str, of: str, cure: str, made: Callable[[Arrays, Any, str], T | None]) -> T:
    """Return what is made of a file's arrays, its table under `key` and its seal. Raises ConfigError if it is damaged, `of`: its kind."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            metadata = file.metadata() or {}
        sealed = _seal(arrays, metadata[key]) == metadata["seal"]
        found = made(arrays, json.loads(metadata[key]), metadata["seal"]) if sealed else None
    except (OSError, SafetensorError, LookupError, ValueError, TypeError) as error:
        raise ConfigError(str(path), f"must be {of} of this version", error, cure) from error
    if found is None:
        raise ConfigError(str(path), "must be as it was written", "a changed file", cure)
    return found


def _seal(arrays: Arrays, table: str) -> str:
    hasher = hashlib.sha256(table.encode())
    for name in sorted(arrays):
        hasher.update(name.encode() + arrays[name].tobytes())
    return hasher.hexdigest()


SHIPPED = Path(__file__).with_name("judge.safetensors")
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)  # false-alarm rates with a threshold each
_UNKNOWN = 1.5  # log-odds above the bias that any alarm takes: a text in unknown words, of another language say, says nothing
_SURELY = 0.3  # log-odds by which a corrected text passes the threshold
_FRAMED = 1.5  # log-odds more by which what is stopped passes it: "Please:" in front may cost as much
_ROUNDING = 0.01  # log-odds that are no difference
_CURE = "Delete it, and the judge that ships with Ingle is used; `ingle home guards train` makes another."


@dataclass(frozen=True)
class Judge:
    weights: Mapping[str, npt.NDArray[np.float32]]
    biases: Mapping[str, float]
    thresholds: Mapping[str, Mapping[str, float]]  # by judge and false-alarm rate: the log-odds above which a text alarms
    digest: str
    about: Mapping[str, Any]  # its ingredients: digests of data, counts
    meaning: Meaning | None = None  # tells harm by what a text means; None = it goes by n-grams alone
    nearby: Mapping[str, Nearby] = field(default_factory=dict)  # by judge: what an owner taught it

    def probability(self, name: str, text: Sparse) -> float:
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, self.log_odds(name, text)))))

    def log_odds(self, name: str, text: Sparse) -> float:
        """Return a linear judge's log-odds for a vector, before anything was taught."""
        return logit(self.weights[name], self.biases[name], text)

    def taught(self, name: str, vector: Sparse) -> float:
        """Return the change of a score by what an owner taught."""
        return self.nearby[name].change(vector) if name in self.nearby else 0.0

    def score(self, pull: Pull) -> float:
        """Return the score of a part of a text that somebody teaches about."""
        odds = pull.odds if self.reads_meaning_of(pull) else self.log_odds(pull.judge, pull.text)
        return odds + self.taught(pull.judge, pull.text)

    def reads_meaning_of(self, pull: Pull) -> bool:
        """Return whether a part was read by the encoder that this judge has."""
        return self.meaning is not None and pull.encoder == self.meaning.digest

    def scores(self, text: str, with_meaning: bool = True) -> "TextScores":
        """Return what the judges of requests say of a text, remembered: a conversation comes again with every turn."""
        asked = with_meaning and self.meaning is not None
        key = self.digest, asked, hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        found = _known.get(key)
        if found is None:
            found = self.read(text, with_meaning)
            with _knowing:
                while len(_known) >= _MOST_KNOWN:
                    del _known[next(iter(_known))]  # the oldest
                _known[key] = found
        return found

    def read(self, text: str, with_meaning: bool = True) -> "TextScores":
        """Return what the judges of requests say of a text, read anew."""
        asked = with_meaning and self.meaning is not None
        return TextScores.of(read_text(self, text, asked), asked)

    def alarm(self, name: str, rate: float, whole: bool = True, by_meaning: bool = False) -> float:
        """Return the score above which a share of `rate` of harmless texts alarms; between and beyond the rates of the file, by
        interpolation. `whole`: of a whole text, or of the worst of its pieces; `by_meaning`: of scores that the encoder had a share in."""
        table = self.thresholds[threshold_table(name, whole, by_meaning)]
        rates = sorted(map(float, table))
        known = float(np.interp(math.log(rate), np.log(rates), [table[str(one)] for one in rates]))
        return known if by_meaning else max(known, self.biases[name] + _UNKNOWN)


class TextScores(NamedTuple):
    """The highest scores that a text's whole views, and its pieces, have with each judge of requests; −infinity without a piece."""

    whole: Mapping[str, float]
    piece: Mapping[str, float]
    by_meaning: bool  # whether the encoder had a share in the score of harm

    @staticmethod
    def of(parts: Sequence[ReadPart], by_meaning: bool) -> "TextScores":
        table = {whole: {name: max(_of(parts, name, whole), default=-math.inf) for name in REQUESTS} for whole in (True, False)}
        return TextScores(table[True], table[False], by_meaning)

    def margin(self, judge: Judge, name: str, rate: float) -> tuple[float, float, float]:
        """Return how far a text is above the threshold at a rate of false alarms (below 0: it does not alarm), the score and the
        threshold that are meant."""
        by_meaning = self.by_meaning and name == "harm"
        sides = ((scores[name], judge.alarm(name, rate, whole, by_meaning)) for whole, scores in ((True, self.whole), (False, self.piece)))
        return max((score - threshold, score, threshold) for score, threshold in sides)


def _of(parts: Sequence[ReadPart], name: str, whole: bool) -> list[float]:
    return [part.score for part in parts if part.judge == name and part.whole == whole]


def threshold_table(name: str, whole: bool, by_meaning: bool) -> str:
    return name + ("" if whole else " in pieces") + (" by meaning" if by_meaning else "")


_MOST_KNOWN = 4096  # texts whose scores are remembered
_known: dict[tuple[str, bool, bytes], TextScores] = {}
_knowing = Lock()


def save_judge(path: Path, judge: Judge, meaning: str = "") -> None:
    """Write a judge's file. `meaning`: the digest of the encoder that it was measured with. Raises HomeError."""
    from safetensors.numpy import save

    small = {name: value.astype(np.float16) for name, value in judge.weights.items()}
    thresholds = {name: dict(one) for name, one in judge.thresholds.items()}
    said = {"biases": dict(judge.biases), "thresholds": thresholds, "about": dict(judge.about), "meaning": meaning}
    table = json.dumps(said, sort_keys=True)
    write_atomic(path, save(small, {"judge": table, "seal": _seal(small, table)}))


def load_judge(path: Path | None = None) -> Judge:
    """Return the judge in a file, or the one that ships with Ingle where there is none, with what it was taught (`read_taught`).

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
    """Return how far a part's score must move to lie surely on its side of the threshold; 0.0 if it lies there."""
    threshold = judge.alarm(pull.judge, pull.rate, pull.whole, judge.reads_meaning_of(pull))
    away = threshold + (_SURELY if harmful else -_SURELY) - judge.score(pull)
    if (away > 0) != harmful or abs(away) <= _ROUNDING:
        return 0.0
    return away + _FRAMED if harmful else away


def corrected(judge: Judge, taught: Sequence[Teaching]) -> Judge:
    """Return the judge with corrections by which taught texts fall on the right side, the later ones surely.

    A correction acts in full on its own text, less on texts that share most of their n-grams, and on no others. To change the weights
    instead moved everything: ten corrections halved what was found of other requests for harm.
    """
    hasher = hashlib.sha256(judge.digest.encode())
    for one in taught:
        for pull in one.pulls:
            places, values = pull.text
            if change := gap(judge, pull, one.harmful):
                before = judge.nearby.get(pull.judge, Nearby())
                judge = replace(judge, nearby={**judge.nearby, pull.judge: before.with_one(pull.text, change)})
            said = json.dumps([pull.judge, pull.rate, one.harmful, pull.whole, pull.encoder, pull.odds])
            hasher.update(said.encode() + places.tobytes() + values.tobytes())
    return replace(judge, digest=hasher.hexdigest()) if taught else judge


@lru_cache(maxsize=4)
def _load_taught(path: Path, _own: tuple[int, ...], taught: Path, _taught: tuple[int, ...]) -> Judge:
    return corrected(base_judge(path), read_taught(taught))


@lru_cache(maxsize=4)
def _load(path: Path, _mark: tuple[int, ...]) -> Judge:
    def made(small: Arrays, table: Any, seal: str) -> Judge | None:
        if any(value.shape != (SIZE,) for value in small.values()):
            return None
        weights = {name: value.astype(np.float32) for name, value in small.items()}
        judge = Judge(weights, table["biases"], table["thresholds"], seal, table["about"])
        return replace(judge, meaning=load_meaning(table["meaning"], (path.parent, FOLDER))) if table["meaning"] else judge

    return _unsealed(path, "judge", "a judge's file", _CURE, made)
