"""Two models side by side, as they are served: the incumbent, and the candidate on it. What the incumbent said to the gate's own probes
is kept in the home's cache, so that it is asked once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ingle.core.candidate import Candidate
from ingle.core.errors import Interrupted
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import Opener
from ingle.engine.source import Source, candidate_source, kept_source, silent
from ingle.gate.probes import Probes, Question
from ingle.home.deltas import LESSON
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.measure.finished import Finished, Passing, Row
from ingle.measure.gather import Plan, Progress, gather
from ingle.measure.subject import Subject
from ingle.tuning.kept_model import subject_of


def never() -> bool:
    """Nobody stops."""
    return False


@dataclass(frozen=True)
class Trial:
    """What checks measure with. Models are opened when the first of them is asked."""

    home: Home
    kept: Kept
    """The incumbent."""
    candidate: Candidate
    probes: Probes = field(default_factory=Probes)
    opener: Opener = field(default_factory=Opener)
    """Opens the models; one that has the incumbent open already saves a second."""
    stopped: Callable[[], bool] = never
    progress: Progress = silent

    @property
    def private(self) -> bool:
        """Whether it was made of what a user taught, so that nothing of what is asked may be written down."""
        return LESSON in self.candidate.origin

    @cached_property
    def source(self) -> Source:
        """Where the candidate's weights come from. Raises DeltaError for one that can't be served on this model."""
        return candidate_source(self.home, self.kept, self.candidate)

    @property
    def digest(self) -> str:
        """Of the delta that the candidate would be."""
        return next(iter(self.source.given))

    @property
    def packed_alone(self) -> bool:
        """Whether its weights are packed apart, and no delta that is kept needs that pack."""
        apart = self.source.digest != kept_source(self.home, self.kept).digest
        return apart and not self.home.delta_folder(self.digest).exists()

    @cached_property
    def incumbent_model(self) -> LanguageModel:
        """The incumbent, open."""
        return self.opener.open(kept_source(self.home, self.kept), self.progress)

    @cached_property
    def candidate_model(self) -> LanguageModel:
        """The candidate on the incumbent, open."""
        return self.opener.open(self.source, self.progress)

    @cached_property
    def incumbent(self) -> Subject:
        """The incumbent as measures ask it."""
        return subject_of(self.incumbent_model, self.stopped)

    @cached_property
    def challenger(self) -> Subject:
        """The candidate as measures ask it."""
        return subject_of(self.candidate_model, self.stopped)

    def measured(self, plans: Sequence[Plan], label: str) -> tuple[list[Row], list[Row]]:
        """What is known of each of the gate's own probes: of the incumbent, and of the candidate. None of it may hold words of a user.

        Raises Interrupted, and what asking raises.
        """
        name = f"gate-{label}"
        before = gather(self.incumbent, plans, Finished(self.home, name, self.incumbent.digest), f"incumbent: {label}", self.progress)
        # Lessons come and go by the thousand.
        finished = Passing() if self.private else Finished(self.home, name, self.challenger.digest)
        return before, gather(self.challenger, plans, finished, f"candidate: {label}", self.progress)

    def answers(self, subject: Subject, questions: Sequence[Question], max_tokens: int) -> list[str]:
        """What a model says to these questions, greedily; nothing of it is kept anywhere. Raises Interrupted."""
        requests = [question.request(max_tokens) for question in questions]
        said = dict(subject.write(requests)) if requests else {}
        if len(said) < len(requests):
            raise Interrupted("gate", "was interrupted", f"{len(said)} of {len(requests)} answers", "The same command begins it again.")
        return [said[number] for number in range(len(requests))]
