"""`ingle harden`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingle.cli.gating import Force, Overrides

if TYPE_CHECKING:
    from ingle.train.making import MadeDelta

EXAMPLES = """
ingle harden smollm2 --name hard
ingle harden smollm2 --name hard --rounds 3 --attempts 100
ingle harden smollm2+mine --name hard --set taught.lookalikes=100 --set push.steps=0
ingle chat smollm2+hard
"""


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, with or without deltas.")],
    name: Annotated[str, typer.Option(help="What to call the delta: MODEL+NAME is the hardened model.")] = "hard",
    rounds: Annotated[int | None, typer.Option(help="Rounds of training; each learns the attacks that survived the one before.")] = None,
    attempts: Annotated[int | None, typer.Option(help="Fresh attacks between two rounds.")] = None,
    plain: Annotated[int | None, typer.Option(help="Plainly harmful requests to teach with.")] = None,
    dressed: Annotated[int | None, typer.Option(help="Attacks to teach with.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs: how often the first round reads every example.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed for the choice of requests, and for the training.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings in a TOML file.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any setting, e.g. push.steps=0.")] = None,
    force: Force = False,
    policy: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Teach a model to refuse harmful requests, also under attack.

    Harmless requests that look harmful are in the training too, so that it doesn't refuse them. Both are measured on held-out
    requests, before and after. The requests are data that are fetched when first needed.
    The result is a delta; the model stays as it was. The gate measures it first, and may refuse it.
    Interrupted at any moment, or refused and now with --force, the same command goes on.
    """
    from ingle.cli.choose import choose
    from ingle.cli.gating import read_policy, way_in
    from ingle.cli.house import enter, record
    from ingle.cli.progress import watching
    from ingle.cli.training import run_watch, settle
    from ingle.home.names import check_name
    from ingle.tuning.catalogue import need_learning

    need_learning()
    check_name(name)
    home = enter()
    kept, rules = choose(home, model), read_policy(home, policy)
    from ingle.learn.harden import harden
    from ingle.learn.harden_settings import HardenSettings

    options: dict[str, Any] = {
        "rounds": rounds, "attempts": attempts, "taught.plain": plain, "taught.dressed": dressed, "train.epochs": epochs,
        "seed": seed, "train.seed": seed,
    }  # fmt: skip
    chosen, command_line = settle(HardenSettings, ["ingle", "harden", kept.name, "--name", name], config, options, overrides)
    with watching() as watch:
        admit = way_in(home, kept, "harden", rules, force, watch)
        result = harden(home, kept, name, chosen, admit, run_watch(watch), command_line, lambda event: record(home, event))
    _show(result, as_json)


def _show(result: "MadeDelta", as_json: bool) -> None:
    from ingle.cli.output import print_json, print_table
    from ingle.train.report import cost_rows

    report = result.report
    if as_json:
        print_json(dict(report))
        return
    rows = []
    for one in report["refusals"]:
        explicit = f"{one['explicit_before']} → {one['explicit_after']}"
        kind, points = "harmful" if one["harmful"] else "harmless", 100 * one["change"]["value"]
        rows.append((f"{one['family']} ({kind})", _share(one["before"]), _share(one["after"]), f"{points:+.1f}", explicit))
    print_table(("held-out requests", "refused before", "after", "points", "said so"), rows)
    print_table(("figure", "value", ""), [*_gate_rows(report), *cost_rows(report["train"])])
    print(f"Talk with it: ingle chat {result.kept.name}")


def _gate_rows(report: Any) -> list[tuple[str, str, str]]:
    findings = report.get("gate", {}).get("findings", ())
    return [(f"gate: {one['check']}", "passed" if one["passed"] else "not passed", one["reason"]) for one in findings]


def _share(figure: Any) -> str:
    """A share with its interval and n: `80.0 % (70.1–88.3, n = 60)`."""
    return f"{100 * figure['value']:.1f} % ({100 * figure['low']:.1f}–{100 * figure['high']:.1f}, n = {figure['n']})"
