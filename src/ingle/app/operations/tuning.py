"""Tuning on one's own examples, and the search for the cheapest way to serve."""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ingle.app.bringing import bring
from ingle.app.choose import choose
from ingle.app.house import House
from ingle.app.making import (
    Config,
    Force,
    Limits,
    MadeTold,
    Settings,
    figures,
    given_settings,
    make_delta,
    percent,
    read_policy,
    recorder,
    run_watch,
    talk_with,
    told_of,
    way_in,
)
from ingle.app.operation import About, Note, Rows, Said, operation
from ingle.compress.front import draw, front
from ingle.compress.front import rows as front_rows
from ingle.compress.front import to_table as point_table
from ingle.core.config import assignments, load_config, to_table, with_overrides
from ingle.core.errors import ConfigError, IngleError, NotKept, shortened
from ingle.core.files import need_learning, write_atomic
from ingle.core.registry import titles
from ingle.core.report import shown_interval
from ingle.home.catalogue import known_names
from ingle.home.names import check_name

if TYPE_CHECKING:
    from ingle.compress.front import Tried
    from ingle.compress.search import CompressSettings, SearchResult
    from ingle.home.kept import Kept
    from ingle.tuning.tune_settings import TuneSettings

_MOST_SHOWN = 160  # characters of an example


@dataclass(frozen=True, slots=True)
class Tuning:
    """A model, and the examples that it is tuned on."""

    model: Annotated[str, About("A model, with or without deltas.", "MODEL", placed=True)] = ""
    data: Annotated[tuple[str, ...], About("Files (.jsonl, .csv, .txt, .md), folders of them, or suite:NAME.", "DATA…", placed=True)] = ()
    name: Annotated[str, About("What to call the delta: MODEL+NAME is the model with it.")] = ""
    method: Annotated[str | None, About("How to tune; --list says which there are. By default lora.", sets="method")] = None
    rank: Annotated[int | None, About("Rank of low-rank methods.", sets="options.rank")] = None
    layers: Annotated[str | None, About("Layers to train: all, upper-third, upper-half, or numbers like 20-29.", sets="layers")] = None
    targets: Annotated[str | None, About("Linears to train: all, attention, mlp, or names like q_proj,v_proj.", sets="options.targets")] = (
        None
    )
    epochs: Annotated[int | None, About("Epochs: how often every example is read.", sets="train.epochs")] = None
    rate: Annotated[
        float | None, About("Learning rate at its peak; by default what the method wants.", sets="train.optimiser.learning_rate")
    ] = None
    max_tokens: Annotated[
        int | None, About("Longest example in tokens; longer ones are left out, plain texts cut.", sets="data.max_tokens")
    ] = None
    max_examples: Annotated[int | None, About("Use at most this many examples.", sets="max_examples")] = None
    held_out: Annotated[float | None, About("Share of the examples that is never trained on.", sets="data.held_out")] = None
    forgetting: Annotated[int | None, About("General texts on which forgetting is measured; 0 = not at all.", sets="judge.forgetting")] = (
        None
    )
    skip_bad: Annotated[bool, About("Leave bad lines out, and count them.", also=("--skip-bad",))] = False
    seed: Annotated[
        int | None, About("Seed for the order of examples, what is held out, and first values.", sets="train.seed data.seed")
    ] = None
    teacher: Annotated[
        str | None, About("Learn what this model predicts for the data (distillation).", "MODEL", sets="objective.teacher")
    ] = None
    recipe: Annotated[Path | None, About("A recipe (TOML): model, data, method, and what is measured afterwards.")] = None
    settings: Settings = ()
    pictures: Annotated[Path | None, About("For sight: pictures with captions.", "FOLDER", also=("--from",))] = None
    strength: Annotated[
        float | None, About("Keep this share of what was trained, 0 to 1: what the gate refused may pass at less.", sets="strength")
    ] = None
    force: Force = False
    policy: Limits = ()
    out: Annotated[Path | None, About("Write the report to this file too.")] = None
    listing: Annotated[bool, About("List the methods.", also=("--list",))] = False


@dataclass(frozen=True, slots=True)
class Seeing:
    """A model, and the pictures that it learns to see by."""

    model: str
    name: str
    epochs: Annotated[int | None, About("", sets="train.epochs")]
    seed: Annotated[int | None, About("", sets="seed train.seed")]
    settings: tuple[str, ...]
    force: bool
    policy: tuple[str, ...]
    config: Config = None


