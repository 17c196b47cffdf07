"""Hybrids: a third of the layers see everything, the others a window and a memory."""

from collections.abc import Sequence
from dataclasses import replace

from ingle.scaling.lever import TrainingLever
from ingle.scaling.sweep_settings import SweepSettings, rung


def changes(settings: SweepSettings) -> Sequence[SweepSettings]:
    """Let the models look back as hybrids do. Rows must be longer than a window, or memories learn nothing."""
    if settings.kind == "hybrid" or any(rung(size, "transformer").layers == 1 for size in settings.sizes):  # one layer has no others
        return []
    shape = rung(settings.sizes[0], "hybrid")
    return [replace(settings, kind="hybrid")] if settings.data.row_tokens > shape.window + shape.sinks else []


LEVER = TrainingLever("train a hybrid", changes)
