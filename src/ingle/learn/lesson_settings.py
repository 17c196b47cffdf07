"""What the learner is told: how a lesson is taught, and how a style is."""

from dataclasses import asdict, dataclass
from typing import Literal

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LessonSettings:
    """How corrections become a low-rank addition to the upper layers."""

    layers: str = "upper-third"
    """Which layers learn; what is below them is read once. As `tune` takes them."""
    targets: str = "all"
    """Which linears of them: all, attention, mlp, or names like q_proj,v_proj."""
    rank: int = 4
    """Of the addition to each linear."""
    alpha: float = 8.0
    """The addition is multiplied by alpha / rank."""
    learning_rate: float = 3e-3
    """Of the first step."""
    half_rate_after: float = 8.0
    """Steps after which it is half of that; it goes on falling as 1 / (1 + step / this)."""
    wordings: int = 12
    """Ways in which each question is asked."""
    contrasts: int = 6
    """Questions near to each that are answered as before."""
    contrast_weight: float = 0.3
    """By which the drift on those counts beside what is to be learnt."""
    contrast_tokens: int = 6
    """Of an answer that is to stay, at most so many are compared."""
    certainty: float = 0.8
    """It stops once every token of the answer has at least this probability, in every wording."""
    most_drift: float = 1.0
    """And once contrasts have moved by at most so many nats a token."""
    min_steps: int = 4
    """Never fewer."""
    max_steps: int = 10
    """Never more for one example; further ones add to it, see `more_steps`."""
    more_steps: int = 12
    """Added to `max_steps` for each further example of a lesson."""
    batch_documents: int = 24
    """Most documents that a step looks at: those furthest from being learnt, and contrasts in turn."""
    max_tokens: int = 1024
    """Most tokens of a question with its answer and what was said before."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """What the module computes in; `auto`: bf16 where the processor has instructions for it."""
    threads: int = 1
    """Of the processor; the last bits of a lesson depend on it."""
    seed: int = 0
    """Of where the addition begins, and of the wordings."""

    def __post_init__(self) -> None:
        for name in ("rank", "wordings", "min_steps", "max_steps", "batch_documents", "max_tokens", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(name, "must be at least 1", getattr(self, name))
        for name in ("contrasts", "contrast_weight", "contrast_tokens", "most_drift", "more_steps", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(name, "must not be negative", getattr(self, name))
        for name in ("alpha", "learning_rate", "half_rate_after"):
            if getattr(self, name) <= 0:
                raise ConfigError(name, "must be above 0", getattr(self, name))
        if not 0 < self.certainty < 1:
            raise ConfigError("certainty", "must be between 0 and 1", self.certainty)

    @property
    def digest(self) -> str:
        """Of all that a lesson follows from beside its examples and its model."""
        return digest_json(asdict(self))


@dataclass(frozen=True, slots=True)
class StyleSettings:
    """How ratings become a style: another low-rank addition of the same shape as a lesson's."""

    learning_rate: float = 1e-3
    """The same at every step."""
    epochs: int = 5
    """How often every rated answer is read."""
    batch_documents: int = 10
    """Rated answers a step."""
    beta: float = 0.1
    """How far an answer may go before it is let go: the move that counts is about 1 / beta nats."""
    words_weight: float = 1.0
    """By which the words of liked answers count beside the sides that all of them are moved to."""
    answer_tokens: int = 80
    """Of an answer, the first so many are read."""
    rounds: int = 1
    """How often the model writes answers of its own to learn from; 0 = it learns from the rated ones alone."""
    own_answers: int = 2
    """Most answers of its own to each question, in each round: it tries again where one had not what was liked."""
    own_tokens: int = 80
    """Most tokens of each."""
    temperature: float = 0.6
    """At which they are drawn."""
    own_epochs: int = 2
    """How often each is read, in its round and in later ones."""
    end_weight: float = 3.0
    """By which the end of an answer counts beside its other tokens."""
    slip_weight: float = 1.0
    """By which the places count where its own answers left what was liked."""
    prose_tokens: int = 56
    """Of ordinary text that it writes itself, to be held by: most of each."""
    prose_weight: float = 2.0
    """By which the drift on that counts."""
    prose_documents: int = 4
    """Of those texts, so many a step."""
    most_drift: float = 2.5
    """Most percent by which the texts held back may cost more in the end; what moved further is drawn back."""
    max_tokens: int = 2048
    """Most tokens of a question with its answer and what was said before."""
    seed: int = 0
    """Of where the addition begins, and of the order."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_documents", "answer_tokens", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(name, "must be at least 1", getattr(self, name))
        for name in ("words_weight", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(name, "must not be negative", getattr(self, name))
        for name in ("learning_rate", "beta"):
            if getattr(self, name) <= 0:
                raise ConfigError(name, "must be above 0", getattr(self, name))

    @property
    def digest(self) -> str:
        """Of all that a style follows from beside its examples, its model and the shape of the addition."""
        return digest_json(asdict(self))
