"""Shared parts of commands that train: settings, progress bars, and facts that are recorded once."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ingle.app.house import open_ledger
from ingle.core.progress import Watcher
from ingle.core.report import Event, Sink
from ingle.home.place import Home

if TYPE_CHECKING:
    from ingle.core.headroom import Headroom
    from ingle.train.loop_settings import TrainProgress
    from ingle.train.making import RunWatch

T = TypeVar("T")


def settle(
    cls: type[T], begun: Sequence[str], config: Path | None, given: Mapping[str, Any], overrides: Sequence[str] | None
) -> tuple[T, str]:  # fmt: skip
    """A verb's settings, by its file, its own options and `--set`; and the command that gives them again, whatever becomes of the file.

    `begun`: the command's first words. Raises ConfigError.
    """
    from ingle.core.config import assignments, from_table, overrides_of, read_table

    table = read_table(config, assignments(given, overrides))
    return from_table(cls, table), shlex.join([*begun, *(f"--set={one}" for one in overrides_of(table))])


def run_watch(watch: Watcher, label: str = "training") -> "RunWatch":
    """Return the progress callbacks of a run that makes a delta."""
    from ingle.train.making import RunWatch

    def told(room: "Headroom") -> None:
        if room.fits and room.told:
            watch.say(room.told)

    return RunWatch(watch.pieces, train_progress(watch, label), watch.say, watch.bytes, told)


def train_progress(watch: Watcher, label: str = "training") -> "Callable[[TrainProgress], None]":
    """Return the progress callback of a training: loss, speed, time left."""

    def trained(now: "TrainProgress") -> None:
        held_out = "" if now.held_out is None else f", held out {now.held_out:.3f}"
        left = f", {now.seconds_left:.0f} s left" if now.seconds_left < 120 else f", {now.seconds_left / 60:.0f} min left"
        watch.pieces(label, now.step, now.steps, f"loss {now.loss:.3f}{held_out}, {now.tokens_per_s:.0f} tokens/s{left}")

    return trained


def share_of(option: str, text: str, example: str) -> float:
    """Return the number in `1/6` or `0.17`. Raises ConfigError."""
    from fractions import Fraction

    from ingle.core.errors import ConfigError

    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(option, "must be a share", text, f"For example {example}.") from error


def percent(option: str, text: str) -> float:
    """Return the percentage in `1%` or `1`: 1.0. Raises ConfigError."""
    from ingle.core.errors import ConfigError

    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError as error:
        raise ConfigError(option, "must be percent", text, "For example 1%.") from error
    if not 0 <= value < float("inf"):
        raise ConfigError(option, "must be 0 or more percent", text, "For example 1%.")
    return value


def recorder(home: Home, *keys: str) -> Sink:
    """Return a sink that records each fact once, because a resumed run sends them again. `keys`: values that identify a run's outcome.

    What was deleted since and made again is recorded again.
    """

    def sink(event: Event) -> None:
        with open_ledger(home) as ledger:
            before = next((row for row in ledger.read(subject=event.subject) if row.kind in (event.kind, "rm")), None)
            if before is None or before.kind == "rm" or any(before.values.get(key) != event.facts.get(key) for key in keys):
                ledger.append(event)

    return sink
