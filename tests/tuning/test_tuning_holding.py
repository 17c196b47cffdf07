"""A tune holds the model's own words, asked once; nothing that the gate asks; and they are there again to follow it back."""

from pathlib import Path

import pytest

from ingle.core.errors import ConfigError
from ingle.gate.answer_shares import harmful_requests
from ingle.gate.checks.refusals import harmless_requests
from ingle.gate.trial import general_questions, general_texts
from ingle.home.place import Home
from ingle.robustness.prompts import LabelledPrompt, near_copies
from ingle.train.making import RunWatch
from ingle.tuning.data import BEGINNINGS, EVERYDAY, RISKY, WRONG
from ingle.tuning.influence import traced
from ingle.tuning.tune_settings import settings_of
from tests.tuning.place import tuned, write_examples

FAST = {"train": {"max_steps": 3, "precision": "fp32"}, "judge": {"forgetting": 0}}


def test_nothing_that_is_held_is_asked_by_the_gate() -> None:
    held = [*EVERYDAY, *RISKY, *WRONG]
    assert len(set(held)) == len(held)
    gate = [*harmful_requests(), *harmless_requests(10_000), *(one.ask for one in general_questions())]
    ours, theirs = ([LabelledPrompt(text, "", "") for text in texts] for texts in (held, gate))
    assert not near_copies(ours, theirs)
    assert not any(begin in text for begin in BEGINNINGS for text in general_texts() if len(begin) > 12)


def test_its_answers_are_asked_once_and_held_again_when_a_tune_is_followed_back(tiny_home: Home, tmp_path: Path) -> None:
    data = write_examples(tmp_path / "data.jsonl")
    settings = settings_of(FAST)
    first = tuned(tiny_home, data, settings, "first")
    [kept] = (tiny_home.root / "cache" / "measure").glob("hold-*.jsonl")
    size = kept.stat().st_size
    second = tuned(tiny_home, data, settings_of({**FAST, "hold": {"weight": 1.0}}), "second")
    assert kept.stat().st_size == size, "nothing was asked again"
    assert first.report["hold"] == second.report["hold"]
    tune = traced(tiny_home, first.kept)
    hold = tune.hold(RunWatch(), lambda: False)
    assert hold is not None and hold.corpus.digest == first.report["hold"] and len(hold.corpus) > 40
    kept.write_text("")
    other = traced(tiny_home, tuned(tiny_home, data, settings_of({**FAST, "hold": {"documents": 0}}), "free").kept)
    assert other.report["hold"] is None and other.hold(RunWatch(), lambda: False) is None
    tune.report["hold"] = "0" * 64  # type: ignore[index]
    with pytest.raises(ConfigError, match="can't be made again"):
        tune.hold(RunWatch(), lambda: False)
