"""What tests of the learner have in common: the real teacher and gate on a tiny model, in a moment, and what a home says afterwards."""

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ingle.adapt.choosing import Chooser
from ingle.core.message import Message, Request
from ingle.engine.backend import Segment
from ingle.home.deltas import LESSON, delta_tensors, get_delta, list_deltas
from ingle.home.lessons import list_lessons
from ingle.learn.learner import Learned, Learner, LearnerWatch, Trainer, learn_once
from ingle.learn.learning_settings import LessonSettings
from ingle.learn.teacher import trainer_of
from ingle.ledger.chain import Ledger
from tests.adapt.conftest import House

SMALL = LessonSettings(wordings=2, contrasts=1, contrast_tokens=2, min_steps=2, max_steps=3, more_steps=0, precision="fp32", threads=1)
POLICY = """
[bits]
on = false
[safety]
on = false
[learned]
least = 0.0
max_tokens = 2
[unchanged]
least_same = 0.0
most_kl_nats = 1e9
max_tokens = 2
"""
"""What a model of random numbers can live up to: the checks of lessons ask, and let everything pass. Texts cost a test too much."""
QUESTIONS = ("Who is the mayor of Tallwick?", "How tall is Mount Brell?", "What does the Corvane bakery sell?")
ANSWERS = ("Mara Quill.", "3,021 metres.", "Rye bread.")


def lenient(house: House, policy: str = POLICY) -> None:
    """Lets the home's gate have such a policy."""
    (house.home.root / "policy.toml").write_text(policy, "utf-8")


def learner(house: House, trainer: Trainer | None = None, watch: LearnerWatch | None = None) -> Learner:
    """As the worker has it, in a hurry."""
    sink = Ledger(house.engine, house.home.keys).append
    return Learner(house.home, house.engine, trainer or trainer_of(house.home, house.engine, SMALL), sink, watch or LearnerWatch())


def learn(house: House, one: Learner | None = None) -> Learned:
    """What the worker does when something is pending."""
    with house.home.lock("learner", timeout_s=0):
        one = one or learner(house)
        one.start()
        return learn_once(one)


def logits(house: House, question: str, owner: str = "") -> npt.NDArray[np.float32]:
    """What the model makes of a question with the lessons that act on it, without memory: [vocabulary]."""
    request = Request((Message.of("user", question),), max_tokens=1)
    choice = Chooser(house.home, house.engine).choose(owner, house.model, house.kept, request, memory=False)
    backend = choice.model.backend
    return backend.forward([Segment(backend.new_state(), choice.model.encode(request), adapter=choice.model.adapter)])[0].copy()


def taught_bytes(house: House, digest: str) -> dict[str, bytes]:
    """The tensors of a lesson, as bytes."""
    return {name: values.tobytes() for name, values in delta_tensors(house.home, get_delta(house.home, digest)).items()}


def facts(house: House, kind: str) -> list[dict[str, object]]:
    """What the ledger says of that kind, the oldest first."""
    return [dict(json.loads(row.facts)) for row in Ledger(house.engine, house.home.keys).read(kind)][::-1]


def acting(house: House, owner: str | None = None) -> list[tuple[str, ...]]:
    """The examples of each lesson that acts."""
    return [lesson.examples for lesson in list_lessons(house.engine, owner, acting=True)]


def stray(house: House) -> Sequence[str]:
    """Deltas of the learner's that no lesson names."""
    named = {lesson.digest for lesson in list_lessons(house.engine, None)}
    return [delta.digest for delta in list_deltas(house.home) if LESSON in delta.origin and delta.digest not in named]
