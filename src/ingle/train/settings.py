"""What a run is told, and what it tells."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from torch import nn

from ingle.core.config import check_seed
from ingle.core.digest import digest_json
from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM
from ingle.train.optimisers import OptimiserSettings
from ingle.train.packing import Data
from ingle.train.precision import Precision
from ingle.train.schedules import Schedule


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One run."""

    epochs: int = 3
    """How often every example is read."""
    max_steps: int | None = None
    """Ends the run after so many steps; None = after the epochs."""
    batch_tokens: int = 2048
    """Most tokens in memory at a time. More is a little faster up to about 2,048, and takes memory in proportion."""
    accumulate: int = 1
    """Batches whose gradients are added up before a step, in each process."""
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    """How parameters move."""
    schedule: Schedule = field(default_factory=Schedule)
    """How the learning rate moves."""
    precision: Precision = "auto"
    """What the module computes in; trained parameters are float32 beside it in any case. `auto`: what the machine is faster at."""
    recompute: bool = False
    """Layers keep their input only, and are run again on the way back: a third more time, a fraction of the memory."""
    cache_mb: int = 0
    """Most MB for what goes into the first trained layer, kept from one epoch to the next; 0 = off. See `train.activations`."""
    cache_on_disk: bool = True
    """Whether that is kept in a file in the run's folder, which further runs there use too, or in memory."""
    evaluate_every: int = 0
    """Steps between measurements on held-out data; 0 = once an epoch."""
    patience: int = 0
    """Measurements without a new lowest held-out loss after which the run stops; 0 = never."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 = by time alone."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints; 0 = by steps alone."""
    seed: int = 0
    """Of the order of the data and of dropout."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_tokens", "accumulate"):
            if getattr(self, name) < 1:
                raise ConfigError(name, "must be at least 1", getattr(self, name))
        for name in ("cache_mb", "evaluate_every", "patience", "checkpoint_every", "checkpoint_minutes"):
            if getattr(self, name) < 0:
                raise ConfigError(name, "must not be negative", getattr(self, name))
        check_seed("seed", self.seed)
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError("max_steps", "must be at least 1", self.max_steps)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    step: int
    steps: int
    epoch: float
    loss: float
    held_out: float | None
    tokens_per_s: float
    """Real tokens, over the last minute or so."""
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told. Both are called in the process that trains; in the first one only, where there are several."""

    progress: Callable[[Progress], None] = lambda _: None
    """After every step."""
    say: Callable[[str], None] = lambda _: None
    """Something that the owner should know."""


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What came of a run."""

    stopped: Literal["finished", "early", "interrupted"]
    """All steps done; no better on held-out data for too long; told to stop, and ready to go on."""
    steps: int
    tokens: int
    """Read by all processes."""
    seconds: float
    """Spent on training, held-out measurements left out; of all sittings together."""
    tokens_per_s: float
    first_loss: float | None
    loss: float | None
    """Of the last step."""
    first_held_out: float | None
    held_out: float | None
    best_held_out: float | None
    best_step: int
    trained_parameters: int
    precision: Literal["bf16", "fp32"]
    peak_bytes: int
    """Most memory that this process has had, libraries included."""
    cache_hit_rate: float | None
    """Share of the documents whose lower layers were not run; None without a cache."""
    data_digest: str
    energy: Energy = NOTHING
    """Taken by training, held-out measurements included; of all processes and sittings together."""


NO_MATTER = ("checkpoint_every", "checkpoint_minutes", "cache_on_disk")
"""A run may go on with others."""
_SAMPLED = 256  # numbers of each parameter that tell one model from another


def run_digest(
    module: CausalLM, parameters: Mapping[str, nn.Parameter], data: Data, settings: TrainSettings, objective: str, processes: int
) -> str:
    """Of all that the course of a run follows from, but for the initial values of what is trained."""
    samples = {}
    for name, parameter in module.named_parameters():
        flat = parameter.detach().flatten()
        chosen = flat[:: max(1, flat.numel() // _SAMPLED)][:_SAMPLED].bfloat16().float()  # whatever type the module was loaded in
        samples[name] = [list(parameter.shape), "trained" if name in parameters else chosen.tolist()]
    kept = {name: value for name, value in asdict(settings).items() if name not in NO_MATTER}
    examples = [list(map(int, side)) for side in (data.train, data.held_out)]
    return digest_json([samples, repr(module.config), data.corpus.digest, examples, kept, objective, processes])
