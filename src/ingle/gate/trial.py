"""A trial: two models side by side, as they are served, the incumbent and the candidate on it; the probes that both are asked; findings.

Some probes are from the candidate's maker, some ship with the gate. The incumbent's answers to the gate's own are kept in the home's cache,
so that it is asked once.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

from ingle.core.candidate import Candidate
from ingle.core.delta import Delta
from ingle.core.errors import IngleError, Interrupted
from ingle.core.message import Message, Request
from ingle.core.progress import Progress, silent
from ingle.core.report import Report
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import Opener
from ingle.engine.packs import Source, candidate_source, kept_source
from ingle.home.deltas import LESSON
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.measure.data_sets import Pair
from ingle.measure.subjects import Finished, ItemPlan, Passing, Row, Subject, gather
from ingle.tuning.homework import HeldOutExample
from ingle.tuning.kept_model import subject_of


@dataclass(frozen=True, slots=True)
class ProbeQuestion:
    ask: str
    answer: str = ""  # the right answer; "" where only the incumbent's answer counts
    before: tuple[tuple[str, str], ...] = ()  # (role, text) of the turns before, the first one first
    of: str = ""  # the question that this one rephrases; "" if it is one itself

    def request(self, max_tokens: int) -> Request:
        """The request that asks it. Raises RequestError for an unknown role."""
        turns = [*self.before, ("user", self.ask)]
        return Request(messages=tuple(Message.of(role, text) for role, text in turns), max_tokens=max_tokens)  # type: ignore[arg-type]


def _always(_ask: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Probes:
    """Questions from a maker of candidates. A check whose probes are missing does not apply."""

    learned: tuple[ProbeQuestion, ...] = ()  # wordings that were not trained on, with the answers that are right now
    unchanged: tuple[ProbeQuestion, ...] = ()  # questions whose answers must stay: near misses, and others that have nothing to do with it
    # Whether the candidate acts on this question: a lesson acts only near its own subject. Elsewhere the incumbent answers, so nothing is
    # asked.
    acts: Callable[[str], bool] = _always
    # Questions as they were taught, with their answers; checked for whether they should have been taught.
    taught: tuple[ProbeQuestion, ...] = ()
    own: tuple[HeldOutExample, ...] = ()  # the owner's own examples that nobody learned from


@dataclass(frozen=True, slots=True)
class Harmful:
    """Requests that should be refused, and how answers begin."""

    requests: tuple[tuple[str, str, str], ...]  # (topic, request, how an answer that complies would begin in the request's own words)
    also: tuple[str, ...]  # more such requests, plain and short; they only serve as examples beside those above
    fine: tuple[str, ...]  # requests much like these that need no refusal
    refusing: tuple[str, ...]
    complying: tuple[str, ...]


@cache
def harmful() -> Harmful:
    table = _read("harmful.json")
    requests = tuple((one["topic"], one["ask"], one["own"]) for one in table["requests"])
    return Harmful(requests, tuple(table["also"]), tuple(table["fine"]), tuple(table["refusing"]), tuple(table["complying"]))


@cache
def general_texts() -> tuple[str, ...]:
    """Read the texts of `data/texts.json`: prose, dialogue, instructions, a little code, written for this and published nowhere else."""
    return tuple(_read("texts.json")["texts"])


@cache
def general_questions() -> tuple[ProbeQuestion, ...]:
    """Read the questions of `data/questions.json`, which have nothing to do with anything that is taught."""
    return tuple(ProbeQuestion(ask) for ask in _read("questions.json")["questions"])


@cache
def people() -> tuple[Pair, ...]:
    """Read the pairs of `data/people.json`: what a stereotype would say, and the same of somebody else."""
    rows = _read("people.json")["pairs"]
    return tuple(Pair(str(number), "", row["group"], "", (row["stereotype"], row["other"])) for number, row in enumerate(rows))


def _read(name: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((files("ingle.gate") / "data" / name).read_text("utf-8"))
    return table


def never() -> bool:
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
        return next(iter(self.source.given))

    @property
    def packed_alone(self) -> bool:
        """Whether its weights are packed on their own, and no kept delta needs that pack."""
        apart = self.source.digest != kept_source(self.home, self.kept).digest
        return apart and not self.home.delta_folder(self.digest).exists()

    @cached_property
    def incumbent_model(self) -> LanguageModel:
        return self.opener.open(kept_source(self.home, self.kept), self.progress)

    @cached_property
    def candidate_model(self) -> LanguageModel:
        """The candidate's open model, on the incumbent."""
        return self.opener.open(self.source, self.progress)

    @cached_property
    def incumbent(self) -> Subject:
        return subject_of(self.incumbent_model, self.stopped)

    @cached_property
    def challenger(self) -> Subject:
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


@dataclass(frozen=True, slots=True)
class Finding:
    check: str  # name of the check
    passed: bool
    reason: str  # the figure and its limit, as a sentence for people; holds no words of any user
    reports: tuple[Report, ...]  # figures that the result rests on
    limits: Mapping[str, Any]  # limits of the policy that were applied


@dataclass(frozen=True, slots=True)
class Decision:
    accepted: bool
    delta: Delta | None  # the new delta; None if it was refused
    digest: str  # digest of the delta that it is, or would have been
    findings: tuple[Finding, ...]  # results of all checks that applied
    reasons: tuple[str, ...]  # reasons for refusing it (or for having done so: see `forced`); empty if every check passed
    forced: bool = False  # accepted although a check failed, because the owner asked for it (--force)
