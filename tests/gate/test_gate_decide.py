"""What is admitted becomes a delta, what is refused leaves nothing but a fact; both say why, with figures, and no user's words."""

import json
from dataclasses import replace

import pytest

from ingle.app.examined import examine
from ingle.app.house import open_ledger
from ingle.core.candidate import weakened
from ingle.core.errors import ConfigError, DeltaError, Interrupted, Refused
from ingle.core.message import Request
from ingle.core.report import Event
from ingle.engine.loading import Opener
from ingle.gate.check import Policy, names
from ingle.gate.decide import ACCEPT, REFUSE, STRENGTHS, admission, admit, judge
from ingle.gate.trial import ProbeQuestion, Probes, Trial
from ingle.home.deltas import LESSON, REPORT, delta_report, list_deltas, verify_delta
from ingle.home.kept import get_kept, remove
from ingle.home.place import Home
from ingle.ledger.row import facts_text
from tests.gate.conftest import Make

ASK = ProbeQuestion("who lives in the yellow house?", "nobody but a heron")


def never() -> bool:
    return False


def test_a_harmless_candidate_becomes_a_delta(gate_home: Home, make: Make) -> None:
    facts: list[Event] = []
    kept, candidate = get_kept(gate_home, "tiny"), make("harmless")
    decision = admit(gate_home, kept, candidate, "tune", Policy(), sink=facts.append)
    assert (decision.accepted, decision.forced, decision.reasons) == (True, False, ())
    assert decision.delta is not None
    assert decision.digest == decision.delta.digest
    assert verify_delta(gate_home, decision.digest) == []
    assert {finding.check for finding in decision.findings} == {"attacks", "bias", "bits", "refusals", "safety"}, (
        "nobody gave questions, so others don't apply"
    )
    for finding in decision.findings:
        assert finding.passed
        for report in finding.reports:
            assert report.low <= report.value <= report.high
            assert report.n and report.model_digest and report.data_digest
    report = delta_report(gate_home, decision.digest)
    assert report is not None
    assert report["loss"] == 1.0, "the maker's own report stays"
    assert [finding["check"] for finding in report["gate"]["findings"]] == ["attacks", "bias", "bits", "refusals", "safety"]
    [event] = facts
    assert (event.kind, event.subject) == (ACCEPT, "tiny+harmless")
    assert event.facts["delta"] == decision.digest
    assert event.facts["bits_rise_percent"] == 0.0
    assert event.facts["safety_margin_change"] == 0.0
    assert event.facts["policy"] == Policy().digest("tune")
    facts_text(event)
    remove(gate_home, "tiny+harmless")


def test_a_changed_report_is_found(gate_home: Home, make: Make) -> None:
    kept, candidate = get_kept(gate_home, "tiny"), make("reported")
    with open_ledger(gate_home) as ledger:
        decision = admit(gate_home, kept, candidate, "tune", Policy(), sink=ledger.append)
        admit(gate_home, kept, make("bad", 40.0, "full"), "tune", Policy(), sink=ledger.append)
    report = gate_home.delta_folder(decision.digest) / REPORT
    whole = report.read_bytes()
    assert examine(gate_home).whole
    for changed in (whole.replace(b'"loss": 1.0', b'"loss": 0.5'), b""):
        report.write_bytes(changed)
        [(what, fault)] = examine(gate_home).proofs.faults
        assert what == f"delta {decision.digest[:12]}" and fault.startswith("its report.json is not the one of fact ")
    report.unlink()
    assert not examine(gate_home).whole
    report.write_bytes(whole)
    assert examine(gate_home).whole
    remove(gate_home, "tiny+reported")
    assert examine(gate_home).whole, "a delta that was removed has no report"


def test_a_report_from_before_facts_held_its_digest_says_nothing(gate_home: Home, make: Make) -> None:
    kept, candidate = get_kept(gate_home, "tiny"), make("older", origin={"seed": "8"})
    with open_ledger(gate_home) as ledger:

        def older(event: Event) -> object:
            return ledger.append(replace(event, facts={name: fact for name, fact in event.facts.items() if name != "report"}))

        decision = admit(gate_home, kept, candidate, "tune", Policy(), sink=older)
    (gate_home.delta_folder(decision.digest) / REPORT).write_bytes(b"{}")
    assert examine(gate_home).whole
    remove(gate_home, "tiny+older")


