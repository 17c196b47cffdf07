"""`ingle measure energy`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingle.energy.totals import Deed, PowerGrid
    from ingle.home.place import Home

EXAMPLES = """
ingle measure energy
ingle measure energy --days 30 --region DE --plot energy.svg
ingle measure energy --label smollm2
ingle measure energy --check
"""


def command(
    days: Annotated[int | None, typer.Option(min=1, help="Only this many days, the last ones.")] = None,
    region: Annotated[str, typer.Option(help="Say what it means in CO₂ where you are: DE, FR, US, … EU, WORLD.")] = "",
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the days, to a .svg or .png.")] = None,
    label: Annotated[str | None, typer.Option(metavar="MODEL", help="Measure what a model needs for 1,000 answers.")] = None,
    rounds: Annotated[int, typer.Option(help="For --label: how often every prompt is asked.")] = 2,
    format_: Annotated[
        str | None, typer.Option("--format", help="For --label: format of the weights: auto, int4, int8, bf16, fp32.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="For --label: number of threads; by default one per core.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Work for ten seconds, and say how far the model is from the counters.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key of config.toml.")] = None,
) -> None:
    """Show the energy that this home has used, and what a model needs.

    Answers and trainings leave their joules in the ledger, with an interval and their source: counted by hardware, or worked out.
    """
    from ingle.app.house import enter
    from ingle.core.errors import ConfigError
    from ingle.energy.totals import find_grid

    grid = find_grid(region) if region else None
    if label is not None and check:
        raise ConfigError("--label", "--label and --check can't be done together", "", "Do one after the other.")
    if check:
        _check(as_json)
    elif label is not None:
        _label(enter(), label, rounds, {"chat.format": format_, "chat.threads": threads}, overrides or (), as_json)
    else:
        _totals(enter(), days, grid, plot, as_json)


def _totals(home: "Home", days: int | None, grid: "PowerGrid | None", plot: Path | None, as_json: bool) -> None:
    from ingle.cli.output import note, print_json, print_table
    from ingle.core.energy import amount
    from ingle.energy.totals import SIDES, add_up, draw
    from ingle.energy.totals import days as by_days

    deeds = _deeds(home, days)
    if plot is not None:
        draw(plot, "Energy by day, with what it may have been at the least and at the most", by_days(deeds))
    whole = add_up(deeds)
    sides = {side: add_up(deeds, side) for side in SIDES}
    if as_json:
        tables: dict[str, Any] = {f"by_{side}": [line.table(grid) for line in lines] for side, lines in sides.items()}
        about = {"region": grid.region, "g_per_kwh": grid.g_per_kwh, "year": grid.year, "source": grid.source} if grid else None
        print_json({"total": whole[0].table(grid) if whole else None, "grid": about, **tables})
        return
    if not whole:
        note("Nothing has been answered or trained in this home yet" + (f" in {days} days." if days else "."))
        return
    for side, lines in (*sides.items(), ("", whole)):
        rows = [
            (
                line.name, str(line.count), amount(line.energy.joules), f"{amount(line.energy.low)} – {amount(line.energy.high)}",
                line.energy.source or "not metered", *([_grams(*grid.grams(line.energy))] if grid else []),
            )
            for line in lines
        ]  # fmt: skip
        print_table((side, "deeds", "energy", "interval", "from", *(["CO₂"] if grid else [])), rows)
        print()
    unmetered = whole[0].unmetered
    if unmetered:
        note(f"{unmetered} of {whole[0].count} have no figure: they were done before there was a meter, and are not in the sums.")
    if not whole[0].energy.measured:
        note("A figure from `model` is worked out, not measured: see docs/energy.md, and `ingle home doctor` for what is counted here.")
    if grid:
        note(f"CO₂: {grid}.")
    if plot is not None:
        note(f"Drawn: {plot}")


def _deeds(home: "Home", days: int | None) -> "Sequence[Deed]":
    """Return the ledger's answers and trainings, oldest first."""
    from datetime import UTC, datetime, timedelta

    from ingle.app.house import open_ledger
    from ingle.energy.totals import deed_of

    if not home.other_database and not home.database_file.exists():
        return []
    first = "" if days is None else (datetime.now(UTC) - timedelta(days=days - 1)).date().isoformat()
    deeds = []
    with open_ledger(home) as ledger:
        for row in ledger.read():
            if row.at[:10] < first:
                break
            deed = deed_of(row.at, row.kind, row.subject, row.values)
            if deed is not None:
                deeds.append(deed)
    return deeds[::-1]


