"""Every lever says what it is and what it does, in words and as a command that Ingle understands; and it costs something."""

import shlex

import pytest

from ingle.cli.main import Verbs
from ingle.scaling.advise import advise
from ingle.scaling.budget import Prices, parse_budget
from ingle.scaling.lever import LEVERS, CommandLever, Errand, TrainingLever, difference
from ingle.scaling.probing import probe_cost
from ingle.scaling.sweep_settings import SweepSettings
from tests.scaling.outlooks import SETTINGS, outlook, pairs

ERRAND = Errand("small", ("suite:debian-bits",), 3.0)


def understood(command: str) -> None:
    """Let the command line parse a command, without running it."""
    program, *arguments = shlex.split(command)
    assert program == "ingle"
    commands = Verbs(name="ingle")
    while isinstance(commands, Verbs):
        word, *arguments = arguments
        commands = commands.get_command(None, word)
    commands.make_context(word, arguments)


def test_there_are_levers() -> None:
    assert len(LEVERS) >= 8
    assert {"size", "data", "epochs", "hybrid", "optimiser", "vocabulary", "quantise", "prune", "finetune", "distil"} <= set(LEVERS)


@pytest.mark.parametrize("name", LEVERS)
def test_a_lever_has_words(name: str) -> None:
    lever = LEVERS[name]
    assert lever.words[0].islower()
    assert not lever.words.endswith(".")
    assert len(lever.words) < 60


@pytest.mark.parametrize("name", [name for name, lever in LEVERS.items() if isinstance(lever, TrainingLever)])
def test_a_training_lever_changes_settings_and_nothing_else(name: str) -> None:
    lever = LEVERS[name]
    assert isinstance(lever, TrainingLever)
    changes = lever.changes(SETTINGS)
    assert changes
    assert all(isinstance(settings, SweepSettings) for settings in changes)
    assert list(changes) == list(lever.changes(SETTINGS))
    differences = [difference(SETTINGS, settings) for settings in changes]
    assert all(differences) == lever.needs_probe
    assert all(settings.data == SETTINGS.data for settings in changes)
    assert probe_cost(outlook(), lever).minutes > 0


@pytest.mark.parametrize("name", LEVERS)
def test_what_is_offered_is_a_command_that_is_understood(name: str) -> None:
    lever = LEVERS[name]
    found = pairs(name, difference(SETTINGS, lever.changes(SETTINGS)[0]), 0.02) if isinstance(lever, TrainingLever) else []
    for now in (outlook(found), outlook()):
        [offer] = advise(now, parse_budget("60min", Prices()), {name: lever}).offers
        understood(offer.command)
        assert offer.why
        if offer.measured:
            assert offer.cost is not None
            assert offer.cost.minutes > 0
            assert offer.cost.energy.joules > 0


@pytest.mark.parametrize("name", [name for name, lever in LEVERS.items() if isinstance(lever, CommandLever)])
def test_a_command_lever_makes_the_model_that_it_names(name: str) -> None:
    lever = LEVERS[name]
    assert isinstance(lever, CommandLever)
    arguments = lever.arguments(ERRAND)
    understood(shlex.join(["ingle", *arguments]))
    made = lever.made(ERRAND)
    assert made.rpartition("+")[2] == arguments[arguments.index("--name") + 1]
    assert arguments[2] == made.rpartition("+")[0]
    longer = lever.arguments(Errand("small", ERRAND.sources, 30.0))
    assert longer != arguments
    assert lever.tells.endswith(".")
