"""The part of `ingle scale` that computes: laws, predictions, and what sweeps there are."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.home.place import Home

if TYPE_CHECKING:
    from ingle.scaling.interval import Fit, Prediction


def fit(home: Home, name: str, predict: str | None, plot: Path | None, as_json: bool) -> None:
    """Fit the law of a sweep, and sign the prediction for its larger run."""
    from ingle.cli.house import open_ledger
    from ingle.cli.output import note, print_json, print_table
    from ingle.core.files import write_atomic
    from ingle.scaling.foretold import predict as sign
    from ingle.scaling.foretold import standing
    from ingle.scaling.sheet import plots_of, read_sheet, write_report
    from ingle.scaling.sweep import fit_sweep, open_sweep

    plot = _svg(plot)
    sweep = open_sweep(home, name)
    found, prediction, table = fit_sweep(sweep)
    run = table["prediction"]
    with open_ledger(home) as ledger:
        untouched = not sweep.begun(sweep.foretold)
        row = sign(ledger, name, run, found.digest, prediction.table(), prediction.level) if untouched else None
        stands = standing(ledger, name, run["key"])
    sheet = read_sheet(home, name)
    report = write_report(sweep.folder, sheet)
    if plot:
        write_atomic(plot, plots_of(sheet)["loss"].encode())
    if predict:
        table["asked"] = _asked(found, predict).table()
    if as_json:
        print_json(table)
        return
    print_table(("law", "weight", ""), [_law(law) for law in table["laws"]])
    print(f"Foretold for {run['label']}: {_interval(prediction)} bits/byte.")
    if predict:
        print(f"Foretold for {predict}: {_interval(_asked(found, predict))} bits/byte.")
    for text in table["notes"]:
        note(f"{text}.")
    note(f"Plots, law and every run in words: {report}")
    if stands.prediction is None:
        note("The larger run was begun before anything was foretold, so nothing is signed.")
    elif row is None:
        note(f"The prediction in fact {stands.prediction.seq} stands.")
    else:
        note(f"This prediction is signed: fact {row.seq} of the ledger. Go on with: ingle scale check {name}")


def refit(path: Path, predict: str | None, kind: str, plot: Path | None, as_json: bool) -> None:
    """Fit a law to a CSV of anyone's runs."""
    from ingle.cli.output import note, print_json, print_table
    from ingle.core.files import write_atomic
    from ingle.scaling.frontier import fit_of_csv, fit_svg, fit_table, parse_place, rows
    from ingle.scaling.plot import Foretold

    plot, place = _svg(plot), parse_place(predict) if predict else None
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
    from ingle.cli.output import note, print_json, print_table
    from ingle.scaling.sheet import sweeps_of

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


def _asked(found: "Fit", predict: str) -> "Prediction":
    from ingle.scaling.frontier import parse_place

    [prediction] = found.predict([parse_place(predict)])
    return prediction


def _svg(plot: Path | None) -> Path | None:
    """Return the file if a plot can be drawn into it. Raises ConfigError."""
    from ingle.core.errors import ConfigError

    if plot is not None and plot.suffix.lower() != ".svg":
        raise ConfigError("--plot", "must be a file that ends in .svg", plot.name)
    return plot


def _law(law: dict[str, Any]) -> tuple[str, str, str]:
    figures = ", ".join(f"{name} {value:.4g}" for name, value in law.items() if isinstance(value, float) and name != "weight")
    return law["equation"], f"{law['weight']:.0%}", figures


def _interval(prediction: "Prediction") -> str:
    return f"{prediction.loss:.4f} ({prediction.low:.4f} to {prediction.high:.4f})"
