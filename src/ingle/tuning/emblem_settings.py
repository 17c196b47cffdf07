"""Settings of the emblems' autoencoder. Imports no PyTorch."""

from dataclasses import dataclass

from ingle.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class EmblemSettings:
    """Settings of the autoencoder's training."""

    steps: int = 5000
    """Steps of the run. It may be given others later, as long as the last quarter has not begun."""
    batch: int = 32
    """Pictures of a step."""
    rate: float = 2e-3
    """Learning rate at its highest; it falls to nothing over the last quarter."""
    free_steps: int = 400
    """Steps before the codebook begins."""
    seed: int = 0
    save_every: int = 250
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "free_steps", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"painter.{name}", "must be at least 1", getattr(self, name))
