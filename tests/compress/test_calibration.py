"""What comes to each linear: as the module itself computes it, and no more of it than is asked for."""

import copy

import pytest
import torch

from ingle.compress.calibration import STAGES, CalibrationSettings, Stream, make_rows
from ingle.compress.weight_formats import guidance
from ingle.core.errors import ConfigError
from ingle.measure.data_sets import Text
from ingle.model.module import load_module
from ingle.model.tokenizer import TokenizerFacts, make_facts
from tests.engine.tiny import random_checkpoint, tiny_config
from tests.model.tiny_tokenizers import byte_level

LINEARS = [name for stage in STAGES for name in stage]
ROWS = torch.arange(40).view(5, 8) * 7 % 70


def test_inputs_are_what_the_module_computes_whatever_the_batch() -> None:
    module = load_module(random_checkpoint(tiny_config()))
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        module.model.layers[1].get_submodule(name).register_forward_pre_hook(lambda _m, x, name=name: seen.update({name: x[0]}))
        for name in LINEARS
    ]
    with torch.no_grad():
        module(ROWS)
    for hook in hooks:
        hook.remove()
    for batch in (2, 8):
        stream = Stream(module, ROWS, batch)
        stream.advance(module.model.layers[0])
        inputs = stream.inputs(module.model.layers[1], LINEARS)
        assert set(inputs) == set(LINEARS)
        for name, found in inputs.items():
            x = seen[name].double()
            torch.testing.assert_close(found.hessian, x.T @ x / 40, rtol=1e-4, atol=1e-5)
            assert (found.tokens, found.drift) == (40, None)


def test_drift_is_the_way_back_to_the_original() -> None:
    module = load_module(random_checkpoint(tiny_config()))
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight *= 1.3
    ours, theirs = Stream(other, ROWS), Stream(module, ROWS)
    layers = module.model.layers
    same = ours.inputs(layers[0], ["self_attn.o_proj"], (theirs, layers[0]))["self_attn.o_proj"]
    assert same.drift is not None and same.drift.abs().max() == 0
    ours.advance(other.model.layers[0])
    theirs.advance(layers[0])
    found = ours.inputs(other.model.layers[1], ["self_attn.q_proj"], (theirs, layers[1]))["self_attn.q_proj"]
    with torch.no_grad():
        x, x0 = (layers[1].input_layernorm(stream.states).flatten(0, 1).double() for stream in (ours, theirs))
    assert found.drift is not None
    torch.testing.assert_close(found.drift, (x0 - x).T @ x / 40, rtol=1e-4, atol=1e-5)
    assert found.drift.abs().max() > 0.01


def test_tokens_weigh_what_they_are_given() -> None:
    module = load_module(random_checkpoint(tiny_config()))
    layer, stream = module.model.layers[0], Stream(module, ROWS, 2)
    weights = {name: torch.rand(40, generator=torch.Generator().manual_seed(i)) for i, name in enumerate(LINEARS)}
    found = stream.inputs(layer, LINEARS, weights=weights)
    alike = stream.inputs(layer, LINEARS, weights=dict.fromkeys(LINEARS, torch.ones(40)))
    with torch.no_grad():
        x = layer.input_layernorm(stream.states).flatten(0, 1).double()
    for name in ("self_attn.q_proj", "self_attn.v_proj"):
        torch.testing.assert_close(found[name].hessian, (x.T * weights[name]) @ x / 40, rtol=1e-4, atol=1e-5)
    for name, plain in stream.inputs(layer, LINEARS).items():
        torch.testing.assert_close(alike[name].hessian, plain.hessian, rtol=1e-5, atol=1e-6)


def test_a_token_weighs_what_an_error_there_costs() -> None:
    """Against the KL divergence that an error of a linear's outputs at one token makes, by finite differences."""
    module, ids = load_module(random_checkpoint(tiny_config())), ROWS[:1]
    names = ["model.layers.0.self_attn.v_proj.weight", "model.layers.1.mlp.up_proj.weight"]
    sums = {name: torch.zeros(8) for name in names}
    for seed in range(300):  # by tokens that are drawn: many, so that the draw counts for little
        for name, weight in guidance(module, ids, names, lambda _done, _of: None, seed).items():
            sums[name] += weight
    with torch.no_grad():
        before = module(ids)[0].double().log_softmax(-1)
        for name in names:
            linear, costs = module.get_submodule(name.removesuffix(".weight")), torch.zeros(8, dtype=torch.float64)
            for token in range(8):
                for output in range(linear.out_features):

                    def push(_m: object, _x: object, y: torch.Tensor, token: int = token, output: int = output) -> torch.Tensor:
                        y = y.clone()
                        y[token, output] += 0.03
                        return y

                    hook = linear.register_forward_hook(push)
                    after = module(ids)[0].double().log_softmax(-1)
                    hook.remove()
                    costs[token] += (before.exp() * (before - after)).sum()
            assert torch.corrcoef(torch.stack([costs, sums[name].double()]))[0, 1] > 0.95
            assert costs.max() > 2 * costs.min(), "they must differ for this to say anything"


def test_rows_are_drawn_and_too_little_text_is_said() -> None:
    tokenizer = make_facts(byte_level(), TokenizerFacts("bytes", (2,)), "tiny")
    texts = [Text(str(i), str(i), f"some text {i} " * 20) for i in range(6)]
    rows = make_rows(tokenizer, texts, CalibrationSettings(documents=3, tokens=50), 2000)
    assert rows.shape == (3, 50)
    assert not torch.equal(rows, make_rows(tokenizer, texts, CalibrationSettings(documents=3, tokens=50, seed=1), 2000))
    assert make_rows(tokenizer, texts, CalibrationSettings(documents=3, tokens=50), 20).shape == (3, 20)
    with pytest.raises(ConfigError, match=r"calibration\.documents="):
        make_rows(tokenizer, texts, CalibrationSettings(documents=300, tokens=50), 2000)
    with pytest.raises(ConfigError, match="longer texts"):
        make_rows(tokenizer, texts[:1], CalibrationSettings(tokens=5000), 9000)
    for name in ("documents", "tokens", "batch"):
        with pytest.raises(ConfigError, match=name):
            CalibrationSettings(**{name: 0})
