"""Teaches a model to paint: `python recipes/painter/train.py smollm2 --name artist --set moved=2`.

It fetches its pictures, trains for some hours, and hands the gate a delta of the kind `painter`. See docs/media-draw.md.
"""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingle.cli.gating import Force, Overrides
from ingle.cli.main import main
from ingle.cli.making import AsJson, Config, Make, Table, Wanted, gate_rows, make_delta, show_delta

if TYPE_CHECKING:
    from painter_training import PainterSettings


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, with or without deltas.")] = "smollm2",
    name: Annotated[str, typer.Option(help="What to call the delta: MODEL+NAME is the model that paints.")] = "painter",
    epochs: Annotated[int | None, typer.Option(help="Epochs: how often every example is read.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all three trainings.")] = None,
    config: Config = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any setting, e.g. moved=2.")] = None,
    force: Force = False,
    policy: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Teach a model to paint. Interrupted at any moment, the same command goes on."""
    options: dict[str, Any] = {"train.epochs": epochs, "seed": seed, "emblems.seed": seed, "train.seed": seed}
    wanted = Wanted(model, name, config, overrides, policy, force)
    made = make_delta("painter", wanted, options, _load, "learning to paint", ("python", "recipes/painter/train.py"))
    show_delta(made, as_json, _tables)
    if not as_json:
        print(f'Let it paint: ingle draw "a red apple" {made.kept.name}')


def _load() -> "tuple[Make[PainterSettings], type[PainterSettings]]":
    from painter_training import PainterSettings, tune_painter

    return tune_painter, PainterSettings


def _tables(report: Mapping[str, Any]) -> list[Table]:
    from ingle.train.making import cost_rows

    counts = [(key, f"{report[key]:,}", "") for key in ("pictures", "concepts", "examples")]
    return [(("figure", "value", ""), [*counts, *gate_rows(report), *cost_rows(report["train"])])]


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(command)
    sys.exit(main(program=typer.main.get_command(app), name="train.py"))
