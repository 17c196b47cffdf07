"""Settings of a conversion: size of states, groups that keep full attention, and the memories' lessons."""

from dataclasses import dataclass, field, replace
from typing import Literal

from ingle.core.config import Amount, Count, Share, check_bounds, check_seed
from ingle.core.errors import ConfigError
from ingle.core.spec import Memory
from ingle.train.loop_settings import Schedule, TrainSettings
from ingle.train.optimisers import OptimiserSettings

LEAST_TOKENS = 128  # fewest tokens of a document: there is room for a fact
LEAST_DIALOGUE = 512  # fewest tokens of a dialogue: there is room for a text, requests and answers


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Settings of the search for retrieval groups; see `hybridize.hybridizing`."""

    documents: Count = 10  # documents with facts in each round
    tokens: int = 3072  # tokens of each document
    rounds: Count = 6  # rounds in which groups give up full attention, the same share in each
    exchanges: Amount = 6  # exchanges of one group for another, tried after these rounds, as long as any promises a lower loss; 0 = none
    seed: int = 0  # seed of facts and texts

    def __post_init__(self) -> None:
        check_bounds(self, "search.")
        check_seed("search.seed", self.seed)
        if self.tokens < LEAST_TOKENS:
            raise ConfigError("search.tokens", f"must be at least {LEAST_TOKENS}", self.tokens)


Lesson = Literal["plain", "facts", "copy", "asked"]


@dataclass(frozen=True, slots=True)
class HybridLessonSettings:
    """Settings of the memories' lessons; see `hybridize.hybrid_lessons`."""

    # Suites whose training parts documents are made of, as much of one as of another; the search for groups uses them too. `debian-bits`
    # works only where apt has Debian's package lists.
    suites: tuple[str, ...] = ("xsum-bits", "wiki-bits")
    # Kinds of documents, in turn. Two of five are about facts, for there most is lost: texts lose little with a window of hundreds of
    # tokens, and much with a small window.
    kinds: tuple[Lesson, ...] = ("plain", "facts", "copy", "facts", "asked")
    tokens: int = 2048  # tokens of each document; a memory learns to look back about as far
    documents: Count = 250  # number of documents of all kinds
    long_tokens: int = 4096  # tokens of each document of the last lesson
    # Documents of that lesson; 0 = none. Recall far back is learnt here, from facts in half of them: 40 documents left it to chance, 0.91
    # to 1.01 of the original's.
    long_documents: Amount = 180
    # Kinds of documents of that lesson, in turn. With facts alone, texts would suffer.
    long_kinds: tuple[Lesson, ...] = ("plain", "facts", "asked", "facts", "facts", "asked")
    # Share of the documents' own text in that lesson's loss. The rest: the original's predictions, themselves unsure in long texts.
    data_share: Share = 0.5
    held_out: Count = 8  # further documents of each length that are never learnt from
    seed: int = 0  # seed of the documents

    def __post_init__(self) -> None:
        for name, example in (("suites", "wiki-bits"), ("kinds", "plain"), ("long_kinds", "facts")):
            if not getattr(self, name):
                raise ConfigError(f"lessons.{name}", "must name at least one", "none", f'For example ["{example}"].')
        check_bounds(self, "lessons.")
        check_seed("lessons.seed", self.seed)
        for name in ("tokens", "long_tokens"):
            if getattr(self, name) < LEAST_TOKENS:
                raise ConfigError(f"lessons.{name}", f"must be at least {LEAST_TOKENS}", getattr(self, name))


def _mixers() -> TrainSettings:
    optimiser = OptimiserSettings(learning_rate=1e-2)
    return TrainSettings(epochs=1, batch_tokens=2048, optimiser=optimiser, schedule=Schedule("cosine", warm_up=0.05))


def _logits() -> TrainSettings:
    optimiser = OptimiserSettings(learning_rate=2e-3)
    return TrainSettings(epochs=1, batch_tokens=2048, optimiser=optimiser, schedule=Schedule("cosine", warm_up=0.05), evaluate_every=100)


def _longer() -> TrainSettings:
    return replace(_logits(), batch_tokens=4096, evaluate_every=0, optimiser=OptimiserSettings(learning_rate=1e-3))


@dataclass(frozen=True, slots=True)
class HybridSettings:
    """Settings of one conversion."""

    # Size of a state at `context` tokens, as a share of the original's: decides how many groups keep full attention.
    state_budget: float = 1 / 6
    retrieval: int | None = None  # number of groups that keep full attention; None = as many as the budget allows
    context: int = 8192  # tokens at which the size is computed; at most the model's context
    window: int = 480  # tokens that streaming groups attend to
    # First tokens that they always attend to. Four keep attention from breaking down (arXiv 2309.17453). A conversation's first hundred
    # hold the request; where these left the window, answers about long texts went astray (LOG.md).
    sinks: int = 96
    memory: Memory = "gated_delta"  # kind of memory that takes in what leaves the window
    method: Literal["distil", "training-free"] = "distil"  # `training-free` finds the groups and stops there, without memories
    search: SearchSettings = field(default_factory=SearchSettings)  # search for the groups
    lessons: HybridLessonSettings = field(default_factory=HybridLessonSettings)  # documents of the lessons
    # First: each layer's memory learns to give what full attention gave, on the original's own activations.
    mixers: TrainSettings = field(default_factory=_mixers)
    logits: TrainSettings = field(default_factory=_logits)  # then: all memories together learn to give the original's predictions
    # Last: on longer documents, from these predictions and from the documents themselves.
    longer: TrainSettings = field(default_factory=_longer)

    def __post_init__(self) -> None:
        if not 0 < self.state_budget <= 1:
            raise ConfigError("state_budget", "must be above 0 and at most 1", self.state_budget, "For example 1/6.")
        if self.window < 1 or self.sinks < 0 or self.context < 1:
            raise ConfigError("window, sinks, context", "must be at least 1, 0 and 1", (self.window, self.sinks, self.context))
        if self.method == "distil":
            self._check_batches()
        if self.retrieval is not None and self.retrieval < 0:
            raise ConfigError("retrieval", "must not be negative", self.retrieval)

    def _check_batches(self) -> None:
        long = self.lessons.long_tokens if self.lessons.long_documents else 0
        for name, tokens in (("mixers", self.lessons.tokens), ("logits", self.lessons.tokens), ("longer", long)):
            room = getattr(self, name).batch_tokens
            if tokens > room:
                which = "lessons.long_tokens" if name == "longer" else "lessons.tokens"
                raise ConfigError(f"{name}.batch_tokens", f"must have room for a document, {which} = {tokens}", room)
