"""Debiasing's objective: pairs meet in the middle, answers go above others, and what is kept costs nothing as long as it is kept."""

from pathlib import Path

import pytest
import torch

from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM
from ingle.train.equalising import ABOVE, BOTH, EQUAL, KEEP, Equalising, EqualSettings
from ingle.train.forward import final_states
from ingle.train.loop import train
from ingle.train.objectives import Distillation, Predictions, answer_log_probabilities, reference_log_probabilities
from ingle.train.packing import Batch, Data, make_batch
from ingle.train.settings import TrainSettings
from tests.train.tiny_train import corpus_of, documents, tiny_module, trained_parts

LENGTHS = (8, 12, 6, 10, 9, 7, 11, 8)
WEIGHTS = EqualSettings(equal=1.0, level=0.5, above=0.7, margin=2.0, keep=3.0)


def _made(labels: list[int], before: CausalLM) -> tuple[Equalising, Batch]:
    corpus = corpus_of(documents(LENGTHS), "pairs", labels)
    reference = reference_log_probabilities(before, corpus, 64)
    return Equalising(corpus, Predictions(before), "before", reference, WEIGHTS), make_batch(corpus, range(4))


@torch.no_grad()
def _loss(module: CausalLM, objective: Equalising, batch: Batch) -> float:
    return float(objective(module, lambda: final_states(module, batch), batch).total)


def _smooth(value: float) -> float:
    return 0.5 * value * value if abs(value) < 1 else abs(value) - 0.5


@torch.no_grad()
def test_it_is_the_formula_in_its_docstring() -> None:
    before, module = tiny_module(), tiny_module(seed=1)
    objective, batch = _made([EQUAL, ABOVE, BOTH, KEEP], before)
    sums = answer_log_probabilities(module, final_states(module, batch), batch).tolist()
    old = objective.reference.tolist()
    wanted = _smooth(sums[0] - sums[1]) + 0.5 * _smooth(sums[0] + sums[1] - old[0] - old[1])
    wanted += 0.7 * float(torch.nn.functional.softplus(torch.tensor(2.0 - (sums[2] - sums[3]))))
    wanted -= sums[4] + sums[5]
    alone = make_batch(objective.corpus, [3])
    kept = Distillation(Predictions(before), "before")(module, lambda: final_states(module, alone), alone)
    assert _loss(module, objective, batch) == pytest.approx(wanted + 3.0 * float(kept.total), rel=1e-4)


def test_what_is_kept_costs_nothing_until_it_moves() -> None:
    before = tiny_module()
    objective, batch = _made([KEEP] * 4, before)
    assert _loss(before, objective, batch) == pytest.approx(0, abs=1e-4)
    assert _loss(tiny_module(seed=1), objective, batch) > 1.0


def test_training_brings_pairs_together_without_losing_either(tmp_path: Path) -> None:
    module, before = tiny_module(), tiny_module()
    objective, _ = _made([EQUAL, EQUAL, ABOVE, KEEP], before)
    data = Data(objective.corpus, range(4))
    batch = make_batch(objective.corpus, range(4))
    settings = TrainSettings(epochs=80, batch_tokens=128, precision="fp32")
    train(module, trained_parts(module, "mlp"), data, settings, tmp_path, objective=objective)
    with torch.no_grad():
        sums = answer_log_probabilities(module, final_states(module, batch), batch)
    old = objective.reference
    for first in (0, 2):
        apart, apart_before = (float((values[first] - values[first + 1]).abs()) for values in (sums, old))
        assert apart < 0.2 * apart_before
        assert float(sums[first] + sums[first + 1]) == pytest.approx(float(old[first] + old[first + 1]), rel=0.1)
    assert float(sums[4] - sums[5]) > max(1.0, float(old[4] - old[5]))


@pytest.mark.parametrize("wrong", ["equal", "level", "above", "margin", "keep"])
def test_negative_weights_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match=rf"weights\.{wrong}"):
        EqualSettings(**{wrong: -1.0})
