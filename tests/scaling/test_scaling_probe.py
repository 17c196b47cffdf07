"""Probes: pairs by the sweep's own runner, kept as files, made once; from them to advice, and to a training that it names."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from ingle.core.config import load_config
from ingle.core.errors import ConfigError
from ingle.core.report import Event
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.place import Home
from ingle.scaling.advise import advise, outlook_of, rows, write_advice
from ingle.scaling.budget import Prices, parse_budget
from ingle.scaling.climb import bits_of
from ingle.scaling.lever import LEVERS, TrainingLever
from ingle.scaling.points import read_points
from ingle.scaling.probing import bits_of_kept, equal_seconds, fit_of, probe, read_pairs
from ingle.scaling.sweep import Sweep, open_sweep, run_sweep
from ingle.scratch.first_model import new_module
from ingle.scratch.scratch import scratch
from ingle.scratch.scratch_settings import ScratchSettings, config_of
from ingle.scratch.text_sources import find_prepared, held_out_of, held_out_texts
from tests.cli.place import ingle
from tests.scaling.sweeps import planned

pytestmark = pytest.mark.journey

DOCS = Path(__file__).parents[2] / "docs"
"""Real text: what is made up of a few words is learnt by heart, and no law comes near that."""
TRIED = ("rnn", "optimiser", "vocabulary", "data")
TRAINING = {name: lever for name, lever in LEVERS.items() if isinstance(lever, TrainingLever) and name in TRIED}


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Sweep, list[Event]]:
    """A home with a finished sweep whose levers were tried."""
    home = Home(tmp_path_factory.mktemp("probed"))
    heard = list[Event]()
    texts = shutil.copytree(DOCS, home.root / "texts", ignore=shutil.ignore_patterns("pictures"))
    sweep = planned(home, str(texts))
    with pytest.raises(ConfigError, match="must be at least 6 for a law"):
        probe(home, sweep, TRAINING, workers=2)
    run_sweep(home, sweep, sweep.runs, workers=2)
    probe(home, sweep, TRAINING, workers=2, sink=heard.append)
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
    new = home.root / "texts" / "new.md"
    new.write_text("The text has changed since.")
    before = read_pairs(sweep)
    heard = list[Event]()
    assert probe(home, sweep, TRAINING, workers=2, sink=heard.append) == before
    new.unlink()
    assert not heard
    folder = sweep.folder / "probes"
    assert len(list((folder / "runs").glob("*.json"))) == len(before)
    assert len(read_points(folder / "runs.csv")) == len(before)
    report = json.loads(next((folder / "runs").glob("*.json")).read_text())
    own = sweep.report(sweep.runs[0])
    assert own is not None
    assert report.keys() == own.keys()


def test_other_words_are_judged_on_the_same_text(probed: tuple[Home, Sweep, list[Event]]) -> None:
    home, sweep, _ = probed
    [name] = {pair.prepared for pair in read_pairs(sweep) if pair.lever == "vocabulary"}
    other = find_prepared(home.scaling / "texts" / name)
    assert other.vocabulary == 600
    assert held_out_texts(other) == held_out_texts(sweep.prepared)
    assert other.held_out_bytes == sweep.prepared.held_out_bytes


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
    advice = advise(outlook, budget, LEVERS)
    table = write_advice(sweep, advice)
    assert json.loads((sweep.folder / "advice.json").read_text()) == table
    assert {"budget", "incumbent", "offers", "notes"} <= table.keys()
    measured = [offer for offer in table["offers"] if offer["measured"]]
    assert {"rnn", "optimiser", "vocabulary"} <= {offer["lever"] for offer in measured}
    assert sum(offer["probability_best"] for offer in measured) == pytest.approx(1)
    assert len(rows(advice)) == len(table["offers"])
    for offer in measured:
        words = shlex.split(offer["command"])
        settings = load_config(ScratchSettings, Path(words[3]))
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


def test_what_is_offered_can_be_trained_and_is_read_on_the_same_text(probed: tuple[Home, Sweep, list[Event]]) -> None:
    home, sweep, _ = probed
    outlook = outlook_of(home, sweep, Prices())
    advice = advise(outlook, parse_budget(f"{4 * outlook.incumbent['flops']:g}flop", Prices()), {"size": LEVERS["size"]})
    write_advice(sweep, advice)
    settings = load_config(ScratchSettings, sweep.folder / "offers" / "size.toml", ["train.max_steps=30", "judge.items=2"])
    kept = scratch(home, "small-size", settings).kept
    bits = bits_of_kept(open_model(kept_source(home, kept), "fp32", 1), sweep.prepared)
    module = new_module(config_of(settings.model, sweep.prepared.vocabulary), 1).eval()
    values = load_file(home.base_folder(kept.base) / "model.safetensors")
    module.load_state_dict(values, strict=False)
    expected = bits_of(module, held_out_of(sweep.prepared))
    assert bits.sum() == pytest.approx(expected.sum(), rel=0.02)  # a text that is cut within a word may end in other tokens
    assert np.median(np.abs(bits / expected - 1)) < 1e-4


def test_the_command_line_advises(probed: tuple[Home, Sweep, list[Event]]) -> None:
    home, sweep, _ = probed
    flops = 4 * sweep.runs[-1].flops
    asked = ("scale", "advise", "small", "--budget", f"{flops:g}flop")
    said = json.loads(ingle(home.root, *asked, "--serves", "1Mtokens/day", "--json").stdout)
    assert said["serving"]["cheapest"]["parameters"] > 0
    assert said == json.loads((sweep.folder / "advice.json").read_text())
    shown = ingle(home.root, *asked)
    assert "Go on with: ingle make train" in shown.stdout
    assert "not measured: a probe costs" in shown.stderr
    refused = ingle(home.root, "scale", "advise", "small", "--budget", "1kJ", "--serves", "much", code=2)
    assert "For example 2Mtokens/day" in refused.stderr