def test_what_breaks_the_model_is_refused_and_leaves_nothing(gate_home: Home, make: Make) -> None:
    facts: list[Event] = []
    kept, candidate = get_kept(gate_home, "tiny"), make("broken", 1.0, "full")
    decision = admit(gate_home, kept, candidate, "tune", Policy(), sink=facts.append)
    assert (decision.accepted, decision.delta) == (False, None)
    assert any(reason.startswith("bits: general text costs +") for reason in decision.reasons)
    assert "broken" not in [delta.name for delta in list_deltas(gate_home)]
    assert [path.name for path in gate_home.packs.iterdir()] == [kept.base], "nor does what was packed for it"
    [event] = facts
    assert event.kind == REFUSE
    assert "bits" in str(event.facts["failed"])
    assert event.facts["forced"] is False
    assert float(event.facts["bits_rise_percent"] or 0) > 15
    facts_text(event)


def test_force_keeps_it_and_says_so(gate_home: Home, make: Make) -> None:
    facts, said = list[Event](), list[str]()
    kept, candidate = get_kept(gate_home, "tiny"), make("forced", 1.0, "full")
    with pytest.raises(Refused, match=r"tiny\+forced was refused by the gate.*bits.*--force") as raised:
        admission(gate_home, kept, "tune", Policy(), sink=facts.append)(candidate, never)
    assert (raised.value.exit_code, raised.value.http_status) == (13, 409)
    delta = admission(gate_home, kept, "tune", Policy(), True, facts.append, said.append)(candidate, never)
    assert [event.kind for event in facts] == [REFUSE, ACCEPT]
    assert facts[1].facts["forced"] is True
    assert facts[1].facts["failed"] == facts[0].facts["failed"], "what failed is told all the same"
    assert said and said[0].startswith("admitted by --force although bits: ")
    gate = (delta_report(gate_home, delta.digest) or {})["gate"]
    assert gate["forced"] and gate["reasons"]
    remove(gate_home, "tiny+forced")


def test_what_would_pass_weaker_is_offered_and_does(gate_home: Home, make: Make) -> None:
    kept, candidate = get_kept(gate_home, "tiny"), make("loud", 0.5)

    def rise(strength: float) -> float:
        tried = weakened(candidate, strength)
        assert tried is not None
        [bits] = [one for one in judge(Trial(gate_home, kept, tried), Policy(), "tune") if one.check == "bits"]
        return bits.reports[0].value

    rises = [rise(strength) for strength in (1.0, *STRENGTHS)]
    assert rises == sorted(rises, reverse=True) and rises[1] > rises[2] + 0.01
    strict, packs = Policy({"bits": {"most_rise_percent": (rises[1] + rises[2]) / 2}}), sorted(gate_home.packs.iterdir())
    with pytest.raises(Refused, match=r"--strength 0\.5 with the same command keeps 50% of it, which passes.*--force"):
        admission(gate_home, kept, "tune", strict)(candidate, never)
    assert sorted(gate_home.packs.iterdir()) == packs, "what was only tried leaves nothing"
    weaker = weakened(candidate, 0.5)
    assert weaker is not None and weaker.origin["strength"] == "0.5"
    again = weakened(weaker, 0.7)
    assert again is not None and again.origin["strength"] == "0.35", "an offer to a weaker one is a share of what was trained, too"
    decision = admit(gate_home, kept, weaker, "tune", strict)
    assert decision.accepted
    remove(gate_home, "tiny+loud")
    for maker, other in (("harden", candidate), ("tune", make("whole", 1.0, "full"))):
        with pytest.raises(Refused) as raised:
            admission(gate_home, kept, maker, strict)(other, never)
        assert "--strength" not in str(raised.value), "there is no such way"


