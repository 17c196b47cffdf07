"""`ingle measure`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.measure.measuring import SuiteResult

EXAMPLES = """
ingle measure
ingle measure smollm2 --suite hellaswag
ingle measure smollm2 --suite wiki-bits --items 50 --json
ingle measure smollm2 --suite wiki-bits --format int8 --against before.json
"""


def command(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="A model; by default smollm2, or the only one.")] = None,
    suite: Annotated[
        list[str] | None, typer.Option(help="What to measure; may be given several times. Without it, suites are listed.")
    ] = None,
    items: Annotated[int | None, typer.Option(help="Number of items; 0 = all; by default as many as the suite says.")] = None,
    shots: Annotated[int, typer.Option(help="Examples in every prompt (few-shot), from items that are not measured.")] = 0,
    style: Annotated[str | None, typer.Option(help="How answers are chosen: texts or letters; by default as the suite says.")] = None,
    seed: Annotated[int, typer.Option(help="Seed for the examples and the intervals.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write everything to this file too, each item as well; for one suite.")] = None,
    against: Annotated[Path | None, typer.Option(help="A file that --out wrote: say how the model differs, item by item.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="Format of the weights: auto, int4, int8, bf16, fp32.")] = None,
    cache: Annotated[str | None, typer.Option(help="Format of the key-value cache: auto, float16, float32, int8.")] = None,
    threads: Annotated[int | None, typer.Option(help="Number of threads; by default one per core.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key of config.toml.")] = None,
) -> None:
    """Measure a model's quality, with confidence intervals.

    Bits per byte, multiple choice, summaries, translations.

    Interrupted, the same command goes on: items that were measured are kept.
    """
    from ingle.app.choose import choose
    from ingle.app.house import enter, record
    from ingle.app.settings import read_settings
    from ingle.cli.choose import open_watched
    from ingle.cli.interrupt import Interrupt
    from ingle.cli.output import print_json
    from ingle.cli.progress import Clock, watching
    from ingle.measure.measuring import Options, compare, event_of, run_suite, save, to_table
    from ingle.measure.suites import find_suite
    from ingle.tuning.kept_model import subject_of

    if not suite:
        _list(as_json)
        return
    suites = [find_suite(name) for name in dict.fromkeys(suite)]
    _check(suite, style, out, against)
    home, options = enter(), Options(items, shots, style, seed)  # type: ignore[arg-type]
    chosen = {"chat.model": model, "chat.format": format_, "chat.cache": cache, "chat.threads": threads}
    settings = read_settings(home, overrides or (), chosen)
    opened = open_watched(home, choose(home, settings.chat.model), settings.chat)
    tables = []
    for one in suites:
        with watching() as watch, Interrupt() as interrupt:
            subject = subject_of(opened, interrupt.asked)
            outcome = run_suite(home, one, subject, options, Clock(watch).pieces, watch.bytes)
        record(home, event_of(outcome))
        if against is not None:
            outcome = compare(outcome, against)
        if out is not None:
            save(outcome, out)
        tables.append(to_table(outcome))
        if not as_json:
            _show(outcome)
    if as_json:
        print_json(tables[0] if len(tables) == 1 else tables)


def _check(suite: list[str], style: str | None, out: Path | None, against: Path | None) -> None:
    """Refuse what can't be measured or compared, before hours of measuring."""
    from ingle.core.errors import ConfigError
    from ingle.measure.measuring import load_rows

    if style not in (None, "texts", "letters"):
        raise ConfigError("--style", "must be texts or letters", style)
    for name, path in (("--out", out), ("--against", against)):
        if path is not None and len(set(suite)) > 1:
            raise ConfigError(name, "is for one suite", ", ".join(suite), "Measure them one by one.")
    if against is not None:
        load_rows(against)


def _list(as_json: bool) -> None:
    from ingle.cli.output import print_json, print_table
    from ingle.measure.suites import SUITES

    if as_json:
        about = [{"name": s.name, "title": s.title, "figure": s.main, "higher_is_better": s.higher_is_better} for s in SUITES.values()]
        print_json(about)
        return
    rows = [(s.name, s.title, s.main, s.best) for s in SUITES.values()]
    print_table(("suite", "what it measures", "figure", ""), rows)


def _show(outcome: "SuiteResult") -> None:
    from ingle.cli.output import note, print_table
    from ingle.core.report import NO_INTERVAL

    rows = [
        (
            f"{outcome.suite}: {r.name}",
            f"{r.value:.4f}",
            r.unit,
            "" if r.interval == NO_INTERVAL else f"{r.low:.4f} … {r.high:.4f}",
            r.interval,
            str(r.n),
        )
        for r in outcome.reports
    ]
    print_table(("figure", "value", "", "interval", "", "n"), rows)
    for text in outcome.notes:
        note(f"{outcome.suite}: {text}.")
