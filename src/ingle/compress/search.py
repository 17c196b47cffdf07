"""`compress`: recipes are tried on a kept model, measured as they are served, and the best within a budget goes through the gate.

Stopped at any moment, the same call goes on where it was; with another budget or goal it looks at what is known already.

HOME/tuning/KEY/results/      what was measured of each recipe
HOME/tuning/KEY/deltas/ …     what was made for it: see compress/scratch.py
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ingle.compress.calibration import CalibrationSettings, read_texts
from ingle.compress.front import GOALS, Goal, Point, best
from ingle.compress.prune import VERSION as PRUNED
from ingle.compress.quantising import VERSION as QUANTISED
from ingle.compress.recipes import Grid, Recipe, Step, recipes
from ingle.compress.recovery_settings import RecoverySettings
from ingle.compress.scratch import Scratch, let_packs_go, scratch_of
from ingle.compress.served import Loss, MeasureSettings, loss_of, pace, quality
from ingle.core.candidate import Admit, Candidate
from ingle.core.config import from_table, to_table
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.event import Event, Fact, Sink
from ingle.core.files import write_atomic
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packing import read_pack
from ingle.engine.source import kept_source, open_weights
from ingle.home.deltas import delta_report, delta_tensors, get_delta, list_deltas, put_candidate, refuse_taken_delta
from ingle.home.kept import Kept, get_kept, remove
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.measure.finished import Row
from ingle.train.making import DeltaJob, RunWatch, at_work, nobody

VERSION = 1
"""Changes when a recipe's figures mean something else than before."""


@dataclass(frozen=True, slots=True)
class CompressSettings:
    """One search."""

    goal: Goal = "joules"
    """What is to become less: joules per token, size, or (speed) seconds per token."""
    most_loss_percent: float = 1.0
    """Most by which bits per byte may rise."""
    format: str = "auto"
    """In which models are served and measured."""
    threads: int | None = None
    """That compute while they are; None = one per core."""
    grid: Grid = field(default_factory=Grid)
    """What is tried."""
    measure: MeasureSettings = field(default_factory=MeasureSettings)
    """With what."""
    calibration: CalibrationSettings = field(default_factory=lambda: CalibrationSettings(documents=64, tokens=512))
    """What pruners and quantisers look at."""
    recovery: RecoverySettings = field(default_factory=RecoverySettings)
    """What each pruning may do about its loss."""

    def __post_init__(self) -> None:
        if self.goal not in GOALS:
            raise ConfigError("--for", f"must be one of {', '.join(GOALS)}", self.goal)
        if self.most_loss_percent < 0:
            raise ConfigError("most_loss_percent", "must not be negative", self.most_loss_percent)


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it."""

    kept: Kept
    """The model with the chosen recipe's deltas."""
    chosen: Point
    points: tuple[Point, ...]
    """All that was measured, the original first."""
    left_out: tuple[tuple[str, str], ...]
    """Recipes that were not measured, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search(DeltaJob[CompressSettings]):
    @property
    def scratch(self) -> Scratch:
        """The home in which recipes are tried."""
        return Scratch(self.home.root, self.home.other_database, self.folder)

    @property
    def asked(self) -> str:
        """Whose delta it is that comes of this: of these recipes, with this goal and budget."""
        return digest_json([self.folder.name, self.settings.goal, self.settings.most_loss_percent])[:32]


def compress(
    home: Home, kept: Kept, name: str, settings: CompressSettings, admits: Callable[[Kept, str], Admit],
    watch: RunWatch = RunWatch(), seen: Callable[[Sequence[Point], Point | None], object] = nobody, sink: Sink = nobody,  # noqa: B008
) -> Found:  # fmt: skip
    """Tries recipes on a kept model and keeps the best within the budget as a delta called `name` (or two, the second `name`-2).

    `admits`: for a model and a maker of candidates, what admits these. `seen` is told all points and the chosen one, also if none is.
    Raises ConfigError for a name that can't be used or is taken, or a budget that can't be met, Refused if the gate won't have it,
    Interrupted, and what making, opening and measuring models raises; the same call then goes on where it was.
    """
    check_name(name)
    known = to_table(replace(settings, goal="joules", most_loss_percent=0.0))
    key = digest_json([VERSION, QUANTISED, PRUNED, "compress", kept.digest, known])
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
        return Found(made, chosen, tuple(points), tuple(left_out))


def _measured(job: _Search) -> tuple[list[Point], dict[str, Recipe], list[tuple[str, str]]]:
    """The original and every recipe that was measured, now or before; and why others were not."""
    settings, config = job.settings, open_weights(job.home, job.kept).config
    todo = recipes(config, settings.grid, settings.calibration, settings.recovery)
    original = _open(job, job.home, job.kept)
    text = _text(job, original)
    theirs, texts = quality(job.home, original, settings.measure, job.stopped, job.watch.pieces, job.watch.bytes)
    mb = _mb(job, job.home, job.kept)
    beside_itself = pace(original, original, text, settings.measure, job.check)
    itself = replace(beside_itself, speed=1.0, speed_low=1.0, speed_high=1.0, joules=1.0)  # by definition; what else was measured is noise
    points = [Point("", theirs, Loss(0.0, 0.0, 0.0, len(texts)), itself, mb, mb)]
    left_out, took = list[tuple[str, str]](), list[float]()
    over = dict[str, str]()  # by family and by recipe: who loses too much already, so that whatever takes more away need not be tried
    for number, recipe in enumerate(todo):
        job.check(f"before recipe {number + 1} of {len(todo)}")
        left = f", about {sum(took) / len(took) * (len(todo) - number) / 60:.0f} min left" if took else ""
        job.watch.say(f"recipe {number + 1} of {len(todo)}: {recipe}{left}")
        if too_much := over.get(recipe.family) or over.get(str(Recipe(recipe.steps[:-1]))):
            left_out.append((str(recipe), f"{too_much} loses too much already"))
            over[str(recipe)] = too_much
            continue
        began, known = time.monotonic(), _path(job, recipe).exists()
        found = _try(job, recipe, original, texts, text, mb)
        took += [] if known or isinstance(found, str) else [time.monotonic() - began]
        if isinstance(found, str):
            left_out.append((str(recipe), found))
            continue
        points.append(found)
        if found.loss.percent > settings.most_loss_percent:
            over[recipe.family] = over[str(recipe)] = str(recipe)
    return points, {str(recipe): recipe for recipe in todo}, left_out


def _try(
    job: _Search, recipe: Recipe, original: LanguageModel, texts: Sequence[Row], text: Sequence[int], mb_before: float
) -> Point | str:  # fmt: skip
    """A recipe measured, or why it can't be."""
    path = _path(job, recipe)
    if path.exists():
        known: dict[str, Any] = json.loads(path.read_bytes())
        return str(known["why_not"]) if "why_not" in known else from_table(Point, known["point"])
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
    found = Point(str(recipe), mine, loss_of(texts, rows), pace(model, original, text, settings.measure, job.check), mb, mb_before)
    write_atomic(path, json.dumps({"point": to_table(found)}).encode(), mode=0o600)
    del model
    let_packs_go(job.scratch, kept)
    return found


