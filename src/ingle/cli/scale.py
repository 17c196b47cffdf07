"""`ingle scale`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = """
ingle scale plan --minutes 20                    (choose sizes and lengths; says what they cost and how sure the law will be)
ingle scale plan mine --budget 200kJ --set 'data.sources=["letters/"]'
ingle scale run                                  (train them, one a core; stop it at any time, and go on with the same command)
ingle scale fit                                  (the law, and a signed prediction for a larger run)
ingle scale check                                (train the larger run; was the prediction right?)
ingle scale advise --budget 30min                (where the next half hour pays most)
ingle scale probe --lever hybrid                 (measure what one of these ways is worth)
ingle scale fit runs.csv --predict 6400000,5200000 --json     (anyone's runs: parameters,tokens,loss)
ingle scale list
"""
Action = Literal["plan", "run", "fit", "check", "advise", "probe", "list"]


def command(
    action: Annotated[Action, typer.Argument(help="What to do.")] = "list",
    target: Annotated[str, typer.Argument(metavar="[NAME|CSV]", help="A sweep's name; with fit also a CSV file of runs.")] = "sweep",
    minutes: Annotated[float | None, typer.Option(help="With plan and advise: the budget in minutes.")] = None,
    budget: Annotated[str | None, typer.Option(help="With plan and advise: any budget: 30min, 200kJ, 2EUR, 2e14flop.")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="With plan: a TOML file of settings.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="With plan: any setting, e.g. kind=hybrid.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Trainings at a time; 0 = one a core.")] = 0,
    runner: Annotated[str, typer.Option(help="With run, check and probe: where to train: local or ray.")] = "local",
    ray: Annotated[str, typer.Option(metavar="ADDRESS", help="With run, check and probe: train on this Ray cluster.")] = "",
    predict: Annotated[str | None, typer.Option(metavar="N,D", help="With fit: foretell the loss of N parameters after D tokens.")] = None,
    serves: Annotated[
        str | None,
        typer.Option(metavar="TOKENS/day", help="With advise: what the model will answer, e.g. 2Mtokens/day; by default as here."),
    ] = None,
    lever: Annotated[list[str] | None, typer.Option(help="With probe: which ways to spend; by default all.")] = None,
    kind: Annotated[str, typer.Option(help="With fit of a CSV: only the runs of this kind.")] = "",
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="With fit: draw the law into this SVG file.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With run and check: begin without being asked.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say where compute pays, by laws of size and text.

    A sweep trains small models from scratch; a law with intervals is fitted to them. The prediction for a larger run is signed in the
    ledger before that run is trained.
    """
    from ingle.app.house import enter
    from ingle.cli import scaling
    from ingle.core.files import need_learning

    if action == "fit" and target.endswith(".csv"):
        scaling.refit(Path(target), predict, kind, plot, as_json)
        return
    home = enter()
    if action == "list":
        scaling.show_sweeps(home, as_json)
        return
    need_learning()  # before anything that loads PyTorch is imported
    from ingle.cli import advising, sweeping

    where = sweeping.Where("ray" if ray else runner, workers, ray)
    asked = f"{minutes}min" if minutes is not None else budget
    if action == "plan":
        sweeping.plan(home, target, asked, config, overrides or (), workers, as_json)
    elif action == "run":
        sweeping.run(home, target, where, yes, as_json)
    elif action == "fit":
        sweeping.fit(home, target, predict, plot, as_json)
    elif action == "check":
        sweeping.check(home, target, where, yes, as_json)
    elif action == "advise":
        advising.advise(home, target, asked, serves, as_json)
    else:
        advising.probe(home, target, lever or (), where, as_json)
