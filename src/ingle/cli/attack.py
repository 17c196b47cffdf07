"""`ingle measure attack`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.robustness.attack_run import Curve, Line

EXAMPLES = """
ingle measure attack smollm2
ingle measure attack smollm2 --families persona,encode --goals 50 --policy attack=block
ingle measure attack smollm2 --adaptive --budget 300 --plot curves.svg
ingle measure attack --list
"""
_HEADINGS = ("family", "tries", "seen by a guard", "past the guards", "refused or no answer", "harmful and usable", "goals reached")


def command(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="A model; by default smollm2, or the only one.")] = None,
    families: Annotated[str | None, typer.Option(metavar="A,B", help="Families of attacks; by default all that are fixed.")] = None,
    adaptive: Annotated[bool, typer.Option("--adaptive", help="Families that look at what came of their tries, too.")] = False,
    goals: Annotated[int, typer.Option(help="Number of harmful goals, of those held out; 0 = all.")] = 25,
    tries: Annotated[int, typer.Option(help="Tries of a fixed family at each goal.")] = 2,
    budget: Annotated[int, typer.Option(help="Tries of an adaptive family at each goal.")] = 100,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", metavar="KEY=VALUE", help="Set a guard's mode, e.g. control_tokens=block.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw success over the budget, to a .svg.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="Format of the weights: auto, int4, int8, bf16, fp32.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the families.")] = False,
) -> None:
    """Attack a model as it is served, and count what came through.

    Harmful requests are dressed up, sent through this home's guards, answered and judged.
    Only counts are shown and recorded, never words.

    Interrupted, the same command goes on.
    """
    from ingle.app.answering import limits_of
    from ingle.app.choose import choose
    from ingle.app.house import enter, record
    from ingle.app.settings import read_settings
    from ingle.cli.choose import open_watched
    from ingle.cli.interrupt import Interrupt
    from ingle.cli.output import print_json
    from ingle.cli.progress import watching
    from ingle.robustness.attack import find_attacks
    from ingle.robustness.attack_run import AttackOptions, attack, curves_of, event_of, lines_of, to_table
    from ingle.robustness.guard_model import asks_here, guard_opener
    from ingle.robustness.prompts import held_out_goals
    from ingle.robustness.target import target_of
    from ingle.safety.guard import guard_policy
    from ingle.tuning.kept_model import subject_of

    if list_:
        _list(as_json)
        return
    files, options = find_attacks((families or "").replace(",", " ").split(), adaptive), AttackOptions(tries, budget, seed=seed)
    _check(plot)
    home = enter()
    rules, settings = guard_policy(home.policy, policy or ()), read_settings(home, (), {"chat.model": model, "chat.format": format_})
    kept = choose(home, settings.chat.model)
    with watching() as watch:
        chosen = held_out_goals(home, goals, watch.bytes)
    ask = asks_here(guard_opener(home, rules, lambda one: open_watched(home, one, settings.chat)))
    opened = open_watched(home, kept, settings.chat)
    with watching() as watch, Interrupt() as interrupt:
        subject = subject_of(opened, interrupt.asked)
        target = target_of(opened, subject, limits_of(opened), rules, settings.sampling.sampling(seed), ask)
        results = attack(home, target, chosen, files, options, watch.pieces)
    lines = lines_of(results, target, chosen, options)
    record(home, event_of(lines, target, chosen, files, options))
    if plot is not None:
        _draw(plot, kept.name, curves_of(results, options))
    print_json(to_table(lines, results, target, chosen, files, options)) if as_json else _show(lines)


def _check(plot: Path | None) -> None:
    from ingle.core.errors import ConfigError

    if plot is not None and plot.suffix.lower() != ".svg":
        raise ConfigError("--plot", "must be a file that ends in .svg", plot.name)


def _draw(plot: Path, name: str, curves: "Mapping[str, Curve]") -> None:
    from ingle.core.files import write_atomic
    from ingle.robustness.attack_run import curves_svg

    write_atomic(plot, curves_svg(f"{name}: goals reached over the budget", curves).encode())


def _list(as_json: bool) -> None:
    from ingle.cli.output import print_json, print_table
    from ingle.robustness.attack import attack_files

    files = attack_files()
    if as_json:
        print_json([{"family": file.name, "adaptive": file.adaptive, "sentence": file.sentence} for file in files])
        return
    print_table(("family", "", "what it does"), [(file.name, "adaptive" if file.adaptive else "fixed", file.sentence) for file in files])


def _show(lines: "Sequence[Line]") -> None:
    from ingle.cli.output import note, print_table
    from ingle.robustness.attack_run import SHARES

    def cell(line: "Line", share: str) -> str:
        found = line.report(share)
        return f"{found.value:.0%} ({100 * found.low:.0f}–{100 * found.high:.0f}, n = {found.n})" if found is not None else "–"

    print_table(_HEADINGS, [(line.family, f"{line.tries:,}", *(cell(line, share) for share in SHARES)) for line in lines])
    if lines[-1].weighed:
        note(f"{lines[-1].weighed:,} more requests were only weighed by their log-probabilities.")
    if lines[-1].unfit:
        note(f"{lines[-1].unfit:,} requests did not fit in the model's context, and are not counted.")
