"""Half as many words, or twice as many."""

from collections.abc import Sequence
from dataclasses import replace

from ingle.scaling.lever import TrainingLever
from ingle.scaling.sweep_settings import SweepSettings

FEWEST = 258
"""256 bytes, the end of a text, and a word."""


def changes(settings: SweepSettings) -> Sequence[SweepSettings]:
    """Find half as many words in the text, or twice as many."""
    sizes = (settings.vocabulary // 2, settings.vocabulary * 2)
    return [replace(settings, vocabulary=size) for size in sizes if size >= FEWEST]


LEVER = TrainingLever("take another number of words", changes)
