"""Settings of a training run, its course of learning rates, and its report."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from torch import nn

from ingle.core.config import Amount, Count, NotNegative, Share, check_bounds, check_seed
from ingle.core.digest import digest_json
from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM
from ingle.train.optimisers import OptimiserSettings, Precision
from ingle.train.packing import Data

# Settings, progress and report of a training run.


# Learning rates as pure functions of the step: a factor from 0 to 1, which multiplies the peak.
# `wsd`: warm-up, stable, decay to the floor by 1 − √ (arXiv 2405.18392); `cosine`: warm-up, then half a cosine to the floor; `constant`:
# warm-up, then 1.


@dataclass(frozen=True, slots=True)
class Schedule:
    """Schedule of the learning rate."""

    kind: Literal["wsd", "cosine", "constant"] = "wsd"
    warm_up: Share = 0.05  # share of all steps in which the rate rises from 0
    decay: Share = 0.3  # `wsd`: share of all steps in which the rate falls
    floor: Share = 0.0  # where the rate ends, as a share of the peak

    def __post_init__(self) -> None:
        check_bounds(self, "schedule.")
        if self.kind == "wsd" and self.warm_up + self.decay > 1:
            raise ConfigError("schedule.warm_up, .decay", "must not add up to more than 1", self.warm_up + self.decay)

    def factor(self, step: int, steps: int) -> float:
        """Factor of step number `step` of `steps`, from 0. The first step never has a factor of 0."""
        rise = math.ceil(self.warm_up * steps)
        if step < rise:
            return (step + 1) / rise
        fall = {"wsd": math.ceil(self.decay * steps), "cosine": steps - rise, "constant": 0}[self.kind]
        done = step - (steps - fall)
        if fall == 0 or done < 0:
            return 1.0
        return self.floor + (1 - self.floor) * _FALL[self.kind](done / fall)


_FALL: dict[str, Callable[[float], float]] = {"wsd": lambda x: 1 - math.sqrt(x), "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2}


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Settings of one run."""

    epochs: Count = 3  # how often every example is read
    max_steps: int | None = None  # steps after which the run ends; None = after the epochs
    # Most tokens in memory at a time. More is a little faster up to about 2,048, and takes memory in proportion.
    batch_tokens: Count = 2048
    accumulate: Count = 1  # batches whose gradients are added up before a step, in each process
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)  # settings of the optimiser
    schedule: Schedule = field(default_factory=Schedule)  # schedule of the learning rate
    # Number format that the module computes in; `auto`: the machine's faster one. Trained parameters are float32 beside it in any case.
    precision: Precision = "auto"
    # Layers keep their input only, and run again in the backward pass: a third more time, a fraction of the memory.
    recompute: bool = False
    # Most MB for inputs of the first trained layer, kept from one epoch to the next; 0 = off. See `train.loop`.
    cache_mb: Amount = 0
    cache_on_disk: bool = True  # whether these inputs are in a file in the run's folder, which further runs there use too, or in memory
    evaluate_every: Amount = 0  # steps between measurements on held-out data; 0 = once an epoch
    patience: Amount = 0  # measurements in a row that gain nothing, by `least_gain`, after which the run stops; 0 = never
    # Share of the held-out loss that was learned so far: a measurement gains that much, or nothing. With `patience`, the run also stops
    # where no more than this share is left to learn.
    least_gain: NotNegative = 0.0
    checkpoint_every: Amount = 0  # steps between checkpoints; 0 = by time alone
    checkpoint_minutes: NotNegative = 10.0  # minutes between checkpoints; 0 = by steps alone
    seed: int = 0  # seed of the order of the data and of dropout

    def __post_init__(self) -> None:
        check_bounds(self)
        check_seed("seed", self.seed)
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError("max_steps", "must be at least 1", self.max_steps)


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """Place of a run after a step."""

    step: int
    steps: int
    epoch: float
    loss: float
    held_out: float | None
    tokens_per_s: float  # real tokens, over the last minute or so
    seconds_left: float


@dataclass(frozen=True, slots=True)
class TrainWatch:
    """Callbacks of a run, called in the process that trains (the first one, where there are several)."""

    progress: Callable[[TrainProgress], None] = lambda _: None  # called after every step
    say: Callable[[str], None] = lambda _: None  # hears a sentence for the owner


@dataclass(frozen=True, slots=True)
class TrainReport:
    """Result of a run: why it stopped, its cost, its losses."""

    # finished: all steps done; early: no better on held-out data for too long; interrupted: told to stop, and ready to go on.
    stopped: Literal["finished", "early", "interrupted"]
    steps: int
    tokens: int  # tokens read by all processes
    seconds: float  # time spent on training, without held-out measurements; of all sittings together
    tokens_per_s: float
    first_loss: float | None
    loss: float | None  # loss of the last step
    first_held_out: float | None
    held_out: float | None
    best_held_out: float | None
    best_step: int
    trained_parameters: int
    precision: Literal["bf16", "fp32"]
    peak_bytes: int  # most memory that this process used, libraries included
    cache_hit_rate: float | None  # share of the documents whose lower layers were not run; None without a cache
    data_digest: str
    energy: Energy = NOTHING  # energy used, held-out measurements included; of all processes and sittings together


NO_MATTER = ("checkpoint_every", "checkpoint_minutes", "cache_on_disk")  # settings that a continued run may change
_SAMPLED = 256  # numbers of each parameter that tell one model from another


def run_digest(
    module: CausalLM, parameters: Mapping[str, nn.Parameter], data: Data, settings: TrainSettings, objective: str, processes: int
) -> str:
    """Digest of all that the course of a run follows from, but for the initial values of what is trained."""
    samples = {}
    for name, parameter in module.named_parameters():
        flat = parameter.detach().flatten()
        chosen = flat[:: max(1, flat.numel() // _SAMPLED)][:_SAMPLED].bfloat16().float()  # whatever type the module was loaded in
        samples[name] = [list(parameter.shape), "trained" if name in parameters else chosen.tolist()]
    fixed = {name: value for name, value in asdict(settings).items() if name not in NO_MATTER}
    sides = (data.train, data.held_out, *([sorted(data.left_out)] if data.left_out else []))
    examples = [list(map(int, side)) for side in sides]
    return digest_json([samples, repr(module.config), data.corpus.digest, examples, fixed, objective, processes])
