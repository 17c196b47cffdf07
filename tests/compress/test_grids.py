"""Scales and minima that are trained: the weights and gradients of the plain formula, and a model that says more of what it said."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ingle.compress import recovery
from ingle.compress.calibration import CalibrationSettings
from ingle.compress.quantising import QuantiseSettings, quantise
from ingle.compress.recovery import RecoverySettings
from ingle.compress.weight_formats import FORMATS, Gridded, WeightFormat, plain_grid, read_blocks
from ingle.compress.weight_formats import Quantised as OnGrid
from ingle.core.errors import ConfigError, Interrupted
from ingle.engine.packs import open_weights
from ingle.home.deltas import delta_tensors, verify_delta
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.train.loop import train_for
from tests.tuning.place import admitting

FOLLOW = RecoverySettings(steps=12, learning_rate=3e-3, tokens=96, batch_tokens=192, held_out=4)
SMALL = QuantiseSettings(method="round", calibration=CalibrationSettings(documents=6, tokens=96), recovery=FOLLOW)


def on_grid(format_: WeightFormat, n: int = 6, k: int = 64) -> OnGrid:
    weight = torch.randn(n, k, generator=torch.Generator().manual_seed(1))
    grid = plain_grid(format_, weight)
    return OnGrid(grid, grid.codes(weight))


@pytest.mark.parametrize("format_", FORMATS.values(), ids=list(FORMATS))
def test_weights_and_gradients_are_those_of_the_plain_formula(format_: WeightFormat) -> None:
    given, draw = on_grid(format_), torch.Generator().manual_seed(2)
    one = Gridded(nn.Linear(64, 6), given)
    parameters = [parameter for name, parameter in one.named_parameters() if name.endswith("change")]
    assert len(parameters) == 1 + format_.has_minimum
    x = torch.randn(3, 64, generator=draw, requires_grad=True)
    assert torch.allclose(one(x), nn.functional.linear(x, given.values, one.bias), atol=1e-5)
    for parameter in parameters:
        parameter.data = torch.randn(parameter.shape, generator=draw) * 0.1
    plain = [parameter.detach().clone().requires_grad_() for parameter in parameters]
    scale, minimum = given.grid.scale * (1 + plain[0]), given.grid.minimum
    minimum = minimum + given.grid.scale * plain[1] if format_.has_minimum else minimum
    if given.grid.unit is not None:  # whole numbers of a unit, and slopes as if they weren't
        held = given.grid.nearest(scale, minimum)
        scale, minimum = scale + (held.scale - scale).detach(), minimum + (held.minimum - minimum).detach()
    weight = given.codes.view(*scale.shape, -1) * scale[..., None] + minimum[..., None]
    y, reference = one(x), nn.functional.linear(x, weight.flatten(1), one.bias)
    assert torch.allclose(y, reference, atol=1e-5)
    seen = torch.randn(y.shape, generator=draw)
    got = torch.autograd.grad((y * seen).sum(), [*parameters, x])
    for mine, other in zip(got, torch.autograd.grad((reference * seen).sum(), [*plain, x]), strict=True):
        assert torch.allclose(mine, other, atol=1e-4)
    assert torch.allclose(one.settled().values, weight.flatten(1).detach(), atol=5e-3)
    assert torch.equal(read_blocks(format_, one.settled().blocks()).values, one.settled().values)


def test_a_recovered_model_says_more_of_what_it_said_and_keeps_its_codes(some_home: Home) -> None:
    kept = get_kept(some_home, "tiny")
    made = quantise(some_home, kept, "followed", SMALL, admitting(some_home))
    told = made.report["recovery"]
    assert told["held_out"] < told["first_held_out"]
    assert told["trained_parameters"] == sum(2 * size // 16 for size in weights_of(some_home))
    assert verify_delta(some_home, made.delta.digest) == []
    bare = quantise(some_home, kept, "bare", replace(SMALL, recovery=RecoverySettings()), admitting(some_home))
    assert "recovery" not in bare.report
    ours, theirs = delta_tensors(some_home, made.delta), delta_tensors(some_home, bare.delta)
    assert ours.keys() == theirs.keys()
    for name, blocks in ours.items():
        one, other = read_blocks(FORMATS["int4"], blocks), read_blocks(FORMATS["int4"], theirs[name])
        assert torch.equal(one.codes, other.codes), name
        assert not torch.equal(one.grid.scale, other.grid.scale), name


def weights_of(home: Home) -> list[int]:
    checkpoint = open_weights(home, get_kept(home, "tiny"))
    return [int(np.prod(checkpoint.tensor(name).shape)) for name in checkpoint.names if "_proj" in name]


def test_stopped_in_its_recovery_it_ends_the_same(some_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, told = get_kept(some_home, "tiny"), replace(SMALL, bits=5.0, sensitivity_documents=2, recovery=replace(FOLLOW, steps=4))
    whole = quantise(some_home, kept, "whole", told, admitting(some_home)).delta

    def interrupted(*_: object) -> object:
        raise Interrupted("training", "was interrupted", "here")

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "train_for", interrupted)
        with pytest.raises(Interrupted):
            quantise(some_home, kept, "cut", told, admitting(some_home))
    assert recovery.train_for is train_for
    assert dict(quantise(some_home, kept, "cut", told, admitting(some_home)).delta.tensors) == dict(whole.tensors)


def test_what_is_told_wrongly_is_said() -> None:
    for wrong in ({"minutes": -1.0}, {"steps": 0}, {"tokens": 0}, {"tokens": 600, "batch_tokens": 512}):
        with pytest.raises(ConfigError, match="recovery"):
            RecoverySettings(**wrong)  # type: ignore[arg-type]
