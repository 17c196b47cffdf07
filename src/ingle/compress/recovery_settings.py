"""Settings of a recovery."""

from dataclasses import dataclass

from ingle.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """How a changed model learns to follow the original."""

    minutes: float = 0.0
    """Minutes of training; 0 = none. The number of steps follows from the speed at the beginning."""
    steps: int | None = None
    """Number of steps, instead of minutes."""
    learning_rate: float = 1e-3
    """Learning rate at its peak."""
    tokens: int = 512
    """Tokens of each document."""
    batch_tokens: int = 2048
    """Most tokens of a step."""
    held_out: int = 16
    """Documents that are never learnt from."""
    seed: int = 0
    """Seed of texts and initial values."""

    def __post_init__(self) -> None:
        for name in ("tokens", "batch_tokens", "held_out"):
            if getattr(self, name) < 1:
                raise ConfigError(f"recovery.{name}", "must be at least 1", getattr(self, name))
        if self.minutes < 0 or (self.steps is not None and self.steps < 1):
            raise ConfigError("recovery.minutes, .steps", "must not be below 0 and 1", (self.minutes, self.steps))
        if self.batch_tokens < self.tokens:
            raise ConfigError("recovery.batch_tokens", f"must have room for a document of {self.tokens} tokens", self.batch_tokens)

    @property
    def wanted(self) -> bool:
        """Whether a recovery is asked for."""
        return self.steps is not None or self.minutes > 0
