"""Whether an explanation names what was taught: 100 corrections, each the first cause of the answer that it gave; and 200 other answers.

    python bench/explain_taught.py [--corrections 100] [--unrelated 200] [--lessons 10] [--home DIR]

A scripted user corrects the model (bench/adapt_data.py), asks again, and asks why. `answer_without` is compared, to the letter, with what
`ingle run --no-memory` gives; for lessons with what the model says after `ingle undo`. Then it is asked about other things (also what
people typed into a search engine, BoolQ), and about things that are near: what was taught must not be named, unless it really changed the
answer. Greedy answers of at most 40 tokens. Intervals: 95 %, Wilson.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from adapt_data import Correction, hit, read
from adapt_home import FOLDER, OWNER, Pupil, bench_home, request_of
from harness import finish, show
from ingle.adapt.choosing import Choice
from ingle.adapt.undo import undo
from ingle.adapt.without import without_each
from ingle.core.progress import silent
from ingle.engine.answer import answer
from ingle.explain.cause import Cause, ProvedCause, Variation, Why, said_by
from ingle.explain.direct import direct_reader
from ingle.explain.why import WhyOptions, explain
from ingle.home.lessons import list_lessons
from ingle.measure.data_sets import boolq
from ingle.measure.intervals import wilson
from servers import say


def given(choice: Choice) -> str:
    """The answer under a choice."""
    return "".join(chunk.text for chunk in answer(choice.model, choice.request))


def why_of(pupil: Pupil, question: str, choice: Choice) -> Why:
    """The explanation of an answer under what acts on it."""
    said = said_by(choice.model, choice.request, answer(choice.model, choice.request))
    left_out = without_each(pupil.chooser, OWNER, pupil.model, pupil.kept, request_of(question), choice.memories, choice.lessons)
    variations = [Variation(Cause(one.kind, one.id, one.text), one.choice.model, one.choice.request) for one in left_out]
    *_, why = explain(direct_reader(), said, variations, WhyOptions())
    assert isinstance(why, Why)
    return why


def chosen(pupil: Pupil, question: str, memory: bool = True) -> Choice:
    """The choice of what acts on a question now."""
    return pupil.chooser.choose(OWNER, pupil.model, pupil.kept, request_of(question), memory)


def taught(why: Why) -> list[ProvedCause]:
    """The causes that were taught and that the answer needed."""
    return [one for one in why.causes if one.cause.kind in ("memory", "lesson") and one.stands_out]


def corrections(pupil: Pupil, some: Sequence[Correction], wanted: int) -> list[dict[str, object]]:
    """Teach, ask again, ask why: a row for each right answer, until there are enough."""
    rows: list[dict[str, object]] = []
    for one in some:
        before = given(chosen(pupil, one.question, memory=False))
        pupil.teach(one.question, one.answer)
        choice = chosen(pupil, one.question)
        now = given(choice)
        if not hit(now, one.accept) or hit(before, one.accept):
            continue  # it did not help, or was not needed
        began = time.perf_counter()
        why = why_of(pupil, one.question, choice)
        first, plain = why.causes[0], given(chosen(pupil, one.question, memory=False))
        rows.append({
            "id": one.id, "first": first.cause.id in choice.memories and first.stands_out, "same": first.answer_without == plain,
            "differs": first.differs, "nats": first.nats, "seconds": time.perf_counter() - began, "says": list(why.says),
        })  # fmt: skip
        if len(rows) % 10 == 0:
            say(f"{len(rows)} right answers explained")
        if len(rows) == wanted:
            break
    return rows


def others(pupil: Pupil, questions: Sequence[str]) -> list[dict[str, object]]:
    """Ask about other things, and ask why: a row each. `named`: something taught is named; `rightly`: and the answer is another without."""
    rows: list[dict[str, object]] = []
    for question in questions:
        choice = chosen(pupil, question)
        why = why_of(pupil, question, choice)
        named = taught(why)
        plain = given(chosen(pupil, question, memory=False))
        rows.append({"named": bool(named), "acted": bool(choice.memories), "rightly": bool(named) and plain != why.answer})
        if len(rows) % 50 == 0:
            say(f"{len(rows)} other answers explained")
    return rows


def lessons(pupil: Pupil, some: Sequence[Correction], wanted: int) -> list[dict[str, object]]:
    """Teach the weights, ask without memory, ask why, undo: a row for each right answer."""
    rows: list[dict[str, object]] = []
    for one in some:
        pupil.teach(one.question, one.answer)
        pupil.learn()
        choice = chosen(pupil, one.question, memory=False)
        if choice.lessons and hit(given(choice), one.accept):
            why = why_of(pupil, one.question, choice)
            [lesson] = [lesson for lesson in list_lessons(pupil.engine, OWNER, acting=True) if lesson.digest == choice.lessons[0]]
            undo(pupil.home, pupil.engine, OWNER, lesson.digest)
            pupil.chooser.forget()
            after = given(chosen(pupil, one.question, memory=False))
            first = why.causes[0]
            right = first.cause.id == choice.lessons[0] and first.stands_out
            rows.append({"id": one.id, "first": right, "same": first.answer_without == after, "nats": first.nats})
            say(f"lesson {len(rows)}: {'named first' if right else 'NOT first'}")
        if len(rows) == wanted:
            break
    return rows


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corrections", type=int, default=100)
    parser.add_argument("--unrelated", type=int, default=200)
    parser.add_argument("--lessons", type=int, default=10)
    parser.add_argument("--home", type=Path, default=FOLDER.parent / "explain")
    args = parser.parse_args()
    file, table = read("test"), [("what", "share", "95 %", "n")]
    more = [*file.corrections, *read("dev").corrections]
    pupil = Pupil(bench_home(args.home, "taught", fresh=True, learns=False))
    rows = corrections(pupil, more, args.corrections)
    for name in ("first", "same", "differs"):
        table.append((f"corrections: {name}", *_share([bool(row[name]) for row in rows])))
    typed = [question.ask.rpartition("Question: ")[2] for question in boolq(pupil.home, silent)]
    unrelated = [*file.unrelated, *read("dev").unrelated, *typed][: args.unrelated]
    near = [miss for one in file.corrections for miss in one.near_misses][: args.unrelated]
    results: dict[str, object] = {"corrections": rows}
    for name, questions in (("unrelated", unrelated), ("near misses", near)):
        away = others(pupil, questions)
        table.append((f"{name}: a memory acted", *_share([bool(row["acted"]) for row in away])))
        table.append((f"{name}: one is named", *_share([bool(row["named"]) for row in away])))
        table.append((f"{name}: named, and changed nothing", *_share([bool(row["named"]) and not row["rightly"] for row in away])))
        results[name] = away
    if args.lessons:
        learned = lessons(Pupil(bench_home(args.home, "lessons", fresh=True)), more, args.lessons)
        for name in ("first", "same"):
            table.append((f"lessons: {name}", *_share([bool(row[name]) for row in learned])))
        results["lessons"] = learned
    show("what was taught, named", table)
    finish("explain_taught", results)


def _share(marks: Sequence[bool]) -> tuple[str, str, str]:
    if not marks:
        return "–", "–", "0"
    interval = wilson(sum(marks), len(marks))
    return f"{sum(marks) / len(marks):.3f}", f"{interval.low:.3f}–{interval.high:.3f}", str(len(marks))


if __name__ == "__main__":
    main()
