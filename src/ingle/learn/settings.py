"""Section `[learn]` of `config.toml`. Doesn't import PyTorch."""

from dataclasses import dataclass, field

from ingle.core.config import Amount, Count, NotNegative, check_bounds
from ingle.learn.lesson_settings import LessonSettings, StyleSettings

RATINGS = 5  # new ratings after which a style is learned again: one rating says too little, and learning takes a minute


@dataclass(frozen=True, slots=True)
class LearnSettings:
    """Settings of the learner."""

    # Whether `ingle serve` runs a learner. Without one, `ingle teach --now` learns what was taught.
    worker: bool = True
    beside: Amount = 1  # most running answers beside which it begins the next lesson; with more it waits
    # Most memory of the learner; 0 = what is free. A lesson that needs more is refused before it begins.
    memory_mb: Amount = 0
    idle_s: NotNegative = 300.0  # time that it stays idle with its model in memory: the next lesson then begins some seconds sooner
    ratings: Count = RATINGS  # new ratings after which a style is learned from all of them
    # How corrections are taught. A lesson that is learned again uses the settings of that time.
    lesson: LessonSettings = field(default_factory=LessonSettings)
    style: StyleSettings = field(default_factory=StyleSettings)  # how ratings become a style

    def __post_init__(self) -> None:
        check_bounds(self, "learn.")
