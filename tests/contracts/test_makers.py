"""A maker is one entry of a table: policy, gate, ledger, log, energy account and page take a new one without being told of it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingle.app.house import open_rooms
from ingle.app.loss_chart import loss_chart
from ingle.app.sentences import sentence
from ingle.core.candidate import Candidate
from ingle.core.delta import Delta
from ingle.core.energy import Energy
from ingle.core.errors import ConfigError, Refused
from ingle.core.makers import MAKERS, Maker, find_maker, gated_makers, sentence_of
from ingle.core.report import Event
from ingle.energy.totals import deed_of
from ingle.engine.adapter import linear_shapes
from ingle.engine.packs import open_weights
from ingle.gate.check import Policy, find_check, load_policy
from ingle.gate.decide import admission
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.ledger.chain import Ledger
from ingle.train.making import DeltaJob, MadeDelta, RunWatch, delta_job, make_delta
from tests.cli.place import ingle, write_model

SOFTEN = Maker(
    noun="a softening",
    sentences={"soften": lambda facts: f"was softened (by {facts.get('by')})"},
    limits={"bits": {"most_rise_percent": 0.5}, "safety": {"on": False}},
)


@pytest.fixture
def softener(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more maker in the table."""
    monkeypatch.setitem(MAKERS, "soften", SOFTEN)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path / "home")
    pull(found, str(write_model(tmp_path / "tiny")), lambda _: None, "tiny")
    return found


@pytest.mark.parametrize("name", MAKERS)
def test_every_maker_says_what_it_is(name: str) -> None:
    maker = find_maker(name)
    assert maker.noun and maker.noun == maker.noun.strip(".")
    for kind, tell in maker.sentences.items():
        assert tell({}).strip(), "an old fact without figures is told all the same"
        assert sentence_of(kind) is tell
    for check, limits in maker.limits.items():
        assert maker.gated
        assert limits.keys() <= find_check(check).Limits.__dataclass_fields__.keys()


def test_makers_are_found_by_name() -> None:
    assert {
        "tune",
        "harden",
        "debias",
        "hybridize",
        "quantise",
        "prune",
        "lesson",
        "style",
        "import",
        "federate",
        "sight",
        "painter",
    } == set(gated_makers())
    assert [name for name, maker in MAKERS.items() if maker.personal] == ["lesson", "style"]
    with pytest.raises(ConfigError, match="Did you mean prune"):
        find_maker("prun")
    assert sentence_of("answer") is None


def test_without_its_entry_nobody_knows_it(home: Home) -> None:
    home.policy.write_text("[soften.bits]\non = false\n")
    with pytest.raises(ConfigError, match="no check soften"):
        load_policy(home)


def test_the_policy_has_a_section_for_it(home: Home, softener: None) -> None:
    assert Policy().limits("soften", "bits").most_rise_percent == 0.5
    assert not Policy().limits("soften", "safety").on and Policy().limits("tune", "safety").on
    home.policy.write_text("[soften.bits]\nmost_rise_percent = 2.5\n")
    assert load_policy(home).limits("soften", "bits").most_rise_percent == 2.5
    assert load_policy(home).limits("tune", "bits").most_rise_percent == 15.0
    home.policy.write_text("[soften.bist]\nmost_rise_percent = 2.5\n")
    with pytest.raises(ConfigError, match="Did you mean bits"):
        load_policy(home)


def test_a_wrong_check_in_its_entry_is_said(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MAKERS, "stiffen", replace(SOFTEN, limits={"safty": {"on": False}}))
    with pytest.raises(ConfigError, match=r"no check safty.*Did you mean safety"):
        load_policy(home)


def soften(home: Home, name: str, size: float, ledger: Ledger, watch: RunWatch | None = None) -> MadeDelta:
    """A maker as a room would write it: how the candidate is made, and what the ledger is told."""
    kept = get_kept(home, "tiny")

    def make(_job: DeltaJob[dict[str, float]]) -> Candidate:
        draw, tensors = np.random.default_rng(7), {}
        for linear, (rows, columns) in linear_shapes(open_weights(home, kept).config).items():
            tensors[f"{linear}.lora_A.weight"] = draw.standard_normal((2, columns)).astype(np.float32)
            tensors[f"{linear}.lora_B.weight"] = (size * draw.standard_normal((rows, 2))).astype(np.float32)
        return Candidate(name, "lora", kept.digest, tensors, {"run": job.key}, {"by": size})

    def events(report: Mapping[str, Any], delta: Delta) -> list[Event]:
        facts = {"delta": delta.digest, "by": report["by"], **Energy(12.0, 5.0, 30.0, "model").facts()}
        return [Event("soften", f"{kept.name}+{delta.name}", facts)]

    job = delta_job("soften", 1, home, kept, name, {"size": size}, watch or RunWatch())
    admit = admission(home, kept, "soften", load_policy(home), sink=ledger.append)
    return make_delta(job, make, events, admit, ledger.append)


def test_gate_ledger_log_energy_and_page_take_it(home: Home, softener: None) -> None:
    engine = open_rooms(home)
    ledger = Ledger(engine, home.keys)
    made = soften(home, "kind", 0.0, ledger)
    assert made.kept.name == "tiny+kind" and made.report["gate"]["maker"] == "soften"
    assert {one["check"] for one in made.report["gate"]["findings"]} == {"attacks", "bias", "bits", "refusals"}, (
        "its entry turns safety off"
    )
    with pytest.raises(Refused, match=r"bits: general text costs \+"):
        soften(home, "rough", 1.0, ledger)
    said: list[str] = []
    assert soften(home, "kind", 0.0, ledger, RunWatch(say=said.append)).delta == made.delta
    assert said == ["tiny+kind already exists, made by this very command"]

    kinds = [row.kind for row in ledger.read()][::-1]
    assert kinds == ["gate.accept", "soften", "gate.refuse"]
    accepted, fact, _refused = [*ledger.read()][::-1]
    assert accepted.values["maker"] == "soften" and accepted.values["policy"] == load_policy(home).digest("soften")
    assert sentence("soften", fact.subject, fact.values) == "tiny+kind was softened (by 0.0)"
    deed = deed_of(fact.at, fact.kind, fact.subject, fact.values)
    assert deed is not None and deed.activity == "trainings"
    points = loss_chart(engine, home.keys, "ann", "tiny")["points"]
    assert [(point["what"], point["state"]) for point in points] == [("a softening", "accepted"), ("a softening", "refused")]
    engine.dispose()

    lines = ingle(home.root, "log", "tiny").stdout
    assert "tiny+kind was softened (by 0.0)" in lines and "tiny+kind passed the gate" in lines
    assert json.loads(ingle(home.root, "log", "--json", "--kind", "soften").stdout)["facts"]["by"] == 0.0
