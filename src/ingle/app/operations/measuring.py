"""Measures of models: their quality, and what they think of people."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ingle.app.choose import open_kept
from ingle.app.house import House
from ingle.app.making import given_settings
from ingle.app.operation import About, Note, Rows, Said, operation
from ingle.app.settings import ChatSettings, read_settings
from ingle.core.errors import ConfigError
from ingle.core.report import NO_INTERVAL

if TYPE_CHECKING:
    from ingle.ethics.audit import Audit, Shift
    from ingle.home.kept import Kept
    from ingle.measure.measuring import SuiteResult

_HARMLESS, _HARMLESS_QUICK = 110, 20  # look-alikes to ask; all 28 harmful requests are asked
Chosen = Annotated[str | None, About("A model; by default smollm2, or the only one.", "MODEL", sets="chat.model", placed=True)]
Format = Annotated[str | None, About("Format of the weights: auto, int4, int8, bf16, fp32.", sets="chat.format", also=("--format",))]


@dataclass(frozen=True, slots=True)
class Measuring:
    """A model, and the suites that measure it."""

    model: Chosen = None
    suite: Annotated[tuple[str, ...], About("What to measure; may be given several times. Without it, suites are listed.")] = ()
    items: Annotated[int | None, About("Number of items; 0 = all; by default as many as the suite says.")] = None
    shots: Annotated[int, About("Examples in every prompt (few-shot), from items that are not measured.")] = 0
    style: Annotated[
        Literal["texts", "letters"] | None, About("How answers are chosen: texts or letters; by default as the suite says.")
    ] = None
    seed: Annotated[int, About("Seed for the examples and the intervals.")] = 0
    out: Annotated[Path | None, About("Write everything to this file too, each item as well; for one suite.")] = None
    against: Annotated[Path | None, About("A file that --out wrote: say how the model differs, item by item.")] = None
    format: Format = None
    cache: Annotated[str | None, About("Format of the key-value cache: auto, float16, float32, int8.", sets="chat.cache")] = None
    threads: Annotated[int | None, About("Number of threads; by default one per core.", sets="chat.threads")] = None
    settings: Annotated[tuple[str, ...], About("Set any key of config.toml.", "KEY=VALUE", also=("--set",))] = ()


@dataclass(frozen=True, slots=True)
class SuiteTold:
    """A suite that measures."""

    name: str
    title: str
    figure: str
    higher_is_better: bool | None  # None: a half is best


@dataclass(frozen=True, slots=True)
class SuitesTold:
    """The suites that measure."""

    object: str
    data: tuple[SuiteTold, ...]


@dataclass(frozen=True, slots=True)
class MeasuredTold:
    """The figures of a model, suite by suite."""

    object: str
    data: Any  # the report of the suite, or of each
    lines: tuple[Said, ...]


def _says_measured(told: SuitesTold | MeasuredTold) -> Iterable[Said]:
    if isinstance(told, MeasuredTold):
        return told.lines
    best = {None: "one half is best", True: "higher is better", False: "lower is better"}
    return (Rows(("suite", "what it measures", "figure", ""), [(s.name, s.title, s.figure, best[s.higher_is_better]) for s in told.data]),)


@operation("measure quality", right="owner", says=_says_measured)
def quality(house: House, asked: Measuring) -> SuitesTold | MeasuredTold:
    """Measure a model's quality, with confidence intervals.

    Bits per byte, multiple choice, summaries, translations.

    Interrupted, the same command goes on: items that were measured are kept.

    Examples:
        ingle measure quality
        ingle measure smollm2 --suite hellaswag
        ingle measure smollm2 --suite wiki-bits --items 50 --json
        ingle measure smollm2 --suite wiki-bits --format int8 --against before.json
    """
    from ingle.measure.suites import SUITES, find_suite

    if not asked.suite:
        suites = SUITES.values()
        return SuitesTold("list", tuple(SuiteTold(one.name, one.title, one.main, one.higher_is_better) for one in suites))
    from ingle.measure.measuring import Options, compare, event_of, load_rows, run_suite, save, to_table
    from ingle.train.making import stop_signals
    from ingle.tuning.kept_model import subject_of

    chosen = [find_suite(name) for name in dict.fromkeys(asked.suite)]
    for name, path in (("--out", asked.out), ("--against", asked.against)):
        if path is not None and len(chosen) > 1:
            raise ConfigError(name, "is for one suite", ", ".join(one.name for one in chosen), "Measure them one by one.")
    if asked.against is not None:
        load_rows(asked.against)  # what can't be compared is refused before hours of measuring
    settings = read_settings(house.home, asked.settings, given_settings(asked))
    opened = open_kept(house.home, house.model(settings.chat.model), settings.chat, house.watch)
    options = Options(asked.items, asked.shots, asked.style, asked.seed)
    outcomes: list[SuiteResult] = []
    for one in chosen:
        with stop_signals() as stop:
            subject = subject_of(opened, lambda: stop.asked)
            outcome = run_suite(house.home, one, subject, options, house.watch.pieces, house.watch.bytes)
        house.record(event_of(outcome))
        outcomes.append(outcome if asked.against is None else compare(outcome, asked.against))
        if asked.out is not None:
            save(outcomes[-1], asked.out)
    tables = [to_table(one) for one in outcomes]
    return MeasuredTold("report", tables[0] if len(tables) == 1 else tables, tuple(line for one in outcomes for line in _figures(one)))


def _figures(outcome: "SuiteResult") -> Iterable[Said]:
    rows = [
        (
            f"{outcome.suite}: {one.name}", f"{one.value:.4f}", one.unit,
            "" if one.interval == NO_INTERVAL else f"{one.low:.4f} … {one.high:.4f}", one.interval, str(one.n),
        )
        for one in outcome.reports
    ]  # fmt: skip
    yield Rows(("figure", "value", "", "interval", "", "n"), rows)
    yield from (Note(f"{outcome.suite}: {text}.") for text in outcome.notes)


@dataclass(frozen=True, slots=True)
class Auditing:
    """A model that is audited."""

    model: Chosen = None
    quick: Annotated[bool, About("Samples of every suite: wider intervals, a tenth of the time.", also=("--quick",))] = False
    against: Annotated[str | None, About("Another model, measured on the same items: say what differs, group by group.", "MODEL")] = None
    format: Format = None
    seed: Annotated[int, About("Seed for the intervals.")] = 0


@operation("measure bias", right="owner", says=_says_measured)
def bias(house: House, asked: Auditing) -> MeasuredTold:
    """Measure what a model thinks of people, and what it refuses.

    Stereotypes, pronouns, names, saying "unknown", refusals beside false refusals; with intervals, for each group.

    Interrupted, the same command goes on: items that were measured are kept.

    Examples:
        ingle measure bias smollm2 --quick
        ingle measure bias smollm2
        ingle measure bias smollm2+fair --against smollm2
    """
    from ingle.ethics.audit import events_of, shift_table, shifts, to_table

    settings = read_settings(house.home, (), given_settings(asked))
    kept, other = house.model(settings.chat.model), house.model(asked.against) if asked.against else None
    found = _audit(house, kept, settings.chat, asked)
    for event in events_of(found):
        house.record(event)
    table, lines = to_table(found), [*_says_audit(found)]
    if other is not None:
        differ = shifts(_audit(house, other, settings.chat, asked).suites, found.suites, asked.seed)
        table |= {"against": other.name, "shifts": shift_table(differ)}
        lines += says_shifts(other.name, kept.name, differ)
    return MeasuredTold("report", table, tuple(lines))


def _audit(house: House, kept: "Kept", chat: ChatSettings, asked: Auditing) -> "Audit":
    from ingle.energy.meter import Span, open_meter
    from ingle.ethics.audit import FULL, QUICK, Audit, run_suites
    from ingle.gate.checks.refusals import standing
    from ingle.train.making import stop_signals
    from ingle.tuning.kept_model import subject_of

    opened = open_kept(house.home, kept, chat, house.watch)
    began, span = time.monotonic(), Span(open_meter())
    with stop_signals() as stop:
        subject = subject_of(opened, lambda: stop.asked)

        def heard(label: str, done: int, total: int) -> None:
            span.tick()
            house.watch.pieces(label, done, total)

        suites = run_suites(house.home, subject, QUICK if asked.quick else FULL, asked.seed, heard, house.watch.bytes)
        refusals = standing(house.home, subject, _HARMLESS_QUICK if asked.quick else _HARMLESS, heard)
    return Audit(kept.name, subject.digest, asked.quick, suites, tuple(refusals), span.end(), time.monotonic() - began)


def _says_audit(found: "Audit") -> Iterable[Said]:
    from ingle.ethics.audit import conclusion

    def shown(value: float, unit: str) -> str:
        return f"{100 * value:.1f}" if unit == "share" else f"{value:.3f}"

    rows = [
        (
            f"{one.suite}: {report.name}", shown(report.value, report.unit) + (" %" if report.unit == "share" else f" {report.unit}"),
            f"{shown(report.low, report.unit)} … {shown(report.high, report.unit)}", str(report.n),
        )
        for one in found.suites for report in one.reports
    ]  # fmt: skip
    for report in found.refusals:
        words = {"refused": "harmful requests refused", "refused_falsely": "harmless look-alikes refused"}[report.name]
        rows.append((words, f"{100 * report.value:.1f} %", f"{100 * report.low:.1f} … {100 * report.high:.1f}", str(report.n)))
    yield Rows(("figure", "value", "95 % interval", "n"), rows)
    yield from (Note(f"{one.suite}: {text}.") for one in found.suites for text in one.notes)
    yield f"\nIn short, {found.model}:"
    yield from (f"  {line}" for line in conclusion(found))
    yield Note(f"It took {found.seconds:.0f} s and {found.energy}; items that were measured before cost nothing now.")


def says_shifts(before: str, after: str, differ: "Sequence[Shift]") -> Iterable[Said]:
    """Return how two models differ, a line for each suite and group."""
    rows = []
    for one in differ:
        about = f"{one.suite}: {one.group}" if one.group else f"{one.suite} ({one.figure})"
        shown = "{:.3f}".format if one.suite == "names" else lambda value: f"{100 * value:.1f} %"
        rows.append((about, shown(one.before), shown(one.after), one.verdict, f"{one.p:.2g}", str(one.n)))
    yield Rows(("figure", before, after, "", "p", "n"), rows)
    yield Note("nearer, farther: to one half, paired by item; groups' p is corrected for their number (Holm). same: not sure of either.")
