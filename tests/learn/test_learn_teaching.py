"""A lesson is learned by a tiny model: it answers as taught, in every wording; the same lesson is the same bytes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from ingle.core.candidate import Candidate
from ingle.core.errors import ConfigError
from ingle.core.example import Example
from ingle.core.message import Message, Request, Sampling
from ingle.engine.delta_kinds import Change, additions_of
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.source import kept_source
from ingle.engine.writing import write
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.learn.lesson_settings import LessonSettings
from ingle.learn.teaching import Teacher
from ingle.learn.wordings import wordings
from ingle.learn.work import LessonError
from tests.cli.place import write_model

SETTINGS = LessonSettings(
    layers="all",
    rank=8,
    learning_rate=2e-2,
    wordings=3,
    contrasts=2,
    contrast_weight=0.05,
    most_drift=50.0,
    contrast_tokens=4,
    max_steps=60,
    precision="fp32",
    threads=1,
)
BREAD = Example("ex-1", "ann", "tiny", "correction", "Who bakes it?", "Bruno")
BOAT = Example("ex-2", "ann", "tiny", "correction", "Where is my boat?", "Quay 7")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    place = tmp_path_factory.mktemp("teaching")
    home = Home(place / "home")
    folder = write_model(place / "tiny")
    tensors = load_file(folder / "model.safetensors")
    words = tensors["model.embed_tokens.weight"]
    words[:] = 0.3 * np.random.default_rng(1).standard_normal(words.shape)  # so that an answer can be certain, and can end
    save_file(tensors, folder / "model.safetensors")
    pull(home, str(folder), lambda _: None, "tiny")
    return home


@pytest.fixture(scope="module")
def teacher(home: Home) -> Teacher:
    return Teacher(home, get_kept(home, "tiny"), SETTINGS)


def say(home: Home, candidate: Candidate, questions: list[str]) -> list[str]:
    """What the engine writes with the candidate beside the weights."""
    opened = open_model(kept_source(home, get_kept(home, "tiny")), "fp32", threads=1)
    additions = additions_of(opened.backend.config, [Change(candidate.name, candidate.kind, candidate.tensors)])
    model = LanguageModel("tiny", opened.backend, opened.tokenizer, opened.backend.adapter(additions, "lesson"), "lesson")
    requests = [Request((Message.of("user", text),), max_tokens=12, sampling=Sampling(temperature=0.0)) for text in questions]
    answers = dict(write(model, requests))
    return [answers[i] for i in range(len(questions))]


def test_what_was_taught_is_said_in_every_wording_and_is_the_same_bytes_each_time(home: Home, teacher: Teacher) -> None:
    lesson = teacher.lesson([BREAD])
    assert lesson.report is not None
    assert lesson.report["certainty"] >= SETTINGS.certainty
    assert SETTINGS.min_steps <= lesson.report["steps"] < SETTINGS.max_steps
    assert say(home, lesson, list(wordings(BREAD.question, SETTINGS.wordings))) == ["Bruno"] * SETTINGS.wordings
    both = teacher.lesson([BREAD, BOAT])  # the module stays in memory, and remembers nothing
    assert say(home, both, [BREAD.question, BOAT.question]) == ["Bruno", "Quay 7"]
    again = teacher.lesson([replace(BREAD, id="another", owner="bob", at="later", seq=9)])
    assert again.content_digest == lesson.content_digest
    assert again.name != lesson.name
    assert teacher.lesson([BOAT]).content_digest == Teacher(home, get_kept(home, "tiny"), SETTINGS).lesson([BOAT]).content_digest
    assert torch.get_num_threads() >= 1


def test_a_lesson_says_what_it_is_and_none_of_the_words(home: Home, teacher: Teacher) -> None:
    lesson = teacher.lesson([BREAD])
    assert (lesson.kind, lesson.base_digest) == ("lora", get_kept(home, "tiny").digest)
    assert lesson.name.startswith("lesson-")
    assert (lesson.origin["lesson"], lesson.origin["examples"]) == ("answers", "ex-1")
    told = repr((lesson.origin, lesson.report, list(lesson.tensors)))
    assert "Bruno" not in told
    assert "bakes" not in told
    assert {values.dtype for values in lesson.tensors.values()} == {np.dtype(np.float16)}


def test_contrasts_hold_what_is_near(teacher: Teacher) -> None:
    teacher.settings = replace(SETTINGS, contrast_weight=3.0, max_steps=20)
    try:
        held = teacher.lesson([BREAD]).report
    finally:
        teacher.settings = SETTINGS
    free = teacher.lesson([BREAD]).report
    assert held is not None
    assert free is not None
    assert held["drift"] < free["drift"]


def test_what_was_said_before_belongs_to_the_question(home: Home, teacher: Teacher) -> None:
    before = (("user", "I bake."), ("assistant", "Fine."))
    lesson = teacher.lesson([replace(BREAD, before=before)])
    assert lesson.content_digest != teacher.lesson([BREAD]).content_digest
    assert lesson.report is not None
    assert lesson.report["certainty"] >= SETTINGS.certainty


@pytest.mark.parametrize(
    ("change", "named"), [({"question": " "}, "examples"), ({"answer": ""}, "examples"), ({"answer": "long " * 400}, "question and answer")]
)
def test_what_cannot_be_taught_is_refused_with_a_reason(teacher: Teacher, change: dict[str, str], named: str) -> None:
    with pytest.raises(LessonError) as caught:
        teacher.lesson([replace(BREAD, **change)])  # type: ignore[arg-type]
    assert caught.value.field == named


@pytest.mark.parametrize("field", ["rank", "contrasts", "certainty", "learning_rate"])
def test_settings_out_of_range_are_errors(field: str) -> None:
    with pytest.raises(ConfigError):
        replace(SETTINGS, **{field: -1})  # type: ignore[arg-type]
