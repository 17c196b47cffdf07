"""Settings of all that is taught: `[learn]` of `config.toml`, with lessons and styles; and which of it can be learned here. No PyTorch."""

import importlib.util
from dataclasses import asdict, dataclass, field
from typing import Literal

from ingle.core.config import Amount, Count, NotNegative, Positive, check_bounds
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.files import how_to_install


@dataclass(frozen=True, slots=True)
class LessonSettings:
    """How corrections become a low-rank adapter of the upper layers."""

    # Layers that learn, in `tune`'s notation. The layers below are computed once per document.
    layers: str = "upper-third"
    targets: str = "all"  # linears that learn: all, attention, mlp, or names like q_proj,v_proj
    rank: Count = 4  # rank of the adapter of each linear
    alpha: Positive = 8.0  # the adapter's output is multiplied by alpha / rank
    learning_rate: Positive = 3e-3  # learning rate of the first step
    half_rate_after: Positive = 8.0  # steps after which the rate is half; it falls as 1 / (1 + step / this)
    wordings: Count = 12  # number of wordings of each question
    contrasts: Amount = 6  # number of near questions, for each question, whose answers must stay
    contrast_weight: NotNegative = 0.3  # weight of the drift on contrasts in the loss
    contrast_tokens: Amount = 6  # most tokens of a contrast's answer that are compared
    certainty: float = 0.8  # least probability of every token of the answer, in every wording, at which training stops
    most_drift: NotNegative = 1.0  # most drift of contrasts at which training stops, in nats a token
    min_steps: Count = 4  # fewest steps
    max_steps: Count = 10  # most steps for one example; further ones add `more_steps`
    more_steps: Amount = 12  # added to `max_steps` for each further example of a lesson
    batch_documents: Count = 24  # most documents in a step: those furthest from being learnt, and contrasts in turn
    max_tokens: Count = 1024  # most tokens of a question with its answer and the turns before
    # Number format of the computation; `auto`: bf16 if the processor has instructions for it.
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    # Threads of the processor. The last bits of a lesson depend on their number.
    threads: Count = 1
    seed: Amount = 0  # seed of the adapter's first values and of the wordings

    def __post_init__(self) -> None:
        check_bounds(self)
        if not 0 < self.certainty < 1:
            raise ConfigError("certainty", "must be between 0 and 1", self.certainty)

    @property
    def digest(self) -> str:
        """Digest of all settings that a lesson depends on."""
        return digest_json(asdict(self))


@dataclass(frozen=True, slots=True)
class StyleSettings:
    """How ratings become a style: a low-rank adapter of the same shape as a lesson's."""

    learning_rate: Positive = 1e-3  # learning rate, the same at every step
    epochs: Count = 5  # epochs over the rated answers
    batch_documents: Count = 10  # rated answers in a step
    beta: Positive = 0.1  # beta of KTO: an answer's gain levels off after a move of about 1 / beta nats
    words_weight: NotNegative = 1.0  # weight of the loss on the words of liked answers, beside KTO's loss
    answer_tokens: Count = 80  # tokens at an answer's beginning that are read
    rounds: int = 1  # rounds in which the model writes answers of its own to learn from; 0 = it learns from the rated ones alone
    own_answers: int = 2  # most attempts at each question, in each round: it tries again if an answer misses the bounds
    own_tokens: int = 80  # most tokens of an answer of its own
    temperature: float = 0.6  # temperature of those answers
    own_epochs: int = 2  # epochs over them, in each round
    end_weight: float = 3.0  # weight of an answer's end token beside its other tokens
    slip_weight: float = 1.0  # weight of the tokens at which its own answers left the bounds
    prose_tokens: int = 56  # most tokens of each ordinary text that it writes, on which drift is limited
    prose_weight: float = 2.0  # weight of the drift on those texts in the loss
    prose_documents: int = 4  # such texts in a step
    most_drift: float = 2.5  # most percent by which held-out texts may cost more in the end; beyond that the adapter is shrunk
    max_tokens: Count = 2048  # most tokens of a question with its answer and the turns before
    seed: Amount = 0  # seed of the adapter's first values and of the order

    def __post_init__(self) -> None:
        check_bounds(self)

    @property
    def digest(self) -> str:
        """Digest of all settings that a style depends on, the adapter's shape aside."""
        return digest_json(asdict(self))


RATINGS = 5  # new ratings after which a style is learned again: one rating says too little, and learning takes a minute


@dataclass(frozen=True, slots=True)
class LearnSettings:
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


def has_pytorch() -> bool:
    return importlib.util.find_spec("torch") is not None


def lacking(kind: str) -> str:
    """Say why an example of this kind can't be learned here and what to install; "" if it can."""
    if kind == "rating" and not has_pytorch():
        return f"Learning a style from ratings needs PyTorch, which is not installed. {how_to_install('learn')}"
    return ""
