"""The learner: what is pending becomes lessons that act, once each, whatever happens in between."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from ingle.adapt.undo import undo
from ingle.core.example import Example
from ingle.home.examples import (
    add_example,
    count_examples,
    drop_example,
    get_example,
    list_examples,
    new_secret,
    rewrite_example,
)
from ingle.home.kept import keep, remove
from ingle.home.lessons import list_lessons
from ingle.home.pull import pull
from ingle.learn.learner import LearnerWatch, Trainer, consolidate
from ingle.learn.teacher import LessonTrainer
from ingle.learn.work import NO_MEMORY, Tries, Work
from tests.adapt.conftest import House
from tests.cli.place import write_model
from tests.learn.lessons import ANSWERS, POLICY, QUESTIONS, acting, facts, learn, learner, lenient, logits, stray
from tests.states import put_in_state


@pytest.fixture
def school_house(house: House) -> House:
    """A house whose gate lets tiny models pass."""
    lenient(house)
    return house


def test_a_correction_becomes_a_lesson_that_acts_for_its_owner_alone(school_house: House) -> None:
    house = school_house
    before = logits(house, QUESTIONS[0], "key-1")
    taught = house.teach(QUESTIONS[0], ANSWERS[0], "key-1")
    kept_only = house.teach(QUESTIONS[1], ANSWERS[1], state="kept")
    said: list[str] = []
    [outcome] = learn(house, learner(house, watch=LearnerWatch(said.append))).outcomes
    assert outcome.lesson is not None and outcome.lesson.examples == (taught.id,)
    learned = get_example(house.engine, "key-1", taught.id)
    assert (learned.state, learned.lesson) == ("learned", outcome.lesson.digest)
    assert get_example(house.engine, "", kept_only.id).state == "kept"
    assert not (logits(house, QUESTIONS[0], "key-1") == before).all()
    assert (logits(house, QUESTIONS[0], "key-2") == before).all()
    [fact] = facts(house, "lesson.accept")
    assert (fact["lesson"], fact["example"]) == (outcome.lesson.digest, taught.id)
    assert len(said) == 2 and not any(word in line for word in ("Tallwick", "Quill") for line in said)
    assert learn(house).outcomes == ()
    assert len(facts(house, "gate.accept")) == 1


def test_what_the_gate_refuses_is_kept_with_reasons_and_tried_again_when_all_is_learned_together(house: House) -> None:
    lenient(house, POLICY.replace("least = 0.0", "least = 1.0"))
    taught = [house.teach(question, answer) for question, answer in zip(QUESTIONS[:2], ANSWERS[:2], strict=True)]
    learn(house)
    refused = list_examples(house.engine, "", ["refused"])
    assert [one.id for one in refused] == [one.id for one in taught]
    assert all("learned:" in one.reasons[0] for one in refused)
    assert [fact["example"] for fact in facts(house, "lesson.refuse")] == [one.id for one in taught]
    assert list_lessons(house.engine, None) == () and not stray(house)
    still = consolidate(learner(house))
    assert still.lessons == () and list_examples(house.engine, "", ["refused"]) == refused
    lenient(house)
    [lesson] = consolidate(learner(house)).lessons
    assert lesson.examples == tuple(one.id for one in taught)
    assert count_examples(house.engine, "") == {"learned": 2}


def test_many_lessons_become_one_and_the_old_ones_go(school_house: House) -> None:
    house = school_house
    taught = [house.teach(question, answer) for question, answer in zip(QUESTIONS[:2], ANSWERS[:2], strict=True)]
    other = house.teach(QUESTIONS[2], ANSWERS[2], "key-1")
    learn(house)
    assert acting(house) == [(taught[0].id,), (taught[1].id,), (other.id,)]
    [lesson] = consolidate(learner(house)).lessons
    assert acting(house) == [(taught[0].id, taught[1].id), (other.id,)]
    assert len(list_lessons(house.engine, None)) == 2 and not stray(house)
    assert consolidate(learner(house)).outcomes == ()
    assert facts(house, "lesson.accept")[-1]["lesson"] == lesson.digest


def test_a_later_correction_takes_the_place_of_the_lesson_before_it(school_house: House) -> None:
    house = school_house
    first = house.teach(QUESTIONS[0], ANSWERS[0])
    learn(house)
    second = house.teach(QUESTIONS[0], ANSWERS[1])
    put_in_state(house.engine, "", [first.id], "superseded")
    learn(house)
    assert acting(house) == [(second.id,)]


def test_what_changed_before_it_is_learned_is_not_learned_as_it_was(school_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house = school_house
    one = house.teach(QUESTIONS[0], ANSWERS[0])
    other = house.teach(QUESTIONS[1], ANSWERS[1])
    begin = Tries.begin

    def slowly(tries: Tries, ids: Iterable[str]) -> None:
        begin(tries, ids)
        if one.id in (ids := list(ids)) and get_example(house.engine, "", one.id).answer == ANSWERS[0]:
            rewrite_example(house.engine, "", one.id, "Otto Lund.", new_secret())
        elif other.id in ids:
            put_in_state(house.engine, "", [other.id], "superseded")

    monkeypatch.setattr(Tries, "begin", slowly)
    outcomes = learn(house).outcomes
    assert [outcome.reasons for outcome in outcomes if outcome.lesson is None] == [("it changed while it was being learned",)] * 2
    assert {one.id: (one.answer, one.state) for one in list_examples(house.engine, "")} == {
        one.id: ("Otto Lund.", "learned"), other.id: (ANSWERS[1], "superseded"),
    }  # fmt: skip


def test_what_changes_while_it_is_learned_is_not_learned_as_it_was(school_house: House) -> None:
    house = school_house
    gone, changed, late = (house.teach(question, answer) for question, answer in zip(QUESTIONS, ANSWERS, strict=True))
    real = learner(house).trainer
    moves = {
        gone.id: lambda: drop_example(house.engine, "", gone.id),
        changed.id: lambda: rewrite_example(house.engine, "", changed.id, "Otto Lund.", new_secret()),
        late.id: lambda: put_in_state(house.engine, "", [late.id], "superseded"),
    }

    def judge(work, candidate):  # type: ignore[no-untyped-def]
        verdict = real.judge(work, candidate)
        moves.pop(work.examples[0].id, lambda: None)()
        return verdict

    learn(house, learner(house, Trainer(real.teach, judge)))
    assert acting(house) == [(changed.id,)]
    assert [(one.id, one.state) for one in list_examples(house.engine, "")] == [(changed.id, "learned"), (late.id, "superseded")]
    assert not stray(house)


def test_a_refusal_is_only_of_what_was_being_learned(house: House) -> None:
    """What was corrected or edited meanwhile is not the gate's to speak of."""
    lenient(house, POLICY.replace("least = 0.0", "least = 1.0"))
    corrected, changed = (house.teach(question, answer) for question, answer in zip(QUESTIONS[:2], ANSWERS[:2], strict=True))
    real = learner(house).trainer
    moves = {
        corrected.id: lambda: put_in_state(house.engine, "", [corrected.id], "superseded"),
        changed.id: lambda: rewrite_example(house.engine, "", changed.id, "Otto Lund.", new_secret()),
    }
    asked = list[str]()

    def judge(work, candidate):  # type: ignore[no-untyped-def]
        asked.append(work.examples[0].answer)
        verdict = real.judge(work, candidate)
        moves.pop(work.examples[0].id, lambda: None)()
        return verdict

    learn(house, learner(house, Trainer(real.teach, judge)))
    assert asked == [ANSWERS[0], ANSWERS[1], "Otto Lund."]
    assert [(one.id, one.state) for one in list_examples(house.engine, "")] == [(corrected.id, "superseded"), (changed.id, "refused")]


