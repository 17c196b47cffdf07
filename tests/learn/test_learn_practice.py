"""The model's own answers: those within what was liked are kept, the same ones each time, and a style learns from them."""

from dataclasses import replace

import pytest

from ingle.core.example import Example
from ingle.gate.trial import general_questions
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.learn.learning_settings import StyleSettings
from ingle.learn.practice import Own, Practice, common_bounds, slip, within
from ingle.learn.style import StyleTeacher
from ingle.learn.trainable_model import TrainableModel
from ingle.tuning.data import EVERYDAY
from tests.learn.test_lesson import SETTINGS, home  # noqa: F401 - a fixture

SETTING = StyleSettings(own_answers=2, own_tokens=6, rounds=1, own_epochs=1)
LIKED, OTHER = "I am so. They are. " * 3, "I'm so so. They are. " * 3
BOUNDS = common_bounds([LIKED], [OTHER])
RATED = [
    Example(
        f"ex-{n}", "ann", "tiny", "rating", f"Question number {n}?", LIKED if n % 2 else f"So be it. {OTHER}", rating=1 if n % 2 else -1
    )
    for n in range(4)
]


@pytest.fixture(scope="module")
def model(home: Home) -> TrainableModel:  # noqa: F811
    return StyleTeacher(home, get_kept(home, "tiny"), SETTINGS, SETTING).model


def test_what_is_within_is_kept_whole_and_of_others_the_beginning() -> None:
    assert within("It is. Or not.", True, BOUNDS) == Own((), "", "It is. Or not.", True)
    assert within("It is. Or n", False, BOUNDS) == Own((), "", "It is. Or n", False)
    assert within("So. I'm so.", True, BOUNDS) == Own((), "", "So.", False, False)
    assert within("I'm so.", True, BOUNDS) is None
    assert within(" ", True, BOUNDS) is None


def test_what_is_liked_must_be_there_but_length_only_once_an_answer_has_ended() -> None:
    bounds = common_bounds(["Well:\n- One."], ["Well:\nOne one."])
    assert within("One. Two.", True, bounds) is None
    assert within("One. Two.", False, bounds) is None
    assert within("This:\n- One.", False, bounds) == Own((), "", "This:\n- One.", False)
    long = common_bounds(["One and two. " * 9], ["One and two. " * 5])
    assert within("One and two.", True, long) is None
    assert within("One and two.", False, long) == Own((), "", "One and two.", False)


def test_a_round_holds_one_answer_to_each_question_and_is_the_same_each_time(model: TrainableModel) -> None:
    practice = Practice(model, SETTING, RATED, BOUNDS)
    found, slips = practice.round(0)
    again = practice.round(0)
    assert found == again[0]
    assert [slip.ids.tolist() for slip in slips] == [slip.ids.tolist() for slip in again[1]]
    asked = [own.question for own in found]
    assert len(set(asked)) == len(asked)
    assert set(asked) <= {*EVERYDAY, *(one.question for one in RATED)}
    assert len(asked) > len(EVERYDAY) // 3  # others go around in circles
    assert all(bound.holds(own.text) for own in found for bound in BOUNDS)


def test_a_disliked_answer_lends_its_beginning_where_nothing_else_is_within(model: TrainableModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.learn.practice.write_all", lambda _module, prompts, *_rest: [[] for _ in prompts])
    found, _ = Practice(model, SETTING, RATED, BOUNDS).round(0)
    assert [(own.question, own.text, own.ends) for own in found] == [(one.question, "So be it.", False) for one in RATED[::2]]


@pytest.mark.parametrize(
    ("liked", "other", "pieces", "blamed"),
    [
        ("It is. It is.", "It is. It's so.", ["So", ".", " It", "'s"], range(2, 4)),
        ("It is. It is.", "It is. It is!", ["Oh", "!"], range(2)),
        ("One. Two.", "One.\n\nTwo.", ["One", ".", "\n\n", "Two"], range(2, 3)),
        ("One.\nTwo.", "One.\n- Two.", ["One", ":", "\n", "-", " Two"], range(2, 4)),
        ("One two.", "One two. " * 20, [" one"] * 16, None),
        ("One. Two.", "One.\n\nTwo.", ["One", ".", " Two"], None),
    ],
)
def test_a_slip_is_where_a_line_or_the_word_began_that_was_too_much(
    liked: str, other: str, pieces: list[str], blamed: range | None
) -> None:  # fmt: skip
    assert slip(pieces, common_bounds([liked], [other])) == blamed


def test_what_is_marked_as_a_slip_is_what_broke_the_bounds(model: TrainableModel, monkeypatch: pytest.MonkeyPatch) -> None:
    written = model.tokenizer.encode("So. I'm")
    monkeypatch.setattr("ingle.learn.practice.write_all", lambda _module, prompts, *_rest: [list(written) for _ in prompts])
    _, slips = Practice(model, SETTING, RATED, BOUNDS).round(0)
    assert len(slips) == len(RATED) + len(EVERYDAY)
    assert {model.tokenizer.decode(one.ids[one.answer].tolist()).strip() for one in slips} == {"I'm"}


def test_an_answer_that_goes_around_in_circles_is_not_learned_from(model: TrainableModel, monkeypatch: pytest.MonkeyPatch) -> None:
    written = model.tokenizer.encode("They are so. " * 9)
    monkeypatch.setattr("ingle.learn.practice.write_all", lambda _module, prompts, *_rest: [list(written) for _ in prompts])
    found, slips = Practice(model, SETTING, [one for one in RATED if one.rating > 0], BOUNDS).round(0)
    assert (found, slips) == ([], [])


def test_where_length_is_bounded_only_an_answer_that_ended_is_whole_and_an_empty_one_is_a_slip(model: TrainableModel) -> None:
    short = common_bounds(["One and two."], ["One and two. " * 9])
    assert within("One and two.", True, short) == Own((), "", "One and two.", True)
    assert within("One and", False, short) is None
    written = [Own((), "What?", "One and two.", True), Own((), "Who?", "One", False)]
    [blank] = Practice(model, SETTING, RATED, short).blanks(written)
    assert blank.ids.tolist()[:-1] == model.prompt((), "What?")
    assert blank.ids[blank.answer].tolist() == [int(blank.ids[-1])]
    assert int(blank.ids[-1]) in model.tokenizer.eos_ids
    assert Practice(model, SETTING, RATED, BOUNDS).blanks(written) == []


def test_only_an_answer_that_ends_is_learned_with_its_end(model: TrainableModel) -> None:
    ended, open_ = (Own((), "What?", "So it is.", ends).document(model, SETTING) for ends in (True, False))
    assert ended is not None
    assert open_ is not None
    assert ended.ids.tolist()[: len(open_.ids)] == open_.ids.tolist()
    assert int(open_.ids[-1]) not in model.tokenizer.eos_ids
    assert any(int(token) in model.tokenizer.eos_ids for token in ended.ids[len(open_.ids) :])
    assert Own((), "What?", "", True).document(model, SETTING) is None


def test_without_rounds_a_style_learns_from_the_rated_ones_alone(home: Home) -> None:  # noqa: F811
    kept = get_kept(home, "tiny")
    reports = [StyleTeacher(home, kept, SETTINGS, replace(SETTING, rounds=rounds)).style(RATED).report for rounds in (0, 1)]
    assert [(report["own"] > 0, report["bounds"]) for report in reports if report is not None] == [(False, 1), (True, 1)]


def test_what_is_practised_on_is_not_what_the_gate_asks() -> None:
    assert len(set(EVERYDAY)) == len(EVERYDAY)
    assert not {one.ask for one in general_questions()} & set(EVERYDAY)
