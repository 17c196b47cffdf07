"""Recurrent models: no attention, a memory in every layer."""

from collections.abc import Sequence
from dataclasses import replace

from ingle.scaling.lever import TrainingLever
from ingle.scaling.sweep_settings import SweepSettings


def changes(settings: SweepSettings) -> Sequence[SweepSettings]:
    """Let the models look back by their memory alone."""
    return [replace(settings, kind="rnn")] if settings.kind != "rnn" else []


LEVER = TrainingLever("train an RNN", changes)
