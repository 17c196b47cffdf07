"""Questions with known answers: parts that share nothing, facts that are where they should be, and what counts as right."""

from collections import Counter

import pytest

from ingle.explain.calibrate import CASES, KnownQuestion, bare, known_questions, planted, question_of, taught
from ingle.explain.prompt_sentences import sentences_of, twin
from ingle.measure.data_sets import Part, Question
from ingle.measure.suites import Fact

PASSAGES = [
    Question(
        f"boolq/{i}",
        f"Title {i}",
        f"River {i} is long. It ends in a lake. Nobody swims there.\nQuestion: is river {i} long?",
        ("no", "yes"),
        1,
    )
    for i in range(60)
]
PARTS: tuple[Part, ...] = ("train", "held_out")


def test_the_parts_share_no_question_and_no_text() -> None:
    train, held_out = (known_questions(PASSAGES, which, 40) for which in PARTS)
    asked = [{(one.text, one.taught.answer if one.taught else "") for one in questions} for questions in (train, held_out)]
    assert not asked[0] & asked[1]
    rivers = [
        {word for one in questions for word in one.text.split() if word.isdigit() and len(word) < 3} for questions in (train, held_out)
    ]
    general = [{one.text for one in questions if one.case == "general"} for questions in (train, held_out)]
    assert all(len(one) > 60 for one in general) and rivers[0] != rivers[1]


def test_questions_are_the_same_every_time_and_mixed() -> None:
    questions = known_questions(PASSAGES, "train", 40)
    assert questions == known_questions(PASSAGES, "train", 40)
    assert len({one.id for one in questions}) == len(questions)
    first = Counter(one.case for one in questions[: len(questions) // 2])
    assert set(first) == {"there", "twin", "absent", "earlier", "yes_no", "general", "sum", "invented", "taught", "taught_other"}


def test_planted_facts_are_where_their_case_says() -> None:
    for one in planted(PASSAGES, "train", 3 * len(CASES)):
        asked = " ".join(sentence.text for sentence in sentences_of(one.request) if sentence.asks)
        beside = [sentence.text.strip() for sentence in sentences_of(one.request) if not sentence.asks]
        holding = [sentence for sentence in beside if any(answer in sentence for answer in one.accept)]
        assert asked.endswith("?") and one.request.max_tokens
        assert len(holding) == (one.case in ("there", "earlier"))
        assert (len(one.request.messages) == 3) == (one.case == "earlier")
        if one.case == "twin":
            secrets = [sentence for sentence in beside if sentence.startswith("The ")]
            assert any(twin(asked, sentence, "") for sentence in secrets), secrets
        for sentence in holding:
            assert twin(asked, sentence, sentence) is None


def test_general_questions_don_t_give_their_answer_away() -> None:
    questions = [one for which in PARTS for one in bare(which)]
    assert len(questions) > 250
    for one in questions:
        assert one.text.endswith("?") and not any("?" in sentence.text for sentence in sentences_of(one.request) if not sentence.asks)
        assert not one.accept or not one.is_right(one.text) or one.id.endswith("Mexico"), one.text


def test_taught_answers_are_right_or_of_another_place() -> None:
    for one in taught("train", 12):
        assert one.taught is not None
        assert (one.taught.question == one.text) == (one.case == "taught")
        assert one.accept == ((one.taught.answer,) if one.case == "taught" else ())


def test_facts_as_questions() -> None:
    assert question_of(Fact("number", "", "The secret number of Carrow is", "1")) == "What is the secret number of Carrow?"
    assert question_of(Fact("name", "", "The keeper of the mill in Carrow is called", "")) == "Who is the keeper of the mill in Carrow?"


@pytest.mark.parametrize(
    ("case", "accept", "answer", "right"),
    [
        ("there", ("48213",), "It is 48213.", True),
        ("there", ("48213",), "It is 482134.", False),
        ("general", ("small", "little"), "It's LITTLE", True),
        ("general", ("H",), "The symbol is H.", True),
        ("general", ("H",), "h is for horse", False),
        ("yes_no", ("no",), "No, it is not.", True),
        ("yes_no", ("no",), "Yes. Nobody says no.", False),
        ("yes_no", ("no",), "", False),
        ("absent", (), "The text does not say who keeps it.", True),
        ("absent", (), "It is not mentioned.", True),
        ("twin", (), "Rosa Foster", False),
    ],
)
def test_right_answers(case: str, accept: tuple[str, ...], answer: str, right: bool) -> None:
    [request] = [one.request for one in taught("train", 1)]
    assert KnownQuestion("x", case, request, accept).is_right(answer) is right
