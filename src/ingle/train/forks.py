"""Forks: a shorter run takes over the state of a longer one at the step from which their schedules differ.

Under `wsd` the rate is the same until the shorter run cools down, so all lengths of one model cost the longest plus a cool-down each
(arXiv 2405.18392). A fork ends with the same bytes as a run from the first step, because the state that it takes over is its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path

from torch import Tensor

from ingle.core.errors import ConfigError
from ingle.core.files import os_errors, write_atomic
from ingle.train.checkpoints import TrainingState, checkpoints, save_checkpoint
from ingle.train.settings import NO_MATTER, TrainSettings

_FORKED = "forked"
_LENGTH = {"max_steps", "epochs", "schedule", *NO_MATTER}


@dataclass(frozen=True, slots=True)
class Fork:
    """A shorter run that begins inside a longer one."""

    folder: Path
    """Folder of the shorter run, where its checkpoint is written."""
    settings: TrainSettings
    run: str
    """Digest of the shorter run, as `run_digest` makes it."""


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
