"""`ingle teach --now`."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.app.settings import Settings
    from ingle.core.example import Example
    from ingle.home.place import Home
    from ingle.learn.learner import Learned, LessonOutcome

EXAMPLES = """
ingle learn   (whatever is pending, then ends)
ingle learn --watch   (and goes on with what comes)
ingle memory learned
ingle learn --consolidate   (one lesson of many; what was refused is tried again)
"""
_ORDER = ("learning", "pending", "learned", "refused", "kept", "superseded", "undone")


def command(
    once: Annotated[bool, typer.Option("--once", help="Learn what is pending, then end. This is the default.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep learning what comes, until Ctrl-C.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="List what was taught, and what became of it.")] = False,
    together: Annotated[
        bool, typer.Option("--consolidate", help="Learn everything again as one lesson; what was refused is tried again.")
    ] = False,
    model: Annotated[str, typer.Option(help="With --list and --consolidate: only about this model.")] = "",
    owner: Annotated[str, typer.Option(help="With --list: id of the API key that owns it; by default your own.")] = "",
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key of config.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    attached: Annotated[bool, typer.Option("--attached", hidden=True, help="Started by a server, and told by it what to do.")] = False,
) -> None:
    """Train the weights on what users taught, or show what was learned.

    A correction becomes a small addition to the weights that acts where its question is asked; the gate decides whether it may.
    """
    from ingle.app.house import enter, open_rooms
    from ingle.app.settings import read_settings
    from ingle.core.errors import ConfigError

    if once + watch + listing + together > 1:
        raise ConfigError("ingle learn", "Use only one of --once, --watch, --list and --consolidate")
    home = enter()
    settings = read_settings(home, overrides or ())
    engine = open_rooms(home)
    try:
        if listing:
            _list(engine, owner, model, as_json)
            return
        waits = "" if together else _waits(engine)
        learned = _together(home, engine, settings, model) if together else _follow(home, engine, settings, watch or attached, attached)
    finally:
        engine.dispose()
    if not attached:
        _show(learned, as_json, waits)


def learn_now(home: "Home", engine: "Engine", together: bool) -> "Sequence[LessonOutcome]":
    """Learn what is pending, or everything again as one lesson; return the outcomes. Ctrl-C ends it between two steps."""
    from ingle.app.settings import read_settings
    from ingle.cli.output import note

    settings = read_settings(home)
    if not together and (waits := _waits(engine)):
        note(waits)
    return (_together(home, engine, settings, "") if together else _follow(home, engine, settings, False, False)).outcomes


def _follow(home: "Home", engine: "Engine", settings: "Settings", stay: bool, attached: bool) -> "Learned":
    """Run the learner."""
    from dataclasses import replace

    from ingle.cli.interrupt import Interrupt
    from ingle.cli.output import note
    from ingle.learn import worker
    from ingle.learn.learner import LearnerWatch
    from ingle.learn.teacher import trainer_of
    from ingle.learn.worker import Breath
    from ingle.ledger.chain import Ledger

    signals, sink, busy, learn = worker.Signals(), Ledger(engine, home.keys).append, worker.tell(sys.stdout.buffer), settings.learn
    breath = Breath(signals, busy) if attached else lambda: None
    trainer = trainer_of(home, engine, learn.lesson, learn.style, learn.memory_mb, breath)
    if stay:
        worker.give_way()
    if attached:
        # Unbuffered: a thread that waits in a buffered reader holds its lock, and Python aborts at the end of the process.
        worker.listen(signals, open(0, "rb", buffering=0, closefd=False))  # noqa: SIM115 - open as long as the process
        return worker.follow(home, engine, trainer, sink, learn, signals, LearnerWatch(trying=busy))
    learning = learn if not stay else replace(learn, idle_s=float("inf"))
    with Interrupt() as interrupt:
        return worker.follow(home, engine, trainer, sink, learning, signals, LearnerWatch(note, interrupt.asked), stay)


def _together(home: "Home", engine: "Engine", settings: "Settings", model: str) -> "Learned":
    from ingle.cli.interrupt import Interrupt
    from ingle.cli.output import note
    from ingle.learn.learner import LOCK, Learned, Learner, LearnerWatch, consolidate, learn_once
    from ingle.learn.teacher import trainer_of
    from ingle.ledger.chain import Ledger

    with home.lock(LOCK, note), Interrupt() as interrupt:
        trainer, watch = (
            trainer_of(home, engine, settings.learn.lesson, settings.learn.style, settings.learn.memory_mb),
            LearnerWatch(note, interrupt.asked),
        )
        learner = Learner(home, engine, trainer, Ledger(engine, home.keys).append, watch, settings.learn.ratings)
        learner.start()
        return Learned((*learn_once(learner).outcomes, *consolidate(learner, model).outcomes))


def _list(engine: "Engine", owner: str, model: str, as_json: bool) -> None:
    from dataclasses import asdict

    from ingle.cli.output import note, print_json, print_table
    from ingle.home.examples import list_examples

    examples = sorted(list_examples(engine, owner, model=model), key=lambda one: (_ORDER.index(one.state), -one.seq))
    if as_json:
        print_json([asdict(one) for one in examples])
    elif examples:
        print_table(("state", "id", "model", "what", "why"), [[one.state, one.id, one.model, _what(one), _why(one)] for one in examples])
    else:
        note("Nothing was taught yet; try: ingle teach QUESTION ANSWER")


def _what(one: "Example") -> str:
    thumb = {1: "good: ", -1: "bad: "}.get(one.rating, "") if one.kind == "rating" else ""
    text = " ".join(f"{thumb}{one.question} → {one.answer}".split() if one.question else one.answer.split())
    return text if len(text) <= 60 else text[:59] + "…"


def _why(one: "Example") -> str:
    return "; ".join(one.reasons) if one.reasons else one.lesson[:12]


def _waits(engine: "Engine") -> str:
    """Say why what is pending can't all be learned here; "" if it can."""
    from ingle.home.examples import list_examples
    from ingle.learn.learning_settings import lacking

    pending = {one.kind for one in list_examples(engine, None, ["pending"]) if one.learn and one.kind != "fact"}
    return next((why for kind in pending if (why := lacking(kind))), "")


def _show(learned: "Learned", as_json: bool, waits: str) -> None:
    from ingle.cli.output import note, print_json

    if as_json:
        print_json(
            [
                {
                    "owner": outcome.work.owner, "model": outcome.work.kept.name, "kind": outcome.work.kind, "examples": outcome.work.ids,
                    "lesson": outcome.lesson.digest if outcome.lesson else None, "reasons": outcome.reasons, "seconds": outcome.seconds,
                    "predicted": None if outcome.room is None else outcome.room.table(),
                }
                for outcome in learned.outcomes
            ]
        )  # fmt: skip
        return
    if waits:
        note(waits)
    if not learned.outcomes:
        note("Nothing more can be learned now." if waits else "Nothing is pending.")
        return
    refused = len(learned.outcomes) - len(learned.lessons)
    print(f"{len(learned.lessons)} learned, {refused} refused. See them: ingle memory learned")
