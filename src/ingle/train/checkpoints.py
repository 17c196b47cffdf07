"""Checkpoints: a run's place on disk, from which it goes on bit by bit as if it had never stopped.

    FOLDER/step-00001200/trained.safetensors     parameters in float32, by name
    FOLDER/step-00001200/optimiser.safetensors   the optimiser's memory
    FOLDER/step-00001200/state.json              step, losses, settings and data by digest
    FOLDER/best/trained.safetensors              the parameters with the lowest held-out loss so far

A checkpoint is a folder that takes its name when everything in it is on the disk; a crash at any moment leaves the one before.
Random numbers need no state: every step draws from a seed made of the run's seed and the step's number.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ingle.core.config import from_table
from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import CheckpointError, ConfigError
from ingle.core.files import os_errors, sweep_unfinished, sync_folder, write_atomic
from ingle.train.loop_settings import NO_MATTER, TrainSettings

TRAINED, OPTIMISER, STATE = "trained.safetensors", "optimiser.safetensors", "state.json"
BEST = "best"
KEPT = 2  # checkpoints that stay: the newest, and the one before it


@dataclass(frozen=True, slots=True)
class TrainingState:
    """A run's place: how far it is, and its losses so far."""

    run: str  # digest of all that must be the same for a run to go on: settings, data, parameters, objective, processes
    precision: str  # the number format that the module computes in: bf16 or fp32
    step: int = 0  # steps done
    tokens: int = 0  # tokens read so far, by all processes
    seconds: float = 0.0  # time spent on training so far
    first_loss: float | None = None  # loss of the first step
    loss: float | None = None  # loss of the last step
    first_held_out: float | None = None  # held-out loss before the first step
    held_out: float | None = None  # held-out loss, last measured
    best_held_out: float | None = None  # the lowest held-out loss so far
    best_step: int = 0  # steps done when the held-out loss was lowest
    worse: int = 0  # measurements since the lowest
    stopped: str = ""  # why the run ended; empty while it goes on
    energy: Energy = NOTHING  # energy used so far, by all processes, without what was lost in a crash


def save_checkpoint(folder: Path, state: TrainingState, trained: Mapping[str, Tensor], optimiser: Mapping[str, Tensor]) -> Path:
    """Write a checkpoint and remove old ones. Raises HomeError where the disk refuses; earlier checkpoints then stay whole.

    If this step has a checkpoint already, only its state is written: the tensors follow from run and step.
    """
    final = folder / f"step-{state.step:08d}"
    temporary = folder / f".{final.name}.part"
    text = json.dumps(asdict(state), indent=1).encode()
    if (final / STATE).exists():
        write_atomic(final / STATE, text)
        return final
    try:
        with os_errors(final):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        save_tensors(temporary / TRAINED, trained)
        save_tensors(temporary / OPTIMISER, optimiser)
        write_atomic(temporary / STATE, text)
        with os_errors(final):
            if final.exists():  # without a state: half removed
                shutil.rmtree(final)
            temporary.rename(final)
            sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in checkpoints(folder)[:-KEPT]:
        with suppress(OSError):
            _remove(old)
    return final


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint, its state first: a folder without a state is no checkpoint."""
    (checkpoint / STATE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def sweep_checkpoints(folder: Path) -> None:
    """Delete what a killed run had begun to write. Call it only when no run is going on in this folder."""
    for part in folder.glob(".step-*.part"):
        shutil.rmtree(part, ignore_errors=True)
    for path in (folder / TRAINED, folder / BEST / TRAINED):
        sweep_unfinished(path)


def checkpoints(folder: Path) -> list[Path]:
    """Folders of whole checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / STATE).exists())


