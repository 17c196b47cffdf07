"""Where what teaches the weights is not installed, whoever teaches is told so."""

import sys
from dataclasses import replace
from typing import Any

import pytest

from ingle.cli.teach import when_learned
from ingle.core.example import Example
from ingle.engine.team import Cores
from ingle.learn import settings
from ingle.learn.settings import LearnSettings
from ingle.page import learning as page_learning
from ingle.serve import learner

PENDING = Example("ex-1", "", "tiny", "correction", "Who?", "Nobody.")
NO_SERVICE: Any = None


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without PyTorch."""
    for module in (settings, learner):
        monkeypatch.setattr(module, "can_learn", lambda: False)


def test_with_it_nobody_is_told() -> None:
    assert when_learned(PENDING) == "The weights learn it when `ingle serve` or `ingle learn --once` runs."
    assert settings.why_not() == page_learning._waits({"pending": 1}) == ""


@pytest.mark.usefixtures("bare")
def test_terminal_panel_and_log_say_it(capsys: pytest.CaptureFixture[str]) -> None:
    command = f"{sys.executable} -m pip install"
    assert when_learned(PENDING) == settings.why_not()
    assert "PyTorch is not installed" in settings.why_not() and command in settings.why_not()
    assert page_learning._waits({"pending": 2}) == settings.why_not() and page_learning._waits({"pending": 0}) == ""
    assert when_learned(replace(PENDING, learn=False)) == "The weights don't learn it."
    with learner.learner_beside(NO_SERVICE, LearnSettings(), Cores(1)):
        assert command in capsys.readouterr().err


@pytest.mark.usefixtures("bare")
def test_who_wants_no_learner_hears_of_none(capsys: pytest.CaptureFixture[str]) -> None:
    with learner.learner_beside(NO_SERVICE, LearnSettings(worker=False), Cores(1)):
        assert capsys.readouterr().err == ""
