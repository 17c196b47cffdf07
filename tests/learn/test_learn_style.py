"""A style from thumbs alone: what was liked becomes likelier than what was not, on questions that nobody rated too."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ingle.core.example import Example
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.learn.learning_settings import StyleSettings
from ingle.learn.style import StyleTeacher
from ingle.learn.work import LessonError
from ingle.train.objectives import log_probabilities
from ingle.train.optimisers import OptimiserSettings
from tests.learn.test_lesson import SETTINGS, home  # noqa: F401 - a fixture

STYLES = StyleSettings(learning_rate=5e-3, epochs=4, batch_documents=4, own_answers=1, own_tokens=8)
LIKED, OTHER = "Yes.", "Hm, that depends on so much; who can say?"


def rated(number: int, rating: int) -> Example:
    answer = LIKED if rating > 0 else OTHER
    return Example(f"ex-{number}", "ann", "tiny", "rating", f"Question number {number}?", answer, rating=rating)


RATED = [rated(number, 1 if number % 2 else -1) for number in range(8)]


@pytest.fixture(scope="module")
def teacher(home: Home) -> StyleTeacher:  # noqa: F811
    return StyleTeacher(home, get_kept(home, "tiny"), SETTINGS, STYLES)


def likely(teacher: StyleTeacher, tensors: "dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float16]]] | None") -> list[float]:
    """Log-probability of an answer of either form to a question that nobody rated, with the tensors of a style."""
    model = teacher.model
    with model.learning(0, OptimiserSettings()) as trained, torch.no_grad():
        for name, value in trained.values().items():
            if tensors is not None:
                part = torch.from_numpy(tensors[name].astype(np.float32))
                value.copy_(part / (SETTINGS.alpha / SETTINGS.rank) if "lora_B" in name else part)
        read = model.read([model.answered((), "What now?", answer, 200) for answer in (LIKED, OTHER)])
        row, x = read.row([0, 1])
        words = log_probabilities(model.states(row, x), model.head, row.targets)
        return [float(words[row.learnt == i].sum()) for i in range(2)]


def test_what_was_liked_becomes_likelier_everywhere(teacher: StyleTeacher) -> None:
    style = teacher.style(RATED)
    assert style.report is not None
    assert style.report["right"] >= 0.75
    before, after = likely(teacher, None), likely(teacher, dict(style.tensors))
    assert after[0] > before[0]
    assert after[0] - before[0] > after[1] - before[1]
    assert (style.origin["lesson"], style.kind) == ("style", "lora")
    assert "depends" not in repr((style.origin, style.report, list(style.tensors)))


def test_the_same_thumbs_are_the_same_bytes_and_order_of_ids_is_nothing_to_it(teacher: StyleTeacher) -> None:
    style = teacher.style(RATED)
    teacher.style(RATED[:3])
    assert teacher.style([replace(one, id=f"other-{one.id}") for one in RATED]).content_digest == style.content_digest


@pytest.mark.parametrize("rating", [1, -1])
def test_thumbs_may_all_be_on_one_side(teacher: StyleTeacher, rating: int) -> None:
    report = teacher.style([rated(number, rating) for number in range(4)]).report
    assert report is not None
    assert report["right"] == 1.0


def test_an_answer_without_a_thumb_is_none(teacher: StyleTeacher) -> None:
    with pytest.raises(LessonError, match="thumb"):
        teacher.style([replace(RATED[0], rating=0)])
    with pytest.raises(LessonError, match="thumb"):
        teacher.style([])
