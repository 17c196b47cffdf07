"""`ingle make tune`."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ingle.cli.gating import Force, Overrides
from ingle.cli.sight import tune_to_see
from ingle.core.config import assignments
from ingle.core.errors import ConfigError

if TYPE_CHECKING:
    from ingle.core.report import Sink
    from ingle.home.place import Home
    from ingle.train.making import MadeDelta

EXAMPLES = """
ingle make tune --list
ingle make tune smollm2 letters.jsonl --name letters
ingle make tune smollm2 letters.jsonl notes/ --method dora --rank 8 --layers upper-third --name mine
ingle make tune smollm2 suite:sst2 --name sentiment --max-examples 500 --set train.patience=2
ingle make tune smollm2+hybrid suite:xsum-bits --teacher smollm2 --name closer   (a hybrid follows what it was made of)
ingle make tune --recipe recipes/classify.toml
ingle make tune sight smollm2 --from photos/   (it learns to see, by pictures with captions; without a folder by free drawings)
"""


_MOST_SHOWN = 160


def command(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="A model, with or without deltas.")] = None,
    data: Annotated[
        list[str] | None, typer.Argument(metavar="DATA…", help="Files (.jsonl, .csv, .txt, .md), folders of them, or suite:NAME.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the delta: MODEL+NAME is the model with it.")] = None,
    method: Annotated[str | None, typer.Option(help="How to tune; --list says which there are. By default lora.")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of low-rank methods.")] = None,
    layers: Annotated[str | None, typer.Option(help="Layers to train: all, upper-third, upper-half, or numbers like 20-29.")] = None,
    targets: Annotated[str | None, typer.Option(help="Linears to train: all, attention, mlp, or names like q_proj,v_proj.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs: how often every example is read.")] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate at its peak; by default what the method wants.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest example in tokens; longer ones are left out, plain texts cut.")] = None,
    max_examples: Annotated[int | None, typer.Option(help="Use at most this many examples.")] = None,
    held_out: Annotated[float | None, typer.Option(help="Share of the examples that is never trained on.")] = None,
    forgetting: Annotated[int | None, typer.Option(help="General texts on which forgetting is measured; 0 = not at all.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad lines out, and count them.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed for the order of examples, what is held out, and first values.")] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Learn what this model predicts for the data (distillation).")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe (TOML): model, data, method, and what is measured afterwards.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any setting, e.g. options.alpha=16.")
    ] = None,
    pictures: Annotated[Path | None, typer.Option("--from", metavar="FOLDER", help="For sight: pictures with captions.")] = None,
    strength: Annotated[
        float | None, typer.Option(help="Keep this share of what was trained, 0 to 1: what the gate refused may pass at less.")
    ] = None,
    force: Force = False,
    policy: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Write the report to this file too.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the methods.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Fine-tune a model on your own examples.

    The result is a delta beside the model, which stays as it was. The gate measures it first, and may refuse it. Interrupted at any
    moment, or refused and now with --force, the same command goes on.
    """
    if listing or (model is None and recipe is None):
        return _list(as_json)
    if model == "sight":
        return tune_to_see(list(data or ()), pictures, name, overrides, policy, force, as_json, epochs, seed)
    options = {
        "method": method, "options.rank": rank, "options.targets": targets, "layers": layers, "max_examples": max_examples,
        "train.epochs": epochs, "train.optimiser.learning_rate": rate, "train.seed": seed, "data.seed": seed,
        "data.max_tokens": max_tokens, "data.held_out": held_out, "data.skip_bad": skip_bad or None, "judge.forgetting": forgetting,
        "objective.teacher": teacher, "objective.kind": "distil" if teacher else None, "strength": strength,
    }  # fmt: skip
    settings = assignments(options, overrides)
    if recipe is not None:
        tuned = _by_recipe(recipe, model, name, settings, policy, force)
    else:
        tuned = _by_hand(model or "", list(data or ()), name, settings, policy, force)
    if out is not None:
        from ingle.core.files import write_atomic
        from ingle.train.making import to_json

        write_atomic(out, to_json(tuned.report))
    _show(tuned, as_json)


