"""A home's learning in a round of a federation, done by another process: PyTorch stays out of the one that asks (`do_apart`).

The process reads its task from a folder, gives way to other programs, waits until no other home on this machine learns, and ends with
the one that asked. Nothing of it is kept: a round that was cut short is learned anew.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.apart import ApartError, ProcessApart
from ingle.core.config import from_table, to_table
from ingle.core.digest import canonical_json
from ingle.core.errors import ConfigError, HomeError, IngleError, Interrupted
from ingle.core.files import os_errors, write_atomic
from ingle.home.kept import Kept

PRECISIONS, TEMPLATES = ("fp32", "bf16"), ("auto", "chat", "plain")
TASK, FACTORS, DONE = "task.json", "factors.safetensors", "done.safetensors"
_HELD_OUT = "held-out."
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Learning:
    """How every home learns in a round: all homes have the same, from the invitation."""

    rate: float = 1e-3  # AdamW's learning rate; with privacy of a record, the length of the step along the mean gradient
    steps: int = 8  # steps of AdamW in a round; with privacy of a record there is one plain step a round
    batch_tokens: int = 512  # most tokens in memory at a time, and of a document; without privacy of a record, a step's batch
    layers: str = "all"  # layers that learn: all, upper-third, upper-half, or numbers like 20-29
    targets: str = "all"  # linears that learn: all, attention, mlp, or names like q_proj,v_proj
    precision: str = "fp32"  # number format that the model computes in: fp32 or bf16
    template: str = "auto"  # whether prompts that are strings are a chat's turns: auto (if the model has a template), chat, plain


def check_learning(learning: Learning) -> None:
    """Check what can be checked without the model. Raises ConfigError."""
    if not 0 < learning.rate < float("inf"):
        raise ConfigError("learning.rate", "must be above 0", learning.rate)
    if not 1 <= learning.steps <= 100_000:
        raise ConfigError("learning.steps", "must be from 1 to 100000", learning.steps)
    if learning.batch_tokens < 16:
        raise ConfigError("learning.batch_tokens", "must be at least 16", learning.batch_tokens)
    if learning.precision not in PRECISIONS:
        cure = "Name it: with auto, homes would compute differently."
        raise ConfigError("learning.precision", f"must be {' or '.join(PRECISIONS)}", learning.precision, cure)
    if learning.template not in TEMPLATES:
        raise ConfigError("learning.template", f"must be {', '.join(TEMPLATES[:2])} or {TEMPLATES[2]}", learning.template)


@dataclass(frozen=True, slots=True)
class Homework:
    """A task: what is to be learned, by which model, from which examples."""

    home: str  # root of the home
    kept: Kept  # the model, without what is learned
    sources: tuple[str, ...]  # absolute paths of files or folders of examples, and `suite:NAME`, as for `ingle make tune`
    learning: Learning
    names: tuple[str, ...]  # the factors that may change
    seed: int = 0  # seed of the order of the examples
    clip: float = 0.0  # above 0: nothing is trained, but the records' gradients are cut to this length and summed
    share: float = 1.0  # then, chance of each record to be in the sum


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutExample:
    """An example of the home that it never learns from, as tokens."""

    ids: tuple[int, ...]
    counted: tuple[bool, ...]  # which tokens carry the loss; never the first


@dataclass(frozen=True, slots=True, eq=False)
class HomeworkDone:
    """The result."""

    tensors: Arrays  # the factors that may change, after learning: float32; with `clip`, the sums of their gradients: float64
    held_out: tuple[HeldOutExample, ...]


def do_apart(homework: Homework, factors: Arrays, folder: Path) -> HomeworkDone:
    """Do a homework in another process, with these factors of all linears that learn. `folder` is emptied before and after.

    Raises what learning raises, HomeError if the process ends in another way, and KeyboardInterrupt on Ctrl-C, when the process has ended.
    """
    from safetensors.numpy import save

    apart = ProcessApart("ingle.tuning.homework_worker", answer_s=None)
    _empty(folder)
    with os_errors(folder):
        folder.mkdir(mode=0o700, parents=True)
    try:
        write_atomic(folder / FACTORS, save({name: np.ascontiguousarray(values) for name, values in factors.items()}), mode=0o600)
        write_atomic(folder / TASK, canonical_json(to_table(homework)), mode=0o600)
        apart.ask("learn", {"folder": str(folder)})
        return read_done(folder / DONE)
    except ApartError as error:
        raise HomeError("learning", "The process that learns has ended", error, "Try again; is there enough memory?") from None
    finally:
        apart.close()
        _empty(folder)


def read_task(folder: Path) -> Homework:
    """Return the task that lies in a folder."""
    return from_table(Homework, json.loads((folder / TASK).read_bytes()))


def write_done(path: Path, done: HomeworkDone) -> None:
    """Write a result, for the process that asked. Raises HomeError."""
    from safetensors.numpy import save

    examples = {
        "ids": np.array([id_ for one in done.held_out for id_ in one.ids], np.int32),
        "counted": np.array([counted for one in done.held_out for counted in one.counted], np.bool_),
        "sizes": np.array([len(one.ids) for one in done.held_out], np.int64),
    }
    write_atomic(path, save({**done.tensors, **{_HELD_OUT + name: values for name, values in examples.items()}}), mode=0o600)


def read_done(path: Path) -> HomeworkDone:
    """Return the result that `write_done` wrote. Raises HomeError for a file that can't be read."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        ids, counted, sizes = (tensors.pop(_HELD_OUT + name) for name in ("ids", "counted", "sizes"))
    except (OSError, SafetensorError, KeyError) as error:
        raise HomeError(str(path), "must hold what was learned", error, "Try again.") from error
    ends = np.cumsum(sizes)
    held_out = (HeldOutExample(tuple(ids[a:b].tolist()), tuple(counted[a:b].tolist())) for a, b in zip(ends - sizes, ends, strict=True))
    return HomeworkDone(tensors, tuple(held_out))


def _empty(folder: Path) -> None:
    with os_errors(folder), suppress(FileNotFoundError):
        shutil.rmtree(folder)


def interrupted(step: str) -> IngleError:
    """Return the error for learning that was told to stop."""
    return Interrupted("learning", "was interrupted", step, "The round is learned anew when it is asked for again.")
