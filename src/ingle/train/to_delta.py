"""A verb that makes a delta of a kept model: one at a time for each name, stopped and gone on with, admitted, and told.

HOME/tuning/KEY/    what is not finished, as the verb lays it out; KEY is of all that the result follows from
"""

import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from ingle import __version__
from ingle.core.candidate import Admit, Candidate
from ingle.core.config import to_table
from ingle.core.delta import Delta
from ingle.core.digest import canonical_json, digest_json
from ingle.core.errors import Interrupted
from ingle.core.event import Event, Sink
from ingle.home.deltas import delta_report, list_deltas, refuse_taken_delta
from ingle.home.kept import Kept, get_kept
from ingle.home.place import Home
from ingle.train.trouble import Stop, stop_signals
from ingle.train.watch import Made, RunWatch

S = TypeVar("S")
CURE = "What was done is kept: the same command goes on from there."


@dataclass(frozen=True, slots=True)
class Job(Generic[S]):
    """One delta on its way to a candidate."""

    verb: str
    version: int
    """Changes when the same settings make something else than before."""
    home: Home
    kept: Kept
    """Of which model."""
    name: str
    """Of the delta."""
    settings: S
    watch: RunWatch = field(default_factory=RunWatch)
    command: str = ""
    stop: Stop = field(default_factory=Stop)

    @property
    def key(self) -> str:
        """Of all that the result follows from."""
        return digest_json([self.version, self.verb, self.kept.digest, self.name, to_table(self.settings)])

    @property
    def folder(self) -> Path:
        """Where it lies as long as it is not finished."""
        return self.home.tuning / self.key[:32]

    @property
    def model(self) -> str:
        """What the model with the delta is called."""
        return f"{self.kept.name}+{self.name}"

    def check(self, where: str) -> None:
        """Raises Interrupted if somebody wants to stop."""
        if self.stop.asked:
            raise Interrupted(self.verb, "was interrupted", where, CURE)

    def origin(self, method: str) -> dict[str, str]:
        """What a delta says of where it comes from."""
        versions = f"ingle {__version__}, torch {torch.__version__}, python {platform.python_version()}"
        said = {"method": f"{self.verb}, {method}", "settings": canonical_json(to_table(self.settings)).decode(), "versions": versions}
        return said | {"threads": str(torch.get_num_threads()), "command": self.command, "run": self.key}


def to_delta(
    job: Job[S], make: Callable[[Job[S]], Candidate], admit: Admit, event: Callable[[Mapping[str, Any], Delta], Event], sink: Sink
) -> Made:
    """The delta that this very job made before, or a new one of what `make` makes, if `admit` takes it; then `sink` hears the event.

    Raises ConfigError for a name that is taken, HomeError, what the two raise, and Interrupted; the same call then goes on where it was.
    """
    home, kept = job.home, job.kept
    home.create()
    place = digest_json([kept.digest, job.name.lower()])[:16]
    with home.lock(f"tune-{place}", timeout_s=0), stop_signals() as stop:
        job = replace(job, stop=stop)
        ours = [delta for delta in list_deltas(home, kept.digest) if delta.name == job.name and delta.origin.get("run") == job.key]
        refuse_taken_delta(home, job.name, kept.digest, ours[0].digest if ours else "")
        if ours:
            job.watch.say(f"{job.model} was made by this very command already")
        delta = ours[0] if ours else admit(make(job), lambda: stop.asked)
        report = delta_report(home, delta.digest) or {}
        if not ours or job.folder.exists():  # else a kill came between the delta and the fact
            sink(event(report, delta))
        shutil.rmtree(job.folder, ignore_errors=True)
        return Made(get_kept(home, job.model), delta, report)
