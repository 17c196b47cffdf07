"""`ingle why`."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.app.explained import Explained, Tap
    from ingle.app.here import Here
    from ingle.app.settings import Settings
    from ingle.core.energy import Energy
    from ingle.core.headroom import Headroom
    from ingle.core.message import Request
    from ingle.engine.language_model import LanguageModel
    from ingle.explain.cause import Said, Why
    from ingle.explain.traces import TaughtText
    from ingle.explain.why import WhyOptions
    from ingle.home.kept import Kept
    from ingle.home.place import Home
    from ingle.home.turns import Turn
    from ingle.ledger.chain import Ledger
    from ingle.ledger.row import Row

    Answering = Callable[[LanguageModel, Request], tuple[str, Tap]]

EXAMPLES = """
ingle why --last
ingle why 17 --span "Nessa Quillfeather"
ingle why chatcmpl-1f0c… --json
ingle why --last --html why.html
ingle why --last --what training --prove
ingle why --calibrate smollm2
"""
_NEAREST = 200  # facts of answers of one's own among which --last looks for one that is kept

_MANY = 8  # fewer pieces take a moment
_WHAT = ("sentences", "taught", "sure", "traces")
_CHOICES = ("prompt", "training", "parts")  # as the API explains an answer, unless less is asked for
_MOST_BYTES = 64 << 20  # larger files of training data are not looked through


def command(
    event: Annotated[str | None, typer.Argument(metavar="[EVENT]", help="Number of an answer in the ledger, or its id.")] = None,
    last: Annotated[bool, typer.Option("--last", help="Explain the last thing that you asked.")] = False,
    span: Annotated[str | None, typer.Option(help="Explain only these words of the answer.")] = None,
    method: Annotated[str, typer.Option(help="How sentences are found: auto, leave_one_out, alone, context_cite, overlap …")] = "auto",
    budget: Annotated[float, typer.Option(help="Most seconds; what was proved by then is shown.")] = 60.0,
    what: Annotated[
        str, typer.Option(help="prompt: sentences and what was taught; training: examples of the tune or lesson; parts: of a hybrid.")
    ] = "prompt",
    prove: Annotated[bool, typer.Option("--prove", help="training: train again without the examples that look like it; minutes.")] = False,
    top: Annotated[int, typer.Option(help="training: how many examples.")] = 5,
    calibrate: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Ask a model questions with known answers, to know how often it is right.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the explanation as JSON.")] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key of config.toml.")] = None,
) -> None:
    """Say what an answer rests on, proved by leaving it out.

    Works where the text is kept, as `ingle prove replay` does: conversations of the page, and requests with `store: true`. Exit code 1 if
    nothing stands out.
    """
    from ingle.app.explained import explanation_id, explanation_table, parts, said_again, span_in
    from ingle.app.house import enter
    from ingle.app.settings import read_settings
    from ingle.cli.choose import answer_here
    from ingle.core.files import write_atomic
    from ingle.energy.meter import Span, open_meter
    from ingle.explain.why import WhyOptions
    from ingle.explain.words import why_page
    from ingle.home.explanations import keep_explanation

    if calibrate is not None:
        _calibrate(calibrate, event is not None or last, as_json, overrides or ())
        return
    _check(event, last, what, budget)
    home = enter()
    settings = read_settings(home, overrides or ())
    here = answer_here(home, settings)
    began, metered = time.monotonic(), Span(open_meter(), 0.5)
    try:
        room, asked = _explained(home, here.engine, settings, event)
        _quote(asked)
        said = said_again(asked, *(answer := _answering(here, asked))(asked.choice.model, asked.request))
        if what == "training":
            from ingle.cli.why_training import why_training

            raise typer.Exit(why_training(home, here.engine, settings, asked, said, top, prove, as_json))
        if what == "parts":
            asked = replace(asked, variations=parts(asked))
        questions = WhyOptions(span_in(said.text, span) if span else None, method, sentences=what == "prompt")
        why = _proved(home, here.engine, asked, said, answer, questions, lambda: time.monotonic() - began > budget)
        id_ = explanation_id(asked.turn.owner, asked.turn.completion, questions, _WHAT if what == "prompt" else (what,))
        table = {"id": id_, **explanation_table(why)}
        if why.complete:
            keep_explanation(here.engine, asked.turn.owner, asked.turn.id, id_, table)
    finally:
        here.close()
    if html is not None:
        write_atomic(html, why_page(why, asked.choice.request).encode(), mode=0o600)  # it quotes the user
    _finish(home, asked, table | {"predicted": room.table()}, why, time.monotonic() - began, metered.end_of_piece(), as_json)


def _finish(
    home: "Home", asked: "Explained", table: "Mapping[str, Any]", why: "Why", seconds: float, energy: "Energy", as_json: bool
) -> None:
    """Record the explanation, show it, and end with 1 if nothing stands out."""
    from ingle.app.explained import account, explanation_event
    from ingle.app.house import open_ledger
    from ingle.cli.output import print_json

    with open_ledger(home) as ledger:
        row = ledger.append(explanation_event(asked.key, asked, table["id"], why, seconds, energy))
    if as_json:
        print_json(account(table, seconds, energy, row.seq))
    else:
        _show(why, seconds)
    if not any(one.stands_out for one in why.causes):
        raise typer.Exit(1)


def _quote(asked: "Explained") -> None:
    """Say which answer it is."""
    from ingle.cli.output import note
    from ingle.core.errors import shortened
    from ingle.core.message import TextPart

    last = next((message for message in reversed(asked.request.messages) if message.role == "user"), None)
    parts = last.parts if last is not None else ()
    question = "".join(part.text for part in parts if isinstance(part, TextPart) and part.origin not in ("system", "memory"))
    note(f"{asked.turn.at[:16].replace('T', ' ')} UTC, {asked.kept.name} was asked: “{shortened(question)}”")
    note(f"It answered: “{shortened(asked.turn.message.text)}”\n")


def _check(event: str | None, last: bool, what: str, budget: float) -> None:
    """Raise ConfigError where it is not clear what to explain, or for how long."""
    from ingle.core.errors import ConfigError

    if (event is None) == (not last):
        raise ConfigError(
            "EVENT", "Say which answer: EVENT or --last", "both" if last else "neither", "`ingle log --kind answer` lists them."
        )
    if what not in _CHOICES:
        raise ConfigError("--what", f"must be one of {', '.join(_CHOICES)}", what)
    if not 0 < budget <= 3600:
        raise ConfigError("--budget", "must be more than 0 and at most 3600 seconds", budget)


def _explained(home: "Home", engine: "Engine", settings: "Settings", event: str | None) -> "tuple[Headroom, Explained]":
    """Return what it will take, and the answer to explain; the newest stored one without an event. Raises NotKept, NoRoom."""
    from ingle.adapt.choosing import Chooser
    from ingle.app.answer_key import key_of_answer
    from ingle.app.explained import explained, stored_turn
    from ingle.app.replay import find_row
    from ingle.cli.choose import open_watched
    from ingle.home.kept import get_kept
    from ingle.ledger.chain import Ledger

    ledger = Ledger(engine, home.keys)
    row = find_row(ledger, event) if event is not None else _newest(engine, ledger)
    turn, key = stored_turn(engine, row, None), key_of_answer(home, engine, row.seq)
    kept = get_kept(home, row.subject)
    room = _room(home, engine, settings, kept, turn)
    model = open_watched(home, kept, settings.chat)
    return room, explained(
        home, engine, Chooser(home, engine), row, turn, kept, model, lambda home, shorter: open_watched(home, shorter, settings.chat), key
    )


def _room(home: "Home", engine: "Engine", settings: "Settings", kept: "Kept", turn: "Turn") -> "Headroom":
    """Say what the explanation will take, before the model is opened. Raises NoRoom where the memory isn't there."""
    from ingle.app.replay import request_of
    from ingle.cli.output import note
    from ingle.core.headroom import room_for
    from ingle.engine.packs import served_size
    from ingle.explain.why import why_need

    size = served_size(home, kept, settings.chat.format)
    room = room_for(why_need(size, request_of(engine, turn), turn.message.text))
    room.check()
    if room.told:
        note(room.told)
    return room


