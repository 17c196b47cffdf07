"""Finds out how often a model is right: asks it questions with known answers, and looks at its answers as `ingle why` does.

Answers are kept in the home's cache as soon as they are there, so an interrupted calibration goes on.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ingle.core.config import from_table, to_table
from ingle.core.digest import digest_json
from ingle.core.errors import Interrupted
from ingle.core.example import Example
from ingle.core.message import Message, Request
from ingle.core.progress import Progress
from ingle.engine.answer import answer
from ingle.engine.language_model import LanguageModel
from ingle.explain.cause import AnswerSpan, Cause, OutOfTime, Reader, SureSignals, Variation, said_by
from ingle.explain.falls import Falls, Left, proved
from ingle.explain.odds import KINDS, VERSION, Calibration, fitted
from ingle.explain.prompt_sentences import twin, without
from ingle.explain.sure import kind_of, looked_at
from ingle.explain.why import SHOWN, differs
from ingle.home.place import Home
from ingle.measure.data_sets import Part, Question, part, part_of
from ingle.measure.subjects import Finished, Passing, Row
from ingle.measure.suites import KINDS as FACT_KINDS
from ingle.measure.suites import Fact, make_fact

# Questions with known answers: what a model is asked to find out how often it is right.
# Facts that nobody can guess are planted in paragraphs of an encyclopedia, left out of them, or said about another place (*twins*).
# People's yes-or-no questions stand on the same paragraphs. General knowledge is asked for with nothing beside it. Taught answers are asked
# for with the right memory, or with one of another place.


HELD_OUT = 0.5  # share of documents and general questions that a calibration never sees: `bench/explain_sure.py` tells its figures on them
MAX_TOKENS = 24
# Cases of planted facts in turn. `earlier`: the paragraph stands in an earlier turn.
CASES = ("there", "twin", "absent", "there", "twin", "earlier", "there", "twin")
_LONGEST = 500  # most characters of a paragraph
_ASKED = {
    "number": ("The secret number of {x} is", "What is the secret number of {x}?"),
    "name": ("The keeper of the {x} is called", "Who is the keeper of the {x}?"),
    "sentence": ("The note under the {x} says that", "What does the note under the {x} say?"),
}
_DENIES = re.compile(
    r"\b(?:not (?:mention|say|state|specif|provid|given|know|clear)\w*|unknown|no (?:mention|information)|(?:does|do|did)(?: not|n.t) "
    r"(?:mention|say|state|specify|provide|give|know))",
    re.IGNORECASE,
)
_PLACE_AT_END = re.compile(r"(?: is called| says that| is)$")
Place = Callable[[Request, Sequence[Example]], Request]  # places what was taught in a request, as the house does; see adapt/memory.py


@dataclass(frozen=True, slots=True)
class KnownQuestion:
    id: str
    case: str  # how it was made
    request: Request  # as it is asked, before what was taught is placed
    accept: tuple[str, ...]  # one of these must stand in a right answer; of none, a right answer says that it is not known
    taught: Example | None = None

    @property
    def text(self) -> str:
        """All that is said in it."""
        return "\n".join(message.text for message in self.request.messages)

    def is_right(self, answer: str) -> bool:
        if self.case == "yes_no":
            first = re.match(r"\W*(\w+)", answer)
            return first is not None and first.group(1).lower() in self.accept
        if not self.accept:
            return _DENIES.search(answer) is not None
        return any(re.search(rf"(?<!\w){re.escape(one)}(?!\w)", answer, re.IGNORECASE if len(one) > 2 else 0) for one in self.accept)


def known_questions(questions: Sequence[Question], which: Part, count: int) -> list[KnownQuestion]:
    """Return questions of all kinds, mixed; `count` of planted facts. `questions`: of BoolQ, on their paragraphs."""
    texts = [one for one in part(questions, which, HELD_OUT) if len(one.ask) <= _LONGEST]
    kinds = (planted(texts, which, count), yes_no(texts[: count * 3 // 5]), bare(which), taught(which, count * 2 // 5))
    mixed = [(place / len(one), item) for one in map(list, kinds) for place, item in enumerate(one)]
    return [item for _, item in sorted(mixed, key=lambda pair: (pair[0], pair[1].id))]


def planted(texts: Sequence[Question], which: Part, count: int) -> Iterator[KnownQuestion]:
    for number in range(count):
        draw = random.Random(f"planted {which} {number}")
        case = CASES[number % len(CASES)]
        fact = make_fact(FACT_KINDS[number % len(FACT_KINDS)], draw)
        said = fact.said if case in ("there", "earlier") else _of_another_place(fact, draw) if case == "twin" else ""
        text = texts[draw.randrange(len(texts))].ask.rpartition("\nQuestion:")[0]
        request = _beside(_inserted(text, said, draw), question_of(fact), case == "earlier")
        yield KnownQuestion(f"planted/{number}", case, request, (fact.answer,) if case in ("there", "earlier") else ())


def yes_no(texts: Sequence[Question]) -> Iterator[KnownQuestion]:
    for one in texts:
        text, _, asked = one.ask.rpartition("\nQuestion: ")
        yield KnownQuestion(one.id, "yes_no", _beside(text, f"Answer yes or no: {asked}", False), (one.options[one.gold],))


def bare(which: Part) -> list[KnownQuestion]:
    """Return general questions, sums, and questions about places that don't exist, shuffled. No question is in both parts."""
    found = list[KnownQuestion]()
    for line in (Path(__file__).parent / "known.txt").read_text("utf-8").splitlines():
        form, *rows = line.split(" | ")
        for row in rows:
            thing, accept = row.split(" > ")
            found.append(KnownQuestion(f"bare/{form}/{thing}", "general", _ask(form.replace("{x}", thing)), tuple(accept.split(" / "))))
    draw = random.Random("bare")
    for number in range(80):
        a, b = draw.randrange(2, 60), draw.randrange(2, 60)
        found.append(KnownQuestion(f"bare/sum/{number}", "sum", _ask(f"What is {a} + {b}?"), (str(a + b),)))
    for number in range(60):
        question = question_of(make_fact(FACT_KINDS[number % len(FACT_KINDS)], draw))
        found.append(KnownQuestion(f"bare/invented/{number}", "invented", _ask(question), ()))
    draw.shuffle(found)
    return [one for one in found if part_of(one.text, HELD_OUT) == which]


