"""The check of bias: a model may lose a preference, and turn a few pairs round; it may not begin to judge by group."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from ingle.core.errors import ConfigError
from ingle.gate.checks import bias
from ingle.gate.trial import Probes, Trial, people
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.measure.subjects import Nats, Subject, Task
from tests.gate.conftest import Make

PAIRS = people()
Prefers = Callable[[int], bool]
"""Whether the model prefers the stereotype of the pair of that number."""


def _judging(real: Subject, name: str, prefers: Prefers) -> Subject:
    numbers = {text: (number, side) for number, pair in enumerate(PAIRS) for side, text in enumerate(pair.texts)}

    def score(tasks: Sequence[Task]) -> Iterator[tuple[int, list[Nats]]]:
        for place, (_, endings) in enumerate(tasks):
            values = []
            for ending in endings:
                number, side = numbers[real.tokenizer.decode(list(ending))]
                values.append(np.full(len(ending), (-1.0 if (side == 0) == prefers(number) else -2.0) / len(ending)))
            yield place, values

    return Subject(name, name, real.context_length, real.tokenizer, score, real.write)


def _trial(home: Home, make: Make, name: str, before: Prefers, after: Prefers) -> Trial:
    trial = Trial(home, get_kept(home, "tiny"), make("x"))
    real = trial.incumbent
    trial.__dict__["incumbent"] = _judging(real, f"{name} before", before)
    trial.__dict__["challenger"] = _judging(real, f"{name} after", after)
    return trial


CASES: dict[str, tuple[Prefers, Prefers, bool]] = {
    "stays": (lambda i: i % 2 == 0, lambda i: i % 2 == 0, True),
    "begins to judge": (lambda i: i % 2 == 0, lambda _: True, False),
    "judges the other way": (lambda i: i % 2 == 0, lambda _: False, False),
    "turns a few round": (lambda i: i % 2 == 0, lambda i: i % 2 == 0 or i < 8, True),
    "stops judging": (lambda _: True, lambda i: i % 2 == 0, True),
    "turns as many each way": (lambda i: i % 2 == 0, lambda i: i % 2 == 1, True),
}


@pytest.mark.parametrize("case", CASES)
def test_a_move_away_from_a_half(gate_home: Home, make: Make, case: str) -> None:
    before, after, passed = CASES[case]
    finding = bias.check(_trial(gate_home, make, case, before, after), bias.Limits())
    assert finding is not None and finding.passed is passed, finding and finding.reason
    main, was, now = finding.reports
    shares = [sum(map(prefers, range(len(PAIRS)))) / len(PAIRS) for prefers in (before, after)]
    assert (was.value, now.value) == pytest.approx(tuple(shares))
    assert main.value == pytest.approx(abs(shares[1] - 0.5) - abs(shares[0] - 0.5))
    assert main.n == len(PAIRS)


def test_a_real_candidate_that_changes_nothing_moves_nothing(gate_home: Home, make: Make) -> None:
    finding = bias.check(Trial(gate_home, get_kept(gate_home, "tiny"), make("same")), bias.Limits())
    assert finding is not None and finding.passed and finding.reports[0].value == 0


def test_it_asks_only_where_the_candidate_acts_and_limits_are_checked(gate_home: Home, make: Make) -> None:
    assert bias.check(Trial(gate_home, get_kept(gate_home, "tiny"), make("x"), Probes(acts=lambda _: False)), bias.Limits()) is None
    with pytest.raises(ConfigError, match=r"bias\.most_farther"):
        bias.Limits(most_farther=0.6)


def test_the_pairs_differ_in_little_and_cover_every_group() -> None:
    assert len(PAIRS) >= 100 and min(Counter(pair.about for pair in PAIRS).values()) >= 8
    for pair in PAIRS:
        first, second = (text.split() for text in pair.texts)
        assert first != second and len({*first} & {*second}) >= 3, pair.texts
    assert len({text for pair in PAIRS for text in pair.texts}) > 1.9 * len(PAIRS)
