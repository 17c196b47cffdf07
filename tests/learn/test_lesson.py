"""A lesson without PyTorch: the tiny model answers as taught, in every wording; the same lesson is the same bytes; PyTorch isn't loaded."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ingle.core.errors import ConfigError
from ingle.engine.loading import Opener
from ingle.engine.team import Cores
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.learn.lesson import LessonTeacher
from ingle.learn.lesson_settings import LessonSettings, StyleSettings
from ingle.learn.teacher import ModelTeacher
from ingle.learn.teaching import Teacher
from ingle.learn.wordings import wordings
from ingle.learn.work import LessonError
from tests.cli.place import write_model
from tests.learn.test_learn_teaching import BOAT, BREAD, SETTINGS, say


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    place = tmp_path_factory.mktemp("lesson")
    home = Home(place / "home")
    folder = write_model(place / "tiny", changes={"head_dim": 32})
    tensors = load_file(folder / "model.safetensors")
    words = tensors["model.embed_tokens.weight"]
    words[:] = 0.3 * np.random.default_rng(1).standard_normal(words.shape)  # so that an answer can be certain, and can end
    save_file(tensors, folder / "model.safetensors")
    pull(home, str(folder), lambda _: None, "tiny")
    return home


def teacher_of(home: Home, settings: LessonSettings = SETTINGS) -> LessonTeacher:
    return LessonTeacher(home, get_kept(home, "tiny"), settings, Opener("fp32", Cores(1)))


def test_the_answer_is_given_in_every_wording(home: Home) -> None:
    taught = teacher_of(home).lesson([BREAD])
    assert say(home, taught, wordings(BREAD.question, 3, 0)) == [BREAD.answer] * 3
    assert taught.report is not None and taught.report["certainty"] >= SETTINGS.certainty


def test_two_are_learned_together(home: Home) -> None:
    taught = teacher_of(home).lesson([BREAD, BOAT])
    assert say(home, taught, [BREAD.question, BOAT.question]) == [BREAD.answer, BOAT.answer]


def test_it_says_what_pytorchs_lesson_says(home: Home) -> None:
    theirs = Teacher(home, get_kept(home, "tiny"), SETTINGS).lesson([BREAD])
    mine = teacher_of(home).lesson([BREAD])
    assert mine.tensors.keys() == theirs.tensors.keys()
    assert {name: (values.shape, values.dtype) for name, values in mine.tensors.items()} == {
        name: (values.shape, values.dtype) for name, values in theirs.tensors.items()
    }
    assert say(home, mine, [BREAD.question]) == say(home, theirs, [BREAD.question])


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_the_same_lesson_is_the_same_bytes(home: Home, precision: str) -> None:
    settings = replace(SETTINGS, precision=precision)  # type: ignore[arg-type]
    teacher = teacher_of(home, settings)
    once, _, again, anew = (*(teacher.lesson([one]) for one in (BREAD, BOAT, BREAD)), teacher_of(home, settings).lesson([BREAD]))
    for name, values in once.tensors.items():
        assert values.tobytes() == again.tensors[name].tobytes() == anew.tensors[name].tobytes()


def test_what_cannot_be_taught_is_said(home: Home) -> None:
    with pytest.raises(LessonError, match="must have a question and an answer"):
        teacher_of(home).lesson([BREAD, replace(BOAT, answer=" ")])
    with pytest.raises(LessonError, match="must have at most 24 tokens together"):
        teacher_of(home, replace(SETTINGS, max_tokens=24)).lesson([BREAD])


def test_a_style_without_pytorch_says_what_it_needs(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.learn.teacher.has_pytorch", lambda: False)
    teacher = ModelTeacher(home, get_kept(home, "tiny"), SETTINGS, StyleSettings(), Opener("fp32", Cores(1)))
    with pytest.raises(ConfigError, match="needs PyTorch, which is not installed"):
        teacher.style([BREAD])


def test_pytorch_is_not_loaded(home: Home, tmp_path: Path) -> None:
    program = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from ingle.engine.loading import Opener
from ingle.engine.team import Cores
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.learn.lesson_settings import LessonSettings, StyleSettings
from ingle.learn.teacher import ModelTeacher
from ingle.core.example import Example
home = Home(Path(sys.argv[1]))
teacher = ModelTeacher(home, get_kept(home, "tiny"), LessonSettings(max_steps=2), StyleSettings(), Opener("fp32", Cores(1)))
print(len(teacher.lesson([Example("ex-1", "ann", "tiny", "correction", "Who bakes it?", "Bruno")]).tensors))
"""
    done = subprocess.run([sys.executable, "-c", program, str(home.root)], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("14", 0), done.stderr
