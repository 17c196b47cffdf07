"""The part of `ingle scale` that needs no PyTorch: a law of anyone's runs, and what sweeps there are."""

from pathlib import Path

from ingle.cli.output import note, print_json, print_table
from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.home.place import Home
from ingle.scaling.frontier import fit_of_csv, fit_svg, fit_table, parse_place, rows
from ingle.scaling.plot import Foretold
from ingle.scaling.sheet import sweeps_of


def refit(path: Path, predict: str | None, kind: str, plot: Path | None, as_json: bool) -> None:
    """Fit a law to a CSV of anyone's runs."""
    plot, place = svg_file(plot), parse_place(predict) if predict else None
    found = fit_of_csv(path, place, kind)
    table = fit_table(found, place)
    if plot is not None:
        said = table["prediction"]
        told = Foretold(place.parameters, place.tokens, place.compute, said["loss"], said["low"], said["high"]) if place else None
        write_atomic(plot, fit_svg(found, told).encode())
    if as_json:
        print_json(table)
        return
    print_table(("figure", "value", "90 % interval"), rows(table))
    for text in table["notes"]:
        note(f"{text}.")


def show_sweeps(home: Home, as_json: bool) -> None:
    """List this home's sweeps."""
    found = sweeps_of(home)
    if as_json:
        print_json(found)
        return
    if not found:
        note("No sweep was planned in this home yet. Plan one: ingle scale plan --minutes 20")
        return
    print_table(
        ("sweep", "runs", "foretold", "came"),
        [(one["name"], f"{one['done']} of {one['of']}", one["foretold"], one["came"]) for one in found],
    )


def svg_file(plot: Path | None) -> Path | None:
    """Return the file if a plot can be drawn into it. Raises ConfigError."""
    if plot is not None and plot.suffix.lower() != ".svg":
        raise ConfigError("--plot", "must be a file that ends in .svg", plot.name)
    return plot
