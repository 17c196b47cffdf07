"""Recipes: those of the repository can be read, and what is wrong in one is said by its key."""

from pathlib import Path

import pytest

from ingle.core.errors import ConfigError, NotKept
from ingle.measure.suites import find_suite
from ingle.tuning.recipe import read_recipe
from ingle.tuning.tuning_method import find_method

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
WHOLE = """
title = "sentiment"
model = "smollm2"
name = "sentiment"
suite = "sst2"
[tune]
max_examples = 100
layers = "upper-third"
options = { rank = 4 }
data = { template = "plain" }
train = { epochs = 2, optimiser = { beta2 = 0.99 } }
[measure]
suite = "sst2"
shots = 4
[forgetting]
suite = "wiki-bits"
items = 5
[rates]
full = 1e-5
"""


def written(tmp_path: Path, text: str = WHOLE) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


def test_the_three_tasks_have_recipes() -> None:
    assert {"summarise", "translate", "classify"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_the_repository(path: Path) -> None:
    recipe = read_recipe(path)
    suite = find_suite(recipe.suite)
    assert suite.kind in ("choice", "write")
    assert recipe.measure.suite == recipe.suite, "what is learnt is what is measured"
    assert recipe.measure.shots, "the delta must beat the base with examples in its prompt"
    assert suite.baseline
    assert 0 < suite.held_out < 1
    plain = recipe.settings().data.template == "plain"
    assert plain == (suite.kind == "choice"), "questions are learnt as they are asked: without a chat template"


def test_settings(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path))
    own = recipe.settings()
    assert (own.method, own.layers, own.options, own.train.epochs) == ("lora", "upper-third", {"rank": 4}, 2)
    assert own.train.optimiser.learning_rate == find_method("lora").RATE
    assert recipe.data == ("suite:sst2",)


def test_another_method_on_the_same_data(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path), ("tune.train.optimiser.learning_rate=1e-3",))
    own, ia3, full = (recipe.settings(method) for method in (None, "ia3", "full"))
    assert recipe.settings("lora") == own
    assert (ia3.options, ia3.max_examples, ia3.layers, ia3.train.epochs) == ({}, 100, "upper-third", 2)
    assert {s.train.optimiser.beta2 for s in (own, ia3, full)} == {0.99}
    assert [s.train.optimiser.learning_rate for s in (own, ia3, full)] == [1e-3, find_method("ia3").RATE, 1e-5]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("titel=x", "titel"),
        ("tune.max_example=3", "max_example"),
        ("tune.data.held_out=1.0", "held_out"),
        ("tune.method=lore", "method"),
        ("tune.options.ranks=3", "ranks"),
        ("tune.options.rank=0", "rank"),
        ("tune.train.epoch=3", "train.epoch"),
        ("tune.train.optimiser.learning_rate=-1.0", "learning_rate"),
        ("measure.shots=-1", "shots"),
        ("measure.shot=1", "measure.shot"),
        ("forgetting.suite=xsum", "forgetting.suite"),
        ("rates.lora=0.0", "rates.lora"),
        ("rates.lore=0.1", "method"),
        ("name=a+b", "name"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: str, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_recipe(written(tmp_path), (change,))
    assert caught.value.field.endswith(field)


@pytest.mark.parametrize("key", ["suite", "measure.suite", "forgetting.suite"])
def test_an_unknown_suite(tmp_path: Path, key: str) -> None:
    with pytest.raises(NotKept, match="Did you mean sst2"):
        read_recipe(written(tmp_path), (f"{key}=sst",))
