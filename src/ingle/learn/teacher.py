"""The teacher of a kept model: lessons by our own kernels, styles with PyTorch, which isn't imported before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingle.core.candidate import Candidate
from ingle.core.errors import ConfigError
from ingle.core.example import Example
from ingle.core.files import how_to_install
from ingle.engine.loading import Opener
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.learn.able import lacking
from ingle.learn.lesson import LessonTeacher
from ingle.learn.lesson_settings import LessonSettings, StyleSettings

if TYPE_CHECKING:
    from ingle.learn.style_teacher import StyleTeacher


@dataclass
class ModelTeacher:
    """Holds what one model's lessons need in memory, one of both kinds at a time: there may be no room for two."""

    home: Home
    kept: Kept
    lessons: LessonSettings
    styles: StyleSettings
    opener: Opener
    breath: Callable[[], None] = lambda: None  # as `LessonTeacher` has it
    _lessons: LessonTeacher | None = None
    _styles: "StyleTeacher | None" = None

    def lesson(self, examples: Sequence[Example]) -> Candidate:
        """Return the candidate of some corrections. Raises LessonError if they can't be taught, and what opening the model raises."""
        self._styles, self._lessons = None, self._lessons or LessonTeacher(self.home, self.kept, self.lessons, self.opener, self.breath)
        return self._lessons.lesson(examples)

    def style(self, examples: Sequence[Example]) -> Candidate:
        """Return the candidate of some rated answers. Raises LessonError if they can't be learned from, and what opening raises."""
        if lacking("rating"):
            raise ConfigError("PyTorch", "is needed to learn a style, and is not installed", "", how_to_install("learn"))
        from ingle.learn.style_teacher import StyleTeacher

        self._lessons, self._styles = None, self._styles or StyleTeacher(self.home, self.kept, self.lessons, self.styles)
        return self._styles.style(examples)
