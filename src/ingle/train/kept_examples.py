"""Examples that a training keeps: their tokens, which of them was in which step, and their sketches; `examples.safetensors`.

    ids, answer, bounds     the documents, as in `corpus`
    records                 SHA-256 of each example's record, by which its line is found again
    train, held_out         numbers of the examples
    step_bounds, step_members    which examples each step read, up to the step whose parameters were kept
    sketches                see `train.sketches`; only where they were made

No PyTorch is imported here.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_file
from ingle.core.errors import ConfigError, HomeError
from ingle.core.files import os_errors, write_atomic
from ingle.train.corpus import Corpus, Wanted

EXAMPLES = "examples.safetensors"
_CURE = "Tune again to have it made anew; the model itself is not harmed."


@dataclass(frozen=True, slots=True)
class KeptSettings:
    """Settings for keeping examples, so that an answer can be traced back to them. Changes nothing in what is learnt."""

    keep: bool = True
    """Whether the examples' tokens and the steps that read them are kept beside the delta."""
    sketches: bool = True
    """Whether each example's gradient is sketched after training, about the time of one epoch."""
    most: int = 20_000
    """Most examples of a tune of which anything is kept; a sketch takes 4 kB."""

    def __post_init__(self) -> None:
        if self.most < 0:
            raise ConfigError("examples.most", "must not be negative", self.most)


@dataclass(frozen=True, slots=True, eq=False)
class KeptExamples:
    """The examples of one training."""

    corpus: Corpus
    train: tuple[int, ...]
    held_out: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]
    """Numbers of the examples that each step read."""
    sketches: npt.NDArray[np.float16] | None = None
    """[examples of `train`, SIZE]."""

    def steps_of(self, example: int) -> tuple[int, ...]:
        """Numbers of the steps that read an example, from 1."""
        return tuple(number for number, members in enumerate(self.steps, 1) if example in members)


def write_kept(path: Path, kept: KeptExamples) -> str:
    """Write the file, for its owner alone. Returns its SHA-256. Raises HomeError."""
    from safetensors.numpy import save

    corpus = kept.corpus
    arrays: dict[str, npt.NDArray[Any]] = {
        "ids": corpus.ids,
        "answer": corpus.answer.astype(np.uint8),
        "bounds": corpus.bounds,
        "labels": corpus.labels,
        "records": np.array([list(bytes.fromhex(source)) for source in corpus.sources], np.uint8),
        "train": np.array(kept.train, np.int64),
        "held_out": np.array(kept.held_out, np.int64),
        "step_bounds": np.cumsum([0, *map(len, kept.steps)], dtype=np.int64),
        "step_members": np.array([example for members in kept.steps for example in members], np.int32),
    }
    if kept.sketches is not None:
        arrays["sketches"] = kept.sketches
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"corpus": f"{corpus.wanted} {corpus.digest}"}  # one entry: the library writes several in any order
    write_atomic(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata), mode=0o600)
    return digest_file(path)


def read_kept(path: Path, sha256: str) -> KeptExamples:
    """Read the file, every byte checked. Raises HomeError if it is missing or not as it was written."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise HomeError(str(path), "is gone, and with it what was kept of the examples", "", _CURE)
    with os_errors(path):
        if digest_file(path) != sha256:
            raise HomeError(str(path), "is not as it was written", "", _CURE)
        try:
            with safe_open(path, "np") as file:
                arrays, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 - no mapping
        except SafetensorError as error:
            raise HomeError(str(path), "must be a whole safetensors file", error, _CURE) from error
    kind, _, digest = metadata["corpus"].partition(" ")
    wanted: Wanted = kind
    sources = tuple(bytes(row).hex() for row in arrays["records"])
    corpus = Corpus(
        wanted, arrays["ids"], arrays["answer"].astype(np.bool_), arrays["bounds"], arrays["labels"], sources, digest
    )  # fmt: skip
    edges, members = arrays["step_bounds"].tolist(), arrays["step_members"].tolist()
    steps = tuple(tuple(members[a:b]) for a, b in pairwise(edges))
    return KeptExamples(corpus, tuple(arrays["train"].tolist()), tuple(arrays["held_out"].tolist()), steps, arrays.get("sketches"))
