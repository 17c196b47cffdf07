"""Settings of a sweep: its sizes, what each run trains, and the larger run that is foretold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from ingle.core.config import Bounds, Count, check_bounds, to_table
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.spec import Memory
from ingle.scaling.points import Place, Point
from ingle.scratch.scratch_settings import ShapeSettings, TextSettings, config_of, parameters_of
from ingle.scratch.text_sources import Prepared
from ingle.train.loop_settings import NO_MATTER, Schedule, TrainSettings
from ingle.train.optimisers import OptimiserSettings, Precision

# The ladder of sizes: shape, rate and batch of a model as functions of its size.
#
# A law of badly tuned runs is a law of bad tuning (arXiv 2406.19146), so what a rung trains with was tried at both ends: bench/scaling.py.


Kind = Literal["transformer", "hybrid", "rnn"]
CONTEXT = 2048
# Rungs from small to large, as layers × width: transformers of 0.14 to 10.9 million parameters at 512 words.
#
# Every width is a multiple of 64, so that every head is 64 wide: one head of 96 or 160 costs a model 1 % of its loss, heads of 32 cost 2 %,
# and a ladder of such rungs is no line (LOG.md).
LADDER = ("2x64", "2x128", "3x128", "5x128", "4x192", "6x192", "6x256", "8x256", "10x320")
RATE = {"muon": 9e-3, "adamw": 3e-3}  # best learning rate at its peak for the smallest rung, at 2,048 tokens a step
# The best rate falls with size: of 4.5e-3, 9e-3 and 1.8e-2 the second was best at 0.24M parameters and the first at 2.8M (LOG.md).
_SMALLEST, _FALL = 238_144, 0.25
_HYBRID: dict[str, tuple[int, int, Memory]] = {"hybrid": (64, 4, "gated_delta"), "rnn": (0, 0, "gated_delta")}


def rung(name: str, kind: Kind) -> ShapeSettings:
    """Return the shape of a rung. Raises ConfigError for a name that is not `LAYERSxWIDTH`."""
    layers, width = _parsed(name)
    if kind == "hybrid" and layers < 2:
        raise ConfigError("sizes", "must have two layers or more in a hybrid: one sees everything, the others don't", name)
    head = next((dim for dim in (64, 96, 160, 32) if width % dim == 0), width)
    window, sinks, memory = _HYBRID.get(kind, (0, 0, "none"))
    everywhere: dict[str, str | int] = {"transformer": "all", "hybrid": min(3, layers), "rnn": "none"}
    return ShapeSettings(
        layers=layers, width=width, heads=width // head, kv_heads=1, context=CONTEXT, retrieval=everywhere[kind], window=window,
        sinks=sinks, memory=memory,
    )  # fmt: skip


def rate_of(optimiser: str, parameters: int) -> float:
    """Return the learning rate of a model of so many parameters."""
    rate: float = RATE[optimiser] * max(1.0, parameters / _SMALLEST) ** -_FALL
    return float(f"{rate:.3g}")


def _parsed(name: str) -> tuple[int, int]:
    layers, _, width = name.partition("x")
    if not (layers.isdecimal() and width.isdecimal() and int(layers) > 0 and int(width) >= 32 and int(width) % 32 == 0):
        cure = f"For example one of the ladder: {', '.join(LADDER)}."
        raise ConfigError("sizes", "must be LAYERSxWIDTH with a width that is a multiple of 32", name, cure)
    return int(layers), int(width)


# Runs of a sweep: what each trains, its key, and its report.
# A report is a file that says everything about its run; its outcome (all but times, joules and dates) has a digest of its own, which is the
# same wherever the run was made.


VERSION = 1  # changes when the same run trains something else than before
# Fields of a report that follow from the run alone.
OUTCOME = ("key", "label", "parameters", "tokens", "unique", "seed", "kind", "loss", "bits_digest", "precision", "data")


@dataclass(frozen=True, slots=True)
class RunSettings:
    """One training of a sweep."""

    size: str  # name of the size, as `2x64`
    kind: str  # runs of different kinds are never fitted together
    data: str  # digest of the prepared text
    parameters: int  # parameters that multiply; a tied matrix counts once
    unique: int  # tokens of text that may be read, again and again; 0 = all of it
    model: ShapeSettings
    train: TrainSettings  # `max_steps` and `batch_tokens` give the tokens that are read

    @property
    def tokens(self) -> int:
        """Tokens that are read."""
        assert self.train.max_steps is not None, "runs of a sweep have a length"
        return self.train.max_steps * self.train.batch_tokens * self.train.accumulate

    @property
    def flops(self) -> float:
        """Floating-point operations of the training, 6·N·D (arXiv 2001.08361)."""
        return 6.0 * self.parameters * self.tokens

    @property
    def place(self) -> Place:
        """Where the law has it."""
        return Place(self.parameters, self.tokens, self.unique)

    @property
    def label(self) -> str:
        """Name for people."""
        again = f", {self.tokens / self.unique:.3g} times" if self.unique and self.unique < self.tokens else ""
        return f"{self.size}, {self.tokens / 1e6:.2f}M tokens{again}, seed {self.train.seed}"

    @property
    def key(self) -> str:
        """Digest of all that the trained tensors follow from."""
        return digest_json([VERSION, self.data, self.unique, self.tokens, to_table(self.model), _course(self.train)])[:32]

    @property
    def trunk(self) -> str:
        """Digest of all but the length: runs with one trunk can branch from each other."""
        course = {name: value for name, value in _course(self.train).items() if name not in ("max_steps", "epochs", "schedule")}
        return digest_json([VERSION, self.data, self.unique, to_table(self.model), course])[:32]


def climbs_of(runs: Iterable[RunSettings]) -> list[list[RunSettings]]:
    """Group runs that can branch from each other; the group with the most work comes first, and in it the longest run."""
    climbs = dict[str, list[RunSettings]]()
    for run in sorted(runs, key=lambda run: -run.tokens):
        climbs.setdefault(run.trunk, []).append(run)
    return sorted(climbs.values(), key=lambda climb: -climb_flops(climb))


def climb_shares(climb: Sequence[RunSettings]) -> list[tuple[RunSettings, float]]:
    """Return (run, share of its steps that are made for it): the longest whole, of each other one its cool-down."""
    return [(run, run.train.schedule.decay if i else 1.0) for i, run in enumerate(climb)]


def climb_flops(climb: Sequence[RunSettings]) -> float:
    return sum(run.flops * share for run, share in climb_shares(climb))


def _course(train: TrainSettings) -> dict[str, Any]:
    table: dict[str, Any] = to_table(train)
    return {name: value for name, value in table.items() if name not in NO_MATTER}


def outcome(report: Mapping[str, Any]) -> str:
    """Digest of the outcome of a run."""
    return digest_json({name: report[name] for name in OUTCOME})


def outcomes(reports: Sequence[Mapping[str, Any]]) -> str:
    """Digest of the outcomes of several runs, in whatever order they come."""
    return digest_json(sorted(outcome(report) for report in reports))


def own_share(report: Mapping[str, Any]) -> float:
    """Share of a run's steps that were made for it alone, not with the trunk that it branched off."""
    return 1 - float(report["shared_steps"]) / float(report["steps"])


