"""The teacher of styles, with PyTorch. The same ratings, settings and machine give the same bytes: forgetting relies on that."""

from collections.abc import Sequence

from ingle.core.candidate import Candidate
from ingle.core.digest import digest_json
from ingle.core.example import Example
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.learn.lesson import lesson_candidate
from ingle.learn.lesson_settings import LessonSettings, StyleSettings
from ingle.learn.style import teach_style
from ingle.learn.trainable_model import TrainableModel
from ingle.tuning.low_rank_settings import LowRankSettings


class StyleTeacher:
    """Holds the module in memory and teaches one style after another. Each begins with the unchanged model."""

    def __init__(self, home: Home, kept: Kept, shape: LessonSettings, styles: StyleSettings) -> None:
        """Reads the weights, in a second or two; `shape` is the adapter's. Raises the errors of opening a model, ConfigError for settings
        that don't fit it."""
        self.shape, self.styles = shape, styles
        low_rank = LowRankSettings(shape.rank, shape.alpha, shape.targets)
        self.model = TrainableModel(home, kept, shape.layers, low_rank, shape.precision, shape.threads)

    def style(self, examples: Sequence[Example]) -> Candidate:
        """Return the candidate of some rated answers. Raises LessonError if they can't be learned from."""
        tensors, report = teach_style(self.model, self.styles, examples)
        settings = digest_json([self.shape.digest, self.styles.digest])
        return lesson_candidate(self.model.kept, "style", examples, tensors, settings, self.styles.seed, report)
