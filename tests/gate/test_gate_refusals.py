"""The check of refusals: none may be lost, and no false ones gained; nothing of an answer is kept but whether it refuses."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from ingle.core.errors import ConfigError
from ingle.gate import answer_shares
from ingle.gate.checks import refusals
from ingle.gate.trial import Probes, Trial
from ingle.home.kept import get_kept
from ingle.home.place import Home
from tests.gate.conftest import Make, kept_rows, saying_trial

NO = "I'm sorry, but I can't help with that. It is illegal and could hurt someone."
BAD, GOOD = answer_shares.harmful_requests(), refusals.harmless_requests(48)


def _trial(home: Home, make: Make, name: str, before: Callable[[str], bool], after: Callable[[str], bool]) -> Trial:
    def says(refused: Callable[[str], bool], ask: str) -> str:
        yes = f"Sure, here is how you can do that: {ask} First, take what you need, and then go on step by step."
        return NO if refused(ask) else yes

    return saying_trial(home, make("x"), name, lambda ask: says(before, ask), lambda ask: says(after, ask))


def _harmful(ask: str) -> bool:
    return ask in BAD


CASES: dict[str, tuple[Callable[[str], bool], Callable[[str], bool], bool]] = {
    "stays": (_harmful, _harmful, True),
    "learns to refuse": (lambda _: False, _harmful, True),
    "loses all": (_harmful, lambda _: False, False),
    "loses one": (_harmful, lambda ask: _harmful(ask) and ask != BAD[0], True),
    "refuses everything": (_harmful, lambda _: True, False),
    "refuses one more": (_harmful, lambda ask: _harmful(ask) or ask == GOOD[3], True),
}


@pytest.mark.parametrize("case", CASES)
def test_lost_and_false_refusals(gate_home: Home, make: Make, case: str) -> None:
    before, after, passed = CASES[case]
    finding = refusals.check(_trial(gate_home, make, case, before, after), refusals.Limits())
    assert finding is not None and finding.passed is passed, finding and finding.reason
    figures = {report.name: report for report in finding.reports}
    refused, false = figures["refused_change"], figures["false_change"]
    assert finding.reports[0] is refused
    assert (refused.n, false.n) == (len(BAD), len(GOOD)) == (28, 48)
    assert refused.value == pytest.approx(sum(map(after, BAD)) / 28 - sum(map(before, BAD)) / 28)
    assert false.value == pytest.approx(sum(map(after, GOOD)) / 48 - sum(map(before, GOOD)) / 48)
    kept = kept_rows(gate_home, "refusals")
    assert kept and "sorry" not in kept and "Sure" not in kept and BAD[0] not in kept


def test_real_answers_of_equal_models_change_nothing(gate_home: Home, make: Make) -> None:
    finding = refusals.check(Trial(gate_home, get_kept(gate_home, "tiny"), make("same")), refusals.Limits(harmless=8, max_tokens=4))
    assert finding is not None and finding.passed
    assert {report.name: report.value for report in finding.reports if "change" in report.name} == {"refused_change": 0, "false_change": 0}


def test_it_asks_only_where_the_candidate_acts_and_limits_are_checked(gate_home: Home, make: Make) -> None:
    trial = Trial(gate_home, get_kept(gate_home, "tiny"), make("x"), Probes(acts=lambda _: False))
    assert refusals.check(trial, refusals.Limits()) is None
    for wrong in ({"most_lost": 2.0}, {"most_false": -0.1}, {"harmless": 0}, {"max_tokens": 0}):
        with pytest.raises(ConfigError, match=f"policy refusals.{next(iter(wrong))} must be"):
            refusals.Limits(**wrong)  # type: ignore[arg-type]


def test_another_judge_judges_anew(gate_home: Home, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = _trial(gate_home, make, "two judges", _harmful, _harmful)
    first = refusals.check(trial, refusals.Limits())
    other = replace(answer_shares.load_judge(), digest="another")
    monkeypatch.setattr(answer_shares, "load_judge", lambda: other)
    monkeypatch.setattr(refusals, "refuses", lambda _ask, _answer: False)
    second = refusals.check(trial, refusals.Limits())
    for finding, expected in ((first, 1.0), (second, 0.0)):
        assert finding is not None
        figures = {report.name: report.value for report in finding.reports}
        assert (figures["refused_before"], figures["refused_after"]) == (expected, expected), "what the first judge said is not read again"
