"""Settings of debiasing."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ingle.core.config import Amount, Bounds, Count, check_bounds, check_seed
from ingle.ethics.counterfactuals import check_groups
from ingle.train.loop_settings import Schedule, TrainSettings
from ingle.train.objectives import EqualSettings
from ingle.train.optimisers import OptimiserSettings


def _course() -> TrainSettings:
    return TrainSettings(
        epochs=1, batch_tokens=384, optimiser=OptimiserSettings(learning_rate=8e-4), schedule=Schedule("cosine", warm_up=0.1),
        checkpoint_minutes=2.0,
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
    train: TrainSettings = field(default_factory=_course)  # settings of the training
    seed: int = 0  # seed of the counterfactuals, and of the additions' first values

    def __post_init__(self) -> None:
        check_bounds(self)
        check_groups(self.groups)
        check_seed("seed", self.seed)
