"""Which correction of a lesson taught an answer: what is learned without it is what forgetting it leaves."""

import pytest

from ingle.adapt.forget import forget
from ingle.core.candidate import Candidate
from ingle.core.errors import ConfigError, NotKept
from ingle.core.message import Message, Request
from ingle.home.lessons import list_lessons
from ingle.learn.learner import consolidate
from ingle.learn.lesson import LessonTeacher
from ingle.learn.teacher import proved_lesson
from tests.adapt.conftest import House
from tests.learn.lessons import ANSWERS, QUESTIONS, SMALL, learn, learner, lenient, taught_bytes


def test_learning_without_an_example_is_forgetting_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    lenient(house)
    taught = [house.teach(question, answer) for question, answer in zip(QUESTIONS, ANSWERS, strict=True)]
    learn(house)
    [lesson] = consolidate(learner(house)).lessons
    prompt = house.model.encode(Request((Message.of("user", QUESTIONS[1]),)))
    answer = house.model.tokenizer.encode(ANSWERS[1])
    made = dict[tuple[str, ...], Candidate]()
    whole = LessonTeacher.lesson

    def told(self: LessonTeacher, examples: tuple) -> Candidate:  # type: ignore[type-arg]
        candidate = made[tuple(one.id for one in examples)] = whole(self, examples)
        return candidate

    monkeypatch.setattr(LessonTeacher, "lesson", told)
    proof = proved_lesson(house.home, house.engine, "", house.kept, lesson.digest, prompt, answer, SMALL)
    assert {cause.id for cause in proof.causes} == {one.id for one in taught}
    assert proof.causes[0].id == taught[1].id, "the correction of this very question"
    assert proof.causes[0].answer == ANSWERS[1]
    assert proof.causes[0].rise > 0
    assert proof.before > proof.whole
    monkeypatch.undo()
    forget(house.home, house.engine, "", taught[1].id)
    learn(house)
    [left] = list_lessons(house.engine, "", acting=True)
    assert left.examples == (taught[0].id, taught[2].id)
    without = made[left.examples]
    assert {name: values.tobytes() for name, values in without.tensors.items()} == taught_bytes(house, left.digest)
    with pytest.raises(NotKept, match="is not kept here"):
        proved_lesson(house.home, house.engine, "", house.kept, lesson.digest, prompt, answer, SMALL)


def test_a_lesson_of_one_example_is_that_example(house: House) -> None:
    lenient(house)
    taught = house.teach(QUESTIONS[0], ANSWERS[0], "key-1")
    learn(house)
    [lesson] = list_lessons(house.engine, "key-1")
    prompt = house.model.encode(Request((Message.of("user", QUESTIONS[0]),)))
    answer = house.model.tokenizer.encode(ANSWERS[0])
    proof = proved_lesson(house.home, house.engine, "key-1", house.kept, lesson.digest, prompt, answer, SMALL)
    [cause] = proof.causes
    assert cause.id == taught.id
    assert cause.rise == proof.before - proof.whole > 0
    with pytest.raises(ConfigError, match="answer must have"):
        proved_lesson(house.home, house.engine, "key-1", house.kept, lesson.digest, prompt, [], SMALL)
    with pytest.raises(NotKept):
        proved_lesson(house.home, house.engine, "key-2", house.kept, lesson.digest, prompt, answer, SMALL)
