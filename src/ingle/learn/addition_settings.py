"""Settings of debiasing and of hardening."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ingle.core.config import Amount, Bounds, Count, NotNegative, check_bounds, check_seed
from ingle.core.errors import ConfigError
from ingle.ethics.counterfactuals import check_groups
from ingle.robustness.refusing import Amounts
from ingle.train.loop_settings import Schedule, TrainSettings
from ingle.train.objectives import EqualSettings, PushSettings
from ingle.train.optimisers import OptimiserSettings


def _course(batch_tokens: int, learning_rate: float) -> TrainSettings:
    return TrainSettings(
        epochs=1, batch_tokens=batch_tokens, optimiser=OptimiserSettings(learning_rate=learning_rate),
        schedule=Schedule("cosine", warm_up=0.1), checkpoint_minutes=2.0,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DebiasSettings:
    """Settings of one debiasing. The defaults were measured (docs/ethics.md)."""

    beginnings: Annotated[int, Bounds(ge=10)] = 1000  # couples of beginnings, after each of which all pairs of words become equally likely
    counterfactuals: Annotated[int, Bounds(ge=20)] = 300  # texts about two people, which become equally likely after either
    # Groups of people that counterfactuals are about, e.g. gender; none = all.
    groups: tuple[str, ...] = ()
    questions: Amount = 0  # questions about two people, three in five of which nothing answers; 0 = leave that as it is
    texts: Amount = 260  # pieces of general text along which the model is to stay as it was
    text_tokens: Annotated[int, Bounds(ge=8)] = 40  # tokens of each piece
    measured: Amount = 150  # items of every suite that are measured before and after; 0 = all
    # equal: equalised log-probabilities; both: plain fine-tuning on both texts of as many pairs, to compare with.
    objective: Literal["equal", "both"] = "equal"
    weights: EqualSettings = field(default_factory=EqualSettings)  # weights of the parts of the objective
    rank: Count = 16  # rank of the low-rank additions
    layers: str = "all"  # layers to train: all, upper-third, upper-half, or numbers like 20-29
    train: TrainSettings = field(default_factory=lambda: _course(384, 8e-4))  # settings of the training
    seed: int = 0  # seed of the counterfactuals, and of the additions' first values

    def __post_init__(self) -> None:
        check_bounds(self)
        check_groups(self.groups)
        check_seed("seed", self.seed)


@dataclass(frozen=True, slots=True)
class HardenSettings:
    """Settings of one hardening. The defaults were measured (docs/harden.md): nine minutes for SmolLM2-135M on a busy machine."""

    taught: Amounts = field(default_factory=Amounts)  # requests of the training part
    # Requests of the held-out part; `dressed` is the number of persona attacks, and of past and future ones together.
    measured: Amounts = field(default_factory=lambda: Amounts(plain=60, dressed=40, lookalikes=110, ordinary=100, prose=0))
    # Rounds of training. Each but the first learns attacks that still succeeded after the one before, and reads earlier examples again.
    rounds: Count = 1
    attempts: Amount = 60  # fresh attacks on training goals between two rounds
    answer_tokens: Count = 20  # tokens of the model's own answers to harmless requests, which it is to keep
    plain_answers: Amount = 60  # look-alikes whose answers are learnt as well, not only kept
    keep: NotNegative = 4.0  # weight of what is to stay, beside the refusals
    push: PushSettings = field(default_factory=PushSettings)  # the latent attack in the loss
    rank: Count = 16  # rank of the low-rank additions
    layers: str = "all"  # layers to train: all, upper-third, upper-half, or numbers like 20-29
    train: TrainSettings = field(default_factory=lambda: _course(512, 4e-4))  # settings of each round's training
    seed: int = 0  # seed of the choice of requests, and of the additions' first values

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.taught.plain:
            raise ConfigError("taught.plain", "must be at least 1", self.taught.plain)
        check_seed("seed", self.seed)
