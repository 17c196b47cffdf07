"""`compress`: recipes are tried on a kept model, and the best within a budget goes through the gate."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from ingle.compress import pruning
from ingle.compress.calibration import CalibrationSettings, read_texts
from ingle.compress.front import GOALS, Goal, MeasureSettings, QualityLoss, Tried, best, loss_of, pace, quality
from ingle.compress.pruning import VERSION as PRUNED
from ingle.compress.pruning import PruneSettings, prunable_heads, prune
from ingle.compress.quantiser import QUANTISERS
from ingle.compress.quantising import VERSION as QUANTISED
from ingle.compress.quantising import QuantiseSettings, quantise
from ingle.compress.recovery import RecoverySettings
from ingle.core import registry
from ingle.core.candidate import Admit, Candidate
from ingle.core.config import NotNegative, check_bounds, from_table, to_table
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.files import os_errors, write_atomic
from ingle.core.progress import silent
from ingle.core.report import Event, Fact, Sink
from ingle.core.spec import ModelConfig
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source, open_weights, read_pack
from ingle.home.deltas import delta_report, delta_tensors, get_delta, list_deltas, put_candidate, refuse_taken_delta
from ingle.home.kept import Kept, get_kept, remove
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.home.staging import discard
from ingle.measure.subjects import Row
from ingle.train.making import DeltaJob, RunWatch, at_work

# A scratch home beside a home: the same bases, models and data, but deltas and packs of its own, which are deleted with its folder.
#
# A search makes and serves its models here by the same code as everywhere. Nothing is kept unless the gate admits it.


@dataclass(frozen=True)
class Scratch(Home):
    """A scratch home. Made by `scratch_of`."""

    folder: Path = Path()

    @property
    def deltas(self) -> Path:
        """Folder of its own deltas."""
        return self.folder / "deltas"

    @property
    def packs(self) -> Path:
        """Folder of its own packs."""
        return self.folder / "packs"

    @property
    def tuning(self) -> Path:
        """Folder of its own unfinished work."""
        return self.folder / "tuning"


def scratch_of(home: Home, kept: Kept, folder: Path) -> Scratch:
    """Make a scratch home in which `kept` can be opened. Raises HomeError."""
    scratch = Scratch(home.root, home.other_database, folder)
    for digest in kept.deltas:
        target = scratch.delta_folder(digest)
        if not target.exists():
            part = target.with_name(f".{target.name}.part")
            with os_errors(target):
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                shutil.rmtree(part, ignore_errors=True)
                shutil.copytree(home.delta_folder(digest), part)
                part.replace(target)
    return scratch


def let_packs_go(home: Scratch, kept: Kept) -> None:
    """Delete the packed weights of a model that was tried: they can be made again."""
    discard(home, home.pack_folder(kept.digest))


# Recipes of a search: from the registries of pruners and quantisers, the mildest of a family first.
# A recipe is a chain of steps. Each step makes a delta on the result of the steps before it.


@dataclass(frozen=True, slots=True)
class RecipeStep:
    """One step of a recipe: it makes one delta."""

    settings: PruneSettings | QuantiseSettings

    @property
    def maker(self) -> str:
        """Its maker, by the gate's name."""
        return "prune" if isinstance(self.settings, PruneSettings) else "quantise"

    @property
    def family(self) -> str:
        """Family of steps that differ only in how much they take away."""
        if isinstance(self.settings, PruneSettings):
            return f"{self.settings.structure} by {self.settings.pruner}"
        return f"bits by {self.settings.method}"

    def __str__(self) -> str:
        """Text for people: `1/10 of layers by depth`, `4 bits by gptq`."""
        if isinstance(self.settings, PruneSettings):
            recovered = ", recovered" if self.settings.recovery.wanted else ""
            return (
                f"{Fraction(self.settings.share).limit_denominator(100)} of {self.settings.structure} by {self.settings.pruner}{recovered}"
            )
        return f"{self.settings.bits:g} bits by {self.settings.method}"

    def make(self, home: Home, kept: Kept, name: str, admit: Admit, watch: RunWatch) -> Kept:
        """Make the delta; return the model with it. Raises as `prune` and `quantise` do."""
        if isinstance(self.settings, PruneSettings):
            return prune(home, kept, name, self.settings, admit, watch).kept
        return quantise(home, kept, name, self.settings, admit, watch).kept


@dataclass(frozen=True, slots=True)
class CompressionRecipe:
    """A chain of steps."""

    steps: tuple[RecipeStep, ...]

    @property
    def family(self) -> str:
        """Family of the recipe; recipes of one family differ only in how much they take away."""
        return " + ".join(step.family for step in self.steps)

    def __str__(self) -> str:
        return " + ".join(map(str, self.steps))


