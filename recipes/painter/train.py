"""Teaches a model to paint: `python recipes/painter/train.py smollm2 --name artist --set moved=2`.

It fetches its pictures, trains for some hours, and hands the gate a delta of the kind `painter`. See docs/media-draw.md.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import typer

from ingle.app.house import House
from ingle.app.making import Config, Force, Limits, MadeTold, Settings, figures, gate_rows, make_delta, talk_with
from ingle.app.operation import About, Said, operation
from ingle.cli.main import main
from ingle.cli.operation_commands import command_of


@dataclass(frozen=True, slots=True)
class Painting:
    """A model, and how it learns to paint."""

    model: Annotated[str, About("A model, with or without deltas.", "MODEL", placed=True)] = "smollm2"
    name: Annotated[str, About("What to call the delta: MODEL+NAME is the model that paints.")] = "painter"
    epochs: Annotated[int | None, About("Epochs: how often every example is read.", sets="train.epochs")] = None
    seed: Annotated[int | None, About("Seed of all three trainings.", sets="seed emblems.seed train.seed")] = None
    config: Config = None
    settings: Settings = ()
    force: Force = False
    policy: Limits = ()


def _says_painter(told: MadeTold) -> Iterable[Said]:
    from ingle.train.making import cost_rows

    report = told.data
    counts = [(key, f"{report[key]:,}", "") for key in ("pictures", "concepts", "examples")]
    yield figures([*counts, *gate_rows(report), *cost_rows(report["train"])])
    yield talk_with(told)
    yield f'Let it paint: ingle draw "a red apple" {told.model}'


@operation("make painter", right="owner", says=_says_painter)
def paint(house: House, asked: Painting) -> MadeTold:
    """Teach a model to paint. Interrupted at any moment, the same command goes on.

    Examples:
        python recipes/painter/train.py smollm2 --name artist
    """
    from painter_training import PainterSettings, tune_painter

    words = ("python", "recipes/painter/train.py")
    return make_delta(house, "painter", asked, tune_painter, PainterSettings, "learning to paint", words)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(command_of(vars(paint)["operation"]))
    sys.exit(main(program=typer.main.get_command(app), name="train.py"))
