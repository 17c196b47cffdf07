"""Probes: pairs by the sweep's own runner, kept as files, made once; from them to advice, and to a training that it names."""

import json
import shlex
from pathlib import Path

import pytest

from ingle.core.config import load_config
from ingle.core.errors import ConfigError
from ingle.core.event import Event
from ingle.home.place import Home
from ingle.scaling.advise import advise
from ingle.scaling.budget import Prices, parse_budget
from ingle.scaling.lever import TrainingLever, levers
from ingle.scaling.outlook import outlook_of, rows, write_advice
from ingle.scaling.points import read_points
from ingle.scaling.probing import equal_seconds, fit_of, probe, read_pairs
from ingle.scaling.settings import ScratchSettings
from ingle.scaling.sweep import Sweep, open_sweep, run_sweep
from tests.scaling.sweeps import planned

DOCS = str(Path(__file__).parents[2] / "docs")
TRIED = ("rnn", "optimiser", "vocabulary", "data")
LEVERS = {name: lever for name, lever in levers().items() if isinstance(lever, TrainingLever) and name in TRIED}


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Sweep, list[Event]]:
    """A home with a finished sweep whose levers were tried."""
    home = Home(tmp_path_factory.mktemp("probed"))
    heard = list[Event]()
    sweep = planned(home, DOCS)  # real text: what is made up of a few words is learnt by heart, and no law comes near that
    with pytest.raises(ConfigError, match="must be at least 6 for a law"):
        probe(home, sweep, LEVERS, workers=2)
    run_sweep(home, sweep, sweep.runs, workers=2)
    probe(home, sweep, LEVERS, workers=2, sink=heard.append)
    return home, sweep, heard


def test_each_lever_is_tried_and_the_better_half_goes_on(probed: tuple[Home, Sweep, list[Event]]) -> None:
    _, sweep, heard = probed
    pairs = read_pairs(sweep)
    sizes = [pair.size for pair in pairs]
    assert sorted({pair.lever for pair in pairs}) == ["optimiser", "rnn", "vocabulary"]
    assert (sizes.count("1x32"), sizes.count("2x32")) == (3, 2)
    fit = fit_of(sweep, pairs)
    first = sorted((pair for pair in pairs if pair.size == "1x32"), key=lambda pair: -equal_seconds(pair, fit))
    assert {pair.lever for pair in pairs if pair.size == "2x32"} <= {pair.lever for pair in first}
    assert len(heard) == len(pairs)  # runs without a lever are the sweep's own


def test_pairs_are_files_and_are_not_made_twice(probed: tuple[Home, Sweep, list[Event]]) -> None:
    home, sweep, _ = probed
    before = read_pairs(sweep)
    heard = list[Event]()
    assert probe(home, sweep, LEVERS, workers=2, sink=heard.append) == before
    assert not heard
    folder = sweep.folder / "probes"
    assert len(list((folder / "runs").glob("*.json"))) == len(before)
    assert len(read_points(folder / "runs.csv")) == len(before)
    report = json.loads(next((folder / "runs").glob("*.json")).read_text())
    own = sweep.report(sweep.runs[0])
    assert own is not None
    assert report.keys() == own.keys()
    assert report["held_out_bytes"] <= own["held_out_bytes"] * 1.02


def test_probes_leave_the_sweep_as_it_was(probed: tuple[Home, Sweep, list[Event]]) -> None:
    home, sweep, _ = probed
    again = open_sweep(home, "small")
    assert again.key == sweep.key
    assert len(again.reports()) == len(sweep.runs)
    assert len(read_points(sweep.folder / "runs.csv")) == len(sweep.runs)


def test_from_probes_to_advice_and_settings_that_can_be_trained(probed: tuple[Home, Sweep, list[Event]]) -> None:
    home, sweep, _ = probed
    outlook = outlook_of(home, sweep, Prices())
    best = outlook.incumbent
    budget = parse_budget(f"{4 * best['flops']:g}flop", Prices())
    advice = advise(outlook, budget, levers())
    table = write_advice(sweep, advice)
    assert json.loads((sweep.folder / "advice.json").read_text()) == table
    assert {"budget", "incumbent", "offers", "notes"} <= table.keys()
    measured = [offer for offer in table["offers"] if offer["measured"]]
    assert {"rnn", "optimiser", "vocabulary"} <= {offer["lever"] for offer in measured}
    assert sum(offer["probability_best"] for offer in measured) == pytest.approx(1)
    assert len(rows(advice)) == len(table["offers"])
    for offer in measured:
        words = shlex.split(offer["command"])
        settings = load_config(ScratchSettings, Path(words[2]))
        assert settings.train.max_steps is not None
        assert settings.tokenizer.size == (600 if offer["lever"] == "vocabulary" else 300)
        assert offer["cost"]["flops"] <= budget.amount


def test_a_lost_report_is_named(probed: tuple[Home, Sweep, list[Event]], tmp_path: Path) -> None:
    _, sweep, _ = probed
    path = next((sweep.folder / "probes" / "runs").glob("*.json"))
    saved = path.rename(tmp_path / path.name)
    with pytest.raises(ConfigError, match=r"must have its report.*probe again"):
        read_pairs(sweep)
    saved.rename(path)
