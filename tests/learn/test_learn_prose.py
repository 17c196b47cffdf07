"""Ordinary text of the model's own: what a style costs on it is what a naive reading finds, and what went too far is drawn back."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from ingle.gate.trial import general_texts
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.learn.learning_settings import StyleSettings
from ingle.learn.style import BEGINNINGS, Prose, StyleTeacher
from ingle.learn.trainable_model import TrainableModel
from ingle.train.example_files import Document
from ingle.train.optimisers import OptimiserSettings
from tests.learn.test_learn_practice import RATED
from tests.learn.test_lesson import SETTINGS, home  # noqa: F401 - a fixture

STYLES = StyleSettings(learning_rate=2e-2, rounds=0, epochs=3, prose_tokens=8, prose_weight=0.0, most_drift=1e9)


@pytest.fixture
def model(home: Home) -> Iterator[TrainableModel]:  # noqa: F811
    model = StyleTeacher(home, get_kept(home, "tiny"), SETTINGS, STYLES).model
    with model.learning(0, OptimiserSettings()):
        yield model


def naive(model: TrainableModel, documents: list[Document]) -> torch.Tensor:
    """Log-probabilities of all tokens, where an own one comes next: one text after the other through the whole module."""
    found = []
    with torch.no_grad():
        for document in documents:
            logits = model.module(torch.from_numpy(document.ids.astype(np.int64))[None])[0]
            found.append(logits[torch.from_numpy(np.flatnonzero(document.answer) - 1)].float().log_softmax(-1))
    return torch.cat(found)


def move(model: TrainableModel) -> None:
    assert model._trained is not None
    for value in model._trained.values().values():
        value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(7)) * 0.05)
    model.shrink(1.0)


def test_drift_and_divergence_are_what_a_naive_reading_finds(model: TrainableModel) -> None:
    prose = Prose(model, 8, 0)
    before = naive(model, prose._back), naive(model, prose._held[:2])
    assert prose.drift() == pytest.approx(0, abs=1e-4)
    move(model)
    after = naive(model, prose._back), naive(model, prose._held[:2])
    moved, held = ((old.exp() * (old - new)).sum(-1) for old, new in zip(before, after, strict=True))
    entropy = -(before[0].exp() * before[0]).sum(-1)
    assert float(moved.sum()) > 0.01
    assert prose.drift() == pytest.approx(100 * float(moved.sum() / entropy.sum()), rel=1e-3)
    assert float(prose.divergence([0, 1]).detach()) == pytest.approx(float(held.mean()), rel=1e-3)
    half = len(BEGINNINGS) // 2
    assert float(prose.divergence([half, half + 1]).detach()) == float(prose.divergence([0, 1]).detach())


def test_what_is_learned_from_only_holds_and_what_is_held_back_only_measures(model: TrainableModel) -> None:
    prose = Prose(model, 8, 0)
    held, back = ({tuple(one.ids.tolist()) for one in some} for some in (prose._held, prose._back))
    assert held
    assert len(held) == len(back)
    assert not held & back
    assert not any(text.startswith(begin) for text in general_texts() for begin in BEGINNINGS)


def test_a_shrunk_addition_moves_less(model: TrainableModel) -> None:
    prose = Prose(model, 8, 0)
    move(model)
    tensors, far = model.tensors(), prose.drift()
    model.shrink(0.5)
    assert 0 < prose.drift() < far
    for name, value in model.tensors().items():
        assert np.allclose(value, tensors[name] * (0.5 if "lora_B" in name else 1.0)), name


def test_a_style_is_held_by_its_weight_and_drawn_back_to_its_limit(home: Home) -> None:  # noqa: F811
    kept = get_kept(home, "tiny")

    def told(**values: float) -> tuple[float, float]:
        report = StyleTeacher(home, kept, SETTINGS, replace(STYLES, **values)).style(RATED).report  # type: ignore[arg-type]
        assert report is not None
        return float(report["drift"]), float(report["shrunk"])

    free, factor = told()
    assert factor == 1.0
    assert told(prose_weight=20.0)[0] < free
    drawn, factor = told(most_drift=free / 2)
    assert drawn <= free / 2
    assert 0 < factor < 1
