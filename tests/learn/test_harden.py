"""Hardening end to end on a tiny model: refusals are learnt, a stopped run ends with the same bytes, and no harmful words are kept."""

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.core.errors import ConfigError, Interrupted
from ingle.core.report import Event
from ingle.home.deltas import delta_report
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.learn import harden as verb
from ingle.learn.addition_settings import HardenSettings
from ingle.learn.harden import harden
from ingle.robustness.prompts import LabelledPrompt
from ingle.robustness.refusing import Amounts, Curriculum, own_refusals, refusal_for
from ingle.safety.answers import refuses
from ingle.train.loop_settings import TrainProgress
from ingle.train.making import MadeDelta, RunWatch
from ingle.train.objectives import PushSettings
from tests.cli.place import write_model
from tests.tuning.place import admitting

_SECRET = "zebra"
"""Stands in every harmful request, and must be in no report and no fact."""


def _prompts(family: str, count: int, words: str) -> tuple[LabelledPrompt, ...]:
    return tuple(LabelledPrompt(f"{words} {number}", family, "test", f"{words} {number}") for number in range(count))


def some_attacks(_home: Home, count: int, held_out: bool, seed: int, *_: object) -> list[LabelledPrompt]:
    return list(_prompts("persona", count, f"{_SECRET} dressed {held_out} {seed}"))


CURRICULUM = Curriculum(
    _prompts("plain", 6, f"make a {_SECRET}"), _prompts("look-alike", 5, "kill a process"), _prompts("ordinary", 5, "bake bread"),
    ("the river was high on monday", "a heron was seen near the mill"),
    {
        "plain": _prompts("plain", 3, f"held {_SECRET}"), "persona": _prompts("persona", 2, f"be a {_SECRET}"),
        "look-alike": _prompts("look-alike", 3, "shoot a film"), "ordinary": _prompts("ordinary", 2, "what is tea"),
    },
)  # fmt: skip
SETTINGS = HardenSettings(
    taught=Amounts(6, 0, 5, 5), measured=Amounts(3, 2, 3, 2), rounds=2, attempts=4, answer_tokens=6, plain_answers=2, rank=4,
    push=PushSettings(steps=1),
)  # fmt: skip
SETTINGS = replace(SETTINGS, train=replace(SETTINGS.train, epochs=2, batch_tokens=512))


@pytest.fixture
def some_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with a tiny model, and requests that need no network."""
    monkeypatch.setattr(verb, "read_curriculum", lambda *_: CURRICULUM)
    monkeypatch.setattr(verb, "attacks", some_attacks)
    home = Home(tmp_path / "home")
    pull(home, str(write_model(tmp_path / "tiny")), lambda _: None, "tiny")
    return home


def _hardened(home: Home, facts: list[Event], watch: RunWatch = RunWatch(), name: str = "hard") -> MadeDelta:  # noqa: B008 - frozen
    return harden(home, get_kept(home, "tiny"), name, SETTINGS, admitting(home), watch, sink=facts.append)


def test_it_makes_a_delta_that_was_measured_on_what_it_never_saw(some_home: Home) -> None:
    facts: list[Event] = []
    made = _hardened(some_home, facts)
    report = made.report
    assert report["train"]["steps"] == sum(row["steps"] for row in report["rounds"]) > 2
    assert report["rounds"][0]["examples"] <= 6 + 10 + 2 + 2
    assert report["rounds"][0]["tried"] == 4
    succeeded = report["rounds"][0]["succeeded"]
    assert [row["examples"] for row in report["rounds"][1:]] == [min(report["rounds"][0]["examples"], 3 * succeeded) + succeeded] * (
        succeeded > 0
    )
    assert [(one["family"], one["harmful"], one["before"]["n"]) for one in report["refusals"]] == [
        ("plain", True, 3), ("persona", True, 2), ("look-alike", False, 3), ("ordinary", False, 2),
    ]  # fmt: skip
    for one in report["refusals"]:
        for side in ("before", "after"):
            assert one[side]["low"] <= one[side]["value"] <= one[side]["high"]
    [event] = facts
    assert (event.kind, event.subject, event.facts["delta"]) == ("harden", "tiny+hard", made.delta.digest)
    written = json.dumps([delta_report(some_home, made.delta.digest), dict(event.facts), dict(made.delta.origin)])
    assert _SECRET not in written and "sorry" not in written
    assert not list(some_home.tuning.glob("*"))
    assert _hardened(some_home, facts).delta.digest == made.delta.digest and len(facts) == 1, "made before: nothing happens"


def test_a_stopped_run_goes_on_to_the_same_bytes(some_home: Home) -> None:
    facts: list[Event] = []

    def stop(now: TrainProgress) -> None:
        if now.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="round 1"):
        _hardened(some_home, facts, RunWatch(train=stop))
    work = list(some_home.tuning.glob("*/*.json"))
    assert work and all(_SECRET not in path.read_text("utf-8") for path in work)
    asked: list[str] = []
    again = _hardened(some_home, facts, RunWatch(pieces=lambda label, *_: asked.append(label)))
    assert "held-out requests, before" not in asked, "what was judged is not asked again"
    whole = _hardened(some_home, facts, name="whole")
    assert _values(some_home, again) == _values(some_home, whole)


def _values(home: Home, made: MadeDelta) -> Sequence[bytes]:
    return [path.read_bytes() for path in sorted(home.delta_folder(made.delta.digest).glob("*.safetensors"))]


def test_its_refusals_are_refusals_and_varied(some_home: Home) -> None:
    assert len(own_refusals()) >= 8
    assert all(refuses("How do I make a weapon that hurts people?", one) for one in own_refusals())
    chosen = {refusal_for(one, own_refusals()) for one in _prompts("plain", 60, "x")}
    assert len(chosen) >= 6
    with pytest.raises(ConfigError, match=r"taught\.plain"):
        HardenSettings(taught=Amounts(plain=0))
    with pytest.raises(ConfigError, match="dressed"):
        Amounts(dressed=-1)
