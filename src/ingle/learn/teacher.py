"""The teacher of a kept model: lessons by our own kernels where its layers allow, styles and other layers with PyTorch.

Imports no PyTorch before it is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingle.core.candidate import Candidate
from ingle.core.errors import ConfigError
from ingle.core.example import Example
from ingle.core.installing import how_to_install
from ingle.engine.loading import Opener
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.learn.able import has_pytorch, needs_pytorch
from ingle.learn.lesson import LessonTeacher
from ingle.learn.lesson_settings import LessonSettings, StyleSettings

if TYPE_CHECKING:
    from ingle.learn.teaching import Teacher


@dataclass
class ModelTeacher:
    """Holds what one model's lessons need in memory, one of both kinds at a time: there may be no room for two."""

    home: Home
    kept: Kept
    lessons: LessonSettings
    styles: StyleSettings
    opener: Opener
    _own: LessonTeacher | None = None
    _theirs: "Teacher | None" = None

    def lesson(self, examples: Sequence[Example]) -> Candidate:
        """Return the candidate of some corrections. Raises LessonError if they can't be taught, and what opening the model raises."""
        if self._own is None and needs_pytorch(self.home, self.kept, "correction"):
            return self._with_pytorch().lesson(examples)
        self._theirs, self._own = None, self._own or LessonTeacher(self.home, self.kept, self.lessons, self.opener)
        return self._own.lesson(examples)

    def style(self, examples: Sequence[Example]) -> Candidate:
        """Return the candidate of some rated answers. Raises LessonError if they can't be learned from, and what opening raises."""
        return self._with_pytorch().style(examples)

    def _with_pytorch(self) -> "Teacher":
        if not has_pytorch():
            raise ConfigError("PyTorch", "Learning this needs PyTorch, which is not installed", "", how_to_install("learn"))
        from ingle.learn.teaching import Teacher

        self._own, self._theirs = None, self._theirs or Teacher(self.home, self.kept, self.lessons, self.styles)
        return self._theirs