@dataclass(frozen=True, slots=True)
class TuningMethod:
    """A way to tune."""

    name: str
    title: str


@dataclass(frozen=True, slots=True)
class MethodsTold:
    """The ways to tune."""

    object: str
    data: tuple[TuningMethod, ...]


def _says_tuned(told: MadeTold | MethodsTold) -> Iterable[Said]:
    if isinstance(told, MethodsTold):
        return (Rows(("method", "what it is"), [(one.name, one.title) for one in told.data]),)
    return _says_seen(told) if "pictures" in told.data else _says_report(told)


def _says_report(told: MadeTold) -> Iterable[Said]:
    from ingle.tuning.comparison import rows

    for one in told.data.get("task", ()):
        yield f"{one['suite']}, {one['name']}: {one['value']:.4f} ({shown_interval(one)})  {one['what']}"
    yield Rows(("figure", "before", "after", "interval of the change"), rows(told.data))
    for number, sample in enumerate(told.data.get("samples", ()), 1):
        yield f"\nHeld-out example {number}: {_line(sample['asked'])}"
        yield from (f"  {label:<7} {_line(sample[label])}" for label in ("wanted", "before", "after"))
    yield ""
    yield from (Note(f"{text}.") for text in told.data["notes"])
    yield f"Loss curve: {told.curve}"
    yield talk_with(told)


def _says_seen(told: MadeTold) -> Iterable[Said]:
    from ingle.train.making import cost_rows

    report = told.data
    yield figures([("pictures", f"{report['pictures']:,}", ""), ("names", f"{report['names']:,}", ""), *cost_rows(report["train"])])
    if seen := report["described"]:
        shares = [
            ("named right", f"{seen['named']:.2f}", f"of {seen['n']} held-out pictures"),
            ("words that fit (F1)", f"{seen['words']:.2f}", f"{seen['blank_words']:.2f} for a blank picture"),
            ("answers that change with the picture", f"{seen['changed']:.2f}", ""),
        ]
        yield Rows(("as it is served", "value", ""), shares)
        yield Rows(("shown", "said"), [(wanted, got) for wanted, got in seen["samples"]])
    yield talk_with(told)
    yield f"Show it a picture: ingle see FILE --model {told.model}"


def _line(text: str) -> str:
    return shortened(" ".join(text.split()), _MOST_SHOWN)


@operation("make tune", right="owner", says=_says_tuned)
def tune(house: House, asked: Tuning) -> MadeTold | MethodsTold:
    """Fine-tune a model on your own examples.

    The result is a delta beside the model, which stays as it was. The gate measures it first, and may refuse it. Interrupted at any
    moment, or refused and now with --force, the same command goes on.

    Examples:
        ingle make tune --list
        ingle make tune smollm2 letters.jsonl --name letters
        ingle make tune smollm2 letters.jsonl notes/ --method dora --rank 8 --layers upper-third --name mine
        ingle make tune smollm2 suite:sst2 --name sentiment --max-examples 500 --set train.patience=2
        ingle make tune smollm2+hybrid suite:xsum-bits --teacher smollm2 --name closer   (a hybrid follows what it was made of)
        ingle make tune --recipe recipes/classify.toml
        ingle make tune sight smollm2 --from photos/   (it learns to see, by pictures with captions; without a folder by free drawings)
    """
    if asked.listing or not (asked.model or asked.recipe):
        return MethodsTold("list", tuple(TuningMethod(*one) for one in titles("ingle.tuning.methods").items()))
    if asked.model == "painter":
        cure = "In Ingle's repository, run: .venv/bin/python recipes/painter/train.py"
        raise ConfigError("MODEL", "A painter is taught by a recipe, no longer by `ingle make tune`", "", cure)
    need_learning()
    if asked.model == "sight":
        return _to_see(house, asked)
    more = {"data.skip_bad": asked.skip_bad or None, "objective.kind": "distil" if asked.teacher else None}
    settings = assignments(given_settings(asked) | more, asked.settings)
    told = _by_recipe(house, asked, asked.recipe, settings) if asked.recipe is not None else _by_hand(house, asked, settings)
    if asked.out is not None:
        from ingle.train.making import to_json

        write_atomic(asked.out, to_json(told.data))
    return told


