"""What every quantiser must do, over the listing of their folder: a new file there is tested by being there."""

import copy

import pytest
import torch

from ingle.compress.calibration import STAGES, Inputs, Stream
from ingle.compress.quantiser import QUANTISERS, error_of, find_quantiser
from ingle.compress.quantising import Shown, quantise_layers
from ingle.compress.weight_formats import FORMATS, WeightFormat, guidance, read_blocks
from ingle.core import registry
from ingle.core.errors import ConfigError
from ingle.model.module import load_module
from ingle.model.tensor import Tensor, decode
from tests.engine.tiny import random_checkpoint, tiny_config

METHODS = registry.names(QUANTISERS)
ROWS = torch.arange(600).view(6, 100) * 7 % 70


def correlated(k: int = 96, tokens: int = 2000) -> Inputs:
    """Inputs that go together, some of them much larger than others."""
    draw = torch.Generator().manual_seed(3)
    mix = torch.randn(k, k, generator=draw) / k**0.5 + torch.eye(k)
    x = torch.randn(tokens, k, generator=draw) @ mix * torch.logspace(-1, 1, k)
    x, drifted = x.double(), (x * 1.02).double()
    return Inputs(tokens, x.T @ x / tokens, (drifted - x).T @ x / tokens)


def weights(n: int = 48, k: int = 96) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(5)) * 0.1


@pytest.mark.parametrize("format_", FORMATS.values(), ids=list(FORMATS))
@pytest.mark.parametrize("method", METHODS)
def test_what_is_made_is_blocks_near_the_weights(method: str, format_: WeightFormat) -> None:
    quantiser, weight, inputs = find_quantiser(method), weights(), correlated()
    before = weight.clone()
    made = quantiser.quantise(weight, inputs if quantiser.calibrated else None, format_)
    assert torch.equal(weight, before)
    assert made.codes.min() >= format_.low and made.codes.max() <= format_.high
    blocks = made.blocks()
    assert (blocks.shape, blocks.dtype.name) == ((48, format_.row_bytes + 3 * format_.block_bytes), "uint8")
    assert torch.equal(torch.from_numpy(decode(format_.kind, blocks)), made.values)
    back = read_blocks(format_, blocks)
    assert torch.equal(back.codes, made.codes) and torch.equal(back.values, made.values)
    again = quantiser.quantise(weight, inputs if quantiser.calibrated else None, format_)
    assert torch.equal(again.values, made.values)
    share = error_of(weight, made.values, inputs.hessian) / error_of(weight, 0 * weight, inputs.hessian)
    assert 0 < share < {8: 0.001, 4: 0.02, 3: 0.08}[format_.bits]


@pytest.mark.parametrize("method", [name for name in METHODS if find_quantiser(name).calibrated])
def test_what_looks_at_inputs_serves_them_better_than_rounding(method: str) -> None:
    weight, inputs = weights(), correlated()
    plain = find_quantiser("round").quantise(weight, None, FORMATS["int4"])
    made = find_quantiser(method).quantise(weight, Inputs(inputs.tokens, inputs.hessian), FORMATS["int4"])
    assert error_of(weight, made.values, inputs.hessian) < 0.9 * error_of(weight, plain.values, inputs.hessian)


@pytest.mark.parametrize("method", METHODS)
def test_inputs_that_never_come_and_rows_of_zeros_do_no_harm(method: str) -> None:
    weight, inputs = weights(), correlated()
    weight[3] = 0
    weight[:, 40:80] = 0
    inputs.hessian[:, 5] = inputs.hessian[5] = 0
    for format_ in FORMATS.values():
        made = find_quantiser(method).quantise(weight, Inputs(inputs.tokens, inputs.hessian), format_)
        assert torch.isfinite(made.values).all()
        assert made.values[3].abs().max() < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_a_fold_changes_nothing_that_a_layer_computes(method: str) -> None:
    quantiser = find_quantiser(method)
    if quantiser.fold is None:
        return
    for biases in (False, True):
        module = load_module(random_checkpoint(tiny_config(hidden=64, mlp=96, dim=16, biases=biases)))
        stream, layer = Stream(module, ROWS), module.model.layers[0]
        formats = {name: FORMATS["int4"] for stage in STAGES for name in stage}
        folded = copy.deepcopy(layer)
        changed = quantiser.fold(folded, stream.inputs(layer, list(formats)), formats)
        others = {name for name, value in layer.named_parameters() if not torch.equal(value, folded.get_parameter(name))}
        assert others - {f"{name}.weight" for name in formats} == set(changed) != set()
        before, after = stream.states.clone(), stream
        after.advance(folded)
        ours = after.states
        after.states = before
        after.advance(layer)
        torch.testing.assert_close(ours, after.states, rtol=1e-4, atol=1e-4)
        untouched = copy.deepcopy(layer)
        assert quantiser.fold(untouched, {}, {"self_attn.o_proj": FORMATS["int4"]}) == ()


@pytest.mark.parametrize("method", METHODS)
def test_a_whole_model(method: str) -> None:
    quantiser, config = find_quantiser(method), tiny_config(hidden=64, mlp=96, dim=16)
    module = load_module(random_checkpoint(config))
    formats = {f"model.layers.{i}.{name}.weight": FORMATS["int8"] for i in range(2) for stage in STAGES for name in stage}
    weights = guidance(module, ROWS, formats, lambda _done, _of: None) if quantiser.guided else None
    made = quantise_layers(module, Shown(ROWS, weights) if quantiser.calibrated else None, quantiser, formats)
    assert set(formats) <= set(made.tensors)
    assert set(made.errors) == set(formats)
    assert max(made.errors.values()) < 1e-3
    with torch.no_grad():
        exact = module(ROWS)
        for name, value in made.tensors.items():
            parameter = module.get_parameter(name)
            kind = "Q8_0" if name in formats else "F32"
            raw = value if name in formats else value.view("uint8").reshape(*value.shape[:-1], -1)
            parameter.copy_(torch.from_numpy(Tensor(name, tuple(parameter.shape), kind, raw).to_float32()))
        assert ((module(ROWS) - exact).norm() / exact.norm()) < 0.03


def test_every_quantiser_says_what_it_is_and_unknown_ones_are_refused() -> None:
    assert {"round", "mse", "gptq", "awq"} <= set(METHODS)
    assert all(title.endswith(".") for title in registry.titles(QUANTISERS).values())
    with pytest.raises(ConfigError, match="gptq"):
        find_quantiser("gtpq")