def _grams(nominal: float, low: float, high: float) -> str:
    unit, scale = ("kg", 1000) if nominal >= 1000 else ("g", 1) if nominal >= 1 else ("mg", 0.001)
    return f"{nominal / scale:.3g} {unit} ({low / scale:.3g} – {high / scale:.3g})"


def _label(home: "Home", name: str, rounds: int, options: dict[str, Any], overrides: "Sequence[str]", as_json: bool) -> None:
    """Measure a model, store its label and show it."""
    from ingle.app.choose import choose
    from ingle.app.house import record
    from ingle.app.settings import read_settings
    from ingle.cli.choose import open_watched
    from ingle.cli.output import note, print_json, print_table
    from ingle.cli.progress import watching
    from ingle.core.message import Message, Request, Usage
    from ingle.core.process import usable_cores
    from ingle.energy import label
    from ingle.energy.meter import open_meter
    from ingle.engine.answer import answer
    from ingle.model.template import has_template

    settings = read_settings(home, overrides, options)
    kept = choose(home, name)
    model = open_watched(home, kept, settings.chat)
    plain = not has_template(model.tokenizer)

    def ask(prompt: str, most: int) -> Usage:
        *_, last = answer(model, Request(() if plain else (Message.of("user", prompt),), prompt if plain else None, max_tokens=most))
        assert last.usage is not None
        return last.usage

    machine = open_meter().machine
    cores = settings.chat.threads or usable_cores()
    about = label.Label(kept.name, kept.digest, model.digest, machine.name, cores, machine.cpu.name, rounds, 0.0, (), "")
    with watching() as watch:
        measured = label.measure(ask, about, rounds, watch.pieces)
    label.save(home.labels, measured)
    record(home, measured.facts())
    if as_json:
        print_json(label.to_table(measured))
        return
    print_table(("task", "answers", "tokens", "Wh per 1,000", "energy for 1,000 answers"), label.rows(measured))
    note(f"{measured.model}, {measured.machine}, {measured.cores} cores; {measured.rounds} rounds, {measured.spread:.0%} between them.")
    note(measured.method)
    note(measured.comparable)


def _check(as_json: bool) -> None:
    """Show this machine's energy sources, and compare the energy model with its counters."""
    from ingle.cli.output import note, print_json, print_table
    from ingle.energy.meter import check, open_meter, sources

    meter = open_meter()
    known_sources = sources(meter)
    result = check(meter) if meter.read().rapl_uj is not None or meter.read().battery_w is not None else None
    if as_json:
        row = None
        if result is not None:
            row = {"counted": result.counted.table(), "modelled": result.modelled.table(), "error": result.error, "within": result.within}
        print_json({"sources": [{"source": name, "known": known, "cure": cure} for name, known, cure in known_sources], "check": row})
        return
    print_table(("source", "what is known"), [(name, known) for name, known, _ in known_sources])
    for _, _, cure in known_sources:
        if cure:
            note(cure)
    if result is None:
        note("No counter can be read here, so nothing says how far the model is off; its interval is all there is.")
        return
    print(f"\ncounted   {result.counted}\nmodelled  {result.modelled}")
    verdict = "what was counted lies in its interval" if result.within else "and its interval misses what was counted"
    print(f"The model is off by {result.error:+.0%}; {verdict}.")
