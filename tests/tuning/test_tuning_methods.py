"""What is particular to single methods: their own ways back against PyTorch's, the papers' formulas, and where they begin."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ingle.core.errors import ConfigError
from ingle.model.module_parts import PackedRows
from ingle.train.corpus import Corpus
from ingle.train.example_files import Document
from ingle.train.forward import attend_on, final_states
from ingle.train.low_rank import LowRankLinear
from ingle.train.optimisers import OptimiserSettings, Trained
from ingle.train.packing import make_batch
from ingle.tuning.bottleneck import BottleneckLinear
from ingle.tuning.low_rank_settings import LowRankSettings
from ingle.tuning.methods.dora import DirectedLinear
from ingle.tuning.methods.ia3 import ScaledLinear
from ingle.tuning.methods.pissa import principal
from ingle.tuning.tuning_method import find_method
from ingle.tuning.virtual import some_tokens, with_virtual
from tests.engine.tiny import random_checkpoint, tiny_config
from tests.train.tiny_train import HYBRID, corpus_of, documents, gradients, tiny_module

MADE: dict[str, Callable[[nn.Linear], Any]] = {
    "low rank": lambda linear: LowRankLinear(linear, 3, 1.5, 0.0),
    "directed": lambda linear: DirectedLinear(linear, 3, 1.5, 0.0),
    "bottleneck": lambda linear: BottleneckLinear(linear, 5, torch.Generator().manual_seed(1)),
    "scaled outputs": lambda linear: ScaledLinear(linear, on_inputs=False),
    "scaled inputs": lambda linear: ScaledLinear(linear, on_inputs=True),
}


def make(kind: str, bias: bool = True, dtype: torch.dtype = torch.float64) -> tuple[Any, dict[str, nn.Parameter]]:
    torch.manual_seed(0)
    linear = nn.Linear(7, 6, bias=bias)
    linear.requires_grad_(False)
    made = MADE[kind](linear)
    if kind == "directed":
        made.squares = made.squares.to(dtype)
    made.to(dtype)
    own = {name: p for name, p in made.named_parameters() if name not in ("weight", "bias")}
    with torch.no_grad():
        for parameter in own.values():
            parameter += 0.3 * torch.randn(parameter.shape)
    return made, own


def both(made: Any, own: dict[str, nn.Parameter], x: Tensor) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Outputs and gradients of `forward` and of its naive reference."""
    results = []
    weights = torch.linspace(-1, 2, x.shape[0])[:, None].to(x.dtype)
    for way in (made, made.naive):
        inputs = x.clone().requires_grad_()
        made.zero_grad()
        y = way(inputs)
        (y * y * weights).sum().backward()
        assert inputs.grad is not None
        results.append((y.detach(), {"x": inputs.grad} | {name: p.grad.clone() for name, p in own.items() if p.grad is not None}))
    return results


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", MADE)
def test_ways_back_are_those_of_their_twins(kind: str, bias: bool) -> None:
    made, own = make(kind, bias)
    forward, naive = both(made, own, torch.randn(9, 7, dtype=torch.float64))
    torch.testing.assert_close(forward, naive)
    assert forward[1].keys() == {"x", *own}
    assert all(slope.abs().max() > 0.01 for slope in forward[1].values())


@pytest.mark.parametrize("kind", MADE)
def test_in_bfloat16_ways_back_are_as_near_as_their_twins(kind: str) -> None:
    made, own = make(kind)
    x = torch.randn(64, 7, dtype=torch.float64)
    exact = both(made, own, x)[0][1]
    made.bfloat16()
    if kind == "directed":
        made.squares = made.squares.float()
    forward, naive = (slopes for _, slopes in both(made, own, x.bfloat16()))
    for name, slope in exact.items():
        off, twin_off = (float((slopes[name].double() - slope).norm() / slope.norm()) for slopes in (forward, naive))
        assert off < 1.5 * twin_off + 0.01, (name, off, twin_off)