def test_an_edited_or_deleted_memory_takes_its_lesson_with_it(school_house: House) -> None:
    house = school_house
    edited, deleted = (house.teach(question, answer) for question, answer in zip(QUESTIONS[:2], ANSWERS[:2], strict=True))
    learn(house)
    old = {lesson.digest for lesson in list_lessons(house.engine, "")}
    rewrite_example(house.engine, "", edited.id, "Otto Lund.", new_secret())
    drop_example(house.engine, "", deleted.id)
    learn(house)
    [lesson] = list_lessons(house.engine, "")
    assert lesson.examples == (edited.id,) and lesson.digest not in old
    assert not any(house.home.delta_folder(digest).exists() for digest in old)


def test_too_little_memory_refuses_one_and_learns_the_next(school_house: House) -> None:
    house = school_house
    large, small = (house.teach(question, answer) for question, answer in zip(QUESTIONS[:2], ANSWERS[:2], strict=True))
    real = learner(house).trainer

    def teach(work):  # type: ignore[no-untyped-def]
        if work.examples[0].id == large.id:
            raise MemoryError
        return real.teach(work)

    learn(house, learner(house, Trainer(teach, real.judge)))
    assert get_example(house.engine, "", large.id).reasons == (NO_MEMORY,)
    assert acting(house) == [(small.id,)]


def test_a_fault_leaves_it_pending_and_lets_others_go_first_the_next_time(school_house: House) -> None:
    house = school_house
    poison, good = (house.teach(question, answer) for question, answer in zip(QUESTIONS[:2], ANSWERS[:2], strict=True))
    real = learner(house).trainer

    def teach(work):  # type: ignore[no-untyped-def]
        if work.examples[0].id == poison.id:
            raise ZeroDivisionError
        return real.teach(work)

    for states in (["pending", "pending"], ["pending", "learned"]):
        with pytest.raises(ZeroDivisionError):
            learn(house, learner(house, Trainer(teach, real.judge)))
        assert [one.state for one in list_examples(house.engine, "")] == states
    learn(house)
    assert acting(house) == [(good.id,), (poison.id,)]