def point_of(report: Mapping[str, Any]) -> Point:
    """Return a run as a point for a law."""
    return Point(
        parameters=report["parameters"], tokens=report["tokens"], loss=report["loss"], unique=report["unique"], seed=report["seed"],
        flops=report["flops"], kind=report["kind"], seconds=report["seconds"], joules=report["energy"].get("joules", 0.0),
    )  # fmt: skip


# Settings of a sweep: which sizes learn from how much text, and which larger run is foretold.
# [data] sources = ["suite:debian-bits", "letters/"]
# sizes = ["2x64", "2x128", "3x128", "5x128"] tokens = [1_500_000, 3_000_000, 6_000_000]


# Tokens of a row: where rows are long, small models begin to copy from them at some point, and their losses leave the law (LOG.md).
ROW = 128
WARM_UP = 0.05
DECAY = 0.3
LEAST_STEPS = 150  # fewest steps of a run: with fewer, warm-up and cool-down are most of it


def _texts() -> TextSettings:
    return TextSettings(("suite:debian-bits", "suite:xsum-bits", "suite:wiki-bits"), row_tokens=ROW)


@dataclass(frozen=True, slots=True)
class SweepSettings:
    data: TextSettings = field(default_factory=_texts)  # texts to learn from; 300 kB of what they hold out is what every loss is of
    # Number of tokens of the vocabulary, found in the text. With few, parameters are in the layers, and the same text has more tokens.
    vocabulary: Count = 512
    kind: Kind = "transformer"  # how all models look back
    sizes: tuple[str, ...] = ("2x64", "2x128", "3x128", "5x128")  # sizes as LAYERSxWIDTH, see scaling/sweep_settings.py
    tokens: tuple[int, ...] = (1_500_000, 3_000_000, 6_000_000)  # tokens that each size reads
    seeds: Count = 1  # seeds of every size
    more_seeds: int = 2  # smallest sizes that get one seed more: there it is cheapest to see how far seeds differ
    first_seed: int = 0
    epochs: Annotated[float, Bounds(ge=1)] = 1.0  # how often the text of each run is read: a run of D tokens has D/epochs different ones
    foretold_size: str = "6x192"  # size of the run that is foretold before it is trained
    foretold_tokens: int = 9_500_000
    batch_tokens: Count = 2048  # tokens of a step
    optimiser: Literal["muon", "adamw"] = "muon"
    rate: float = 0.0  # learning rate at its peak; 0 = the ladder's
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if not self.sizes or not self.tokens:
            raise ConfigError("sizes, tokens", "must name at least one each", "nothing")
        for name in ("sizes", "tokens"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ConfigError(name, "must be different", getattr(self, name))
        for size in (*self.sizes, self.foretold_size):
            rung(size, self.kind)
        check_bounds(self)
        if not 0 <= self.more_seeds <= len(self.sizes):
            raise ConfigError("more_seeds", f"must be 0 to {len(self.sizes)}, the number of sizes", self.more_seeds)
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