def _newest(engine: "Engine", ledger: "Ledger") -> "Row":
    """Return the last answer of this home's own user. Raises NotKept if its words are not kept."""
    from ingle.app.replay import find_row
    from ingle.core.errors import NotKept

    last = find_row(ledger, None)
    if _kept(engine, last):
        return last
    mine = (row for row in ledger.read(kind="answer") if not row.values.get("key"))
    kept = next((row for _, row in zip(range(_NEAREST), mine, strict=False) if _kept(engine, row)), None)
    cure = 'The page keeps conversations, `ingle "…"` the last answer (unless --no-keep), the API what is asked with `store: true`.'
    cure += f" The newest that is kept: ingle why {kept.seq}" if kept is not None else ""
    raise NotKept("answer", "The last thing that you asked was not kept", f"{last.subject}, {last.at[:16].replace('T', ' ')} UTC", cure)


def _kept(engine: "Engine", row: "Row") -> bool:
    from ingle.home.turns import find_any_completion

    completion = str(row.values.get("id", ""))
    return bool(completion) and find_any_completion(engine, completion) is not None


def _answering(here: "Here", asked: "Explained") -> "Answering":
    """Return a function that gives an answer as the home's guards let it out, with what passed at the engine."""
    from ingle.app.explained import Tap

    def answering(model: "LanguageModel", request: "Request") -> "tuple[str, Tap]":
        tap = Tap()
        return here.again(model, request, asked.turn.owner, tap.around), tap

    return answering


