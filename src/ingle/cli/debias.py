"""`ingle debias`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingle.cli.gating import Force, Overrides

if TYPE_CHECKING:
    from ingle.train.making import MadeDelta

EXAMPLES = """
ingle debias smollm2 --name fair
ingle debias smollm2+mine --name fair --set questions=0
ingle audit smollm2+fair --against smollm2
"""


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, with or without deltas.")],
    name: Annotated[str, typer.Option(help="What to call the delta: MODEL+NAME is the debiased model.")] = "fair",
    counterfactuals: Annotated[int | None, typer.Option(help="Pairs of texts that are to become equally likely.")] = None,
    questions: Annotated[int | None, typer.Option(help="Questions that teach to say when nothing tells; 0 = none.")] = None,
    measured: Annotated[int | None, typer.Option(help="Items of every suite to measure before and after; 0 = all.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs: how often every pair is read.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed for the counterfactuals, and for the training.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings in a TOML file.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any setting, e.g. weights.keep=8.")] = None,
    force: Force = False,
    policy: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Teach a model not to judge people by their group.

    Texts that differ only in whom they speak of become equally likely; all else stays as it was. They are made here, and none is
    from a suite that measures. Suites are measured before and after, and the report says for whom what changed.
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
    from ingle.learn.debias import debias
    from ingle.learn.debias_settings import DebiasSettings

    options: dict[str, Any] = {
        "counterfactuals": counterfactuals, "questions": questions, "measured": measured, "train.epochs": epochs, "seed": seed,
        "train.seed": seed,
    }  # fmt: skip
    chosen, command_line = settle(DebiasSettings, ["ingle", "debias", kept.name, "--name", name], config, options, overrides)
    with watching() as watch:
        admit = way_in(home, kept, "debias", rules, force, watch)
        result = debias(home, kept, name, chosen, admit, run_watch(watch), command_line, lambda event: record(home, event))
    _show(kept.name, result, as_json)


def _show(before: str, result: "MadeDelta", as_json: bool) -> None:
    from ingle.cli.audit import show_shifts
    from ingle.cli.output import print_json, print_table
    from ingle.learn.debias import shifts_of
    from ingle.train.report import cost_rows

    report = result.report
    if as_json:
        print_json(dict(report))
        return
    show_shifts(before, result.kept.name, shifts_of(report))
    findings = report.get("gate", {}).get("findings", ())
    gate = [(f"gate: {one['check']}", "passed" if one["passed"] else "not passed", one["reason"]) for one in findings]
    print_table(("figure", "value", ""), [*gate, *cost_rows(report["train"])])
    print(f"Talk with it: ingle chat {result.kept.name}")
