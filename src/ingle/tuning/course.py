"""How long a tuning lasts where nobody says: small data are read more often and in smaller batches, or nothing is learnt of them."""

import math
from dataclasses import dataclass, replace

from ingle.core.errors import ConfigError
from ingle.train.packing import Data
from ingle.train.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class SmallData:
    """What is done where the epochs come to too few steps. Only for what nobody set: `settings.settings_of` turns the rest off."""

    least_steps: int = 48
    """Steps that a run has at least; 0 = as many as its epochs give."""
    batch_tokens: int = 512
    """Tokens of a batch then, but as many as the longest example has; 0 = as `train.batch_tokens` says."""
    patience: int = 4
    """Epochs without a lower held-out loss after which the run stops, and the best is kept; 0 = it goes on to its end."""

    def __post_init__(self) -> None:
        for name in ("least_steps", "batch_tokens", "patience"):
            if getattr(self, name) < 0:
                raise ConfigError(f"small.{name}", "must not be negative", getattr(self, name))


def course_of(train: TrainSettings, small: SmallData, data: Data) -> TrainSettings:
    """The run that these data get: as `train` says, or longer and in smaller batches where they are few."""
    sizes = data.corpus.sizes
    tokens, longest = int(sizes[list(data.train)].sum()), int(sizes.max())
    if not small.least_steps or train.epochs * tokens >= small.least_steps * train.batch_tokens:
        return train
    batch = max(small.batch_tokens, longest) if small.batch_tokens else train.batch_tokens
    batch = min(batch, train.batch_tokens)
    epochs = max(train.epochs, math.ceil(small.least_steps / max(1, round(tokens / batch))))
    return replace(train, batch_tokens=batch, epochs=epochs, patience=train.patience or (small.patience if data.held_out else 0))


def told(train: TrainSettings, course: TrainSettings, examples: int) -> str:
    """What the owner is told of a course that is not as the settings say; empty where it is."""
    if course == train:
        return ""
    stops = f", or until the held-out loss no longer falls for {course.patience} of them" if course.patience else ""
    return f"{examples} examples are few: they are read {course.epochs} times{stops} (--epochs sets another number)"
