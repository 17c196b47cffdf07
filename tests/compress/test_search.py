"""The search: what is tried, what is measured, what is chosen, what is kept, and that nothing is done twice."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingle.compress import search
from ingle.compress.front import Quality, QualityLoss, ServedStepTimer, Tried, best, draw, front, rows
from ingle.compress.search import CompressionRecipe, CompressSettings, RecipeGrid, SearchResult, compress, recipes
from ingle.core.candidate import Admit
from ingle.core.config import from_table
from ingle.core.errors import ConfigError, Interrupted, Refused
from ingle.core.report import Event
from ingle.core.spec import LayerSpec
from ingle.engine.backend import prefill
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source, open_weights
from ingle.home.deltas import list_deltas
from ingle.home.kept import Kept, get_kept
from ingle.home.place import Home
from ingle.train.making import RunWatch
from tests.engine.tiny import tiny_config
from tests.tuning.place import admitting

TABLE: dict[str, Any] = {
    "goal": "size",
    "most_loss_percent": 50.0,
    "format": "auto",
    "grid": {"bits": [4.0], "quantisers": ["round"], "layers": [1], "channels": [1 / 3], "heads": [1]},
    "measure": {"text_items": 3, "task": "boolq", "task_items": 4, "tokens": 6, "turns": 2},
    "calibration": {"documents": 3, "tokens": 64, "batch": 3},
}


def told(**changes: Any) -> CompressSettings:
    return from_table(CompressSettings, {**TABLE, **changes})


def found(home: Home, settings: CompressSettings, name: str = "small", **more: Any) -> SearchResult:
    return compress(home, get_kept(home, "tiny"), name, settings, lambda _kept, _maker: admitting(home), **more)


def point(recipe: str, loss: float, joules: float = 1.0, mb: float = 100.0, speed: float = 1.0) -> Tried:
    pace = ServedStepTimer(100 * speed, joules, joules, joules, "model", speed, speed, speed, joules)
    return Tried(recipe, Quality(1.0, 0.5, 0.4, 0.6, "x"), QualityLoss(loss, loss - 1, loss + 1, 9), pace, mb, 100.0)


ORIGINAL = point("", 0.0)
MILD, MORE, WORSE, USELESS = point("mild", 0.8, 0.9, 90), point("more", 3.0, 0.7, 80, 1.4), point("worse", 4.0, 0.8), point("no", 0.1, 1.2)
POINTS = [ORIGINAL, MILD, MORE, WORSE, USELESS]


def test_nobody_on_the_front_is_beaten_in_both() -> None:
    assert [one.recipe for one in front(POINTS, "joules")] == ["more", "mild", ""]
    assert [one.recipe for one in front(POINTS, "speed")] == ["more", ""]


def test_the_cheapest_within_the_budget() -> None:
    assert best(POINTS, "joules", 1.0) is MILD
    assert best(POINTS, "joules", 3.0) is MORE
    assert best(POINTS, "size", 100) is MORE
    with pytest.raises(ConfigError, match=r"nearest is mild: \+0.80 % at 0.90 times.*--quality-loss 0.80%"):
        best(POINTS, "joules", 0.5)
    with pytest.raises(ConfigError, match=r"--quality-loss 0.81%"):
        best([ORIGINAL, point("mild", 0.8012, 0.9, 90)], "joules", 0.5)
    with pytest.raises(ConfigError, match=r"nothing that was tried costs less.*no comes to 1.20"):
        best([ORIGINAL, USELESS], "joules", 5)
    with pytest.raises(ConfigError, match="none was tried"):
        best([ORIGINAL], "joules", 5)


def test_a_table_and_a_picture_of_it(tmp_path: Path) -> None:
    table = rows(POINTS, "joules", MILD)
    assert [(row[0], row[-1]) for row in table] == [("more", "front"), ("worse", ""), ("mild", "chosen"), ("as it is", "front"), ("no", "")]
    draw(tmp_path / "front.svg", "a title", POINTS, "joules", 1.0, MILD)
    picture = (tmp_path / "front.svg").read_text()
    assert picture.count('width="8.0" height="8.0"') == len(POINTS)
    assert "joules per token" in picture and ">mild<" in picture and ">worse<" not in picture
    draw(tmp_path / "cut.svg", "", [*POINTS, point("far", 40.0, 0.1)], "joules", 1.0, MILD)
    assert ">far, at +40 %<" in (tmp_path / "cut.svg").read_text()
    draw(tmp_path / "front.png", "a title", POINTS, "size", 1.0, None)
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"\.svg or \.png"):
        draw(tmp_path / "front.pdf", "", POINTS, "size", 1.0, None)


def test_what_is_tried_comes_from_the_registries_the_mildest_first() -> None:
    config = tiny_config(mlp=128, groups=2, layers=(LayerSpec((0, 1)),) * 6)
    settings = told(grid={"layers": [2, 1, 9], "channels": [0.2, 0.3, 0.5], "heads": [1], "bits": [4.0, 8.0]})
    made = [str(recipe) for recipe in recipes(config, settings.grid, settings.calibration, settings.recovery)]
    alone = [
        "8 bits by gptq", "4 bits by gptq", "1/6 of layers by depth", "1/3 of layers by depth", "1/4 of channels by width",
        "1/2 of channels by width", "1/2 of heads by width",
    ]  # fmt: skip
    assert made == [*alone, *(f"{one} + 4 bits by gptq" for one in alone[2:])]
    every = recipes(
        config,
        replace(settings.grid, quantisers=(), pruners=("magnitude", "wanda"), pruned_bits=0.0),
        settings.calibration,
        settings.recovery,
    )
    families = {recipe.family for recipe in every}
    assert {"bits by round", "channels by magnitude", "channels by wanda", "layers by depth", "heads by wanda"} <= families
    hybrid = tiny_config(layers=(LayerSpec((0,), 8), LayerSpec((0, 1))))
    assert not any("heads" in str(recipe) for recipe in recipes(hybrid, RecipeGrid(), settings.calibration, settings.recovery))


@pytest.mark.usefixtures("suites")
def test_the_best_is_kept_and_nothing_else(some_home: Home) -> None:
    facts: list[Event] = []
    seen: list[tuple[Any, Any]] = []
    said: list[str] = []
    watch = RunWatch(say=said.append)
    made = found(some_home, told(), watch=watch, seen=lambda *both: seen.append(both), sink=facts.append)
    names = [point.recipe for point in made.points]
    assert names[0] == "" and len(names) + len(made.left_out) == 1 + 7
    over = {point.recipe for point in made.points if point.loss.percent > 50}
    assert not any(name.startswith(f"{one} + ") for name in names for one in over), "what loses too much is not gone on from"
    assert seen == [(list(made.points), made.chosen)]
    assert made.chosen.mb == min(one.mb for one in made.points if one.loss.percent <= 50)
    assert made.kept.name.startswith("tiny+small")
    assert len(made.kept.deltas) == len(made.chosen.recipe.split(" + ")) == len(list_deltas(some_home))
    [event] = facts
    assert (event.kind, event.facts["recipe"], event.facts["tried"]) == ("compress", made.chosen.recipe, len(names) - 1)
    assert any("min left" in line for line in said)
    source = kept_source(some_home, made.kept)
    model = open_model(source, threads=1)
    assert np.isfinite(prefill(model.backend, list(range(3, 40)), model.backend.new_state())).all()
    assert abs(made.chosen.mb * 1e6 - (source.packs / "auto" / "weights.bin").stat().st_size) < 1
    assert not list(some_home.tuning.glob("*/deltas/*"))


@pytest.mark.usefixtures("suites")
def test_what_loses_too_much_is_not_gone_on_from(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = {"layers": 9.0, "channels": 1.0, "heads": 9.0}
    measure = search._try

    def known_loss(job: Any, recipe: Any, *more: Any) -> Any:
        found = measure(job, recipe, *more)
        percent = lost.get(str(recipe).split(" ")[2], 0.0) if " of " in str(recipe) else 0.0
        return found if isinstance(found, str) else replace(found, loss=replace(found.loss, percent=percent))

    monkeypatch.setattr(search, "_try", known_loss)
    made = found(some_home, told(most_loss_percent=5.0))
    tried = {point.recipe for point in made.points}
    left_out = dict(made.left_out)
    chains = {name for name in {*tried, *left_out} if " + " in name}
    assert len(chains) == 3
    assert {name for name in chains if name in tried} == {name for name in chains if " of channels " in name}
    for name in chains - tried:
        assert left_out[name] == f"{name.split(' + ')[0]} loses too much already"


@pytest.mark.usefixtures("suites")
def test_what_is_measured_is_not_measured_again_whatever_the_budget(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    only = told(grid={**TABLE["grid"], "pruned_bits": 0.0}, most_loss_percent=0.0, goal="speed")
    speeds = itertools.count(2.0)  # each is faster than all that were measured before
    monkeypatch.setattr(search, "pace", lambda *_: replace(MILD.pace, speed=next(speeds)))
    tries: list[str] = []
    make = search._made

    def stop_third(job: Any, steps: Any) -> Kept:
        tries.append(str(CompressionRecipe(tuple(steps))))
        if len(tries) == 3:
            raise Interrupted("compress", "was interrupted", "here")
        return make(job, steps)

    monkeypatch.setattr(search, "_made", stop_third)
    with pytest.raises(Interrupted):
        found(some_home, only)
    measured = list(tries[:2])
    first = found(some_home, replace(only, goal="size", most_loss_percent=1000.0))
    assert {*measured} <= {point.recipe for point in first.points}
    assert all(tries.count(recipe) == 1 + (recipe == first.chosen.recipe) for recipe in measured)
    before = len(tries)
    second = found(some_home, replace(only, most_loss_percent=1000.0), "second")
    assert second.points[1:] == first.points[1:]
    assert tries[before:] == [second.chosen.recipe]


@pytest.mark.usefixtures("suites")
def test_what_the_gate_refuses_can_be_forced_without_a_new_search(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def refusing(kept: Kept, maker: str) -> Admit:
        asked.append((kept.name, maker))

        def refuse(_candidate: object, _stopped: object) -> Any:
            raise Refused("tiny+small", "was refused by the gate")

        return refuse

    with pytest.raises(Refused):
        compress(some_home, get_kept(some_home, "tiny"), "small", told(), refusing)
    assert asked[0][0] == "tiny"
    assert list_deltas(some_home) == []

    def refusing_above(kept: Kept, maker: str) -> Admit:
        return refusing(kept, maker) if kept.deltas else admitting(some_home)

    with monkeypatch.context() as patch:
        patch.setattr(search, "best", lambda points, *_: next(point for point in points if " + " in point.recipe))
        with pytest.raises(Refused):
            compress(some_home, get_kept(some_home, "tiny"), "small", told(), refusing_above)
    assert asked[-1][0] == "tiny+small", "the first step was let in"
    assert list_deltas(some_home) == [], "and goes with the second"
    assert open_weights(some_home, found(some_home, told()).kept)


@pytest.mark.usefixtures("suites")
def test_a_model_with_deltas_can_be_compressed(some_home: Home) -> None:
    first = found(some_home, told(grid={**TABLE["grid"], "bits": [], "pruned_bits": 0.0, "layers": [], "heads": []}))
    assert first.kept.name == "tiny+small"
    second = compress(
        some_home, first.kept, "q", told(grid={"bits": [4.0], "quantisers": ["round"], "layers": [], "channels": [], "heads": []}),
        lambda _kept, _maker: admitting(some_home),
    )  # fmt: skip
    assert second.kept.name == "tiny+small+q"


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="joules"):
        told(goal="fun")
    with pytest.raises(ConfigError, match="negative"):
        told(most_loss_percent=-1.0)
    with pytest.raises(ConfigError, match="suite of texts"):
        told(measure={"texts": "boolq"})
    with pytest.raises(ConfigError, match="answers to choose from"):
        told(measure={"task": "wiki-bits"})


@pytest.mark.usefixtures("suites")
def test_a_name_that_is_taken_is_said_first_and_any_failure_takes_all_steps_back(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_above(kept: Kept, maker: str) -> Admit:
        def fail(*_: object) -> Any:
            raise KeyboardInterrupt

        return fail if kept.deltas else admitting(some_home)

    with monkeypatch.context() as patch:
        patch.setattr(search, "best", lambda points, *_: next(point for point in points if " + " in point.recipe))
        with pytest.raises(KeyboardInterrupt):
            compress(some_home, get_kept(some_home, "tiny"), "small", told(), fails_above)
    assert list_deltas(some_home) == []
    made = found(some_home, told())
    assert found(some_home, told()).kept == made.kept, "the same again is the same"
    monkeypatch.setattr(search, "_measured", lambda _: pytest.fail("it was searched"))
    with pytest.raises(ConfigError, match="Another delta"):
        found(some_home, told(most_loss_percent=49.0))
