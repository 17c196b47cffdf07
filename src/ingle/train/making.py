"""Shared code of all makers, from a job to a model: one job at a time for each name; it can be stopped, continued, admitted and reported.

HOME/tuning/KEY/    unfinished work, as the maker lays it out; KEY is a digest of all that the result follows from

A maker is declared in core/makers. No PyTorch is imported here, so that a job's settings are checked before that is loaded.
"""

import contextlib
import json
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ingle import __version__
from ingle.core.candidate import Admit, Candidate
from ingle.core.config import to_table
from ingle.core.delta import Delta
from ingle.core.digest import canonical_json, digest_json
from ingle.core.errors import Interrupted
from ingle.core.files import os_errors
from ingle.core.report import Event, Sink
from ingle.core.room import Headroom
from ingle.home import fetch
from ingle.home.base import CURVES
from ingle.home.deltas import delta_report, list_deltas, refuse_taken_delta
from ingle.home.kept import Kept, get_kept
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.home.staging import idle_days
from ingle.train.trouble import Stop, stop_signals

if TYPE_CHECKING:
    from ingle.train.settings import TrainProgress

S = TypeVar("S")
J = TypeVar("J", bound="MakingJob[Any]")
D = TypeVar("D", bound="DeltaJob[Any]")
CURE = "Finished work is kept. Run the same command to go on from there."
DAYS = 30
"""Days after which unfinished work that nobody went on with is deleted."""


def nobody(*_: object) -> None:
    """Do nothing: the callback for whoever doesn't listen."""


@dataclass(frozen=True, slots=True)
class RunWatch:
    """Callbacks that hear how a job goes."""

    pieces: Callable[[str, int, int], None] = nobody
    """Hears a label, how many of its pieces are done, and how many there are."""
    train: Callable[["TrainProgress"], None] = nobody
    """Hears every step of a training."""
    say: Callable[[str], None] = nobody
    """Hears a sentence for the owner."""
    bytes: fetch.FetchProgress = fetch.silent
    """Hears how much is downloaded."""
    room: Callable[[Headroom], None] = nobody
    """Hears what the job will take, before it takes any of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakingJob(Generic[S]):
    """A model that is being made."""

    maker: str
    """A name of core/makers."""
    home: Home
    name: str
    """The name of the result."""
    settings: S
    key: str
    """Digest of all that the result follows from. Work under another key is never continued."""
    folder: Path
    """Holds the unfinished work."""
    watch: RunWatch = field(default_factory=RunWatch)
    command: str = ""
    """The command that asked for it, for the record."""
    stop: Stop = field(default_factory=Stop)

    def stopped(self) -> bool:
        """Whether somebody asked to stop, by Ctrl-C for example."""
        return self.stop.asked

    def check(self, where: str = "before the first step") -> None:
        """Raises Interrupted if somebody asked to stop."""
        if self.stop.asked:
            raise self.interrupted(where)

    def interrupted(self, where: str) -> Interrupted:
        """The error after Ctrl-C, with where it came."""
        return Interrupted(self.maker, "was interrupted", where, CURE)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaJob(MakingJob[S]):
    """A delta that is being made."""

    kept: Kept
    """The model that the delta is made for."""

    @property
    def model(self) -> str:
        """The name of the model with the delta."""
        return f"{self.kept.name}+{self.name}"

    def origin(self, method: str) -> dict[str, str]:
        """Origin of the delta: method, settings, versions, command and run."""
        settings = canonical_json(to_table(self.settings)).decode()
        return {"method": f"{self.maker}, {method}", "settings": settings, **provenance(), "command": self.command, "run": self.key}


@dataclass(frozen=True, slots=True)
class Made:
    """A finished model, with its report."""

    kept: Kept
    report: Mapping[str, Any]
    """The content of `report.json`."""
    folder: Path
    """Folder of the report, and of a training's loss curve."""

    @property
    def plot(self) -> Path:
        """Path of the loss curve, where there was a training."""
        return self.folder / CURVES[1]


@dataclass(frozen=True, slots=True)
class MadeDelta(Made):
    """A model with its new delta, `MODEL+NAME`."""

    delta: Delta