@pytest.mark.parametrize("kind", MADE)
def test_any_shape_and_inputs_without_a_gradient(kind: str) -> None:
    made, own = make(kind)
    x = torch.randn(2, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(made(x), made.naive(x))
    made(x).sum().backward()
    assert all(p.grad is not None for p in own.values())
    assert made.weight.grad is None


def test_dora_is_the_papers_formula() -> None:
    made, _ = make("directed")
    x = torch.randn(9, 7, dtype=torch.float64)
    directed = made.weight + made.scale * made.lora_B.weight @ made.lora_A.weight
    lengths = directed.norm(dim=1)
    torch.testing.assert_close(made.norms(), lengths)
    expected = x @ (made.magnitudes()[:, None] * directed / lengths[:, None]).T + made.bias
    torch.testing.assert_close(made(x), expected)


def test_doras_length_of_zero_is_no_nan() -> None:
    linear = nn.Linear(7, 6)
    with torch.no_grad():
        linear.weight[2] = 0
    linear.requires_grad_(False)
    made = DirectedLinear(linear, 3, 1.0, 0.0)
    with torch.no_grad():
        made.lora_B.weight.zero_()
    x = torch.randn(4, 7, requires_grad=True)
    y = made(x)
    y.square().sum().backward()
    assert torch.isfinite(y).all()
    for parameter in (made.lora_A.weight, made.lora_B.weight, made.lora_magnitude_change):
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    torch.testing.assert_close(y, nn.functional.linear(x, linear.weight, linear.bias))


@pytest.mark.parametrize("name", ["lora", "rslora", "dora", "pissa"])
def test_dropout_is_for_training_only(name: str) -> None:
    method, module = find_method(name), tiny_module()
    method.attach(module, (0, 1), replace(method.Settings(), rank=4, dropout=0.5), 0)
    linear = module.get_submodule("model.layers.0.mlp.up_proj")
    assert isinstance(linear, LowRankLinear)
    with torch.no_grad():
        linear.lora_B.weight.fill_(0.1)
        x = torch.randn(5, 48)
        assert torch.equal(linear(x), linear(x))
        module.train()
        assert not torch.equal(linear(x), linear(x))
        many = torch.stack([linear(x) for _ in range(3000)]).mean(0)
        module.eval()
        torch.testing.assert_close(many, linear(x), atol=0.1, rtol=0.1)


def test_scales() -> None:
    """rsLoRA's grows with the root of alpha / rank's denominator; both are the same at their defaults."""
    scales = {}
    for name, rank in (("lora", 16), ("lora", 4), ("rslora", 16), ("rslora", 4)):
        method, module = find_method(name), tiny_module()
        method.attach(module, (0,), replace(method.Settings(), rank=rank), 0)
        linear = module.get_submodule("model.layers.0.mlp.up_proj")
        assert isinstance(linear, LowRankLinear)
        scales[name, rank] = linear.scale
    assert scales == {("lora", 16): 2, ("lora", 4): 8, ("rslora", 16): 2, ("rslora", 4): 4}


@pytest.mark.parametrize("iterations", [0, 8])
def test_the_principal_directions(iterations: int) -> None:
    draw = torch.Generator().manual_seed(0)
    sides = [torch.linalg.qr(torch.randn(n, 40, generator=draw)).Q for n in (90, 70)]
    weight = sides[0] * 0.85 ** torch.arange(40) @ sides[1].T
    u, s, v = principal(weight, 6, iterations, torch.Generator().manual_seed(1))
    torch.testing.assert_close(s, 0.85 ** torch.arange(6), rtol=1e-3, atol=0)
    torch.testing.assert_close(u * s @ v.T, sides[0][:, :6] * 0.85 ** torch.arange(6) @ sides[1][:, :6].T, rtol=0, atol=2e-3)


def test_pissa_leaves_the_weights_without_what_it_trains() -> None:
    method, module = find_method("pissa"), tiny_module()
    name = "model.layers.1.self_attn.q_proj"
    before = module.get_parameter(f"{name}.weight").detach().clone()
    got = method.attach(module, (0, 1), replace(method.Settings(), rank=4, iterations=0), 0)
    after = module.get_parameter(f"{name}.weight").detach()
    values = torch.linalg.svdvals(before)
    torch.testing.assert_close(torch.linalg.svdvals(after)[:10], values[4:14], rtol=1e-4, atol=1e-5)
    tensors = got.collect()
    a, b = tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"]
    assert (a.shape, b.shape) == ((8, 48), (48, 8))
    torch.testing.assert_close(b @ a, torch.zeros(48, 48), rtol=0, atol=1e-6)


def test_adapters_stand_where_their_papers_put_them() -> None:
    intended = {}
    for name in ("houlsby", "pfeiffer"):
        method = find_method(name)
        intended[name] = method.attach(tiny_module(), (1,), replace(method.Settings(), rank=4), 0).intended
    assert intended == {
        "houlsby": ("model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"), "pfeiffer": ("model.layers.1.mlp.down_proj",)
    }  # fmt: skip


def test_ia3_targets() -> None:
    method = find_method("ia3")
    got = method.attach(tiny_module(), (0,), method.Settings(), 0)
    shapes = {name.removeprefix("model.layers.0."): tuple(tensor.shape) for name, tensor in got.collect().items()}
    assert shapes == {"self_attn.k_proj.ia3_l": (24, 1), "self_attn.v_proj.ia3_l": (24, 1), "mlp.down_proj.ia3_l": (1, 80)}
    assert all((tensor == 1).all() for tensor in got.collect().values())
    for changes, message in (
        ({"inputs": "v_proj"}, "must not name a linear that outputs"),
        ({"outputs": "", "inputs": ""}, "at least one"),
    ):
        with pytest.raises(ConfigError, match=message):
            method.attach(tiny_module(), (0,), replace(method.Settings(), **changes), 0)
    only = method.attach(tiny_module(), (0,), replace(method.Settings(), outputs=""), 0)
    assert only.intended == ("model.layers.0.mlp.down_proj",)


def test_small_steps_of_a_scale_are_not_lost_in_bfloat16() -> None:
    """1.001 is 1 in bfloat16; the delta must still say 1.001."""
    for name, part in (("ia3", "ia3_l"), ("dora", "lora_magnitude_vector")):
        method, module = find_method(name), tiny_module()
        got = method.attach(module, (0,), method.Settings(), 0)
        before = {key: tensor.clone() for key, tensor in got.collect().items() if key.endswith(part)}
        trained = Trained(got.parameters, OptimiserSettings(), torch.bfloat16)
        for key, value in trained.values().items():
            if key.endswith("_change"):
                value += 0.001
        trained.load({key: value.clone() for key, value in trained.values().items()}, {})
        for key, tensor in before.items():
            torch.testing.assert_close(got.collect()[key] - tensor, torch.full_like(tensor, 0.001), rtol=0.01, atol=1e-6)


def test_bitfit_adds_to_biases_that_are_there() -> None:
    method = find_method("bitfit")
    for biases in (True, False):
        config = tiny_config(biases=biases)
        module = tiny_module(config)
        got = method.attach(module, (0, 1), method.Settings(), 0)
        assert len(got.parameters) == 14
        assert all((tensor == 0).all() for tensor in got.collect().values())
        old = random_checkpoint(config).names
        assert ("model.layers.0.self_attn.q_proj.bias" in old) == biases
        with torch.no_grad():
            got.parameters["model.layers.0.self_attn.q_proj.bias"] += 0.5
        torch.testing.assert_close(got.collect()["model.layers.0.self_attn.q_proj.bias"], torch.full((48,), 0.5))


def test_full_takes_the_embedding_with_all_layers() -> None:
    method = find_method("full")
    for tied in (True, False):
        module = tiny_module(tiny_config(tied=tied))
        names = set(dict(module.named_parameters()))
        assert ("lm_head.weight" in names) != tied
        assert set(method.attach(module, (0, 1), method.Settings(), 0).parameters) == names
    layers = method.attach(tiny_module(), (0, 1), method.Settings(embeddings=False), 0).parameters
    assert {name.split(".")[1] for name in layers} == {"layers"}
    assert "model.layers.0.input_layernorm.weight" in layers
    tensors = method.attach(tiny_module(), (0, 1), method.Settings(), 0).collect()
    assert all(tensor.dtype == torch.float16 and (tensor == 0).all() for tensor in tensors.values())


def test_virtual_tokens_stand_before_every_document() -> None:
    corpus = corpus_of(documents([4, 2]))
    longer = with_virtual(corpus, 3, 70)
    assert [longer.ids[a:b].tolist() for a, b in ((0, 7), (7, 12))] == [
        [70, 71, 72, *corpus.ids[:4].tolist()], [70, 71, 72, *corpus.ids[4:].tolist()]
    ]  # fmt: skip
    assert longer.bounds.tolist() == [0, 7, 12]
    assert not longer.answer[[0, 1, 2, 7, 8, 9]].any()
    assert longer.answer.sum() == corpus.answer.sum()
    assert longer.digest != corpus.digest
    assert with_virtual(corpus, 0, 70) is corpus


@torch.no_grad()
@pytest.mark.parametrize("name", ["prefix", "prompt"])
def test_packed_documents_each_have_their_virtual_tokens(name: str) -> None:
    """The row of several documents, each with its own, is each document alone in the plain forward."""
    method, module = find_method(name), tiny_module(tiny_config(layers=HYBRID, qk_norm=True))
    got = method.attach(module, (0, 1, 2), replace(method.Settings(), tokens=3), 0)
    corpus = with_virtual(corpus_of(documents([6, 9, 2])), 3, 70)
    ids = torch.from_numpy(corpus.ids.astype(np.int64))
    bounds = corpus.bounds.tolist()
    x = module.model.embed_tokens(ids)
    positions = torch.cat([torch.arange(b - a, dtype=torch.float32) for a, b in pairwise(bounds)])
    for layer in module.model.layers:
        x = layer(x, *module.angles(positions, x.dtype), PackedRows(attend_on(ids.device, bounds), tuple(bounds)))
    whole = module.model.norm(x)
    for a, b in pairwise(bounds):
        torch.testing.assert_close(whole[a + 3 : b], module.hidden(ids[None, a:b])[0, 3:], rtol=1e-4, atol=1e-5)
    assert got.virtual_tokens == 3
    plain = tiny_module(tiny_config(layers=HYBRID, qk_norm=True))
    torch.testing.assert_close(module.hidden(ids[None, 3:9]), plain.hidden(ids[None, 3:9]))  # without virtual tokens it is the model


@pytest.mark.parametrize("name", ["prefix", "prompt"])
def test_gradients_of_the_plain_forward_are_those_of_the_packed_one(name: str) -> None:
    method, module = find_method(name), tiny_module()
    got = method.attach(module, (0, 1), replace(method.Settings(), tokens=3), 0)
    for part, parameter in module.named_parameters():
        parameter.requires_grad_(part in got.parameters)
    ids = torch.cat((torch.arange(3).expand(2, -1) + 70, torch.arange(10).view(2, 5) * 6), 1)
    slopes = []
    for packed in (False, True):
        module.zero_grad()
        if packed:
            batch = make_batch(_corpus_of_ids(ids), [0, 1])
            states = final_states(module, replace(batch, rows=torch.arange(16)))
        else:
            states = module.hidden(ids).flatten(0, 1)
        (states * torch.linspace(-1, 1, 16)[:, None]).view(2, 8, -1)[:, 3:].sum().backward()
        slopes.append(gradients(module))
    assert slopes[0].keys() == got.parameters.keys()
    for part, slope in slopes[0].items():
        torch.testing.assert_close(slope, slopes[1][part], rtol=1e-4, atol=1e-5, msg=part)


def _corpus_of_ids(ids: Tensor) -> Corpus:
    return corpus_of([Document(row.numpy().astype(np.int32), np.arange(len(row)) > 3) for row in ids])


@torch.no_grad()
def test_a_prefix_begins_as_tokens_that_were_read() -> None:
    method, module, plain = find_method("prefix"), tiny_module(), tiny_module()
    method.attach(module, (0, 1), replace(method.Settings(), tokens=5), 9)
    read = some_tokens(70, 5, 9)
    ids = torch.arange(8)[None] * 7
    virtual = torch.cat((torch.arange(5)[None] + 70, ids), 1)
    torch.testing.assert_close(module(virtual)[:, 5:], plain(torch.cat((read[None], ids), 1))[:, 5:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_prompt_begins_as_tokens_that_were_read() -> None:
    method, module, plain = find_method("prompt"), tiny_module(), tiny_module()
    got = method.attach(module, (0, 1), replace(method.Settings(), tokens=5), 9)
    read, ids = some_tokens(70, 5, 9), torch.arange(8)[None] * 7
    virtual = torch.cat((torch.arange(5)[None] + 70, ids), 1)
    torch.testing.assert_close(module(virtual), plain(torch.cat((read[None], ids), 1)), rtol=1e-4, atol=1e-5)
    tensors = got.collect()
    assert torch.equal(tensors["prompt_embeddings"], plain.model.embed_tokens.weight[read])
    for parameter in module.parameters():  # as while training; what is collected is float32 all the same
        parameter.data = parameter.data.bfloat16()
    halved = got.collect()
    assert all(tensor.dtype == torch.float32 for tensor in halved.values())
    torch.testing.assert_close(halved["prefix.keys"], tensors["prefix.keys"], rtol=0.05, atol=0.05)
    assert next(module.model.layers.parameters()).dtype == torch.bfloat16


def test_more_virtual_tokens_than_context() -> None:
    for name in ("prefix", "prompt"):
        method, module = find_method(name), tiny_module(tiny_config(context=20))
        with pytest.raises(ConfigError, match="room in the context of 20"):
            method.attach(module, (0, 1), replace(method.Settings(), tokens=20), 0)


def test_settings_of_low_rank() -> None:
    for changes in ({"rank": 0}, {"alpha": -1.0}, {"dropout": -0.1}):
        with pytest.raises(ConfigError):
            LowRankSettings(**changes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="iterations"):
        find_method("pissa").Settings(iterations=-1)
