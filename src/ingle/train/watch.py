"""What all runs that end in a delta have in common: who is told how it goes, and what came of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ingle.core.delta import Delta
from ingle.home import fetch
from ingle.home.kept import Kept
from ingle.train.settings import Progress


def nobody(*_: object) -> None:
    """Hears nothing of it."""


@dataclass(frozen=True, slots=True)
class RunWatch:
    """Who is told how it goes."""

    pieces: Callable[[str, int, int], None] = nobody
    """What is being done, how much of it is done, and of how much."""
    train: Callable[[Progress], None] = nobody
    """After every step of a training."""
    say: Callable[[str], None] = nobody
    """Something that the owner should know."""
    bytes: fetch.Progress = fetch.silent
    """What is fetched."""


@dataclass(frozen=True, slots=True)
class Made:
    """What came of it."""

    kept: Kept
    """The model with the delta, `MODEL+NAME`."""
    delta: Delta
    report: Mapping[str, Any]
    """As in `report.json`."""