@dataclass(frozen=True, slots=True)
class RecipeGrid:
    """Amounts that are tried of each kind."""

    bits: tuple[float, ...] = (8.0, 5.5, 4.0, 3.75, 3.5, 3.0)  # bits of quantisations
    quantisers: tuple[str, ...] = ("gptq",)  # quantisers to try; empty = all
    layers: tuple[int, ...] = (1, 2, 3, 6)  # numbers of layers to remove
    channels: tuple[float, ...] = (1 / 24, 1 / 12, 1 / 6, 1 / 4)  # shares of channels to remove, rounded to what speeds the kernels up
    heads: tuple[int, ...] = (1,)  # numbers of key-value groups to remove
    pruners: tuple[str, ...] = ()  # pruners to try; empty = for each structure the one that costs the least
    # Bits in which pruned models are also tried: a pruning touches matrices, which are then served in 8. 0 = none.
    pruned_bits: float = 4.0


def recipes(config: ModelConfig, grid: RecipeGrid, calibration: CalibrationSettings, recovery: RecoverySettings) -> list[CompressionRecipe]:
    """List all recipes for a model of this config. Whether a quantisation applies to its file shows when it is tried."""
    methods = grid.quantisers or registry.names(QUANTISERS)

    def rounded(method: str, bits: float) -> RecipeStep:
        return RecipeStep(QuantiseSettings(bits=bits, method=method, calibration=calibration))

    quantised = [rounded(method, bits) for method in methods for bits in sorted(grid.bits, reverse=True)]
    pruned = [
        RecipeStep(PruneSettings(structure, share, method, calibration, recovery))
        for structure, shares in _shares(config, grid).items()
        for method in _methods(structure, grid)
        for share in shares
    ]
    all_recipes = [CompressionRecipe((step,)) for step in (*quantised, *pruned)]
    if grid.pruned_bits:
        all_recipes += [CompressionRecipe((step, rounded(methods[-1], grid.pruned_bits))) for step in pruned]
    return all_recipes


def _methods(structure: pruning.Structure, grid: RecipeGrid) -> Sequence[str]:
    known = pruning.names(structure)
    return [name for name in grid.pruners if name in known] or [pruning.BEST[structure]]


def _shares(config: ModelConfig, grid: RecipeGrid) -> dict[Any, list[float]]:
    """Shares that leave whole parts, ascending, by structure."""
    count, groups, lanes = len(config.layers), config.num_kv_heads, 32 if config.intermediate_size % 32 == 0 else 1
    blocks = config.intermediate_size // lanes
    by_structure: dict[Any, list[float]] = {"layers": [gone / count for gone in sorted(grid.layers) if gone < count]}
    chosen = sorted({round(share * blocks) for share in grid.channels})
    by_structure["channels"] = [gone / blocks for gone in chosen if 0 < gone < blocks]
    by_structure["heads"] = [gone / groups for gone in sorted(grid.heads) if gone < groups] if prunable_heads(config) else []
    return by_structure


# `compress`: try recipes on a kept model, measure them as they are served, and send the best within a budget through the gate.
# Stopped at any moment, the same call goes on where it was; with another budget or goal it uses the figures that are there already.
#     HOME/tuning/KEY/results/      figures of each recipe
#     HOME/tuning/KEY/deltas/ …     deltas made for it: see `Scratch`


VERSION = 1  # changes when a recipe's figures mean something else than before


@dataclass(frozen=True, slots=True)
class CompressSettings:
    goal: Goal = "joules"  # the cost to lower: joules per token, size, or (speed) seconds per token
    most_loss_percent: NotNegative = 1.0  # most by which bits per byte may rise, in percent
    format: str = "auto"  # format in which models are served and measured
    threads: int | None = None  # threads to compute with; None = one per core
    grid: RecipeGrid = field(default_factory=RecipeGrid)  # recipes to try
    measure: MeasureSettings = field(default_factory=MeasureSettings)  # suites and text to measure with
    # Texts for pruners and quantisers.
    calibration: CalibrationSettings = field(default_factory=lambda: CalibrationSettings(documents=64, tokens=512))
    recovery: RecoverySettings = field(default_factory=RecoverySettings)  # recovery of each pruning

    def __post_init__(self) -> None:
        if self.goal not in GOALS:
            raise ConfigError("--for", f"must be one of {', '.join(GOALS)}", self.goal)
        check_bounds(self)