def _by_hand(house: House, asked: Tuning, settings: list[str]) -> MadeTold:
    if not asked.name:
        raise ConfigError("--name", "Say what to call the delta", "", f"For example --name mine, for {asked.model}+mine.")
    check_name(asked.name)
    from ingle.train.example_files import check_files

    # Before PyTorch is loaded and anything fetched, so that a bad line is reported within a second.
    files = [Path(source) for source in asked.data if not source.startswith("suite:")]
    check_files(files, bool(with_overrides({}, settings).get("data", {}).get("skip_bad")))
    kept = house.model(asked.model)
    words = [kept.name, *asked.data, "--name", asked.name]
    return _tuned(house, asked, kept, asked.data, asked.name, {}, settings, words)


def _by_recipe(house: House, asked: Tuning, path: Path, settings: list[str]) -> MadeTold:
    """Tune by a recipe, then measure its task."""
    from ingle.measure.measuring import event_of
    from ingle.train.making import stop_signals
    from ingle.tuning.recipe import measure_task, read_recipe, table_of

    recipe = read_recipe(path)
    kept = house.model(asked.model or recipe.model)
    words = ["--recipe", path.name]
    told = _tuned(house, asked, kept, recipe.data, asked.name or recipe.name, table_of(recipe), settings, words)
    tuned, task = house.model(told.model), []
    with stop_signals() as stop:
        for label, outcome in measure_task(house.home, recipe, kept, tuned, run_watch(house.watch), lambda: stop.asked):
            house.record(event_of(outcome))
            task.append({"what": label, "suite": outcome.suite} | to_table(outcome.main))
    return MadeTold(told.object, told.model, {**told.data, "task": task}, told.curve)


def _tuned(
    house: House, asked: Tuning, kept: "Kept", data: Iterable[str], name: str, table: dict[str, Any], settings: list[str], words: list[str]
) -> MadeTold:  # fmt: skip
    rules = read_policy(house.home, asked.policy)
    from ingle.tuning.tune import tune as make
    from ingle.tuning.tune_settings import settings_of

    chosen: TuneSettings = settings_of(table, settings)
    again = shlex.join(["ingle", "make", "tune", *words, *(f"--set={one}" for one in settings)])
    admit = way_in(house, kept, "tune", rules, asked.force)
    return told_of(make(house.home, kept, list(data), name, chosen, admit, run_watch(house.watch), again, recorder(house, "delta")))


def _to_see(house: House, asked: Tuning) -> MadeTold:
    """Make a sight for a model by a folder's pictures."""
    if len(asked.data) > 1:
        cure = "For example: ingle make tune sight smollm2 --from photos/"
        raise ConfigError("MODEL", "A sight is made for one model", ", ".join(asked.data), cure)
    from ingle.tuning.sight_learning import SightSettings, tune_sight

    folder = asked.pictures
    words = ("ingle", "make", "tune", "sight", *(() if folder is None else ("--from", str(folder))))
    model = asked.data[0] if asked.data else "smollm2"
    wanted = Seeing(model, asked.name or "sight", asked.epochs, asked.seed, asked.settings, asked.force, asked.policy)
    make = partial(tune_sight, None if folder is None else folder.expanduser().absolute())
    return make_delta(house, "sight", wanted, make, SightSettings, "learning to see", words)


@dataclass(frozen=True, slots=True)
class Compressing:
    """A model, and how much its quality may fall."""

    model: Annotated[str, About("A model; one of the catalogue is pulled if it is not here.", "MODEL", placed=True)]
    quality_loss: Annotated[str, About("How much bits per byte may rise.", "PERCENT")] = "1%"
    goal: Annotated[str, About("What to save: joules, size, or speed (the time for a token).", sets="goal", also=("--for",))] = "joules"
    recover: Annotated[float | None, About("Train each pruned model on the whole one for so long.", "MINUTES", sets="recovery.minutes")] = (
        None
    )
    name: Annotated[str, About("What to call the delta: MODEL+NAME is the compressed model.")] = "compressed"
    plot: Annotated[Path | None, About("Draw what was found, to a .svg or .png.", "FILE")] = None
    config: Config = None
    settings: Settings = ()
    force: Force = False
    policy: Limits = ()


@dataclass(frozen=True, slots=True)
class CompressedTold:
    """What a search for the cheapest way to serve a model found."""

    object: str
    model: str
    data: dict[str, Any]
    rows: tuple[tuple[str, ...], ...]


