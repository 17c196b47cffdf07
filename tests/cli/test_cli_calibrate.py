"""`ingle why --calibrate`: asked once, kept by the model's digest, resumed after Ctrl-C, and what it says of the shipped model."""

import json
from pathlib import Path

import pytest

from ingle.cli import calibrating
from ingle.explain.odds import find_calibration
from ingle.home.place import Home
from ingle.measure import data_sets
from tests.cli.place import ingle, write_model
from tests.explain.test_known import PASSAGES


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(data_sets, "boolq", lambda _home, _progress: PASSAGES)
    monkeypatch.setattr(calibrating, "QUESTIONS", 48)
    ingle(tmp_path / "home", "pull", str(write_model(tmp_path / "model", context=600)), "--name", "tiny")
    return tmp_path / "home"


def test_a_model_is_calibrated_and_the_figures_are_kept(home: Path) -> None:
    done = ingle(home, "why", "--calibrate", "tiny")
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["questions", "right"] and lines
    assert "questions with nothing beside them" in done.stdout and "in 100" in lines[0]
    table = json.loads(ingle(home, "why", "--calibrate", "tiny", "--json").stdout)
    calibration = find_calibration(Home(home), table["model"])
    assert calibration is not None
    assert {one["kind"]: one["n"] for one in table["kinds"]} == {one.kind: one.n for one in calibration.kinds}
    [kept] = (home / "cache" / "measure").glob("sure-*.jsonl")
    answers = len(kept.read_text().splitlines())
    assert answers > 200, "the second time nothing was asked again"
    kept.write_text("".join(kept.read_text().splitlines(keepends=True)[: answers // 2]))
    again = json.loads(ingle(home, "why", "--calibrate", "tiny", "--json").stdout)
    assert again["kinds"] == table["kinds"] and len(kept.read_text().splitlines()) == answers


def test_it_is_for_a_model_not_for_an_answer(home: Path) -> None:
    said = ingle(home, "why", "--last", "--calibrate", "tiny", code=2).stderr
    assert "is for a model, not for an answer" in said
    assert "nobody" in ingle(home, "why", "--calibrate", "nobody", code=3).stderr
