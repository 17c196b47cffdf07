"""Half the tokens a step, or twice as many."""

from collections.abc import Sequence
from dataclasses import replace

from ingle.scaling.ladder import RATE
from ingle.scaling.lever import TrainingLever
from ingle.scaling.sweep_settings import LEAST_STEPS, SweepSettings


def changes(settings: SweepSettings) -> Sequence[SweepSettings]:
    """Take half the tokens a step, or twice as many; the rate follows their square root (arXiv 2205.10287)."""
    least, most = settings.data.row_tokens, min(*settings.tokens, settings.foretold_tokens) // LEAST_STEPS
    rate = settings.rate or RATE[settings.optimiser]
    sizes = (settings.batch_tokens // 2, settings.batch_tokens * 2)
    return [
        replace(settings, batch_tokens=size, rate=rate * (size / settings.batch_tokens) ** 0.5) for size in sizes if least <= size <= most
    ]


LEVER = TrainingLever("take another number of tokens a step", changes)
