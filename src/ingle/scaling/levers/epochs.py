"""The text read again and again: it helps where new text is short (arXiv 2305.16264)."""

from collections.abc import Sequence
from dataclasses import replace

from ingle.scaling.lever import TrainingLever
from ingle.scaling.sweep_settings import SweepSettings

TIMES = (2, 4, 8, 16)


def changes(settings: SweepSettings) -> Sequence[SweepSettings]:
    """Read each text several times as often."""
    return [replace(settings, epochs=settings.epochs * times) for times in TIMES if settings.epochs * times <= TIMES[-1]]


LEVER = TrainingLever("read the text several times", changes)
