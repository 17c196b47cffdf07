"""Finds out how often a model is right: asks it questions with known answers, and looks at its answers as `ingle why` does.

Answers are kept in the home's cache as soon as they are there, so an interrupted calibration goes on.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from ingle.core.config import from_table, to_table
from ingle.core.digest import digest_json
from ingle.core.errors import Interrupted
from ingle.core.progress import Progress
from ingle.engine.answer import answer
from ingle.engine.language_model import LanguageModel
from ingle.explain.cause import AnswerSpan, Cause, OutOfTime, Reader, SureSignals, Variation
from ingle.explain.effects import Falls, Left
from ingle.explain.kept_odds import VERSION
from ingle.explain.known import KnownQuestion, Place
from ingle.explain.names import twin
from ingle.explain.odds import KINDS, Calibration, fitted
from ingle.explain.prove import proved
from ingle.explain.said import said_by
from ingle.explain.sentences import without
from ingle.explain.sure import kind_of, looked_at
from ingle.explain.why import SHOWN, differs
from ingle.home.place import Home
from ingle.measure.subjects import Finished, Passing, Row

LABEL = "sure"


def ask_known(
    reader: Reader, model: LanguageModel, questions: Sequence[KnownQuestion], place: Place, finished: Finished | Passing, progress: Progress
) -> list[Row]:
    """Return a row for each question: what the model answered, whether that is right, its kind and its signals.

    `place`: places taught answers in a request. Raises Interrupted if the reader's time is over; what was answered is kept.
    """
    rows = list[Row]()
    for number, question in enumerate(questions):
        progress(LABEL, number, len(questions))
        key = digest_json([VERSION, to_table(question)])
        row = finished.get(key)
        if row is None:
            try:
                row = _answered(reader, model, question, place)
            except OutOfTime:
                cure = "Answered questions are kept. Run the same command to go on from there."
                raise Interrupted("calibration", "was interrupted", f"{number} of {len(questions)} questions", cure) from None
            finished.add(key, row)
        rows.append({"id": question.id, "case": question.case, **row, "kind": _kind(row, question)})
    progress(LABEL, len(questions), len(questions))
    return rows


def calibration_of(model: str, rows: Sequence[Row]) -> Calibration:
    """Fit each kind of question that was asked often enough. `model`: digest of the model that answered."""
    kinds = []
    for kind in KINDS:
        answers = [(from_table(SureSignals, row["signals"]), bool(row["right"])) for row in rows if row["kind"] == kind]
        if (fit := fitted(kind, answers)) is not None:
            kinds.append(fit)
    return Calibration(model, datetime.now(UTC).date().isoformat(), tuple(kinds))


def answers_of(model: LanguageModel, home: Home) -> Finished:
    """Return the answers of a model that are kept in the home."""
    return Finished(home, LABEL, model.digest)


def _kind(row: Row, question: KnownQuestion) -> str:
    names = row["decides"] and twin(row["question"], row["decides"], row["answer"], question.text)
    return "elsewhere" if names else str(row["kind"])


def _answered(reader: Reader, model: LanguageModel, question: KnownQuestion, place: Place) -> Row:
    request = place(question.request, [question.taught]) if question.taught else question.request
    said = said_by(model, request, answer(model, request))
    if not said.tokens:
        return {"answer": "", "right": False, "kind": "", "question": "", "decides": "", "signals": {}}
    falls, lost = Falls(reader, said, AnswerSpan(0, len(said.text))), None
    if question.taught:
        [lost] = falls.varied([Variation(Cause("memory", question.taught.id), model, question.request)])
    _, signals = looked_at(reader, said, lost)
    kind = kind_of(said, lost is not None, False) or ""
    asked = " ".join(one.text for one in falls.sentences if one.asks)
    right, decides = question.is_right(said.text), "" if question.taught else _decides(falls, asked)
    return {"answer": said.text, "right": right, "kind": kind, "question": asked, "decides": decides, "signals": to_table(signals)}


def _decides(falls: Falls, question: str) -> str:
    """Return the strongest sentence without which the answer is another one, if it is about another name than the question; else "".

    That is how `explain` finds it. Where no sentence is about another name, nothing has to be left out to know.
    """
    text = "".join(one.text for one in falls.sentences)
    if not any(twin(question, falls.sentences[number].text.strip(), falls.said.text, text) for number in falls.causes):
        return ""
    singles = falls.of([Left({number}) for number in falls.causes])
    strongest = [falls.causes[place] for place in sorted(range(len(singles)), key=lambda place: -singles[place])[:SHOWN]]
    for number, found in zip(strongest, proved(falls, strongest, len(falls.causes), 0), strict=True):
        if not found.stands_out:
            continue
        request = without(falls.said.request, [falls.sentences[number]])
        [other] = falls.reader.write([(falls.said.model, request)])
        if differs(falls, other):
            return found.cause.text
    return ""
