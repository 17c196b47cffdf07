"""The gradient through a training, beside trainings with one example's weight changed a little; and the rerun that it rests on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM
from ingle.train.forward import final_states
from ingle.train.loop import train
from ingle.train.loop_settings import Schedule, TrainSettings
from ingle.train.low_rank import added_parameters, put_low_rank
from ingle.train.optimisers import OptimiserSettings
from ingle.train.packing import Data, Order, make_batch
from ingle.train.rerun import Halfway, Rerun, through_training
from tests.train.tiny_train import some_data, tiny_module

LINEARS = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj")
SETTINGS = TrainSettings(
    epochs=2, batch_tokens=96, precision="fp32",
    optimiser=OptimiserSettings(learning_rate=3e-3, beta2=0.99, eps=1e-3, weight_decay=0.1, clip_norm=0.5), schedule=Schedule(warm_up=0.3),
)  # fmt: skip


def low_rank() -> tuple[CausalLM, dict[str, nn.Parameter]]:
    module = tiny_module()
    return module, added_parameters(put_low_rank(module, LINEARS, 2, 1.0, 0))


def weighted(data: Data, settings: TrainSettings, question: int, weights: dict[int, float]) -> float:
    """Loss of a held-out example after a plain loop in float64 in which some examples count otherwise."""
    module, parameters = low_rank()
    module.double().train()
    of = settings.optimiser
    optimiser = torch.optim.AdamW(parameters.values(), of.learning_rate, (of.beta1, of.beta2), of.eps, of.weight_decay)
    order = Order(data, settings.batch_tokens, settings.accumulate, 0, 1, settings.seed)
    steps = sum(order.steps(epoch) for epoch in range(settings.epochs))
    for step in range(steps):
        total, terms = torch.zeros((), dtype=torch.float64), 0.0
        for examples in order.batches(*order.place(step)):
            for example in examples:
                loss, count = nats(module, data, example)
                weight = weights.get(example, 1.0)
                total, terms = total + weight * loss, terms + weight * count
        (total / terms).backward()
        nn.utils.clip_grad_norm_(parameters.values(), of.clip_norm or float("inf"))
        for group in optimiser.param_groups:
            group["lr"] = of.learning_rate * settings.schedule.factor(step, steps)
        optimiser.step()
        optimiser.zero_grad()
    return float(nats(module.eval(), data, question)[0].detach())


def nats(module: CausalLM, data: Data, example: int) -> tuple[torch.Tensor, int]:
    batch = make_batch(data.corpus, [example])
    logits = final_states(module, batch) @ module.lm_head.weight.T
    return nn.functional.cross_entropy(logits, batch.targets, reduction="sum"), len(batch.targets)


def test_a_replay_is_the_run(tmp_path: Path) -> None:
    data = some_data()
    module, parameters = low_rank()
    train(module, parameters, data, SETTINGS, tmp_path)
    rerun = Rerun(*low_rank(), data, SETTINGS)
    for number in range(rerun.steps):
        rerun.step(number)
    for name, value in rerun.trained.values().items():
        assert torch.equal(value, parameters[name]), name


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_it_is_what_changing_a_weight_a_little_does(clip_norm: float) -> None:
    data = some_data()
    settings = replace(SETTINGS, optimiser=replace(SETTINGS.optimiser, clip_norm=clip_norm))
    rerun = Rerun(*low_rank(), data, settings)
    questions = [make_batch(data.corpus, [i]) for i in (0, 1)]
    losses, rises = through_training(rerun, rerun.steps, questions)
    for number in (0, 1):
        assert losses[number] == pytest.approx(weighted(data, settings, number, {}), rel=1e-4)
    wanted = [
        (weighted(data, settings, 0, {i: 0.98}) - weighted(data, settings, 0, {i: 1.02})) / 0.04 for i in range(4, 24)
    ]  # fmt: skip
    assert np.corrcoef(wanted, rises[0, 4:])[0, 1] > 0.999
    assert rises[0, 4:] == pytest.approx(np.array(wanted), abs=0.05 * np.abs(wanted).max())
    assert not rises[:, :4].any(), "what is held out taught nothing"


def test_in_pieces_it_is_the_same_and_says_how_far_it_is() -> None:
    data, told = some_data(), list[tuple[int, int]]()
    _, whole = through_training(rerun := Rerun(*low_rank(), data, SETTINGS), 5, [make_batch(data.corpus, [0])])
    assert rerun.steps > 5, "the best parameters are not always the last"
    question = [make_batch(data.corpus, [0])]
    _, pieces = through_training(Rerun(*low_rank(), data, SETTINGS), 5, question, lambda i, n: told.append((i, n)), 1)
    assert np.array_equal(whole, pieces)
    assert told == [(i, 13) for i in range(1, 14)], "there, back, and the first three steps there again"


@pytest.mark.parametrize(("memory", "stop_at"), [(1 << 30, 7), (1, 9), (1, 12)])
def test_stopped_on_the_way_back_it_goes_on_with_the_same_bytes(tmp_path: Path, memory: int, stop_at: int) -> None:
    data = some_data()
    questions = [make_batch(data.corpus, [i]) for i in (0, 1)]
    losses, whole = through_training(Rerun(*low_rank(), data, SETTINGS), 5, questions)

    def stop(number: int, _of: int) -> None:
        if number == stop_at:
            raise KeyboardInterrupt

    def follow(done: Callable[[int, int], None]) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
        return through_training(Rerun(*low_rank(), data, SETTINGS), 5, questions, done, memory, Halfway(tmp_path / "halfway", 0))

    with pytest.raises(KeyboardInterrupt):
        follow(stop)
    told = list[int]()
    again = follow(lambda _number, of: told.append(of))
    assert np.array_equal(again[0], losses)
    assert np.array_equal(again[1], whole)
    assert told[0] < (10 if memory > 1 else 13), "what was followed back is not trained again"


def test_what_can_not_be_followed_back_is_said() -> None:
    data = some_data()
    muon = replace(SETTINGS, optimiser=OptimiserSettings("muon"))
    with pytest.raises(ConfigError, match="adamw"):
        Rerun(*low_rank(), data, muon)
