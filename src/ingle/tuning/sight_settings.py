"""Settings of learning to see."""

from dataclasses import dataclass, field

from ingle.core.config import check_seed
from ingle.core.errors import ConfigError
from ingle.train.optimisers import OptimiserSettings
from ingle.train.schedules import Schedule
from ingle.train.settings import TrainSettings


def _course() -> TrainSettings:
    return TrainSettings(
        epochs=1, batch_tokens=1024, optimiser=OptimiserSettings(learning_rate=2e-3), schedule=Schedule("cosine", warm_up=0.05),
        checkpoint_minutes=3.0,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SightSettings:
    """Settings of one run."""

    places: int = 4
    """Vectors that stand for a picture, each in the place of a token."""
    width: int = 320
    """Directions of the eye's numbers that are kept."""
    inner: int = 320
    """Units of the projector's hidden layer."""
    ridge: float = 1.0
    """Ridge of the regression from the eye's numbers to names."""
    views: int = 1
    """Altered copies of each picture that are looked at, beside the picture itself."""
    questions: int = 2
    """Questions about each picture in an epoch: its name, and others."""
    noise: float = 0.3
    """Noise on the numbers that the projector reads in training; they have a size of about 1."""
    held_out: float = 0.01
    """Share of the pictures that is never trained on."""
    without: tuple[str, ...] = ()
    """Families of pictures that are left out: for figures on what was never seen."""
    measured: int = 24
    """Held-out pictures that are described as the model is served; 0 = none."""
    train: TrainSettings = field(default_factory=_course)
    """Settings of the projector's training."""
    seed: int = 0
    """Seed of what is held out, of views, questions and first values."""

    def __post_init__(self) -> None:
        for name, least in (("places", 1), ("width", 8), ("inner", 1), ("views", 0), ("questions", 1), ("measured", 0)):
            if getattr(self, name) < least:
                raise ConfigError(name, f"must be at least {least}", getattr(self, name))
        if not self.ridge > 0 or self.noise < 0:
            raise ConfigError("ridge and noise", "must be above 0, and not negative", f"{self.ridge}, {self.noise}")
        if not 0 <= self.held_out < 0.5:
            raise ConfigError("held_out", "must be at least 0 and below 0.5", self.held_out)
        check_seed("seed", self.seed)