def _by_hand(
    model: str, data: list[str], name: str | None, settings: list[str], policy: list[str] | None, force: bool
) -> "MadeDelta":  # fmt: skip
    """Tune by the command's options."""
    from ingle.app.choose import choose
    from ingle.app.house import enter
    from ingle.cli.gating import read_policy, way_in
    from ingle.cli.progress import watching
    from ingle.cli.training import run_watch
    from ingle.core.config import with_overrides
    from ingle.core.files import need_learning
    from ingle.home.names import check_name
    from ingle.train.example_files import check_files

    if model == "painter":
        cure = "In Ingle's repository, run: .venv/bin/python recipes/painter/train.py"
        raise ConfigError("MODEL", "A painter is taught by a recipe, no longer by `ingle make tune`", "", cure)
    need_learning()
    if not name:
        raise ConfigError("--name", "Say what to call the delta", "", f"For example --name mine, for {model}+mine.")
    check_name(name)
    # Before PyTorch is loaded and anything fetched, so that a bad line is reported within a second.
    check_files(
        [Path(source) for source in data if not source.startswith("suite:")],
        bool(with_overrides({}, settings).get("data", {}).get("skip_bad")),
    )
    home = enter()
    kept, rules = choose(home, model), read_policy(home, policy)
    from ingle.tuning.tune import tune
    from ingle.tuning.tune_settings import settings_of

    chosen = settings_of({}, settings)
    command_line = shlex.join(["ingle", "make", "tune", kept.name, *data, "--name", name, *(f"--set={one}" for one in settings)])
    with watching() as watch:
        return tune(
            home, kept, data, name, chosen, way_in(home, kept, "tune", rules, force, watch), run_watch(watch), command_line, _recorder(home)
        )


def _by_recipe(
    path: Path, model: str | None, name: str | None, settings: list[str], policy: list[str] | None, force: bool
) -> "MadeDelta":  # fmt: skip
    """Tune by a recipe, then measure its task."""
    from ingle.app.house import enter, record
    from ingle.cli.choose import choose_or_pull
    from ingle.cli.gating import read_policy, way_in
    from ingle.cli.interrupt import Interrupt
    from ingle.cli.progress import watching
    from ingle.cli.training import run_watch
    from ingle.core.files import need_learning

    need_learning()
    from ingle.core.config import to_table
    from ingle.measure.measuring import event_of
    from ingle.tuning.recipe import measure_task, read_recipe, table_of
    from ingle.tuning.tune import tune
    from ingle.tuning.tune_settings import settings_of

    recipe = read_recipe(path)
    chosen = settings_of(table_of(recipe), settings)
    home = enter()
    rules = read_policy(home, policy)
    kept = choose_or_pull(home, model or recipe.model, "auto")
    command_line = shlex.join(["ingle", "make", "tune", "--recipe", path.name, *(f"--set={one}" for one in settings)])
    with watching() as watch:
        admit = way_in(home, kept, "tune", rules, force, watch)
        tuned = tune(home, kept, recipe.data, name or recipe.name, chosen, admit, run_watch(watch), command_line, _recorder(home))
    task = []
    with watching() as watch, Interrupt() as interrupt:
        for label, outcome in measure_task(home, recipe, kept, tuned.kept, run_watch(watch), interrupt.asked):
            record(home, event_of(outcome))
            task.append({"what": label, "suite": outcome.suite} | to_table(outcome.main))
    return replace(tuned, report={**tuned.report, "task": task})


def _recorder(home: "Home") -> "Sink":
    from ingle.cli.training import recorder

    return recorder(home, "delta")


def _list(as_json: bool) -> None:
    from ingle.cli.output import print_json, print_table
    from ingle.core.registry import titles

    methods = titles("ingle.tuning.methods")
    if as_json:
        print_json([{"name": name, "title": title} for name, title in methods.items()])
    else:
        print_table(("method", "what it is"), list(methods.items()))


def _line(text: str) -> str:
    """Return untrusted text as one short line."""
    from ingle.cli.output import printable

    line = " ".join(printable(text).split())
    return line if len(line) <= _MOST_SHOWN else f"{line[:_MOST_SHOWN]}…"


def _show(tuned: "MadeDelta", as_json: bool) -> None:
    from ingle.cli.output import note, print_json, print_table
    from ingle.core.report import shown_interval
    from ingle.tuning.comparison import rows

    if as_json:
        print_json(dict(tuned.report))
        return
    for figures in tuned.report.get("task", ()):
        figure = f"{figures['value']:.4f} ({shown_interval(figures)})"
        print(f"{figures['suite']}, {figures['name']}: {figure}  {figures['what']}")
    print_table(("figure", "before", "after", "interval of the change"), rows(tuned.report))
    for number, sample in enumerate(tuned.report.get("samples", ()), 1):
        print(f"\nHeld-out example {number}: {_line(sample['asked'])}")
        for label, key in (("wanted", "wanted"), ("before", "before"), ("after", "after")):
            print(f"  {label:<7} {_line(sample[key])}")
    print()
    for text in tuned.report["notes"]:
        note(f"{text}.")
    print(f"Loss curve: {tuned.plot}")
    print(f"Talk with it: ingle chat {tuned.kept.name}", file=sys.stdout)
