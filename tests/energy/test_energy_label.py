"""A label is what its answers took, for a thousand of them; and the model is held against counters where there are any."""

import dataclasses
from pathlib import Path

import pytest

from ingle.core.energy import Energy
from ingle.core.errors import ConfigError
from ingle.core.message import Usage
from ingle.energy import label
from ingle.energy.label import TASKS
from ingle.energy.meter import check, sources
from tests.energy.machines import EPYC, Fake

ABOUT = label.Label("m", "d" * 64, "e" * 64, "a machine", 2, "a row", 0, 0.0, (), "")


def ask(prompt: str, most: int) -> Usage:
    """Takes 2 J for each token that it may write."""
    return Usage(len(prompt), 0, most, 0.5, 1.5, 1000, energy=Energy(2.0 * most, 1.0 * most, 6.0 * most, "model"))


def test_a_label_is_joules_for_a_thousand_answers() -> None:
    told: list[tuple[int, int]] = []
    made = label.measure(ask, ABOUT, 3, lambda _label, done, of: told.append((done, of)))
    asked = 3 * sum(len(prompts) for _, _, prompts in TASKS)
    assert told[0] == (0, asked) and told[-1] == (asked, asked)
    assert [(part.task, part.answers) for part in made.parts] == [(task, 3 * len(prompts)) for task, _, prompts in TASKS]
    for part, (_, most, _) in zip(made.parts, TASKS, strict=True):
        assert part.per_thousand == Energy(pytest.approx(2000 * most), pytest.approx(1000 * most), pytest.approx(6000 * most), "model")
        assert part.seconds == 2 * part.answers
    assert made.per_thousand.joules == pytest.approx(2000 * sum(most for _, most, _ in TASKS) / len(TASKS))
    assert made.spread == pytest.approx(0) and made.rounds == 3
    event = made.facts()
    assert event.kind == "energy.label" and event.facts["per_1000_joules"] == pytest.approx(made.per_thousand.joules)
    assert event.facts["joules"] == pytest.approx(sum(part.energy.joules for part in made.parts))
    assert label.rows(made)[-1][0] == "all tasks alike"


def test_rounds_that_differ_are_said() -> None:
    count = 0

    def dearer(prompt: str, most: int) -> Usage:
        nonlocal count
        count += 1
        usage = ask(prompt, most)
        assert usage.energy
        return dataclasses.replace(usage, energy=usage.energy.scaled(1.5 if count > 26 else 1.0))

    assert sum(len(prompts) for _, _, prompts in TASKS) == 25
    assert label.measure(dearer, ABOUT, 2).spread == pytest.approx(0.4)


def test_a_label_is_kept_for_its_model_alone(tmp_path: Path) -> None:
    made = label.measure(ask, ABOUT, 1)
    label.save(tmp_path, made)
    assert label.load(tmp_path, made.digest) == made
    assert label.load(tmp_path, "f" * 64) is None
    label.save(tmp_path, dataclasses.replace(made, prompts="other prompts"))
    assert label.load(tmp_path, made.digest) is None, "it can't be compared any more"
    (tmp_path / f"{made.digest}.json").write_text("{")
    assert label.load(tmp_path, made.digest) is None


def test_answers_that_nobody_metered_make_no_label() -> None:
    with pytest.raises(ConfigError, match="metered"):
        label.measure(lambda _prompt, _most: Usage(1, 0, 1, 0.1, 0.1, 1), ABOUT, 1)
    with pytest.raises(ConfigError, match="--rounds"):
        label.measure(ask, ABOUT, 0)


def test_the_model_is_held_against_the_counters(tmp_path: Path) -> None:
    fake = Fake(tmp_path).cpuinfo(EPYC).resident(1000).rapl("0", "package-0").rapl("0:0", "dram")
    meter = fake.meter()
    result = check(meter, 5.0, lambda: fake.go(0.5, cpu_s=1.0, d0=4.5, d0_0=0.5))
    assert result is not None and result.seconds == pytest.approx(5)
    assert result.counted.joules == pytest.approx(50) and result.counted.measured and not result.modelled.measured
    assert result.error == pytest.approx(result.modelled.joules / 50 - 1)
    assert result.within and 0.5 < 1 + result.error < 2
    hot = check(meter, 5.0, lambda: fake.go(0.5, cpu_s=1.0, d0=450))
    assert hot is not None and not hot.within and hot.error < -0.9


def test_without_counters_there_is_nothing_to_hold_it_against(tmp_path: Path) -> None:
    fake = Fake(tmp_path).cpuinfo(EPYC | {"flags": "hypervisor"})
    meter = fake.meter()
    assert check(meter, 2.0, lambda: fake.go(0.5, cpu_s=1.0)) is None
    told = {name: (known, cure) for name, known, cure in sources(meter)}
    assert "hypervisor" in told["rapl"][0] and told["battery"][0] == "none"
    assert "Genoa" in told["model"][0] and "Cloud Carbon Footprint" in told["model"][0]