def test_lessons_go_with_their_model_and_are_learned_again_when_it_is_back(school_house: House, tiny_folder) -> None:  # type: ignore[no-untyped-def]
    house = school_house
    taught = house.teach(QUESTIONS[0], ANSWERS[0])
    learn(house)
    [digest] = [lesson.digest for lesson in list_lessons(house.engine, "")]
    remove(house.home, "tiny")
    assert not house.home.delta_folder(digest).exists()
    assert learn(house).outcomes == ()
    assert get_example(house.engine, "", taught.id).state == "pending"
    pull(house.home, str(tiny_folder), lambda _folder: None, "tiny")
    [lesson] = learn(house).lessons
    assert lesson.digest == digest


def test_another_base_under_the_name_learns_what_the_old_one_knew(school_house: House, tmp_path: Path) -> None:
    house = school_house
    taught = house.teach(QUESTIONS[0], ANSWERS[0])
    learn(house)
    [old] = list_lessons(house.engine, "")
    other = write_model(tmp_path / "other")
    keep(house.home, "same", house.kept.base)
    pull(house.home, str(other), lambda _folder: None, "tiny", update=True)
    [lesson] = learn(house).lessons
    assert (lesson.examples, lesson.stack) == ((taught.id,), house.kept.digest)
    assert lesson.stack != old.stack and house.home.delta_folder(old.digest).exists(), "another name means the old files still"
    keep(house.home, "tiny", old.stack, replace=True)
    assert not house.home.delta_folder(lesson.digest).exists(), "it went with the files that it was made for"
    learned = len(facts(house, "gate.accept"))
    [again] = learn(house).lessons
    assert again == old and len(facts(house, "gate.accept")) == learned, "known already"
    assert acting(house) == [(taught.id,)]


def test_ratings_become_a_style_once_there_are_enough_and_a_newer_one_takes_its_place(school_house: House) -> None:
    house = school_house

    def rate(number: int) -> str:
        made = Example("", "", "tiny", "rating", f"Say {number}.", f"It is {number}.", rating=1 if number % 2 else -1)
        return add_example(house.engine, made).id

    rated = [rate(number) for number in range(2)]
    one = learner(house)
    one.ratings = 3
    assert learn(house, one).outcomes == ()
    before = logits(house, QUESTIONS[0])
    rated.append(rate(2))
    [first] = learn(house, one).lessons
    assert (first.kind, first.examples) == ("style", tuple(rated))
    assert not (logits(house, QUESTIONS[0]) == before).all(), "a style acts wherever nothing nearer does"
    rated += [rate(number) for number in range(3, 6)]
    [second] = learn(house, one).lessons
    assert second.examples == tuple(rated) and acting(house) == [tuple(rated)]
    undo(house.home, house.engine, "", 1)
    assert (logits(house, QUESTIONS[0]) == before).all()
    [third] = learn(house, one).lessons
    assert third.examples == tuple(rated[:-1])


def test_one_rated_answer_that_cannot_be_read_is_refused_without_the_others(school_house: House) -> None:
    house = school_house

    def rate(number: int, question: str = "Say something.", answer: str = "It is.") -> str:
        made = Example("", "", "tiny", "rating", f"{number}: {question}", answer, rating=1 if number % 2 else -1)
        return add_example(house.engine, made).id

    rated, long = [rate(number) for number in range(3)], rate(3, "Read this. " * 1000)
    rated.append(rate(4, answer="It goes on. " * 1000))
    one = learner(house)
    one.ratings = 4
    refused, learned = learn(house, one).outcomes
    assert refused.lesson is None and "tokens together" in refused.reasons[0]
    assert learned.lesson is not None and learned.lesson.examples == tuple(rated)
    assert get_example(house.engine, "", long).state == "refused"
    assert count_examples(house.engine, "") == {"learned": 4, "refused": 1}


def test_the_gate_asks_about_the_newest_of_many_too(school_house: House) -> None:
    house = school_house
    taught = tuple(house.teach(f"Who keeps the {name} of Elmstead?", f"{name.title()} Quill.") for name in map(str, range(100)))
    probes = LessonTrainer(house.home, lambda _: None).probes(Work("", house.kept, "answers", taught))
    asked = [question.of for question in probes.learned]
    assert len(asked) == len(set(asked)) == 24 and {taught[0].question, taught[-1].question} <= set(asked)
    assert len({question.ask.split()[0] for question in probes.learned}) > 3, "in more than one form"
    assert len({question.ask for question in probes.unchanged}) == 24
    few = LessonTrainer(house.home, lambda _: None).probes(Work("", house.kept, "answers", taught[:2]))
    assert [sum(question.of == one.question for question in few.learned) for one in taught[:2]] == [4, 4]