def _says_compressed(told: CompressedTold) -> Iterable[Said]:
    report, measured = told.data, told.data["settings"]["measure"]
    task = f"right ({measured['task']})" if measured["task"] else ""
    yield Rows(("recipe", f"bits per byte ({measured['texts']})", task, "J/token", "MB", "tokens/s", ""), told.rows)
    yield from (Note(f"{recipe}: not measured, {why}") for recipe, why in report["left_out"])
    turns, source = measured["turns"], report["chosen"]["pace"]["energy_source"]
    yield Note(f"Joules: {source}. Ratios are medians of {turns} turns next to the original's; intervals are paired by text.")
    yield f"Talk with it: ingle chat {told.model}"


@operation("make compress", right="owner", says=_says_compressed)
def compress(house: House, asked: Compressing) -> CompressedTold:
    """Find the cheapest way to serve a model within a loss of quality.

    Tries prunings and quantisations, measures each as it is served (bits per byte, right answers, joules per token, MB, tokens per
    second), shows those that no other beats, and keeps the best within the budget, if the gate admits it.
    Interrupted at any moment, or with another budget or goal, the same command goes on with what is known.

    Examples:
        ingle make compress smollm2 --quality-loss 1% --for joules
        ingle make compress smollm2 --quality-loss 5% --for speed --recover 30 --name fast --plot front.svg
        ingle make compress mymodel --quality-loss 1% --for size --set grid.layers=[1,2]
    """
    need_learning()
    if asked.plot is not None and asked.plot.suffix.lower() not in (".svg", ".png"):
        raise ConfigError("--plot", "must be a file that ends in .svg or .png", asked.plot.name)
    from ingle.compress.search import CompressSettings
    from ingle.compress.search import compress as search

    more = {"most_loss_percent": percent("--quality-loss", asked.quality_loss)}
    setup = load_config(CompressSettings, asked.config, assignments(given_settings(asked) | more, asked.settings))
    rules = read_policy(house.home, [*_limits(setup), *asked.policy])
    kept, watch = _pulled(house, asked.model), house.watch
    found: list[tuple[Sequence[Tried], Tried | None]] = []
    try:
        result = search(
            house.home, kept, asked.name, setup, lambda of, maker: way_in(house, of, maker, rules, asked.force),
            run_watch(watch, "recovering"), lambda points, chosen: found.append((points, chosen)), house.record,
        )  # fmt: skip
    except IngleError:  # what was measured is told all the same
        for points, chosen in found:
            _draw(house, asked, kept, points, chosen, setup)
            for row in front_rows(points, setup.goal, chosen):
                watch.say("  ".join(row))
        raise
    for points, chosen in found:
        _draw(house, asked, kept, points, chosen, setup)
    return _told_of(result, setup)


def _limits(setup: "CompressSettings") -> list[str]:
    """Return the gate's limits: the allowed loss, on the texts that the search measures with."""
    texts, items = setup.measure.texts, setup.measure.text_items
    keys = {"most_rise_percent": setup.most_loss_percent, "suite": json.dumps(texts), "items": items}
    return [f"{maker}.bits.{key}={value}" for maker in ("prune", "quantise") for key, value in keys.items()]


def _pulled(house: House, model: str) -> "Kept":
    """Return the model, pulled first if it is in the catalogue and not here."""
    try:
        return choose(house.home, model)
    except NotKept:
        if model not in known_names():
            raise
    return bring(house.home, model, house.watch).kept


def _draw(
    house: House, asked: Compressing, kept: "Kept", points: "Sequence[Tried]", chosen: "Tried | None", setup: "CompressSettings"
) -> None:  # fmt: skip
    if asked.plot is not None:
        title = f"{kept.name}: loss of bits per byte against cost"
        draw(asked.plot, title, points, setup.goal, setup.most_loss_percent, chosen)
        house.watch.say(f"Drawn: {asked.plot}")


def _told_of(result: "SearchResult", setup: "CompressSettings") -> CompressedTold:
    good = [point.recipe for point in front(result.points, setup.goal)]
    table = {
        "model": result.kept.name,
        "chosen": point_table(result.chosen),
        "front": good,
        "points": list(map(point_table, result.points)),
    }
    table |= {"left_out": [list(one) for one in result.left_out], "settings": to_table(setup)}
    return CompressedTold("report", result.kept.name, table, tuple(front_rows(result.points, setup.goal, result.chosen)))
