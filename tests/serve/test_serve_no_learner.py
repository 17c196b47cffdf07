"""Where what teaches the weights is not installed, whoever teaches is told so."""

from typing import Any

import pytest

from ingle.cli.teach import when_learned
from ingle.core.example import Example
from ingle.engine.team import Cores
from ingle.learn import settings
from ingle.learn.settings import INSTALL, LearnSettings
from ingle.page import learning as page_learning
from ingle.serve import learner

PENDING = Example("ex-1", "", "tiny", "correction", "Who?", "Nobody.")
NO_SERVICE: Any = None


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without PyTorch."""
    for module in (settings, learner, page_learning):
        monkeypatch.setattr(module, "can_learn", lambda: False)


def test_with_it_nobody_is_told() -> None:
    assert INSTALL not in when_learned()
    assert page_learning._item(PENDING)["reasons"] == []


@pytest.mark.usefixtures("bare")
def test_terminal_panel_and_log_say_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert INSTALL in when_learned()
    [reason] = page_learning._item(PENDING)["reasons"]
    assert INSTALL in reason
    with learner.learner_beside(NO_SERVICE, LearnSettings(), Cores(1)):
        assert INSTALL in capsys.readouterr().err


@pytest.mark.usefixtures("bare")
def test_who_wants_no_learner_hears_of_none(capsys: pytest.CaptureFixture[str]) -> None:
    with learner.learner_beside(NO_SERVICE, LearnSettings(worker=False), Cores(1)):
        assert capsys.readouterr().err == ""
