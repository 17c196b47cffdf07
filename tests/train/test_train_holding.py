"""Holding while a model learns: it costs nothing until it moves, agrees with a naive divergence, and stays nearer than without."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM
from ingle.train.forward import final_states
from ingle.train.loop import train
from ingle.train.low_rank import added_parameters, put_low_rank
from ingle.train.objectives import Answers, Hold, HoldSettings, held
from ingle.train.packing import make_batch
from ingle.train.rerun import Rerun
from tests.train.test_train_through import LINEARS, SETTINGS
from tests.train.tiny_train import corpus_of, documents, some_data, tiny_module

TEXTS = corpus_of(documents((9, 14, 6, 11, 7), seed=5))
ALL = HoldSettings(documents=5, weight=2.0)
STRONG = HoldSettings(documents=5, weight=10.0)


def naive(hold: Hold, module: CausalLM) -> float:
    """KL(before ‖ now) per token of all documents, with whole distributions, one document after the other."""
    total, tokens = 0.0, 0
    for number, before in enumerate(hold.before):
        states = final_states(module, make_batch(hold.corpus, [number]))
        theirs, ours = ((x @ head.T).double().log_softmax(-1) for x, head in ((before, hold.head), (states, module.lm_head.weight)))
        total, tokens = total + float((theirs.exp() * (theirs - ours)).sum().detach()), tokens + len(before)
    return total / tokens


@pytest.mark.parametrize("trained_head", [False, True])
def test_it_costs_nothing_until_it_moves_and_is_the_divergence(trained_head: bool) -> None:
    module = tiny_module()
    hold = held(module, TEXTS, ALL, trained_head)
    assert float(hold(module).detach()) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for parameter in module.parameters() if trained_head else module.model.layers.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    assert naive(hold, module) > 1e-3
    assert float(hold(module).detach()) == pytest.approx(2.0 * naive(hold, module), rel=1e-4)


def test_a_step_reads_the_same_documents_again_and_others_than_the_next() -> None:
    module = tiny_module()
    hold = held(module, TEXTS, replace(ALL, documents=2), False)
    with torch.no_grad():
        module.model.norm.weight *= 1.5
    found = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        torch.rand(seed)  # what else a step draws doesn't matter
        found.append(float(hold(module).detach()))
    assert found[0] == found[2] != found[1]


def low_rank(hold: HoldSettings) -> tuple[CausalLM, dict[str, torch.nn.Parameter], Hold]:
    module = tiny_module()
    kept = held(module, TEXTS, hold, False)
    return module, added_parameters(put_low_rank(module, LINEARS, 2, 1.0, 0)), kept


def test_held_texts_stay_nearer_while_answers_are_learnt_and_a_replay_is_the_run(tmp_path: Path) -> None:
    data, moved, losses = some_data(), {}, {}
    settings = replace(SETTINGS, epochs=12, optimiser=replace(SETTINGS.optimiser, learning_rate=2e-2))
    for name, documents_held in (("held", 5), ("free", 0)):
        module, parameters, hold = low_rank(STRONG)
        objective = Answers(hold if documents_held else None)
        losses[name] = train(module, parameters, data, settings, tmp_path / name, objective=objective).held_out
        moved[name] = naive(hold, module)
        rerun = Rerun(*low_rank(STRONG)[:2], data, settings, objective.hold)
        for number in range(rerun.steps):
            rerun.step(number)
        for part, value in rerun.trained.values().items():
            assert torch.equal(value, parameters[part]), part
    assert moved["held"] < 0.5 * moved["free"]
    assert losses["held"] is not None and losses["free"] is not None and losses["held"] < losses["free"] * 1.2


def test_measuring_holds_nothing() -> None:
    module = tiny_module()
    hold, batch = held(module, TEXTS, ALL, False), make_batch(TEXTS, [0])
    with torch.no_grad():
        module.model.norm.weight *= 1.5
        plain, other = (Answers(one)(module, lambda: final_states(module, batch), batch).total for one in (None, hold))
    assert plain == other
    assert Answers(hold).name != Answers(replace(hold, settings=replace(ALL, weight=3.0))).name


@pytest.mark.parametrize("name", ["documents", "weight", "tokens", "seed"])
def test_bad_settings(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        HoldSettings(**{name: -1})  # type: ignore[arg-type]
    assert not HoldSettings(documents=0).on and not HoldSettings(weight=0).on and HoldSettings().on
