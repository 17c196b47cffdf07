"""A trial: two models side by side, as they are served, the incumbent and the candidate on it. The incumbent's answers to the gate's own
probes are kept in the home's cache, so that it is asked once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ingle.core.candidate import Candidate
from ingle.core.errors import IngleError, Interrupted
from ingle.core.message import Request
from ingle.core.progress import Progress, silent
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import Opener
from ingle.engine.packs import Source, candidate_source, kept_source
from ingle.gate.probes import ProbeQuestion, Probes
from ingle.home.deltas import LESSON
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.measure.subjects import Finished, ItemPlan, Passing, Row, Subject, gather
from ingle.tuning.kept_model import subject_of


def never() -> bool:
    """Never stop."""
    return False


@dataclass(frozen=True)
class Trial:
    """Models and probes for the checks. Models are opened when they are first asked."""

    home: Home
    kept: Kept  # the incumbent
    candidate: Candidate
    probes: Probes = field(default_factory=Probes)
    opener: Opener = field(default_factory=Opener)  # opens the models; one that has the incumbent open already saves a second
    stopped: Callable[[], bool] = never
    progress: Progress = silent
    # The start of the candidate, where that is more than the incumbent; it was judged earlier and is kept nowhere.
    so_far: Candidate | None = None

    @property
    def private(self) -> bool:
        """Whether the candidate is made of a user's own lessons, so that no question or answer may be written down."""
        return LESSON in self.candidate.origin

    @cached_property
    def source(self) -> Source:
        """Source of the candidate's weights. Raises DeltaError for one that can't be served on this model."""
        return candidate_source(self.home, self.kept, self.candidate)

    @property
    def digest(self) -> str:
        """Digest of the delta that the candidate would be."""
        return next(iter(self.source.given))

    @property
    def packed_alone(self) -> bool:
        """Whether its weights are packed on their own, and no kept delta needs that pack."""
        apart = self.source.digest != kept_source(self.home, self.kept).digest
        return apart and not self.home.delta_folder(self.digest).exists()

    @cached_property
    def incumbent_model(self) -> LanguageModel:
        """The incumbent's open model."""
        return self.opener.open(kept_source(self.home, self.kept), self.progress)

    @cached_property
    def candidate_model(self) -> LanguageModel:
        """The candidate's open model, on the incumbent."""
        return self.opener.open(self.source, self.progress)

    @cached_property
    def incumbent(self) -> Subject:
        """The incumbent, as a subject of measurements."""
        return subject_of(self.incumbent_model, self.stopped)

    @cached_property
    def challenger(self) -> Subject:
        """The candidate, as a subject of measurements."""
        return subject_of(self.candidate_model, self.stopped)

    @cached_property
    def earlier(self) -> Subject:
        """The start of the candidate, as a subject of measurements."""
        if self.so_far is None:
            return self.incumbent
        model = self.opener.open(candidate_source(self.home, self.kept, self.so_far), self.progress)
        return subject_of(model, self.stopped)

    def fits(self, request: Request) -> bool:
        """Return whether the models can read a request, and have room for its whole answer."""
        model = self.incumbent_model
        try:
            tokens = len(model.encode(request))
        except IngleError:
            return False
        return tokens + (request.max_tokens or 1) <= model.backend.config.context_length

    def measured(self, plans: Sequence[ItemPlan], label: str) -> tuple[list[Row], list[Row]]:
        """Measure the gate's own probes on the incumbent, and on the candidate; return the rows of each. No plan may hold words of a user.

        Raises Interrupted, and the errors of asking.
        """
        name = f"gate-{label}"
        before = gather(self.incumbent, plans, Finished(self.home, name, self.incumbent.digest), f"incumbent: {label}", self.progress)
        # Lessons come and go by the thousand, so their results are not kept.
        finished = Passing() if self.private else Finished(self.home, name, self.challenger.digest)
        return before, gather(self.challenger, plans, finished, f"candidate: {label}", self.progress)

    def answers(self, subject: Subject, questions: Sequence[ProbeQuestion], max_tokens: int) -> list[str]:
        """Answer these questions greedily; no answer is kept anywhere. Raises Interrupted."""
        requests = [question.request(max_tokens) for question in questions]
        by_number = dict(subject.write(requests)) if requests else {}
        if len(by_number) < len(requests):
            raise Interrupted("gate", "was interrupted", f"{len(by_number)} of {len(requests)} answers", "Run the same command again.")
        return [by_number[number] for number in range(len(requests))]
