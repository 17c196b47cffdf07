"""A lesson without PyTorch: the tiny model answers as taught, in every wording; the same lesson is the same bytes; PyTorch isn't loaded."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ingle.core.candidate import Candidate
from ingle.core.errors import ConfigError
from ingle.core.example import Example
from ingle.core.message import Message, Request, Sampling
from ingle.engine.answer import write
from ingle.engine.delta_kinds import Change, additions_of
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import Opener, open_model
from ingle.engine.packs import kept_source
from ingle.engine.threads import Cores
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.learn.learning_settings import LessonSettings, StyleSettings
from ingle.learn.lesson import LessonTeacher
from ingle.learn.teacher import ModelTeacher
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
    place = tmp_path_factory.mktemp("lesson")
    home = Home(place / "home")
    folder = write_model(place / "tiny")
    tensors = load_file(folder / "model.safetensors")
    words = tensors["model.embed_tokens.weight"]
    words[:] = 0.3 * np.random.default_rng(1).standard_normal(words.shape)  # so that an answer can be certain, and can end
    save_file(tensors, folder / "model.safetensors")
    pull(home, str(folder), lambda _: None, "tiny")
    return home


@pytest.fixture(scope="module")
def teacher(home: Home) -> LessonTeacher:
    return teacher_of(home)


def say(home: Home, candidate: Candidate, questions: list[str]) -> list[str]:
    """What the engine writes with the candidate beside the weights."""
    opened = open_model(kept_source(home, get_kept(home, "tiny")), "fp32", threads=1)
    additions = additions_of(opened.backend.config, [Change(candidate.name, candidate.kind, candidate.tensors)])
    model = LanguageModel("tiny", opened.backend, opened.tokenizer, opened.backend.adapter(additions, "lesson"), "lesson")
    requests = [Request((Message.of("user", text),), max_tokens=12, sampling=Sampling(temperature=0.0)) for text in questions]
    answers = dict(write(model, requests))
    return [answers[i] for i in range(len(questions))]


def teacher_of(home: Home, settings: LessonSettings = SETTINGS) -> LessonTeacher:
    return LessonTeacher(home, get_kept(home, "tiny"), settings, Opener("fp32", Cores(1)))


def test_the_answer_is_given_in_every_wording(home: Home) -> None:
    taught = teacher_of(home).lesson([BREAD])
    assert say(home, taught, wordings(BREAD.question, 3, 0)) == [BREAD.answer] * 3
    assert taught.report is not None and taught.report["certainty"] >= SETTINGS.certainty


def test_two_are_learned_together(home: Home) -> None:
    taught = teacher_of(home).lesson([BREAD, BOAT])
    assert say(home, taught, [BREAD.question, BOAT.question]) == [BREAD.answer, BOAT.answer]


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_the_same_lesson_is_the_same_bytes(home: Home, precision: str) -> None:
    settings = replace(SETTINGS, precision=precision)  # type: ignore[arg-type]
    teacher = teacher_of(home, settings)
    once, _, again, anew = (*(teacher.lesson([one]) for one in (BREAD, BOAT, BREAD)), teacher_of(home, settings).lesson([BREAD]))
    for name, values in once.tensors.items():
        assert values.tobytes() == again.tensors[name].tobytes() == anew.tensors[name].tobytes()


def test_a_style_without_pytorch_says_what_it_needs(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.learn.learning_settings.has_pytorch", lambda: False)
    teacher = ModelTeacher(home, get_kept(home, "tiny"), SETTINGS, StyleSettings(), Opener("fp32", Cores(1)))
    with pytest.raises(ConfigError, match="PyTorch is needed to learn a style, and is not installed"):
        teacher.style([BREAD])


def test_pytorch_is_not_loaded(home: Home, tmp_path: Path) -> None:
    program = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from ingle.engine.loading import Opener
from ingle.engine.threads import Cores
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.learn.learning_settings import LessonSettings, StyleSettings
from ingle.learn.teacher import ModelTeacher
from ingle.core.example import Example
home = Home(Path(sys.argv[1]))
teacher = ModelTeacher(home, get_kept(home, "tiny"), LessonSettings(max_steps=2), StyleSettings(), Opener("fp32", Cores(1)))
print(len(teacher.lesson([Example("ex-1", "ann", "tiny", "correction", "Who bakes it?", "Bruno")]).tensors))
"""
    done = subprocess.run([sys.executable, "-c", program, str(home.root)], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("14", 0), done.stderr


def test_a_lesson_says_what_it_is_and_none_of_the_words(home: Home, teacher: LessonTeacher) -> None:
    lesson = teacher.lesson([BREAD])
    assert (lesson.kind, lesson.base_digest) == ("lora", get_kept(home, "tiny").digest)
    assert lesson.name.startswith("lesson-")
    assert (lesson.origin["lesson"], lesson.origin["examples"]) == ("answers", "ex-1")
    told = repr((lesson.origin, lesson.report, list(lesson.tensors)))
    assert "Bruno" not in told
    assert "bakes" not in told
    assert {values.dtype for values in lesson.tensors.values()} == {np.dtype(np.float16)}


def test_contrasts_hold_what_is_near(teacher: LessonTeacher) -> None:
    teacher.settings = replace(SETTINGS, contrast_weight=3.0, max_steps=20)
    try:
        held = teacher.lesson([BREAD]).report
    finally:
        teacher.settings = SETTINGS
    free = teacher.lesson([BREAD]).report
    assert held is not None
    assert free is not None
    assert held["drift"] < free["drift"]


def test_what_was_said_before_belongs_to_the_question(home: Home, teacher: LessonTeacher) -> None:
    before = (("user", "I bake."), ("assistant", "Fine."))
    lesson = teacher.lesson([replace(BREAD, before=before)])
    assert lesson.content_digest != teacher.lesson([BREAD]).content_digest
    assert lesson.report is not None
    assert lesson.report["certainty"] >= SETTINGS.certainty


@pytest.mark.parametrize(
    ("change", "named"), [({"question": " "}, "examples"), ({"answer": ""}, "examples"), ({"answer": "long " * 400}, "question and answer")]
)
def test_what_cannot_be_taught_is_refused_with_a_reason(teacher: LessonTeacher, change: dict[str, str], named: str) -> None:
    with pytest.raises(LessonError) as caught:
        teacher.lesson([replace(BREAD, **change)])  # type: ignore[arg-type]
    assert caught.value.field == named


@pytest.mark.parametrize("field", ["rank", "contrasts", "certainty", "learning_rate"])
def test_settings_out_of_range_are_errors(field: str) -> None:
    with pytest.raises(ConfigError):
        replace(SETTINGS, **{field: -1})  # type: ignore[arg-type]