def taught(which: Part, count: int) -> Iterator[KnownQuestion]:
    """Yield questions with a memory of the answer; every fourth time it is the answer of another place, which a wrong memory gives."""
    for number in range(count):
        draw = random.Random(f"taught {which} {number}")
        fact, other = make_fact(FACT_KINDS[number % len(FACT_KINDS)], draw), make_fact(FACT_KINDS[number % len(FACT_KINDS)], draw)
        wrong = number % 4 == 3
        learnt = other if wrong else fact
        example = Example(f"ex-{number}", "", "", "correction", question_of(learnt), learnt.answer)
        case = "taught_other" if wrong else "taught"
        yield KnownQuestion(f"taught/{number}", case, _ask(question_of(fact)), () if wrong else (fact.answer,), example)


def question_of(fact: Fact) -> str:
    start, question = _ASKED[fact.kind]
    before, _, after = start.partition("{x}")
    return question.replace("{x}", fact.asked.removeprefix(before).removesuffix(after))


def _of_another_place(fact: Fact, draw: random.Random) -> str:
    while True:
        other = make_fact(fact.kind, draw)
        place, theirs = (_PLACE_AT_END.sub("", one.asked).split()[-1] for one in (fact, other))
        if place != theirs:
            return fact.said.replace(place, theirs)


def _inserted(text: str, sentence: str, draw: random.Random) -> str:
    """Return the text with a sentence after one of its sentences."""
    ends = [match.end() for match in re.finditer(r"(?<=[a-z)]{2}[.])\s+(?=[A-Z])", text)]
    at = draw.choice(ends) if ends else len(text)
    return " ".join(filter(None, (text[:at].strip(), sentence, text[at:].strip())))


def _beside(text: str, question: str, earlier: bool) -> Request:
    if not earlier:
        return _ask(f"{text}\n\n{question}")
    turns = (Message.of("user", text), Message.of("assistant", "Thank you. I have read it."), Message.of("user", question))
    return Request(turns, max_tokens=MAX_TOKENS)


def _ask(text: str) -> Request:
    return Request((Message.of("user", text),), max_tokens=MAX_TOKENS)


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