def delta_job(maker: str, version: int, home: Home, kept: Kept, name: str, settings: S, watch: RunWatch, command: str = "") -> DeltaJob[S]:
    """A job whose result follows from its settings alone. Raise `version` when the same settings make something else than before.

    Raises ConfigError for a name that can't be used.
    """
    check_name(name)
    key = digest_json([version, maker, kept.digest, name, to_table(settings)])
    folder = home.tuning / key[:32]
    return DeltaJob(
        maker=maker, home=home, name=name, settings=settings, key=key, folder=folder, watch=watch, command=command, kept=kept
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Steps(Generic[D]):
    """Steps that differ from one maker of deltas to the next."""

    make: Callable[[D], Candidate]
    """Makes the candidate; goes on where it was stopped."""
    events: Callable[[Mapping[str, Any], Delta], Iterable[Event]]
    """Facts for the ledger, from the delta's report."""
    mine: Callable[[D, Delta], bool] = lambda job, delta: delta.origin.get("run") == job.key
    """Whether a delta of that name was made by this very job."""
    still: Callable[[D, Delta], bool] = lambda _job, _delta: True
    """Whether such a delta is what the job would make now. Reads the data where they are no part of the key."""
    finish: Callable[[D, Delta, Mapping[str, Any]], Mapping[str, Any]] = lambda _job, _delta, report: report
    """Completes the report of an admitted delta, and keeps it."""


def make_delta(begun: D, steps: Steps[D], admit: Admit, sink: Sink = nobody) -> MadeDelta:
    """Return the delta that this very job made before, or a new one, if `admit` takes the candidate; then `sink` hears the facts.

    Raises ConfigError for a name that is taken, HomeError, the errors of `steps` and `admit`, and Interrupted; the same call then
    continues the work.
    """
    home, kept = begun.home, begun.kept
    lock = digest_json([kept.digest, begun.name.lower()])[:16]
    with at_work(begun, f"tune-{lock}") as job:
        unfinished = job.folder.exists()
        ours = [one for one in list_deltas(home, kept.digest) if one.name == job.name and steps.mine(job, one)]
        refuse_taken_delta(home, job.name, kept.digest, ours[0].digest if ours else "")
        if ours and not steps.still(job, ours[0]):
            refuse_taken_delta(home, job.name, kept.digest)
        delta = ours[0] if ours else admit(steps.make(job), job.stopped)
        report: Mapping[str, Any] = {**(delta_report(home, delta.digest) or {}), "delta": delta.digest}
        if ours and not unfinished:
            job.watch.say(f"{job.model} already exists, made by this very command")
        else:  # new, or a kill came between the delta and the facts
            report = steps.finish(job, delta, report)
            for event in steps.events(report, delta):
                sink(event)
    return MadeDelta(get_kept(home, job.model), report, home.delta_folder(delta.digest), delta)


@contextmanager
def at_work(job: J, lock: str, temporary: Sequence[str] = ()) -> Iterator[J]:
    """Yield the job, alone under this lock and hearing Ctrl-C. Then delete its folder, or only the parts named in `temporary`.

    Raises HomeError where the lock is taken, and for what the disk refuses to the work.
    """
    job.home.create()
    for folder_name in sweep(job.home):
        job.watch.say(f"an unfinished run was deleted: nobody went on with it for {DAYS} days ({folder_name[:12]})")
    with job.home.lock(lock, timeout_s=0), stop_signals() as stop, os_errors(job.folder):
        yield replace(job, stop=stop)
        for folder in [job.folder / part for part in temporary] or [job.folder]:
            shutil.rmtree(folder, ignore_errors=True)


def sweep(home: Home, days: float = DAYS) -> list[str]:
    """Delete work that nobody has touched for so many days. Returns the folders' names."""
    swept = []
    for folder in sorted(home.tuning.iterdir()) if home.tuning.is_dir() else ():
        with contextlib.suppress(OSError):  # somebody is working in it
            if idle_days(folder) > days:
                shutil.rmtree(folder, ignore_errors=True)
                swept.append(folder.name)
    return swept


def provenance() -> dict[str, str]:
    """Versions of the programs that make a model, and the threads that they compute with."""
    import torch

    versions = f"ingle {__version__}, torch {torch.__version__}, python {platform.python_version()}"
    return {"versions": versions, "threads": str(torch.get_num_threads())}


def to_json(report: Mapping[str, Any]) -> bytes:
    """Return a report as the bytes of its file."""
    return json.dumps(report, indent=1, ensure_ascii=False).encode()