def _proved(
    home: "Home", engine: "Engine", asked: "Explained", said: "Said", answering: "Answering",
    questions: "WhyOptions", late: Callable[[], bool],
) -> "Why":  # fmt: skip
    """Return the explanation; says on the way how far it is, at a terminal."""
    from ingle.app.explained import more_of
    from ingle.cli.progress import watching
    from ingle.explain.cause import Why
    from ingle.explain.direct import direct_reader
    from ingle.explain.why import explain

    with watching() as watch:

        def progress(what: str, done: int, of: int) -> None:
            if of >= _MANY:
                watch.pieces(what, done, of)

        reader = direct_reader(late, lambda model, request: answering(model, request)[0], progress)
        *_, why = explain(reader, said, asked.variations, questions)
        assert isinstance(why, Why), "an explanation ends with the whole of it"
        return more_of(reader, asked, said, why, _WHAT if questions.sentences else (), home, engine, _tuned_on(home, asked))


def _tuned_on(home: "Home", asked: "Explained") -> "list[TaughtText]":
    """Return the texts that the model's deltas were tuned on, as far as they are still there."""
    from ingle.explain.traces import TaughtText
    from ingle.home.deltas import get_delta
    from ingle.tuning.tune import files_of

    paths = [path for digest in asked.kept.deltas for path in files_of(get_delta(home, digest).origin)]
    small = [path for path in paths if path.stat().st_size <= _MOST_BYTES]
    return [TaughtText(str(path), path.read_text("utf-8", "replace")) for path in small]


def _calibrate(name: str, other: bool, as_json: bool, overrides: "Sequence[str]") -> None:
    from ingle.cli.calibrating import calibrate
    from ingle.core.errors import ConfigError

    if other:
        raise ConfigError("--calibrate", "is for a model, not for an answer", "both", "Give one of them.")
    calibrate(name, as_json, overrides)


def _show(why: "Why", seconds: float) -> None:
    from ingle.cli.output import note, printable
    from ingle.core.errors import counted

    for said in why.says:
        print(printable(said))
    note("")
    for one in why.causes:
        chance = "" if one.by_chance is None else f", by chance at most {one.by_chance.high:.2f} (n = {one.by_chance.n})"
        name = one.cause.id if one.cause.kind != "sentence" else one.cause.text
        note(f"{one.nats:8.2f} nats  {one.cause.kind} {printable(name)[:60]}{chance}")
    looked = f"{counted(why.sentences, 'sentence')} of the prompt, {counted(why.read_tokens, 'token')} read, {seconds:.1f} s"
    note(f"({looked}{'' if why.complete else ', not complete'})")