def _path(job: _Search, recipe: Recipe) -> Path:
    """Where a recipe's figures are kept."""
    return job.folder / "results" / f"{digest_json(to_table(recipe))[:32]}.json"


def _made(job: _Search, steps: Sequence[Step]) -> Kept:
    """The model that these steps make, in the scratch home; what an earlier recipe made is taken as it is."""
    kept = job.kept

    def put(candidate: Candidate, _stopped: Callable[[], bool]) -> Any:
        return put_candidate(job.scratch, candidate)

    for step in steps:
        kept = step.make(job.scratch, kept, digest_json(to_table(step))[:12], put, job.watch)
    return kept


def _kept(job: _Search, recipe: Recipe, name: str, admits: Callable[[Kept, str], Admit]) -> Kept:
    """The chosen recipe's deltas under their own names, through the gate, one after the other: all of them, or none that is new."""
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
    info = read_pack(source.packs / job.settings.format, source.digest)
    assert info is not None, "the model is open"
    return info.nbytes / 1e6


def _text(job: _Search, model: LanguageModel) -> list[int]:
    """Tokens of a text, enough for a turn: what is read, and as many behind it."""
    ids, wanted = list[int](), job.settings.measure.tokens + 1
    for text in read_texts(job.home, job.watch.bytes):
        ids += model.tokenizer.encode(text.text)
        if len(ids) >= wanted:
            return ids[:wanted]
    raise ConfigError("measure.tokens", "needs a text of so many tokens", len(ids), "Ask for fewer.")


def _event(job: _Search, made: Kept, chosen: Point, tried: int) -> Event:
    settings = job.settings
    facts: dict[str, Fact] = {"base": job.kept.digest, "model": made.digest, "recipe": chosen.recipe, "goal": settings.goal, "tried": tried}
    facts |= {"most_loss_percent": settings.most_loss_percent, "loss_percent": chosen.loss.percent, "texts": chosen.loss.texts}
    facts |= {"joules_ratio": chosen.pace.joules, "speed_ratio": chosen.pace.speed, "mb": chosen.mb, "mb_before": chosen.mb_before}
    return Event("compress", made.name, facts)
