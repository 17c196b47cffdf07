"""Debiasing's objective: words and people become equal, answers go above others, and what is kept costs nothing as long as it is kept."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM
from ingle.train.example_files import Document
from ingle.train.forward import final_states
from ingle.train.loop import train
from ingle.train.loop_settings import TrainSettings
from ingle.train.objectives import (
    ABOVE,
    BOTH,
    KEPT_TARGET,
    SWAPPED,
    WORDS,
    Equalising,
    EqualSettings,
    Predictions,
    answer_log_probabilities,
    opposite_rows,
)
from ingle.train.packing import Batch, Data, make_batch
from tests.train.tiny_train import corpus_of, tiny_module, trained_parts

WEIGHTS = EqualSettings(words=1.5, swapped=0.8, above=0.7, margin=2.0, keep=3.0, level=0.25)
PAIRS = torch.tensor([[3, 9], [20, 31], [5, 60]])


def _documents(count: int = 5, seed: int = 0) -> list[Document]:
    """Two documents an example, of different beginnings but equally many weighed tokens."""
    draw, done = np.random.default_rng(seed), list[Document]()
    for example in range(count):
        weighed = 1 if example == 0 else int(draw.integers(2, 6))
        for _ in range(2):
            first = int(draw.integers(3, 7))
            ids = draw.integers(0, 70, first + weighed).astype(np.int32)
            done.append(Document(ids, np.arange(len(ids)) >= first))
    return done


def _made(labels: list[int], before: CausalLM) -> tuple[Equalising, Batch]:
    corpus = corpus_of(_documents(len(labels)), "pairs", labels)
    return Equalising(corpus, Predictions(before), "before", [PAIRS], WEIGHTS), make_batch(corpus, range(len(labels)))


@torch.no_grad()
def _loss(module: CausalLM, objective: Equalising, batch: Batch) -> float:
    return float(objective(module, lambda: final_states(module, batch), batch).total)


@torch.no_grad()
def _chances(module: CausalLM, batch: Batch) -> list[torch.Tensor]:
    """Log-probabilities of all words, at each document's weighed places; every document read alone."""
    found = []
    for start, end in zip(batch.bounds[:-1], batch.bounds[1:], strict=True):
        rows = [int(row) for row in batch.rows if start <= row < end]
        found.append(
            (final_states(module, batch)[[batch.rows.tolist().index(row) for row in rows]] @ module.lm_head.weight.T).log_softmax(-1)
        )
    return found


def _kl(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    return float((theirs.exp() * (theirs - ours)).sum())


def test_it_is_the_table_in_its_docstring() -> None:
    before, module = tiny_module(), tiny_module(seed=1)
    objective, batch = _made([WORDS, SWAPPED, ABOVE, BOTH, KEPT_TARGET], before)
    now, old = _chances(module, batch), _chances(before, batch)
    sums = answer_log_probabilities(module, final_states(module, batch), batch).tolist()
    apart = torch.stack([row[0, PAIRS[:, 0]] - row[0, PAIRS[:, 1]] for row in now[:2]])
    smooth = torch.where(apart.abs() < 1, 0.5 * apart**2, apart.abs() - 0.5)
    wanted = 1.5 * float(smooth.mean(dim=1).sum()) + 0.25 * (_kl(old[0], now[0]) + _kl(old[1], now[1]))
    middle = (old[2].exp() / 2 + old[3].exp() / 2).log()
    wanted += 0.8 * (_kl(middle, now[2]) + _kl(middle, now[3]))
    wanted += 0.7 * float(torch.nn.functional.softplus(torch.tensor(2.0 - (sums[4] - sums[5]))))
    wanted += -(sums[6] + sums[7]) + 3.0 * (_kl(old[8], now[8]) + _kl(old[9], now[9]))
    assert _loss(module, objective, batch) == pytest.approx(wanted, rel=1e-4)


def test_what_is_kept_costs_nothing_until_it_moves() -> None:
    before = tiny_module()
    objective, batch = _made([KEPT_TARGET] * 4, before)
    assert _loss(before, objective, batch) == pytest.approx(0, abs=1e-4)
    assert _loss(tiny_module(seed=1), objective, batch) > 1.0


def test_rows_change_places_only_within_their_example() -> None:
    _, batch = _made([KEPT_TARGET, SWAPPED, SWAPPED, ABOVE], tiny_module())
    places = opposite_rows(batch)
    assert places[places].tolist() == list(range(len(places))), "twice is back"
    for row, other in enumerate(places.tolist()):
        mine, theirs = int(batch.owners[row]), int(batch.owners[other])
        assert mine // 2 == theirs // 2
        assert (mine != theirs) == (int(batch.labels[mine // 2]) == SWAPPED)


def test_training_makes_words_and_people_equal(tmp_path: Path) -> None:
    module, before = tiny_module(), tiny_module()
    objective, batch = _made([WORDS, SWAPPED, ABOVE, KEPT_TARGET], before)
    settings = TrainSettings(epochs=120, batch_tokens=128, precision="fp32")
    train(module, trained_parts(module, "mlp"), Data(objective.corpus, range(4)), settings, tmp_path, objective=objective)
    now, old = _chances(module, batch), _chances(before, batch)

    def apart(rows: torch.Tensor) -> float:
        return float((rows[0, PAIRS[:, 0]] - rows[0, PAIRS[:, 1]]).abs().mean())

    assert apart(now[0]) < 0.3 * apart(old[0])
    assert _kl(now[2], now[3]) < 0.3 * _kl(old[2], old[3])
    sums = answer_log_probabilities(module, final_states(module, batch), batch)
    assert float((sums[4] - sums[5]).detach()) > 1.0


@pytest.mark.parametrize("wrong", ["words", "swapped", "above", "margin", "keep", "level"])
def test_negative_weights_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match=rf"weights\.{wrong}"):
        EqualSettings(**{wrong: -1.0})