@dataclass(frozen=True, slots=True)
class SearchResult:
    kept: Kept  # the model with the chosen recipe's deltas
    chosen: Tried
    points: tuple[Tried, ...]  # all measured models, the original first
    left_out: tuple[tuple[str, str], ...]  # recipes that were not measured, and why


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search(DeltaJob[CompressSettings]):
    @property
    def scratch(self) -> Scratch:
        """The scratch home in which recipes are tried."""
        return Scratch(self.home.root, self.home.other_database, self.folder)

    @property
    def asked(self) -> str:
        """Digest of what was asked: these recipes, this goal, this budget. The delta's origin holds it."""
        return digest_json([self.folder.name, self.settings.goal, self.settings.most_loss_percent])[:32]


def compress(
    home: Home, kept: Kept, name: str, settings: CompressSettings, admits: Callable[[Kept, str], Admit],
    watch: RunWatch = RunWatch(), seen: Callable[[Sequence[Tried], Tried | None], object] = silent, sink: Sink = silent,  # noqa: B008
) -> SearchResult:  # fmt: skip
    """Try recipes on a kept model and keep the best within the budget as a delta called `name` (or two, the second `name`-2).

    `admits`: for a model and a maker of candidates, a function that admits these. `seen` hears all points and the chosen one, also if none
    is. Raises ConfigError for a name that can't be used or is taken, or a budget that can't be met, Refused if the gate refuses,
    Interrupted, and the errors of making, opening and measuring models; the same call then goes on where it was.
    """
    check_name(name)
    comparable = to_table(replace(settings, goal="joules", most_loss_percent=0.0))
    key = digest_json([VERSION, QUANTISED, PRUNED, "compress", kept.digest, comparable])
    folder = home.tuning / key[:32]
    begun = _Search(maker="compress", home=home, kept=kept, name=name, settings=settings, key=key, folder=folder, watch=watch)
    with at_work(begun, f"compress-{folder.name}", ("deltas", "packs", "tuning")) as job:
        scratch_of(home, kept, folder)
        mine = (one.digest for one in list_deltas(home, kept.digest) if one.name == name and one.origin.get("search") == job.asked)
        refuse_taken_delta(home, name, kept.digest, next(mine, ""))
        points, by_recipe, left_out = _measured(job)
        try:
            chosen = best(points, settings.goal, settings.most_loss_percent)
        except ConfigError:
            seen(points, None)
            raise
        seen(points, chosen)
        made = _kept(job, by_recipe[chosen.recipe], name, admits)
        sink(_event(job, made, chosen, len(points) - 1))
        return SearchResult(made, chosen, tuple(points), tuple(left_out))


def _measured(job: _Search) -> tuple[list[Tried], dict[str, CompressionRecipe], list[tuple[str, str]]]:
    """Measure the original and every recipe, or take earlier figures; for recipes that were not measured, say why."""
    settings, config = job.settings, open_weights(job.home, job.kept).config
    todo = recipes(config, settings.grid, settings.calibration, settings.recovery)
    original = _open(job, job.home, job.kept)
    text = _text(job, original)
    theirs, texts = quality(job.home, original, settings.measure, job.stopped, job.watch.pieces, job.watch.bytes)
    mb = _mb(job, job.home, job.kept)
    against_itself = pace(original, original, text, settings.measure, job.check)
    itself = replace(against_itself, speed=1.0, speed_low=1.0, speed_high=1.0, joules=1.0)  # by definition; all else would be noise
    points = [Tried("", theirs, QualityLoss(0.0, 0.0, 0.0, len(texts)), itself, mb, mb)]
    left_out, took = list[tuple[str, str]](), list[float]()
    over = dict[str, str]()  # by family and by recipe: one that loses too much already; a stronger one need not be tried
    for number, recipe in enumerate(todo):
        job.check(f"before recipe {number + 1} of {len(todo)}")
        left = f", about {sum(took) / len(took) * (len(todo) - number) / 60:.0f} min left" if took else ""
        job.watch.say(f"recipe {number + 1} of {len(todo)}: {recipe}{left}")
        if too_much := over.get(recipe.family) or over.get(str(CompressionRecipe(recipe.steps[:-1]))):
            left_out.append((str(recipe), f"{too_much} loses too much already"))
            over[str(recipe)] = too_much
            continue
        began, known = time.monotonic(), _path(job, recipe).exists()
        result = _try(job, recipe, original, texts, text, mb)
        took += [] if known or isinstance(result, str) else [time.monotonic() - began]
        if isinstance(result, str):
            left_out.append((str(recipe), result))
            continue
        points.append(result)
        if result.loss.percent > settings.most_loss_percent:
            over[recipe.family] = over[str(recipe)] = str(recipe)
    return points, {str(recipe): recipe for recipe in todo}, left_out