def load_checkpoint(folder: Path) -> tuple[TrainingState, dict[str, Tensor], dict[str, Tensor]] | None:
    """The newest checkpoint, or None if there is none. Raises CheckpointError if it is damaged."""
    folders = checkpoints(folder)
    if not folders:
        return None
    newest = folders[-1]
    try:
        table: Any = json.loads((newest / STATE).read_text("utf-8"))
        # A value that was never measured stands there as null, which `from_table` doesn't take.
        state = from_table(TrainingState, {name: value for name, value in table.items() if value is not None})
    except (OSError, ValueError, TypeError, AttributeError, ConfigError) as error:
        cure = f"Delete {newest.name} to go on from the one before."
        raise CheckpointError(str(newest / STATE), "must be a run's state", error, cure) from error
    return state, load_tensors(newest / TRAINED), load_tensors(newest / OPTIMISER)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all. Raises HomeError."""
    from safetensors.torch import save

    write_atomic(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises CheckpointError if it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        cure = f"Delete {path.parent.name} to go on from the checkpoint before."
        raise CheckpointError(str(path), "must be a whole safetensors file", error, cure) from error
    return tensors


def put_back(parameters: Mapping[str, nn.Parameter], folder: Path) -> None:
    """Put a finished run's float32 parameters into the module, which may have held them rounded while it was trained."""
    values = load_tensors(folder / TRAINED)
    for name, parameter in parameters.items():
        parameter.grad = None
        parameter.data = values[name].to(parameter.device)


# Forks: a shorter run takes over the state of a longer one at the step from which their schedules differ.
# Under `wsd` the rate is the same until the shorter run cools down, so all lengths of one model cost the longest plus a cool-down each
# (arXiv 2405.18392). A fork ends with the same bytes as a run from the first step, because the state that it takes over is its own.


_FORKED = "forked"
_LENGTH = {"max_steps", "epochs", "schedule", *NO_MATTER}


@dataclass(frozen=True, slots=True)
class Fork:
    """A shorter run that begins inside a longer one."""

    folder: Path  # folder of the shorter run, where its checkpoint is written
    settings: TrainSettings
    run: str  # digest of the shorter run, as `run_digest` makes it


class Forks:
    """The forks of a run, by the step at which they leave it."""

    def __init__(self, settings: TrainSettings, forks: Sequence[Fork]) -> None:
        """Raises ConfigError for a fork that differs in more than its length, or from the first step on."""
        self._at: dict[int, list[Fork]] = {}
        for fork in forks:
            self._at.setdefault(shared_steps(settings, fork.settings), []).append(fork)
        if 0 in self._at:
            cure = "Give both the same warm-up in steps, and the longer one a later decay."
            raise ConfigError("schedule", "must begin alike in a run and its forks", "schedules that differ at the first step", cure)

    def save(self, state: TrainingState, trained: Mapping[str, Tensor], optimiser: Mapping[str, Tensor]) -> None:
        """Write the checkpoints of the forks that leave at this step, unless they have gone on already. Raises HomeError."""
        for fork in self._at.get(state.step, ()):
            if not checkpoints(fork.folder):
                with os_errors(fork.folder):
                    fork.folder.mkdir(parents=True, exist_ok=True)
                write_atomic(fork.folder / _FORKED, str(state.step).encode())
                save_checkpoint(fork.folder, replace(state, run=fork.run), trained, optimiser)

    def due(self, step: int) -> bool:
        """Whether a fork leaves at this step."""
        return step in self._at


def forked_at(folder: Path) -> int:
    """Return the step at which the run in this folder left another one; 0 = it began by itself."""
    path = folder / _FORKED
    with os_errors(path):
        return int(path.read_text()) if path.exists() else 0


def shared_steps(one: TrainSettings, other: TrainSettings) -> int:
    """Count the first steps that two runs of one model on one corpus have in common.

    Raises ConfigError unless they differ in length alone.
    """
    first, second = ({name: value for name, value in asdict(run).items() if name not in _LENGTH} for run in (one, other))
    if different := [name for name in first if first[name] != second[name]]:
        raise ConfigError(different[0], "must be the same in a run and its forks", "two values")
    if one.max_steps is None or other.max_steps is None:
        raise ConfigError("max_steps", "must be given for a run and its forks", "nothing")
    a, b = one.max_steps, other.max_steps
    alike = takewhile(lambda step: one.schedule.factor(step, a) == other.schedule.factor(step, b), range(min(a, b)))
    return sum(1 for _ in alike)
