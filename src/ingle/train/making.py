"""Making, as all makers share it: one job at a time for each name, what it will need, how it fails, and what it reports."""

import contextlib
import json
import platform
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from ingle import __version__
from ingle.core.candidate import Admit, Candidate
from ingle.core.config import to_table
from ingle.core.delta import Delta
from ingle.core.digest import canonical_json, digest_json
from ingle.core.energy import amount, reported, total
from ingle.core.errors import IngleError, Interrupted
from ingle.core.files import os_errors
from ingle.core.headroom import Headroom, Need, room_for
from ingle.core.progress import FetchProgress, Progress, silent
from ingle.core.report import Event, Fact, Sink
from ingle.core.spec import ModelConfig
from ingle.home.base import CURVES
from ingle.home.deltas import delta_report, list_deltas, refuse_taken_delta
from ingle.home.kept import Kept, get_kept
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.home.staging import idle_days
from ingle.kernels.cpu import features
from ingle.model.tensor import expected_shapes, size_of

if TYPE_CHECKING:
    from ingle.train.loop_settings import TrainProgress, TrainReport


# Errors of training, as sentences: numbers that ran away, memory that ran out, a signal to stop.


class TrainError(IngleError):
    """A run that can't go on. Its last checkpoint is whole."""

    exit_code = 13


class Stop:
    """A flag: whether the run was told to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Catch Ctrl-C and SIGTERM: the first asks to stop after this step, with a checkpoint; the second Ctrl-C stops at once.

    Where one is inside another, the outer one is asked too, for the inner one may have looked for the last time.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, _frame: FrameType | None) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    _open.append(stop)
    try:
        yield stop
    finally:
        _open.pop()
        for number, handler in before.items():
            signal.signal(number, handler)
        if stop.asked and _open:
            _open[-1].asked = True


_open: list[Stop] = []  # flags of the main thread, the outermost first


@contextmanager
def memory_errors(cure: str) -> Iterator[None]:
    """Turn PyTorch's errors for memory that ran out into one; `cure` says which setting to lower."""
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate" not in text:
            raise
        raise TrainError("memory", "There was not enough memory", text.partition("\n")[0][:120], cure) from error


def smaller_batches(batch_tokens: int, recompute: bool) -> str:
    """The cure where there is no memory for a batch."""
    cure = f"Lower batch_tokens (now {batch_tokens}), and raise accumulate by as much for the same steps."
    return cure if recompute else f"{cure} Setting recompute = true takes a fraction of the memory and a third more time."


def not_finite(what: str, step: int, rate: float, bf16: bool) -> TrainError:
    """The error for a loss or gradient that is NaN or infinite."""
    cure = f"Most often the learning rate is too high (it was {rate:.2g}): lower it, or lengthen the warm-up."
    cure += " If it happens at the first step, look for damaged weights (`ingle verify`)"
    cure += ", or set precision = fp32." if bf16 else "."
    return TrainError(f"{what}, step {step}", "must be a finite number", "NaN or infinity", cure + " The last checkpoint is from before.")


def peak_bytes() -> int:
    """Most memory that this process used."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# Memory and arithmetic of a training, from the model's config alone. Imports no PyTorch.
# What autograd keeps grows with tokens × layers × the widths of a layer; the factors below were fitted to what was really taken, at widths
# of 512 to 4,096 (docs/models.md#learning-at-size), and the tests measure them again at a small size.


LIBRARIES = 560_000_000  # bytes of PyTorch, compiled kernels, and their buffers
CHUNK_ROWS = 128  # rows of logits at a time, see train/objectives.py
# The parts that learn: additions, the model itself, which groups keep full attention, each layer's memory, or all memories together.
Pass = Literal["low-rank", "whole", "search", "mixers", "follow"]
# Bytes that autograd keeps of a token in one layer, in bfloat16: for each number of its width, queries, keys, and MLP.
_KEPT: dict[Pass, tuple[float, float, float, float]] = {
    "low-rank": (8, 5, 5, 4), "whole": (11, 5, 5, 4), "search": (6, 7, 9, 4), "mixers": (6, 10, 27, 1), "follow": (6, 12, 26, 5),
}  # fmt: skip
_LOGITS: dict[Pass, int] = {"follow": 7}  # copies of a chunk of logits in float32; 4 where nothing else is said


def computed_bytes(precision: str = "auto") -> int:
    """Return the bytes of a number that this machine computes with: 2 where the processor multiplies bfloat16, else 4."""
    narrow = precision == "bf16" or (precision == "auto" and {"avx512bf16", "amx-bf16"} & features())
    return 2 if narrow else 4


@dataclass(frozen=True, slots=True)
class TrainingPass:
    """Forward and back through a model, once."""

    config: ModelConfig
    kind: Pass
    tokens: int  # of the longest row
    layers: int  # those that autograd goes through
    trained: int  # parameters that move
    each: int  # bytes of a number that is computed with
    recompute: bool = False  # whether layers keep their input only

    @property
    def row_bytes(self) -> int:
        """Memory of a row of tokens: what autograd keeps, a layer's backward pass, and a chunk of logits."""
        config, narrow = self.config, self.each / 2
        widths = (config.hidden_size, config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim, config.intermediate_size)
        layer = sum(factor * width for factor, width in zip(_KEPT[self.kind], widths, strict=True))
        kept = layer + 2 * self.layers * config.hidden_size if self.recompute else layer * self.layers
        turned = 16 * config.hidden_size + 8 * config.intermediate_size
        logits = _LOGITS.get(self.kind, 4) * 4 * CHUNK_ROWS * config.vocab_size
        return round(narrow * self.tokens * (kept + turned) + logits)

    @property
    def trained_bytes(self) -> int:
        """Memory of what is trained: values, gradients and AdamW's state in float32, and what is computed with."""
        return self.trained * (16 if self.each == 4 else 20)

    def operations(self, tokens: int) -> float:
        """Floating-point operations of so many tokens, forward and back."""
        size = size_of(self.config)
        back = 3 if self.kind == "whole" else 2
        ahead = 2 * (2 * size.read if self.kind in ("mixers", "follow") else size.read)
        return tokens * (ahead + 2 * (back - 1) * size.layer * self.layers + 2 * size.head)


