"""`ingle make compress`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingle.cli.gating import Force, Overrides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingle.compress.front import Tried
    from ingle.compress.search import CompressSettings, SearchResult
    from ingle.home.kept import Kept
    from ingle.home.place import Home

EXAMPLES = """
ingle make compress smollm2 --quality-loss 1% --for joules
ingle make compress smollm2 --quality-loss 5% --for speed --recover 30 --name fast --plot front.svg
ingle make compress mymodel --quality-loss 1% --for size --set grid.layers=[1,2]
"""


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model; one of the catalogue is pulled if it is not here.")],
    quality_loss: Annotated[str, typer.Option(metavar="PERCENT", help="How much bits per byte may rise.")] = "1%",
    goal: Annotated[str, typer.Option("--for", help="What to save: joules, size, or speed (the time for a token).")] = "joules",
    recover: Annotated[float | None, typer.Option(metavar="MINUTES", help="Train each pruned model on the whole one for so long.")] = None,
    name: Annotated[str, typer.Option(help="What to call the delta: MODEL+NAME is the compressed model.")] = "compressed",
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw what was found, to a .svg or .png.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings in a TOML file.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any setting, e.g. grid.heads=[].")] = None,
    force: Force = False,
    policy: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find the cheapest way to serve a model within a loss of quality.

    Tries prunings and quantisations, measures each as it is served (bits per byte, right answers, joules per token, MB, tokens per
    second), shows those that no other beats, and keeps the best within the budget, if the gate admits it.
    Interrupted at any moment, or with another budget or goal, the same command goes on with what is known.
    """
    from ingle.app.house import enter, record
    from ingle.cli.gating import read_policy, way_in
    from ingle.cli.progress import watching
    from ingle.cli.training import percent, run_watch
    from ingle.core.config import assignments, load_config
    from ingle.core.errors import ConfigError
    from ingle.core.files import need_learning

    need_learning()
    if plot is not None and plot.suffix.lower() not in (".svg", ".png"):
        raise ConfigError("--plot", "must be a file that ends in .svg or .png", plot.name)
    from ingle.compress.search import CompressSettings, compress

    allowed = percent("--quality-loss", quality_loss)
    options: dict[str, Any] = {"goal": goal, "most_loss_percent": allowed, "recovery.minutes": recover}
    settings = assignments(options, overrides)
    setup = load_config(CompressSettings, config, settings)
    home = enter()
    rules = read_policy(home, [*_limits(setup), *(policy or ())])
    kept = _kept(home, model)
    shown: list[tuple[Sequence[Tried], Tried | None]] = []
    with watching() as watch:
        result = None
        try:
            result = compress(
                home, kept, name, setup, lambda of, maker: way_in(home, of, maker, rules, force, watch), run_watch(watch, "recovering"),
                lambda points, chosen: shown.append((points, chosen)), lambda event: record(home, event),
            )  # fmt: skip
        finally:
            for points, chosen in shown:
                _draw(plot, kept.name, points, chosen, setup)
                if result is None and not as_json:
                    _table(points, chosen, setup)
    assert result is not None, "what went wrong was raised"
    _show(result, setup, as_json)


def _limits(setup: "CompressSettings") -> list[str]:
    """Return the gate's limits: the allowed loss, on the texts that the search measures with."""
    texts, items = setup.measure.texts, setup.measure.text_items
    keys = {"most_rise_percent": setup.most_loss_percent, "suite": json.dumps(texts), "items": items}
    return [f"{maker}.bits.{key}={value}" for maker in ("prune", "quantise") for key, value in keys.items()]


def _kept(home: "Home", model: str) -> "Kept":
    """Return the model, pulled first if it is in the catalogue and not here."""
    from ingle.app.bringing import bring
    from ingle.app.choose import choose
    from ingle.cli.progress import watching
    from ingle.core.errors import NotKept
    from ingle.home.catalogue import known_names

    try:
        return choose(home, model)
    except NotKept:
        if model not in known_names():
            raise
    with watching() as watch:
        return bring(home, model, watch).kept


def _draw(plot: Path | None, name: str, points: "Sequence[Tried]", chosen: "Tried | None", setup: "CompressSettings") -> None:
    from ingle.cli.output import note
    from ingle.compress.front import draw

    if plot is not None:
        draw(plot, f"{name}: loss of bits per byte against cost", points, setup.goal, setup.most_loss_percent, chosen)
        note(f"Drawn: {plot}")


def _table(points: "Sequence[Tried]", chosen: "Tried | None", setup: "CompressSettings") -> None:
    from ingle.cli.output import print_table
    from ingle.compress.front import rows

    task = f"right ({setup.measure.task})" if setup.measure.task else ""
    print_table(
        ("recipe", f"bits per byte ({setup.measure.texts})", task, "J/token", "MB", "tokens/s", ""), rows(points, setup.goal, chosen)
    )


def _show(result: "SearchResult", setup: "CompressSettings", as_json: bool) -> None:
    from ingle.cli.output import note, print_json
    from ingle.compress.front import front, to_table
    from ingle.core.config import to_table as plain

    if as_json:
        good = [point.recipe for point in front(result.points, setup.goal)]
        table = {"model": result.kept.name, "chosen": to_table(result.chosen), "front": good, "points": list(map(to_table, result.points))}
        print_json({**table, "left_out": [list(one) for one in result.left_out], "settings": plain(setup)})
        return
    _table(result.points, result.chosen, setup)
    for recipe, why in result.left_out:
        note(f"{recipe}: not measured, {why}")
    source = result.chosen.pace.energy_source
    note(f"Joules: {source}. Ratios are medians of {setup.measure.turns} turns next to the original's; intervals are paired by text.")
    print(f"Talk with it: ingle chat {result.kept.name}")