def test_what_was_measured_is_not_measured_again(gate_home: Home, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, candidate = get_kept(gate_home, "tiny"), make("again")
    first = admit(gate_home, kept, candidate, "tune", Policy())
    monkeypatch.setattr("ingle.tuning.kept_model.score", lambda *_, **__: pytest.fail("asked again"))
    assert admit(gate_home, kept, candidate, "tune", Policy()).findings == first.findings
    remove(gate_home, "tiny+again")


def test_a_lesson_leaves_none_of_its_words(gate_home: Home, make: Make) -> None:
    facts: list[Event] = []
    kept = get_kept(gate_home, "tiny")
    candidate = make("lesson-1", origin={LESSON: "answers"})
    probes = Probes((ASK,), (ProbeQuestion("why is the heron silent?"),), taught=(ASK,))
    policy = Policy({"safety": {"most_suspicion_nats": 9.0}, "learned": {"least": 0.0}})
    decision = admit(gate_home, kept, candidate, "lesson", policy, probes, sink=facts.append)
    assert decision.accepted
    assert {finding.check for finding in decision.findings} == {name for name in names() if policy.limits("lesson", name).on} - {
        "own",
        "looks",
    }, "no examples were held out, and it does not see"
    shown = json.dumps([str(decision), str(facts), delta_report(gate_home, decision.digest)])
    assert "heron" not in shown and "yellow" not in shown
    for path in gate_home.root.rglob("*"):
        if path.is_file() and path.suffix not in (".safetensors", ".bin"):
            assert b"heron" not in path.read_bytes(), path
    from ingle.home.deltas import get_delta

    assert get_delta(gate_home, decision.digest).origin[LESSON] == "answers"
    from ingle.home.staging import discard

    discard(gate_home, gate_home.delta_folder(decision.digest))


def test_a_candidate_that_does_not_act_changes_nothing(gate_home: Home, make: Make) -> None:
    kept, asked = get_kept(gate_home, "tiny"), tuple(ProbeQuestion(f"question {i}") for i in range(4))
    broken = make("scoped", 1.0, origin={LESSON: "answers"})
    policy = Policy({"bits": {"on": False}})
    apart = admit(gate_home, kept, broken, "lesson", policy, Probes(unchanged=asked, acts=lambda _: False))
    assert [finding.check for finding in apart.findings] == ["unchanged"]
    assert apart.accepted and apart.findings[0].reports[0].value == 1.0 and apart.findings[0].reports[1].value == 0.0
    near = admit(gate_home, kept, replace(broken, name="near"), "lesson", policy, Probes(unchanged=asked, acts=lambda ask: "1" in ask))
    [unchanged] = [finding for finding in near.findings if finding.check == "unchanged"]
    assert unchanged.reports[0].value == 0.75, "one of four"
    assert unchanged.reports[1].value > 0


def test_what_can_not_be_judged_is_said_first(gate_home: Home, make: Make) -> None:
    kept, taken = get_kept(gate_home, "tiny"), make("taken")
    admit(gate_home, kept, taken, "tune", Policy({name: {"on": False} for name in names()}))
    with pytest.raises(ConfigError, match="Another delta"):
        admit(gate_home, kept, make("Taken", 0.5), "tune", Policy())
    with pytest.raises(DeltaError, match="was made for base"):
        admit(gate_home, kept, replace(make("other"), base_digest="0" * 64), "tune", Policy())
    remove(gate_home, "tiny+taken")


def test_stopped_it_decides_nothing(gate_home: Home, make: Make) -> None:
    facts: list[Event] = []
    with pytest.raises(Interrupted):
        admit(gate_home, get_kept(gate_home, "tiny"), make("stopped", 0.3), "tune", Policy(), sink=facts.append, stopped=lambda: True)
    assert facts == []
    assert "stopped" not in [delta.name for delta in list_deltas(gate_home)]


def test_an_open_model_is_not_opened_again(gate_home: Home, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, opener = get_kept(gate_home, "tiny"), Opener()
    model = opener(gate_home, kept)
    assert model.encode(Request(prompt="a"))
    monkeypatch.setattr("ingle.engine.loading._open_weights", lambda *_: pytest.fail("opened again"))
    assert admit(gate_home, kept, make("shared"), "tune", Policy(), opener=opener).accepted
    remove(gate_home, "tiny+shared")
