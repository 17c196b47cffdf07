"""Hardening's objective: refusals are learnt, also under a push; what is kept costs nothing as long as it is kept."""

import pytest
import torch

from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM
from ingle.train.forward import final_states
from ingle.train.loop import train
from ingle.train.loop_settings import TrainSettings
from ingle.train.objectives import ANSWER, KEEP, REFUSE, Answers, Hardening, Predictions, PushSettings, cross_entropy, requests_of
from ingle.train.packing import Batch, Data, make_batch
from tests.train.tiny_train import corpus_of, documents, tiny_module, trained_parts

LENGTHS = (8, 12, 6, 10)


def _loss(module: CausalLM, objective: Hardening | Answers, batch: Batch) -> float:
    return float(objective(module, lambda: final_states(module, batch), batch).total.detach())


def _hardening(labels: list[int], module: CausalLM, **push: float) -> tuple[Hardening, Batch]:
    corpus = corpus_of(documents(LENGTHS), labels=labels)
    objective = Hardening(corpus, Predictions(module), "before", push=PushSettings(**{"steps": 0, **push}))  # type: ignore[arg-type]
    return objective, make_batch(corpus, range(len(LENGTHS)))


def test_what_is_kept_costs_nothing_until_it_moves() -> None:
    before, other = tiny_module(), tiny_module(seed=1)
    objective, batch = _hardening([KEEP] * 4, before)
    assert _loss(before, objective, batch) == pytest.approx(0, abs=1e-4)
    assert _loss(other, objective, batch) > 1.0


def test_each_label_counts_its_own_documents() -> None:
    before, other = tiny_module(), tiny_module(seed=1)
    objective, batch = _hardening([REFUSE, KEEP, ANSWER, KEEP], before)
    learnt = make_batch(objective.corpus, [0, 2])
    kept, _ = _hardening([KEEP] * 4, before)
    part = make_batch(kept.corpus, [1, 3])
    wanted = _loss(other, Answers(), learnt) + _loss(other, kept, part)
    assert _loss(other, objective, batch) == pytest.approx(wanted, rel=1e-4)


def test_the_push_makes_refusals_less_likely_and_only_at_requests() -> None:
    module = tiny_module()
    objective, batch = _hardening([REFUSE] * 4, module, steps=3, radius=0.5, depth=0.4)
    plain = float(cross_entropy(final_states(module, batch), module.lm_head.weight, batch.targets))
    assert float(objective._pushed(module, batch).detach()) > plain * 1.02
    places = requests_of(batch)
    for owner, start in enumerate(batch.bounds[:-1]):
        first = int(batch.rows[batch.owners == owner][0])
        assert places[start : first + 1].all() and not places[first + 1 : batch.bounds[owner + 1]].any()
    with torch.no_grad():
        assert _loss(module, objective, batch) == pytest.approx(plain, rel=1e-5), "measuring doesn't push"
    for parameter in module.parameters():
        assert parameter.grad is None, "searching for the push trains nothing"


def test_training_teaches_refusals_and_keeps_the_rest(tmp_path: object) -> None:
    module, before = tiny_module(), tiny_module()
    corpus = corpus_of(documents((8, 9, 10, 11, 8, 9)), labels=[REFUSE, REFUSE, REFUSE, KEEP, KEEP, KEEP])
    objective = Hardening(corpus, Predictions(before), "before", push=PushSettings(steps=1))
    data = Data(corpus, range(6))
    bad, good = make_batch(corpus, [0, 1, 2]), make_batch(corpus, [3, 4, 5])
    settings = TrainSettings(epochs=60, batch_tokens=64, precision="fp32")
    start = _loss(module, Answers(), bad)
    train(module, trained_parts(module, "mlp"), data, settings, tmp_path, objective=objective)  # type: ignore[arg-type]
    with torch.no_grad():
        moved, rows = _loss(module, objective, good), len(good.targets)
        assert _loss(module, Answers(), bad) < 0.7 * start
        assert moved / rows < 0.2 * _loss(tiny_module(seed=1), objective, good) / rows


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"depth": 1.0}, {"radius": 0.0}, {"weight": -1.0}])
def test_a_push_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="push"):
        PushSettings(**wrong)  # type: ignore[arg-type]
