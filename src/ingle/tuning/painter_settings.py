"""Settings of a painter's training."""

from dataclasses import dataclass, field

from ingle.core.errors import ConfigError
from ingle.train.optimisers import OptimiserSettings
from ingle.train.settings import TrainSettings
from ingle.tuning.emblem_settings import EmblemSettings
from ingle.tuning.low_rank import LowRankSettings


@dataclass(frozen=True, slots=True)
class PainterSettings:
    """Settings of one painter."""

    families: tuple[str, ...] = ("animals-nature", "food-drink", "travel-places", "activities", "objects", "smileys-emotion")
    """Categories or subcategories of emoji that it learns to paint."""
    colours: int = 2
    """Other colours in which each emblem is learnt, where it has a main colour."""
    moved: int = 0
    """Further copies of every example, moved by up to three pixels and half of them mirrored: with few pictures, they are else learnt by
    heart."""
    emblems: EmblemSettings = field(default_factory=EmblemSettings)
    """Training of the autoencoder: first of two."""
    layers: str = "all"
    """Layers that get the addition: all, upper-half, upper-third, or numbers like 20-29. With fewer, `train.cache_mb` saves time."""
    low_rank: LowRankSettings = field(default_factory=LowRankSettings)
    """The addition that acts while the model paints."""
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=12, batch_tokens=1024, optimiser=OptimiserSettings(learning_rate=1e-3))
    )
    """Training of the addition: second of two."""
    seed: int = 0
    """Seed of the choice of prompts, and of first values."""

    def __post_init__(self) -> None:
        if not self.families:
            raise ConfigError("families", "must name what to paint", "nothing", "For example families = ['animals-nature'].")
        if not 0 <= self.moved <= 100:
            raise ConfigError("moved", "must be between 0 and 100", self.moved)
        if not 0 <= self.colours <= 7:
            raise ConfigError("colours", "must be between 0 and 7", self.colours)
