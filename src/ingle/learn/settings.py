"""Section `[learn]` of `config.toml`. Doesn't import PyTorch."""

from dataclasses import dataclass, field

from ingle.core.config import Amount, Count, NotNegative, check_bounds
from ingle.learn.lesson_settings import LessonSettings, StyleSettings

RATINGS = 5
"""New ratings after which a style is learned again: one rating says too little, and learning takes a minute."""


@dataclass(frozen=True, slots=True)
class LearnSettings:
    """Settings of the learner."""

    worker: bool = True
    """Whether `ingle serve` runs a learner. Without one, `ingle learn` learns what was taught."""
    beside: Amount = 1
    """Most running answers beside which it begins the next lesson; with more it waits."""
    memory_mb: Amount = 0
    """Most memory of the learner; 0 = what is free. A lesson that needs more is refused before it begins."""
    idle_s: NotNegative = 300.0
    """Time that it stays idle with its model in memory: the next lesson then begins some seconds sooner."""
    ratings: Count = RATINGS
    """New ratings after which a style is learned from all of them."""
    lesson: LessonSettings = field(default_factory=LessonSettings)
    """How corrections are taught. A lesson that is learned again uses the settings of that time."""
    style: StyleSettings = field(default_factory=StyleSettings)
    """How ratings become a style."""

    def __post_init__(self) -> None:
        check_bounds(self, "learn.")
