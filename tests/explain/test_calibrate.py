"""A calibration: each answer is asked for once and looked at as an explanation does it; an interrupted one goes on."""

from pathlib import Path

import pytest

from ingle.core.errors import Interrupted
from ingle.engine.language_model import LanguageModel
from ingle.explain.calibrate import answers_of, ask_known, calibration_of, known_questions
from ingle.explain.direct import direct_reader
from ingle.explain.odds import LEAST_ITEMS
from ingle.explain.sure import with_sure
from ingle.home.place import Home
from tests.explain.test_known import PASSAGES
from tests.explain.tiny import said_to, stopping_after, tiny_model, why_of

# `placed` belongs to a neighbour of this storey; whoever calibrates hands it in, as this test does.
from ingle.adapt.memory import placed  # isort: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def silent(_label: str, _done: int, _all: int) -> None:
    """Say nothing."""


QUESTIONS = known_questions(PASSAGES, "train", 8)[:30]


def test_an_interrupted_calibration_goes_on(model: LanguageModel, tmp_path: Path) -> None:
    home = Home(tmp_path)
    whole = ask_known(direct_reader(), model, QUESTIONS, placed, answers_of(model, Home(tmp_path / "other")), silent)
    with pytest.raises(Interrupted, match="was interrupted") as caught:
        ask_known(direct_reader(stopping_after(60)), model, QUESTIONS, placed, answers_of(model, home), silent)
    kept = len(answers_of(model, home))
    assert 0 < kept < len(QUESTIONS) and f"{kept} of {len(QUESTIONS)}" in str(caught.value)
    heard = []
    rows = ask_known(direct_reader(), model, QUESTIONS, placed, answers_of(model, home), lambda _label, done, of: heard.append((done, of)))
    assert rows == whole
    assert heard[0] == (0, len(QUESTIONS)) and heard[-1] == (len(QUESTIONS), len(QUESTIONS))
    assert ask_known(direct_reader(lambda: True), model, QUESTIONS, placed, answers_of(model, home), silent) == whole


def test_an_answer_is_looked_at_as_an_explanation_looks_at_it(model: LanguageModel, tmp_path: Path) -> None:
    rows = ask_known(direct_reader(), model, QUESTIONS, placed, answers_of(model, Home(tmp_path)), silent)
    looked = 0
    for question, row in zip(QUESTIONS, rows, strict=True):
        if question.taught or not row["answer"]:
            continue
        said = said_to(model, question.request)
        _, why = why_of(said)
        found = with_sure(direct_reader(), said, why, None).sure
        assert found is not None and said.text == row["answer"]
        assert found.kind == row["kind"]
        assert {name: getattr(found.signals, name) for name in row["signals"]} == row["signals"]
        looked += 1
    assert looked > 10


def test_kinds_are_fitted_where_enough_was_asked(model: LanguageModel, tmp_path: Path) -> None:
    rows = ask_known(direct_reader(), model, QUESTIONS, placed, answers_of(model, Home(tmp_path)), silent)
    many = [row for row in rows if row["signals"]] * 10
    calibration = calibration_of(model.digest, many)
    assert calibration.model == model.digest and calibration.kinds
    for one in calibration.kinds:
        mine = [row for row in many if row["kind"] == one.kind]
        assert one.n == len(mine) >= LEAST_ITEMS and one.right == sum(row["right"] for row in mine)
    assert not calibration_of(model.digest, rows[:20]).kinds
