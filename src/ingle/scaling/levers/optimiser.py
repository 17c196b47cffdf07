"""The other optimiser, Muon or AdamW, at its own rate."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from ingle.scaling.lever import TrainingLever
from ingle.scaling.sweep_settings import RATE, SweepSettings


def changes(settings: SweepSettings) -> Sequence[SweepSettings]:
    """Take the other optimiser. A rate of the sweep's own is changed in proportion to the ladder's rates."""
    other: Literal["muon", "adamw"] = "adamw" if settings.optimiser == "muon" else "muon"
    return [replace(settings, optimiser=other, rate=settings.rate * RATE[other] / RATE[settings.optimiser])]


LEVER = TrainingLever("take the other optimiser", changes)
