"""What is measured is never taught, attacks are short and new for each seed, and answers are judged without being kept."""

from collections.abc import Iterator, Sequence

import pytest

from ingle.core.errors import Interrupted
from ingle.core.message import Request
from ingle.home.place import Home
from ingle.measure.subjects import Subject
from ingle.robustness import refusing
from ingle.robustness.prompts import LabelledPrompt
from ingle.robustness.refusing import HARMFUL, Amounts, attacks, judged, read_curriculum, shares

HOME = Home.__new__(Home)


def _some(family: str, count: int) -> list[LabelledPrompt]:
    return [LabelledPrompt(f"{family} number {number}", family, "test") for number in range(count)]


def _dressed(_home: Home, count: int, seed: int = 0, *_: object) -> list[LabelledPrompt]:
    plain = _some("plain", 60)
    long = ["x" * 950, ""]
    picked = [plain[(7 * number + seed) % len(plain)] for number in range(count)]
    return [
        LabelledPrompt(f"In play {seed % 97}: {one.text} {long[number % 2]}", "persona", "test", one.text)
        for number, one in enumerate(picked)
    ]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    news = [LabelledPrompt(f"What is this about?\n\nNews {number} of the town. {'long ' * 200}", "xsum", "test") for number in range(40)]
    for name, prompts in {
        "goals": _some("plain", 60), "risky": _some("risky", 60), "ordinary": [*_some("ordinary", 200), *news],
        "rephrased": [*_some("past", 30), *_some("future", 30)],
    }.items():  # fmt: skip
        monkeypatch.setattr(refusing, name, lambda *_, prompts=prompts: prompts)
    monkeypatch.setattr(refusing, "dressed", _dressed)


def test_what_is_measured_is_never_taught() -> None:
    found = read_curriculum(HOME, Amounts(30, 12, 40, 50, 7), Amounts(10, 8, 30, 20, 0), 3)
    taught = {one.id for one in (*found.harmful, *found.lookalikes, *found.ordinary)}
    goals = {one.goal or one.text for one in found.harmful}
    assert {one.family for one in found.harmful} == {"plain", "risky", "persona"}
    assert len(found.prose) == 7 and all(one.startswith("News ") and len(one) == 400 for one in found.prose)
    assert set(found.held_out) == {*HARMFUL, "look-alike", "ordinary"}
    for family, prompts in found.held_out.items():
        assert prompts and not taught & {one.id for one in prompts}
        assert not goals & {one.goal or one.text for one in prompts}, family
        assert family in ("past", "future") or all(one.held_out for one in prompts)
    assert not any(one.held_out for one in (*found.harmful, *found.lookalikes, *found.ordinary))
    assert read_curriculum(HOME, Amounts(30, 12, 40, 50, 7), Amounts(10, 8, 30, 20, 0), 3) == found
    assert read_curriculum(HOME, Amounts(30, 12, 40, 50, 7), Amounts(10, 8, 30, 20, 0), 4) != found


def test_attacks_are_short_and_each_seed_draws_others() -> None:
    first, second = (attacks(HOME, 10, False, seed) for seed in (0, 1))
    assert len(first) == len(second) == 10
    assert all(len(one.text) <= 900 and not one.held_out for one in first)
    assert {one.id for one in first} != {one.id for one in second}
    assert len(attacks(HOME, 5_000, False, 0)) < 5_000, "there are no more"


def _subject(answers: Sequence[str]) -> Subject:
    def write(_requests: Sequence[Request]) -> Iterator[tuple[int, str]]:
        yield from reversed(list(enumerate(answers)))

    return Subject("x", "x", 512, None, None, write)  # type: ignore[arg-type]


def test_answers_are_judged_in_order_whoever_comes_first() -> None:
    asks = ["How do I bake bread at home?", "How do I bake bread at home?"]
    said = "I'm sorry, but I can't help with that request.", "To bake bread at home, mix flour, water, salt and yeast, then let it rise."
    told: list[tuple[int, int]] = []
    first, second = judged(_subject(said), asks, done=lambda done, of: told.append((done, of)))
    assert (first.refused, first.explicit, second.refused, second.explicit) == (True, True, False, False)
    assert told == [(0, 2), (1, 2), (2, 2)]
    with pytest.raises(Interrupted, match="1 of 2"):
        judged(_subject(said[:1]), asks)
    [report] = shares({"refused": [True, False, False, False]}, "m", "d")
    assert (report.value, report.n) == (0.25, 4) and 0.04 < report.low < 0.05 and 0.69 < report.high < 0.71
