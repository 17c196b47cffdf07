"""Settings of lessons (from corrections) and of styles (from ratings)."""

from dataclasses import asdict, dataclass
from typing import Literal

from ingle.core.config import Amount, Count, NotNegative, Positive, check_bounds
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LessonSettings:
    """How corrections become a low-rank adapter of the upper layers."""

    layers: str = "upper-third"
    """Layers that learn, in `tune`'s notation. The layers below are computed once per document."""
    targets: str = "all"
    """Linears that learn: all, attention, mlp, or names like q_proj,v_proj."""
    rank: Count = 4
    """Rank of the adapter of each linear."""
    alpha: Positive = 8.0
    """The adapter's output is multiplied by alpha / rank."""
    learning_rate: Positive = 3e-3
    """Learning rate of the first step."""
    half_rate_after: Positive = 8.0
    """Steps after which the rate is half; it falls as 1 / (1 + step / this)."""
    wordings: Count = 12
    """Number of wordings of each question."""
    contrasts: Amount = 6
    """Number of near questions, for each question, whose answers must stay."""
    contrast_weight: NotNegative = 0.3
    """Weight of the drift on contrasts in the loss."""
    contrast_tokens: Amount = 6
    """Most tokens of a contrast's answer that are compared."""
    certainty: float = 0.8
    """Least probability of every token of the answer, in every wording, at which training stops."""
    most_drift: NotNegative = 1.0
    """Most drift of contrasts at which training stops, in nats a token."""
    min_steps: Count = 4
    """Fewest steps."""
    max_steps: Count = 10
    """Most steps for one example; further ones add `more_steps`."""
    more_steps: Amount = 12
    """Added to `max_steps` for each further example of a lesson."""
    batch_documents: Count = 24
    """Most documents in a step: those furthest from being learnt, and contrasts in turn."""
    max_tokens: Count = 1024
    """Most tokens of a question with its answer and the turns before."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of the computation; `auto`: bf16 if the processor has instructions for it."""
    threads: Count = 1
    """Threads of the processor. The last bits of a lesson depend on their number."""
    seed: Amount = 0
    """Seed of the adapter's first values and of the wordings."""

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

    learning_rate: Positive = 1e-3
    """Learning rate, the same at every step."""
    epochs: Count = 5
    """Epochs over the rated answers."""
    batch_documents: Count = 10
    """Rated answers in a step."""
    beta: Positive = 0.1
    """Beta of KTO: an answer's gain levels off after a move of about 1 / beta nats."""
    words_weight: NotNegative = 1.0
    """Weight of the loss on the words of liked answers, beside KTO's loss."""
    answer_tokens: Count = 80
    """Tokens at an answer's beginning that are read."""
    rounds: int = 1
    """Rounds in which the model writes answers of its own to learn from; 0 = it learns from the rated ones alone."""
    own_answers: int = 2
    """Most attempts at each question, in each round: it tries again if an answer misses the bounds."""
    own_tokens: int = 80
    """Most tokens of an answer of its own."""
    temperature: float = 0.6
    """Temperature of those answers."""
    own_epochs: int = 2
    """Epochs over them, in each round."""
    end_weight: float = 3.0
    """Weight of an answer's end token beside its other tokens."""
    slip_weight: float = 1.0
    """Weight of the tokens at which its own answers left the bounds."""
    prose_tokens: int = 56
    """Most tokens of each ordinary text that it writes, on which drift is limited."""
    prose_weight: float = 2.0
    """Weight of the drift on those texts in the loss."""
    prose_documents: int = 4
    """Such texts in a step."""
    most_drift: float = 2.5
    """Most percent by which held-out texts may cost more in the end; beyond that the adapter is shrunk."""
    max_tokens: Count = 2048
    """Most tokens of a question with its answer and the turns before."""
    seed: Amount = 0
    """Seed of the adapter's first values and of the order."""

    def __post_init__(self) -> None:
        check_bounds(self)

    @property
    def digest(self) -> str:
        """Digest of all settings that a style depends on, the adapter's shape aside."""
        return digest_json(asdict(self))
