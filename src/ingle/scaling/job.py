"""One training from scratch as its parts see it: what was asked for, where it works, who is told."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ingle.core.errors import Interrupted
from ingle.home import fetch
from ingle.home.place import Home
from ingle.scaling.settings import ScratchSettings
from ingle.scaling.sources import Texts
from ingle.train.settings import Progress
from ingle.train.trouble import Stop
from ingle.train.watch import nobody


@dataclass(frozen=True, slots=True)
class ScratchWatch:
    """Who is told how it goes."""

    train: Callable[[Progress], None] = nobody
    """After every step."""
    say: Callable[[str], None] = nobody
    """Something that the owner should know."""
    pieces: Callable[[str, int, int], None] = nobody
    """What is being done, how much of it is done, and of how much."""
    bytes: fetch.Progress = fetch.silent
    """The same of what is fetched."""


@dataclass(frozen=True, slots=True)
class Job:
    """A training that is going on."""

    home: Home
    name: str
    settings: ScratchSettings
    texts: Texts
    watch: ScratchWatch
    command: str
    key: str
    """Digest of all that the trained tensors follow from."""
    folder: Path
    """Of what is unfinished: HOME/tuning/scratch-KEY."""
    stop: Stop

    def check(self) -> None:
        """Raises Interrupted if somebody asked to stop."""
        if self.stop.asked:
            raise interrupted("before the first step")


def interrupted(where: str) -> Interrupted:
    """The error after Ctrl-C."""
    return Interrupted("training", "was interrupted", where, "What was done is kept: the same command goes on from there.")
