"""Course of a run where the owner sets none: small data are read more often and in smaller batches, or nothing is learnt."""

import math
from dataclasses import dataclass, replace

from ingle.core.errors import ConfigError
from ingle.train.packing import Data
from ingle.train.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class SmallData:
    """Changes for data that give too few steps. They hold only where nothing else was set: `settings.settings_of` turns the rest off."""

    least_steps: int = 48
    """Fewest steps of a run; 0 = as many as its epochs give."""
    batch_tokens: int = 512
    """Tokens of a batch then, but at least those of the longest example; 0 = as `train.batch_tokens` says."""
    patience: int = 2
    """Epochs in a row that gain nothing after which the run stops and the best is kept; 0 = it goes on to its end."""
    least_gain: float = 0.02
    """As `train.least_gain`."""

    def __post_init__(self) -> None:
        for name in ("least_steps", "batch_tokens", "patience", "least_gain"):
            if getattr(self, name) < 0:
                raise ConfigError(f"small.{name}", "must not be negative", getattr(self, name))


def course_of(train: TrainSettings, small: SmallData, data: Data) -> TrainSettings:
    """Return the settings of the run on these data: `train`'s, or more epochs of smaller batches where there are few examples."""
    sizes = data.corpus.sizes
    tokens, longest = int(sizes[list(data.train)].sum()), int(sizes.max())
    if not small.least_steps or train.epochs * tokens >= small.least_steps * train.batch_tokens:
        return train
    batch = max(small.batch_tokens, longest) if small.batch_tokens else train.batch_tokens
    batch = min(batch, train.batch_tokens)
    epochs = max(train.epochs, math.ceil(small.least_steps / max(1, round(tokens / batch))))
    patience = train.patience or (small.patience if data.held_out else 0)
    return replace(train, batch_tokens=batch, epochs=epochs, patience=patience, least_gain=train.least_gain or small.least_gain)


def told(train: TrainSettings, course: TrainSettings, examples: int) -> str:
    """A sentence for the owner if the course differs from the settings; empty where it doesn't."""
    if course == train:
        return ""
    stops = ", or until little is left to learn" if course.patience else ""
    return f"{examples} examples are few, so they are read {course.epochs} times{stops} (--epochs sets another number)"
