"""A lesson says what it takes; where memory won't do it is refused with the reason, and acts from memory; learning goes on."""

import json
import sys
from dataclasses import replace

import pytest

from ingle.adapt.choosing import Chooser
from ingle.core.headroom import NoRoom
from ingle.core.message import Message, Request
from ingle.engine.packs import served_size
from ingle.home.examples import get_example
from ingle.learn.learner import LearnerWatch, consolidate
from ingle.learn.learning_settings import LessonSettings, StyleSettings
from ingle.learn.lesson_need import CURE, awaited_room, lesson_need, lesson_room
from ingle.learn.teacher import trainer_of
from tests.adapt.conftest import House
from tests.learn.lessons import ANSWERS, QUESTIONS, SMALL, acting, learn, learner, lenient
from tests.short_of_memory import run_short

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems don't keep to a limit")
STYLE = StyleSettings()


def remembers(house: House, question: str) -> bool:
    """Whether an answer to this question is given what was taught."""
    choice = Chooser(house.home, house.engine).choose("", house.model, house.kept, Request((Message.of("user", question),), max_tokens=1))
    return any("Mara Quill" in message.text for message in choice.request.messages)


def test_longer_texts_more_examples_and_float32_take_more(house: House) -> None:
    one = house.teach(QUESTIONS[0], ANSWERS[0])
    need = lesson_need(house.home, house.kept, [one], SMALL, STYLE)
    assert need.memory > served_size(house.home, house.kept).weights and need.seconds > 0
    long = replace(one, answer="Mara Quill. " * 200)
    assert lesson_need(house.home, house.kept, [long], SMALL, STYLE).memory > need.memory
    many = [replace(one, id=str(number)) for number in range(20)]
    assert lesson_need(house.home, house.kept, many, LessonSettings(), STYLE).seconds > need.seconds
    narrow = lesson_need(house.home, house.kept, [one], replace(SMALL, precision="bf16"), STYLE)
    assert narrow.parts["its upper layers"] * 2 == need.parts["its upper layers"]
    rated = replace(one, kind="rating", rating=1)
    assert lesson_need(house.home, house.kept, [rated], SMALL, STYLE).seconds > 0


def test_what_is_not_there_is_refused_and_names_what_most_of_it_is_for(house: House) -> None:
    one = house.teach(QUESTIONS[0], ANSWERS[0])
    with pytest.raises(
        NoRoom, match=r"Learning this needs about \d+ MB of memory, \d+ MB of it for the program itself, and 100 MB are free"
    ):
        lesson_room(house.home, house.kept, [one], SMALL, STYLE, free=100_000_000).check(CURE)


def test_the_example_in_hand_comes_first_and_a_missing_model_waits(house: House) -> None:
    first, second = (house.teach(question, answer) for question, answer in zip(QUESTIONS[:2], ANSWERS[:2], strict=True))
    assert awaited_room(house.home, [], SMALL, STYLE, 0) is None
    assert awaited_room(house.home, [replace(first, state="learned"), replace(second, learn=False)], SMALL, STYLE, 0) is None
    assert awaited_room(house.home, [replace(first, model="gone")], SMALL, STYLE, 0) is None
    long = replace(second, answer="A long answer. " * 300, state="learning")
    begun = awaited_room(house.home, [first, long], SMALL, STYLE, 0)
    assert begun is not None and begun.need.memory == lesson_need(house.home, house.kept, [long], SMALL, STYLE).memory


def test_a_correction_that_memory_will_not_do_for_acts_all_the_same_and_the_learner_goes_on(house: House) -> None:
    lenient(house)
    taught, said = house.teach(QUESTIONS[0], ANSWERS[0]), list[str]()
    short = learner(house, trainer_of(house.home, house.engine, SMALL, memory_mb=100), LearnerWatch(said.append))
    [outcome] = learn(house, short).outcomes
    assert outcome.lesson is None and outcome.room is not None and not outcome.room.fits
    refused = get_example(house.engine, "", taught.id)
    assert refused.state == "refused" and "learn.memory_mb allows 105 MB. Raise learn.memory_mb" in refused.reasons[0]
    assert [line for line in said if "refused" in line] == said  # nothing is announced that doesn't begin
    assert remembers(house, QUESTIONS[0])
    assert learn(house, short).outcomes == ()  # it isn't tried over and over
    house.teach(QUESTIONS[1], ANSWERS[1])
    [next_one] = learn(house).outcomes
    assert next_one.lesson is not None
    with house.home.lock("learner", timeout_s=0):
        consolidate(learner(house))
    assert get_example(house.engine, "", taught.id).state == "learned" and len(acting(house)) == 1


@linux
def test_a_process_that_may_take_little_refuses_and_ends_well(house: House) -> None:
    taught = house.teach(QUESTIONS[0], ANSWERS[0])
    modules = (
        "ingle.cli.learn",
        "ingle.learn.worker",
        "ingle.learn.teacher",
        "ingle.app.house",
        "ingle.app.settings",
        "sqlalchemy.dialects.sqlite",
        "cryptography.hazmat.primitives.asymmetric.ed25519",
    )
    done = run_short(house.home.root, 30, modules, "learn", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    [outcome] = json.loads(done.stdout)
    assert outcome["lesson"] is None and not outcome["predicted"]["fits"], outcome
    assert outcome["predicted"]["memory_bytes"] > outcome["predicted"]["free_bytes"] > 0
    refused = get_example(house.engine, "", taught.id)
    assert refused.state == "refused" and CURE in refused.reasons[0] and "are free" in refused.reasons[0]


@linux
def test_a_conversion_that_memory_will_not_do_for_is_refused_before_the_weights_are_loaded(house: House) -> None:
    modules = ("ingle.app.operations.making", "ingle.hybridize.hybridizing", "ingle.app.house", "ingle.gate.decide")
    options = ("--window", "8", "--retrieval", "1", "--training-free")
    done = run_short(house.home.root, 200, modules, "hybridize", "tiny", *options)
    assert done.returncode == 16, done.stderr[-2000:]
    assert "This conversion needs about" in done.stderr and "are free. Lower search.tokens" in done.stderr


@linux
@pytest.mark.parametrize(("verb", "act"), [("harden", "This hardening"), ("debias", "This debiasing")])
def test_an_addition_that_memory_will_not_do_for_is_refused_before_anything_is_fetched(house: House, verb: str, act: str) -> None:
    modules = ("ingle.app.operations.making", f"ingle.learn.{verb}", "ingle.app.house", "ingle.gate.decide")
    done = run_short(house.home.root, 200, modules, verb, "tiny")
    assert done.returncode == 16, done.stderr[-2000:]
    assert f"{act} needs about" in done.stderr and "are free. Lower batch_tokens" in done.stderr
