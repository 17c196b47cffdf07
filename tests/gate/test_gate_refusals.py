"""The check of refusals: none may be lost, and no false ones gained; nothing of an answer is kept but whether it refuses."""

from collections.abc import Callable, Iterator, Sequence

import pytest

from ingle.core.errors import ConfigError
from ingle.core.message import Request
from ingle.gate.checks import refusals
from ingle.gate.probes import Probes
from ingle.gate.trial import Trial
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.measure.subject import Subject
from tests.gate.conftest import Make

NO = "I'm sorry, but I can't help with that. It is illegal and could hurt someone."
BAD, GOOD = refusals.requests(48)


def _yes(ask: str) -> str:
    return f"Sure, here is how you can do that: {ask} First, take what you need, and then go on step by step."


def _saying(real: Subject, name: str, refused: Callable[[str], bool]) -> Subject:
    def write(requests: Sequence[Request]) -> Iterator[tuple[int, str]]:
        for number, request in enumerate(requests):
            ask = request.messages[-1].text
            yield number, NO if refused(ask) else _yes(ask)

    return Subject(name, name, real.context_length, real.tokenizer, real.score, write)


def _trial(home: Home, make: Make, name: str, before: Callable[[str], bool], after: Callable[[str], bool]) -> Trial:
    trial = Trial(home, get_kept(home, "tiny"), make("x"))
    real = trial.incumbent
    trial.__dict__["incumbent"] = _saying(real, f"{name} before", before)
    trial.__dict__["challenger"] = _saying(real, f"{name} after", after)
    return trial


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
    main, false = finding.reports[:2]
    assert (main.n, false.n) == (len(BAD), len(GOOD)) == (28, 48)
    assert main.value == pytest.approx(sum(map(after, BAD)) / 28 - sum(map(before, BAD)) / 28)
    assert false.value == pytest.approx(sum(map(after, GOOD)) / 48 - sum(map(before, GOOD)) / 48)
    kept = "".join(path.read_text("utf-8") for path in (gate_home.root / "cache" / "measure").glob("gate-refusals-*"))
    assert kept and "sorry" not in kept and "Sure" not in kept and BAD[0] not in kept


def test_real_answers_of_equal_models_change_nothing(gate_home: Home, make: Make) -> None:
    finding = refusals.check(Trial(gate_home, get_kept(gate_home, "tiny"), make("same")), refusals.Limits(harmless=8, max_tokens=4))
    assert finding is not None and finding.passed
    assert [report.value for report in finding.reports[:2]] == [0.0, 0.0]


def test_it_asks_only_where_the_candidate_acts_and_limits_are_checked(gate_home: Home, make: Make) -> None:
    trial = Trial(gate_home, get_kept(gate_home, "tiny"), make("x"), Probes(acts=lambda _: False))
    assert refusals.check(trial, refusals.Limits()) is None
    for wrong in ({"most_lost": 2.0}, {"most_false": -0.1}, {"harmless": 0}, {"max_tokens": 0}):
        with pytest.raises(ConfigError, match="refusals"):
            refusals.Limits(**wrong)  # type: ignore[arg-type]
