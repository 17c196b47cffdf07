"""Questions with known answers: what a model is asked to find out how often it is right.

Facts that nobody can guess are planted in paragraphs of an encyclopedia, left out of them, or said about another place (*twins*). People's
yes-or-no questions stand on the same paragraphs. General knowledge is asked for with nothing beside it. Taught answers are asked for with
the right memory, or with one of another place.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingle.core.example import Example
from ingle.core.message import Message, Request
from ingle.measure.data_sets import Part, Question, part, part_of
from ingle.measure.suites import KINDS, Fact, make_fact

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
    """A question with a known answer."""

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
        """Return whether an answer is right."""
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
    """Yield planted facts in paragraphs, in the cases' turns."""
    for number in range(count):
        draw = random.Random(f"planted {which} {number}")
        case = CASES[number % len(CASES)]
        fact = make_fact(KINDS[number % len(KINDS)], draw)
        said = fact.said if case in ("there", "earlier") else _of_another_place(fact, draw) if case == "twin" else ""
        text = texts[draw.randrange(len(texts))].ask.rpartition("\nQuestion:")[0]
        request = _beside(_inserted(text, said, draw), question_of(fact), case == "earlier")
        yield KnownQuestion(f"planted/{number}", case, request, (fact.answer,) if case in ("there", "earlier") else ())


def yes_no(texts: Sequence[Question]) -> Iterator[KnownQuestion]:
    """Yield yes-or-no questions on their paragraphs."""
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
        question = question_of(make_fact(KINDS[number % len(KINDS)], draw))
        found.append(KnownQuestion(f"bare/invented/{number}", "invented", _ask(question), ()))
    draw.shuffle(found)
    return [one for one in found if part_of(one.text, HELD_OUT) == which]


def taught(which: Part, count: int) -> Iterator[KnownQuestion]:
    """Yield questions with a memory of the answer; every fourth time it is the answer of another place, which a wrong memory gives."""
    for number in range(count):
        draw = random.Random(f"taught {which} {number}")
        fact, other = make_fact(KINDS[number % len(KINDS)], draw), make_fact(KINDS[number % len(KINDS)], draw)
        wrong = number % 4 == 3
        learnt = other if wrong else fact
        example = Example(f"ex-{number}", "", "", "correction", question_of(learnt), learnt.answer)
        case = "taught_other" if wrong else "taught"
        yield KnownQuestion(f"taught/{number}", case, _ask(question_of(fact)), () if wrong else (fact.answer,), example)


def question_of(fact: Fact) -> str:
    """Return a planted fact as a question."""
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
