"""Settings of a sweep: which sizes learn from how much text, and which larger run is foretold.

[data]
sources = ["suite:debian-bits", "letters/"]

sizes = ["2x64", "2x128", "3x128", "5x128"]
tokens = [1_500_000, 3_000_000, 6_000_000]
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ingle.core.errors import ConfigError
from ingle.scaling.ladder import Kind, rate_of, rung
from ingle.scaling.prepared import Prepared
from ingle.scaling.runs import RunSettings
from ingle.scaling.settings import TextSettings
from ingle.scaling.shape import config_of, parameters_of
from ingle.train.optimisers import OptimiserSettings
from ingle.train.precision import Precision
from ingle.train.schedules import Schedule
from ingle.train.settings import TrainSettings

ROW = 128
"""Tokens of a row: where rows are long, small models begin to copy from them at some point, and their losses leave the law (LOG.md)."""
WARM_UP = 0.05
DECAY = 0.3
LEAST_STEPS = 150
"""Fewest steps of a run: with fewer, warm-up and cool-down are most of it."""


def _texts() -> TextSettings:
    return TextSettings(("suite:debian-bits", "suite:xsum-bits", "suite:wiki-bits"), row_tokens=ROW)


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """Settings of one sweep."""

    data: TextSettings = field(default_factory=_texts)
    """Texts to learn from; 300 kB of what they hold out is what every loss is of."""
    vocabulary: int = 512
    """Number of tokens of the vocabulary, found in the text. With few, parameters are in the layers, and the same text has more tokens."""
    kind: Kind = "transformer"
    """How all models look back."""
    sizes: tuple[str, ...] = ("2x64", "2x128", "3x128", "5x128")
    """Sizes as LAYERSxWIDTH, see scaling/ladder.py."""
    tokens: tuple[int, ...] = (1_500_000, 3_000_000, 6_000_000)
    """Tokens that each size reads."""
    seeds: int = 1
    """Seeds of every size."""
    more_seeds: int = 2
    """Smallest sizes that get one seed more: there it is cheapest to see how far seeds differ."""
    first_seed: int = 0
    epochs: float = 1.0
    """How often the text of each run is read: a run of D tokens has D/epochs different ones."""
    foretold_size: str = "6x192"
    """Size of the run that is foretold before it is trained."""
    foretold_tokens: int = 9_500_000
    batch_tokens: int = 2048
    """Tokens of a step."""
    optimiser: Literal["muon", "adamw"] = "muon"
    rate: float = 0.0
    """Learning rate at its peak; 0 = the ladder's."""
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if not self.sizes or not self.tokens:
            raise ConfigError("sizes, tokens", "must name at least one each", "nothing")
        for name in ("sizes", "tokens"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ConfigError(name, "must be different", getattr(self, name))
        for size in (*self.sizes, self.foretold_size):
            rung(size, self.kind)
        for name in ("seeds", "batch_tokens", "vocabulary"):
            if getattr(self, name) < 1:
                raise ConfigError(name, "must be at least 1", getattr(self, name))
        if not 0 <= self.more_seeds <= len(self.sizes):
            raise ConfigError("more_seeds", f"must be 0 to {len(self.sizes)}, the number of sizes", self.more_seeds)
        if not self.epochs >= 1:
            raise ConfigError("epochs", "must be at least 1", self.epochs)
        if self.data.pairs:
            raise ConfigError("data.pairs", "must be 0 in a sweep: pairs make runs of two kinds", self.data.pairs)
        if self.data.row_tokens > self.batch_tokens:
            raise ConfigError("data.row_tokens", f"must be at most batch_tokens = {self.batch_tokens}", self.data.row_tokens)
        least = LEAST_STEPS * self.batch_tokens
        for count in (*self.tokens, self.foretold_tokens):
            if count < least:
                cure = "Raise tokens, or lower batch_tokens."
                raise ConfigError("tokens", f"must be at least {least:,}, {LEAST_STEPS} steps", f"{count:,}", cure)


def runs_of(settings: SweepSettings, prepared: Prepared) -> list[RunSettings]:
    """Return the runs that the law is fitted to, from the smallest size to the largest.

    Raises ConfigError where the text is shorter than a run wants.
    """
    ordered = sorted(settings.sizes, key=lambda size: _parameters(settings, prepared, size))
    runs = []
    for place, size in enumerate(ordered):
        for seed in range(settings.seeds + (place < settings.more_seeds)):
            runs += [run_of(settings, prepared, size, count, settings.first_seed + seed) for count in sorted(settings.tokens)]
    return runs


def foretold_of(settings: SweepSettings, prepared: Prepared) -> RunSettings:
    """Return the run that is foretold. Raises ConfigError where the text is shorter than it wants, or one of the sweep's own is."""
    run = run_of(settings, prepared, settings.foretold_size, settings.foretold_tokens, settings.first_seed)
    if any(run.key == other.key for other in runs_of(settings, prepared)):
        raise ConfigError("foretold_size, foretold_tokens", "must not be one of the sweep's own runs", run.label)
    return run


def run_of(settings: SweepSettings, prepared: Prepared, size: str, tokens: int, seed: int) -> RunSettings:
    """Return one run under these settings."""
    model = rung(size, settings.kind)
    steps = round(tokens / settings.batch_tokens)
    read = steps * settings.batch_tokens
    unique = 0 if settings.epochs == 1 else max(settings.data.row_tokens, round(read / settings.epochs))
    if (unique or read) > prepared.tokens:
        cure = "Give more text, fewer tokens, or epochs above 1."
        raise ConfigError(
            f"{size}, {tokens / 1e6:.2f}M tokens", "wants more text than there is", f"{prepared.tokens / 1e6:.2f}M tokens", cure
        )
    rise = max(10, round(WARM_UP * min(settings.tokens) / settings.batch_tokens))  # of all runs alike: they can branch from each other
    parameters = _parameters(settings, prepared, size)
    optimiser = OptimiserSettings(
        settings.optimiser, settings.rate or rate_of(settings.optimiser, parameters), weight_decay=0.1, beta2=0.95
    )
    train = TrainSettings(
        max_steps=steps, batch_tokens=settings.batch_tokens, optimiser=optimiser, schedule=Schedule("wsd", (rise - 0.5) / steps, DECAY),
        precision=settings.precision, checkpoint_minutes=1.0, seed=seed,
    )  # fmt: skip
    kind = f"{settings.kind}, {settings.optimiser}, {prepared.vocabulary} words"
    return RunSettings(size, kind, prepared.digest, parameters, unique, model, train)


def shorter(settings: SweepSettings, share: float) -> SweepSettings:
    """Return the same sweep with all lengths times `share`, in whole steps."""

    def cut(tokens: Sequence[int]) -> tuple[int, ...]:
        return tuple(round(count * share / settings.batch_tokens) * settings.batch_tokens for count in tokens)

    [foretold] = cut([settings.foretold_tokens])
    return replace(settings, tokens=cut(settings.tokens), foretold_tokens=foretold)


def _parameters(settings: SweepSettings, prepared: Prepared, size: str) -> int:
    return parameters_of(config_of(rung(size, settings.kind), prepared.vocabulary))
