"""Half the tokens a step, or twice as many, at the same rate."""

from collections.abc import Sequence
from dataclasses import replace

from ingle.scaling.lever import TrainingLever
from ingle.scaling.sweep_settings import LEAST_STEPS, SweepSettings


def changes(settings: SweepSettings) -> Sequence[SweepSettings]:
    """Take half the tokens a step, or twice as many, where the shortest run still has enough steps."""
    least, most = settings.data.row_tokens, min(*settings.tokens, settings.foretold_tokens) // LEAST_STEPS
    sizes = (settings.batch_tokens // 2, settings.batch_tokens * 2)
    return [replace(settings, batch_tokens=size) for size in sizes if least <= size <= most]


LEVER = TrainingLever("take another number of tokens a step", changes)