def _try(
    job: _Search, recipe: CompressionRecipe, original: LanguageModel, texts: Sequence[Row], text: Sequence[int], mb_before: float
) -> Tried | str:  # fmt: skip
    """Measure a recipe, or say why it can't be measured."""
    path = _path(job, recipe)
    if path.exists():
        earlier: dict[str, Any] = json.loads(path.read_bytes())
        return str(earlier["why_not"]) if "why_not" in earlier else from_table(Tried, earlier["point"])
    settings = job.settings
    try:
        kept = _made(job, recipe.steps)
    except ConfigError as error:  # a file that is in few bits already, for one
        write_atomic(path, json.dumps({"why_not": str(error)}).encode(), mode=0o600)
        return str(error)
    model = _open(job, job.scratch, kept)
    mine, rows = quality(job.home, model, settings.measure, job.stopped, job.watch.pieces, job.watch.bytes)
    job.check(f"while {recipe} was measured")
    mb = _mb(job, job.scratch, kept)
    point = Tried(str(recipe), mine, loss_of(texts, rows), pace(model, original, text, settings.measure, job.check), mb, mb_before)
    write_atomic(path, json.dumps({"point": to_table(point)}).encode(), mode=0o600)
    del model
    let_packs_go(job.scratch, kept)
    return point


def _path(job: _Search, recipe: CompressionRecipe) -> Path:
    """Path of a recipe's figures."""
    return job.folder / "results" / f"{digest_json(to_table(recipe))[:32]}.json"


def _made(job: _Search, steps: Sequence[RecipeStep]) -> Kept:
    """The model that these steps make, in the scratch home; results of earlier recipes are used again."""
    kept = job.kept

    def put(candidate: Candidate, _stopped: Callable[[], bool]) -> Any:
        return put_candidate(job.scratch, candidate)

    for step in steps:
        kept = step.make(job.scratch, kept, digest_json(to_table(step))[:12], put, job.watch)
    return kept


def _kept(job: _Search, recipe: CompressionRecipe, name: str, admits: Callable[[Kept, str], Admit]) -> Kept:
    """Send the chosen recipe's deltas through the gate, under their own names, one after the other: all are kept, or none that is new."""
    tried, kept, new = _made(job, recipe.steps), job.kept, list[str]()
    for number, step in enumerate(recipe.steps):
        delta = get_delta(job.scratch, tried.deltas[len(job.kept.deltas) + number])
        called = name if not number else f"{name}-{number + 1}"
        report = {**(delta_report(job.scratch, delta.digest) or {}), "model": f"{kept.name}+{called}", "base": kept.digest}
        origin = {**delta.origin, "recipe": str(recipe), "search": job.asked}
        candidate = Candidate(called, delta.kind, kept.digest, delta_tensors(job.scratch, delta), origin, report)
        known = any(one.name == called for one in list_deltas(job.home, kept.digest))
        try:
            admits(kept, step.maker)(candidate, job.stopped)
        except BaseException:
            for below in reversed(new):
                remove(job.home, below)
            raise
        kept = get_kept(job.home, f"{kept.name}+{called}")
        new += [] if known else [kept.name]
    return kept


def _open(job: _Search, home: Home, kept: Kept) -> LanguageModel:
    return open_model(kept_source(home, kept), job.settings.format, job.settings.threads, progress=job.watch.pieces)


def _mb(job: _Search, home: Home, kept: Kept) -> float:
    source = kept_source(home, kept)
    info = read_pack(source.pack_folder(job.settings.format), source.digest)
    assert info is not None, "the model is open"
    return info.nbytes / 1e6


def _text(job: _Search, model: LanguageModel) -> list[int]:
    """Token ids of a text, enough for a turn."""
    ids, needed = list[int](), job.settings.measure.tokens + 1
    for text in read_texts(job.home, job.watch.bytes):
        ids += model.tokenizer.encode(text.text)
        if len(ids) >= needed:
            return ids[:needed]
    raise ConfigError("measure.tokens", "needs a text of that many tokens", len(ids), "Ask for fewer.")


def _event(job: _Search, made: Kept, chosen: Tried, tried: int) -> Event:
    settings = job.settings
    facts: dict[str, Fact] = {"base": job.kept.digest, "model": made.digest, "recipe": chosen.recipe, "goal": settings.goal, "tried": tried}
    facts |= {"most_loss_percent": settings.most_loss_percent, "loss_percent": chosen.loss.percent, "texts": chosen.loss.texts}
    facts |= {"joules_ratio": chosen.pace.joules, "speed_ratio": chosen.pace.speed, "mb": chosen.mb, "mb_before": chosen.mb_before}
    return Event("compress", made.name, facts)