def low_rank_parameters(config: ModelConfig, layers: int, rank: int) -> int:
    """Count the parameters of low-rank additions to every linear of so many layers that can have one, in layers as they are on average."""
    modules = {f"self_attn.{part}_proj" for part in "qkvo"} | {f"mlp.{part}_proj" for part in ("gate", "up", "down")}
    named = ((name.split("."), shape) for name, shape in expected_shapes(config).items() if len(shape) == 2)
    sizes = [sum(shape) for parts, shape in named if ".".join(parts[3:-1]) in modules]
    return round(rank * sum(sizes) * layers / len(config.layers))


# Reports of a training, whatever was trained: facts for the ledger, rows for people, and whether it taught anything.


_COSTS = ("steps", "tokens", "seconds", "tokens_per_s", "first_loss", "loss", "precision", "peak_bytes")


def held_out_of(trained: "TrainReport", patience: int) -> tuple[float | None, float | None]:
    """Held-out loss before training, and of the parameters that were kept."""
    return trained.first_held_out, trained.best_held_out if patience else trained.held_out


def taught_nothing(trained: "TrainReport", patience: int, what: str) -> str | None:
    """A warning for the owner if the held-out loss did not fall."""
    before, after = held_out_of(trained, patience)
    if before is None or after is None or after < before:
        return None
    return f"{what} taught nothing: the held-out loss was {before:.4f} before and is {after:.4f} after"


def training_facts(report: Mapping[str, Any]) -> dict[str, Fact]:
    """Facts on the cost and losses of a training, from a report that holds them under `train` and `held_out`."""
    train, held_out = report["train"], report["held_out"]
    facts: dict[str, Fact] = {name: train[name] for name in _COSTS}
    facts |= {"held_out_before": held_out["before"], "held_out_after": held_out["after"]}
    return facts | energy_facts(train)


def energy_facts(*metered: Mapping[str, Any]) -> dict[str, Fact]:
    """Facts on the energy of reports, where it was metered."""
    found = [energy for one in metered if (energy := reported(one))]
    return dict(total(found).facts()) if found else {}


def made_event(maker: str, report: Mapping[str, Any], keys: Iterable[str], more: Mapping[str, Fact]) -> Event:
    """The main fact of a delta that was made: its digest, base and method, these values of its report, and more."""
    return Event(maker, report["model"], {key: report[key] for key in ("delta", "base", "method", *keys)} | dict(more))


def figure_facts(name: str, figure: Mapping[str, Any]) -> dict[str, Fact]:
    """Facts of a measured figure with its interval; `figure` is a table like `core.report.Report`."""
    return {name: figure["value"], f"{name}_low": figure["low"], f"{name}_high": figure["high"], f"{name}_n": figure["n"]}


