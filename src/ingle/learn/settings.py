"""Section `[learn]` of `config.toml`. Imports nothing that learns."""

import importlib.util
from dataclasses import dataclass, field

from ingle.core.errors import ConfigError
from ingle.core.installing import how_to_install
from ingle.learn.lesson_settings import LessonSettings, StyleSettings

RATINGS = 5
"""New ratings for which a style is learned anew: a single thumb says too little, and the learning takes a minute."""


def can_learn() -> bool:
    """Whether what teaches the weights is installed; memories act without it."""
    return importlib.util.find_spec("torch") is not None


def why_not() -> str:
    """Why the weights can't learn here and how they could; empty where they can."""
    return "" if can_learn() else f"The weights can't learn here, because PyTorch is not installed. {how_to_install('learn')}"


@dataclass(frozen=True, slots=True)
class LearnSettings:
    """How a server's learner behaves."""

    worker: bool = True
    """Whether `ingle serve` has a learner beside it. Without one, `ingle learn` learns what was taught."""
    beside: int = 1
    """Answers being written at once beside which it goes on to the next lesson; with more of them it waits."""
    memory_mb: int = 4096
    """Most memory of the learner; a lesson that needs more is refused. 0 = no limit."""
    idle_s: float = 300.0
    """It stays so long when all is learned, its model in memory: the next lesson then begins some seconds sooner."""
    ratings: int = RATINGS
    """New ratings after which a style is learned from all of them."""
    lesson: LessonSettings = field(default_factory=LessonSettings)
    """How corrections are taught. Lessons are learned anew with the settings of then: what is forgotten leaves no trace in either case."""
    style: StyleSettings = field(default_factory=StyleSettings)
    """How ratings become a style."""

    def __post_init__(self) -> None:
        for name, least in (("beside", 0), ("memory_mb", 0), ("idle_s", 0), ("ratings", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"learn.{name}", f"must be at least {least}", getattr(self, name))
