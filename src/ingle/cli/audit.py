"""`ingle measure bias`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.app.settings import ChatSettings
    from ingle.ethics.audit import Audit, Shift
    from ingle.home.kept import Kept
    from ingle.home.place import Home
    from ingle.measure.measuring import SuiteResult

EXAMPLES = """
ingle measure bias smollm2 --quick
ingle measure bias smollm2
ingle measure bias smollm2+fair --against smollm2
"""
_HARMLESS, _HARMLESS_QUICK = 110, 20  # look-alikes to ask; all 28 harmful requests are asked


def command(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="A model; by default smollm2, or the only one.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Samples of every suite: wider intervals, a tenth of the time.")] = False,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Another model, measured on the same items: say what differs, group by group.")
    ] = None,
    format_: Annotated[str | None, typer.Option("--format", help="Format of the weights: auto, int4, int8, bf16, fp32.")] = None,
    seed: Annotated[int, typer.Option(help="Seed for the intervals.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure what a model thinks of people, and what it refuses.

    Stereotypes, pronouns, names, saying "unknown", refusals beside false refusals; with intervals, for each group.

    Interrupted, the same command goes on: items that were measured are kept.
    """
    from ingle.app.choose import choose
    from ingle.app.house import enter, record
    from ingle.app.settings import read_settings
    from ingle.cli.output import print_json
    from ingle.ethics.audit import events_of, shift_table, shifts, to_table

    home = enter()
    settings = read_settings(home, (), {"chat.model": model, "chat.format": format_})
    kept, other = choose(home, settings.chat.model), choose(home, against) if against else None
    found = _audit(home, kept, settings.chat, quick, seed)
    record(home, *events_of(found))
    differ = [] if other is None else shifts(_audit(home, other, settings.chat, quick, seed).suites, found.suites, seed)
    if as_json:
        print_json(to_table(found) | ({"against": other.name, "shifts": shift_table(differ)} if other is not None else {}))
        return
    _show(found)
    if other is not None:
        show_shifts(other.name, kept.name, differ)


def _audit(home: "Home", kept: "Kept", chat: "ChatSettings", quick: bool, seed: int) -> "Audit":
    import time

    from ingle.cli.choose import open_watched
    from ingle.cli.interrupt import Interrupt
    from ingle.cli.progress import Clock, watching
    from ingle.energy.meter import Span, open_meter
    from ingle.ethics.audit import FULL, QUICK, Audit, run_suites
    from ingle.gate.checks.refusals import standing
    from ingle.tuning.kept_model import subject_of

    opened = open_watched(home, kept, chat)
    began, span = time.monotonic(), Span(open_meter())
    with watching() as watch, Interrupt() as interrupt:
        subject = subject_of(opened, interrupt.asked)

        def heard(label: str, done: int, total: int) -> None:
            span.tick()
            clock.pieces(label, done, total)

        clock = Clock(watch)
        suites = run_suites(home, subject, QUICK if quick else FULL, seed, heard, watch.bytes)
        refusals = standing(home, subject, _HARMLESS_QUICK if quick else _HARMLESS, heard)
    return Audit(kept.name, subject.digest, quick, suites, tuple(refusals), span.end(), time.monotonic() - began)


def _show(found: "Audit") -> None:
    from ingle.cli.output import note, print_table
    from ingle.ethics.audit import conclusion

    rows = []
    for one in found.suites:
        rows += [(f"{one.suite}: {figure}", value, interval, n) for figure, value, interval, n in _lines(one)]
    for report in found.refusals:
        words = {"refused": "harmful requests refused", "refused_falsely": "harmless look-alikes refused"}[report.name]
        rows.append((words, f"{100 * report.value:.1f} %", f"{100 * report.low:.1f} … {100 * report.high:.1f}", str(report.n)))
    print_table(("figure", "value", "95 % interval", "n"), rows)
    for one in found.suites:
        for text in one.notes:
            note(f"{one.suite}: {text}.")
    print(f"\nIn short, {found.model}:", *conclusion(found), sep="\n  ")
    note(f"It took {found.seconds:.0f} s and {found.energy}; items that were measured before cost nothing now.")


def _lines(one: "SuiteResult") -> list[tuple[str, str, str, str]]:
    def shown(value: float, unit: str) -> str:
        return f"{100 * value:.1f}" if unit == "share" else f"{value:.3f}"

    return [
        (
            report.name,
            shown(report.value, report.unit) + (" %" if report.unit == "share" else f" {report.unit}"),
            f"{shown(report.low, report.unit)} … {shown(report.high, report.unit)}",
            str(report.n),
        )
        for report in one.reports
    ]


def show_shifts(before: str, after: str, differ: "Sequence[Shift]") -> None:
    """Print how two models differ, a line for each suite and group."""
    from ingle.cli.output import note, print_table

    rows = []
    for one in differ:
        about = f"{one.suite}: {one.group}" if one.group else f"{one.suite} ({one.figure})"
        shown = "{:.3f}".format if one.suite == "names" else lambda value: f"{100 * value:.1f} %"
        rows.append((about, shown(one.before), shown(one.after), one.verdict, f"{one.p:.2g}", str(one.n)))
    print_table(("figure", before, after, "", "p", "n"), rows)
    note("nearer, farther: to one half, paired by item; groups' p is corrected for their number (Holm). same: not sure of either.")