def cost_rows(train: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (figure, value, more) on a training's cost, for people."""
    energy = reported(train)
    return [
        ("speed", f"{train['tokens_per_s']:.0f} tokens/s", train["precision"]),
        ("time", f"{train['seconds']:.0f} s", f"{train['steps']} steps, {train['tokens']:,} tokens"),
        ("memory at its peak", f"{train['peak_bytes'] / 1e6:.0f} MB", ""),
        *([("energy", amount(energy.joules), str(energy))] if energy else []),
    ]


# Shared code of all makers, from a job to a model: one job at a time for each name; it can be stopped, continued, admitted and reported.
# HOME/tuning/KEY/ unfinished work, as the maker lays it out; KEY is a digest of all that the result follows from
# A maker is declared in core/makers. No PyTorch is imported here, so that a job's settings are checked before that is loaded.


S = TypeVar("S")
J = TypeVar("J", bound="MakingJob[Any]")
D = TypeVar("D", bound="DeltaJob[Any]")
CURE = "Finished work is kept. Run the same command to go on from there."
DAYS = 30  # days after which unfinished work that nobody went on with is deleted


@dataclass(frozen=True, slots=True)
class RunWatch:
    """Callbacks that hear how a job goes."""

    pieces: Progress = silent  # hears a label, how many of its pieces are done, and how many there are
    train: Callable[["TrainProgress"], None] = silent  # hears every step of a training
    say: Callable[[str], None] = silent  # hears a sentence for the owner
    bytes: FetchProgress = silent  # hears how much is downloaded
    room: Callable[[Headroom], None] = silent  # hears what the job will take, before it takes any of it


@dataclass(frozen=True, slots=True, kw_only=True)
class MakingJob(Generic[S]):
    """A model that is being made."""

    maker: str  # a name of core/makers
    home: Home
    name: str  # the name of the result
    settings: S
    # Digest of all that the result follows from. Work under another key is never continued.
    key: str
    folder: Path  # holds the unfinished work
    watch: RunWatch = field(default_factory=RunWatch)
    command: str = ""  # the command that asked for it, for the record
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

    def foretell(self, need: Need, cure: str) -> dict[str, Any]:
        """Say what the job will take, and return that for its report. Raises NoRoom where there isn't so much memory."""
        room = room_for(need)
        self.watch.room(room)
        room.check(cure)
        return room.table()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaJob(MakingJob[S]):
    """A delta that is being made."""

    kept: Kept  # the model that the delta is made for
    version: int = 1  # changes when the same settings make something else than before

    @property
    def model(self) -> str:
        """The name of the model with the delta."""
        return f"{self.kept.name}+{self.name}"

    def candidate(self, kind: str, method: str, tensors: Mapping[str, Any], report: Mapping[str, Any]) -> Candidate:
        """The candidate; its report says first who made it of what and how, and may name the method otherwise than its origin does."""
        head = {
            "version": self.version, "model": self.model, "base": self.kept.digest, "kind": kind, "method": method,
            "settings": to_table(self.settings),
        }  # fmt: skip
        return Candidate(self.name, kind, self.kept.digest, tensors, self.origin(method), head | dict(report))

    def origin(self, method: str) -> dict[str, str]:
        """Origin of the delta: method, settings, versions, command and run."""
        settings = canonical_json(to_table(self.settings)).decode()
        return {"method": f"{self.maker}, {method}", "settings": settings, **provenance(), "command": self.command, "run": self.key}


@dataclass(frozen=True, slots=True)
class Made:
    """A finished model, with its report."""

    kept: Kept
    report: Mapping[str, Any]  # the content of `report.json`
    folder: Path  # folder of the report, and of a training's loss curve

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
        maker=maker, home=home, name=name, settings=settings, key=key, folder=folder, watch=watch, command=command, kept=kept,
        version=version,
    )  # fmt: skip


def make_delta(
    begun: D, make: Callable[[D], Candidate], events: Callable[[Mapping[str, Any], Delta], Iterable[Event]], admit: Admit,
    sink: Sink = silent, *,
    mine: Callable[[D, Delta], bool] = lambda job, delta: delta.origin.get("run") == job.key,
    still: Callable[[D, Delta], bool] = lambda _job, _delta: True,
    finish: Callable[[D, Delta, Mapping[str, Any]], Mapping[str, Any]] = lambda _job, _delta, report: report,
) -> MadeDelta:  # fmt: skip
    """Return the delta that this very job made before, or a new one, if `admit` takes the candidate; then `sink` hears the facts.

    `make`: makes the candidate; goes on where it was stopped. `events`: facts for the ledger, from the delta's report. `mine`: whether a
    delta of that name was made by this very job. `still`: whether such a delta is what the job would make now; it reads the data where
    they are no part of the key. `finish`: completes the report of an admitted delta, and keeps it.

    Raises ConfigError for a name that is taken, HomeError, the errors of these functions and of `admit`, and Interrupted; the same call
    then continues the work.
    """
    home, kept = begun.home, begun.kept
    lock = digest_json([kept.digest, begun.name.lower()])[:16]
    with at_work(begun, f"tune-{lock}") as job:
        unfinished = job.folder.exists()
        ours = [one for one in list_deltas(home, kept.digest) if one.name == job.name and mine(job, one)]
        refuse_taken_delta(home, job.name, kept.digest, ours[0].digest if ours else "")
        if ours and not still(job, ours[0]):
            refuse_taken_delta(home, job.name, kept.digest)
        delta = ours[0] if ours else admit(make(job), job.stopped)
        report: Mapping[str, Any] = {**(delta_report(home, delta.digest) or {}), "delta": delta.digest}
        if ours and not unfinished:
            job.watch.say(f"{job.model} already exists, made by this very command")
        else:  # new, or a kill came between the delta and the facts
            report = finish(job, delta, report)
            for event in events(report, delta):
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
