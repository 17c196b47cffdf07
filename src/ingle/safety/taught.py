"""Corrections of the judges by an owner: a text's n-grams, and the side of the threshold on which they belong.

They lie in a file of their own beside the judge, and act on whichever judge is there: what is taught outlives a better judge, and once a
correction is taken back, the judge is to the bit what it was without it. The file holds hashed n-grams and no words; nobody but its owner
may read it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError, RequestError
from ingle.core.files import write_atomic
from ingle.safety.features import SIZE, Sparse

MOST_BYTES = 16 << 20  # of the file: a correction takes some kilobytes, and the first request after a change reads them all
_CURE = "Take back all that was taught: `ingle home guards reset`."


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
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return ()
    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in ("places", "values", "ends")}
            metadata = file.metadata() or {}
        sealed = _seal(arrays, metadata["taught"]) == metadata["seal"]
        taught = _unpacked(arrays, json.loads(metadata["taught"])) if sealed else ()
    except (OSError, SafetensorError, LookupError, ValueError, TypeError) as error:
        raise ConfigError(str(path), "must be a file of corrections of this version", error, _CURE) from error
    if not sealed:
        raise ConfigError(str(path), "must be as it was written", "a changed file", _CURE)
    return taught


def write_taught(path: Path, taught: Sequence[Teaching]) -> None:
    """Write corrections in the place of those that are there; with none, remove the file. Raises HomeError, RequestError if it is full."""
    from safetensors.numpy import save

    if not taught:
        path.unlink(missing_ok=True)
        return
    pulls = [pull for one in taught for pull in one.pulls]
    texts = [pull.text for pull in pulls]
    arrays: dict[str, npt.NDArray[Any]] = {
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


def _unpacked(arrays: dict[str, npt.NDArray[Any]], table: list[dict[str, Any]]) -> tuple[Teaching, ...]:
    places, values, ends = arrays["places"].astype(np.int64), arrays["values"], arrays["ends"].tolist()
    if len(places) != len(values) or sum(len(one["pulls"]) for one in table) != len(ends) or not ((places >= 0) & (places < SIZE)).all():
        raise ValueError("places and values don't fit together")
    texts = iter([(places[start:end], values[start:end]) for start, end in zip([0, *ends], ends, strict=False)])

    def pulls(rows: list[list[Any]]) -> tuple[Pull, ...]:
        return tuple(Pull(row[0], row[1], next(texts), row[2], *row[-2:]) for row in rows)  # older files have words between

    return tuple(Teaching(one["id"], one["at"], one["harmful"], pulls(one["pulls"])) for one in table)


def _seal(arrays: dict[str, npt.NDArray[Any]], table: str) -> str:
    hasher = hashlib.sha256(table.encode())
    for name in sorted(arrays):
        hasher.update(name.encode() + arrays[name].tobytes())
    return hasher.hexdigest()
