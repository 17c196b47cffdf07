"""`ingle why --what training`: which examples of a tune, or of the lesson that acted, taught an answer."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.app.explained import Explained
    from ingle.app.settings import Settings
    from ingle.core.report import Event
    from ingle.explain.cause import Said
    from ingle.home.place import Home
    from ingle.learn.teacher import ProvedLesson
    from ingle.tuning.influence import ProvedExamples, TrainingCause

_SHOWN = 90
_NAMED = 20  # most examples that a fact names


def why_training(
    home: "Home", engine: "Engine", settings: "Settings", asked: "Explained", said: "Said", top: int, prove: bool, as_json: bool
) -> int:  # fmt: skip
    """Print which examples taught an answer, and record what was proved. Returns the exit code: 1 if nothing stands out."""
    from ingle.app.house import open_ledger
    from ingle.cli.output import note, print_json

    began = time.monotonic()
    table, stands_out = training_table(home, engine, settings, asked, said, top, prove, note if as_json else print)
    if as_json:
        print_json(table)
    if (event := _event(asked, table, time.monotonic() - began)) is not None:
        with open_ledger(home) as ledger:
            ledger.append(event)
    return 0 if stands_out else 1


def training_table(
    home: "Home", engine: "Engine", settings: "Settings", asked: "Explained", said: "Said", top: int, prove: bool,
    show: Callable[[str], None],
) -> tuple[dict[str, Any], bool]:  # fmt: skip
    """Show which examples taught an answer; return them as JSON has them, and whether any stands out.

    A lesson that acted is proved, example by example; otherwise the tune's examples are proposed, or proved with `prove`. Raises
    ConfigError where neither a lesson nor a tune is behind the answer, and the errors of training.
    """
    from ingle.app.making import run_watch
    from ingle.cli.output import note
    from ingle.cli.progress import watching
    from ingle.core.config import to_table
    from ingle.core.files import need_learning

    need_learning()
    from ingle.explain.cause import LEAST_NATS
    from ingle.learn.teacher import proved_lesson
    from ingle.tuning.influence import proposed, proved

    prompt, answer = said.model.encode(said.request), said.tokens
    lessons = str(asked.row.values.get("lessons", "")).split()
    table: dict[str, Any] = {"object": "explanation.training", "answer": said.text}
    with watching() as watch:
        for digest in lessons:
            learn = settings.learn
            found = proved_lesson(
                home, engine, asked.turn.owner, asked.kept, digest, prompt, answer, learn.lesson, learn.style, run_watch(watch)
            )  # fmt: skip
            _show_lesson(found, show)
            return {**table, "lesson": {"digest": digest, **to_table(found)}}, any(cause.rise >= LEAST_NATS for cause in found.causes)
        if prove:
            proof = proved(home, asked.kept, prompt, answer, top, watch=run_watch(watch))
            _show_proof(proof, show)
            return {**table, "proved": True, "examples": to_table(proof)}, proof.stands_out
        causes = proposed(home, asked.kept, prompt, answer, top)
        for cause in causes:
            show(f"looks alike ({cause.alike:+.2f}): {_line(cause)}")
        note("These look alike; they are not shown to be the cause. --prove trains again without them.")
        return {**table, "proved": False, "examples": {"causes": [to_table(cause) for cause in causes]}}, bool(causes)


def _event(asked: "Explained", table: Mapping[str, Any], seconds: float) -> "Event | None":
    """Return the fact of a proof: numbers and ids of examples, and figures; never a word. None where nothing was proved."""
    from ingle.core.report import Event, Fact

    facts: dict[str, Fact] = {"seq_of": asked.row.seq, "method": "training", "seconds": round(seconds, 2), "key": asked.turn.owner}
    if "lesson" in table:
        lesson = table["lesson"]
        first = lesson["causes"][0]
        facts |= {"causes": f"example {first['id']} {first['rise']:.3f}", "lesson": lesson["digest"], "examples": len(lesson["causes"])}
    elif table["proved"]:
        proof = table["examples"]
        rise, *chance = (nats - proof["whole"] for nats in (proof["without_top"], *proof["without_random"]))
        named = " ".join(str(cause["example"]) for cause in proof["causes"][:_NAMED])
        facts |= {"causes": f"examples {named} {rise:.3f} (by chance {max(chance):.3f}, n {len(chance)})", "examples": len(proof["causes"])}
    else:
        return None
    return Event("explain", asked.row.subject, {name: value for name, value in facts.items() if value != ""})


def _show_lesson(found: "ProvedLesson", show: Callable[[str], None]) -> None:
    from ingle.cli.output import printable

    for cause in found.causes:
        text = " ".join(printable(f"{cause.question} → {cause.answer}").split())
        show(f"{cause.rise:+8.2f} nats without the correction {cause.id}: {text[:_SHOWN]}")


def _show_proof(proof: "ProvedExamples", show: Callable[[str], None]) -> None:
    from ingle.cli.output import note, printable
    from ingle.core.errors import counted

    for cause in proof.causes:
        show(_line(cause))
    examples = counted(len(proof.causes), "example")
    if proof.stands_out:
        show(f"Trained again without these {examples}, the answer is {proof.rise:.2f} nats less likely; it would have said:")
        show(printable(proof.answer_without).strip() or "nothing")
    else:
        show("Nothing here stands out; I can't say which examples taught it.")
    note(
        f"loss of the answer: {proof.before:.2f} nats before the tune, {proof.whole:.2f} after it, {proof.without_top:.2f} without these, "
        f"{', '.join(f'{nats:.2f}' for nats in proof.without_random)} without {len(proof.causes)} random ones"
    )
    if not proof.same_programs:
        note("The tune was made by other versions or threads, so a part of the difference may be theirs.")


def _line(cause: "TrainingCause") -> str:
    """Return an example as one line."""
    from ingle.cli.output import printable

    text = " ".join(printable(f"{cause.asked} → {cause.answer}").split())
    place = f" ({printable(cause.where)})" if cause.where else ""
    return f"example {cause.example}{place}: {text if len(text) <= _SHOWN else text[: _SHOWN - 1] + '…'}"
