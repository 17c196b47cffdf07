"""What a lesson is trained through, without PyTorch, gives what PyTorch gives, forward and back, for every family's ways."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ingle.core.spec import DeltaRule, Experts, LayerSpec, Rope, ShortConvolution, Ways
from ingle.learn.pieces import LowRank
from ingle.learn.upper import UpperLayers
from ingle.model.module import load_module
from ingle.train import shared
from ingle.train.low_rank import put_low_rank
from ingle.train.shared_rows import make_row, shared_start
from ingle.tuning.linears import chosen_linears
from tests.engine.tiny import random_checkpoint, tiny_config
from tests.train.tiny_train import documents

FIRST, RANK, SCALE = 1, 3, 2.0
ALL = LayerSpec((0, 1))
_REMEMBERING = LayerSpec((), window=5, sinks=1, memory="gated_delta")
_CONVOLUTION, _DELTA = (LayerSpec((), mixer=mixer) for mixer in ("convolution", "delta"))
BASE = tiny_config(hidden=48, heads=4, groups=2, dim=32, layers=(ALL,) * 3)
CONFIGS = {
    "Llama": BASE,
    "windows": replace(BASE, layers=(ALL, LayerSpec((1,), window=5, sinks=2), LayerSpec((), window=7, sinks=1))),
    "sliding at the end": replace(BASE, layers=(ALL, LayerSpec((), window=4), LayerSpec((0,), window=3))),
    "biases": replace(BASE, qkv_bias=True, output_bias=True, mlp_bias=True),
    "norms of heads": replace(BASE, qk_norm=True),
    "OLMo 2": replace(BASE, qk_norm=True, ways=Ways(norms="after", whole_norm=True)),
    "Gemma": replace(BASE, qk_norm=True, ways=Ways(activation="gelu", norms="both", embedding_scale=48**0.5, attention_scale=0.2)),
    "Gemma's local layers": replace(BASE, ways=Ways(local=(1,), local_rope=Rope(theta=300.0))),
    "Granite": replace(BASE, ways=Ways(residual_scale=0.3, attention_scale=0.1, logit_scale=0.5)),
    "gates": replace(BASE, ways=Ways(gated=True)),
    "unturned": replace(BASE, ways=Ways(unturned=(1,))),
    "untied": replace(BASE, tie_embeddings=False),
    "narrow heads": replace(BASE, head_dim=20),
    "memories": replace(BASE, layers=(ALL, _REMEMBERING, replace(_REMEMBERING, retrieval=(1,)))),
    "memories of some groups": replace(BASE, layers=(ALL, replace(_REMEMBERING, forgetful=(1,)), ALL)),
    "convolutions": replace(BASE, convolution=ShortConvolution(3, bias=True), layers=(ALL, _CONVOLUTION, _CONVOLUTION)),
    "the delta rule": replace(BASE, delta=DeltaRule(2, 4, 16, 4), layers=(ALL, _DELTA, _DELTA)),
    "the delta rule, tiled": replace(BASE, delta=DeltaRule(2, 4, 16, 4, tiled=True), layers=(ALL, _DELTA, ALL)),
    "experts": replace(BASE, experts=Experts(5, 2, 32)),
    "experts, normed": replace(BASE, experts=Experts(5, 2, 32, normed=True, plain=(1,))),
}
APART = {name for name, config in CONFIGS.items() if config.is_recurrent}
"""Those whose documents don't share their start."""


@pytest.mark.parametrize("shared_tokens", [0, 6])
@pytest.mark.parametrize("name", CONFIGS)
def test_states_and_gradients_are_pytorchs(name: str, shared_tokens: int) -> None:
    config, draw = CONFIGS[name], np.random.default_rng(1)
    checkpoint = random_checkpoint(config)
    begin = draw.integers(0, config.vocab_size, shared_tokens).astype(np.int32)
    some = [
        replace(one, ids=np.concatenate([begin, one.ids]), answer=np.pad(one.answer, (shared_tokens, 0)))
        for one in documents([9, 40, 14])
    ]  # fmt: skip
    start = shared_start(config, some)
    assert start >= shared_tokens or name in APART

    module = load_module(checkpoint, torch.float32).requires_grad_(False)
    names = chosen_linears(config, (1, 2), "all")
    placed = put_low_rank(module, names, RANK, SCALE, 0)
    upper = UpperLayers.read(config, lambda n: checkpoint.tensor(n).to_float32(), FIRST)
    own = {f"model.layers.{layer.own.index}.{n}": linear for layer in upper.layers for n, linear in layer.own.linears.items()}
    assert set(placed) <= set(own)
    for n, theirs in placed.items():
        theirs.lora_B.weight.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(n)))
        theirs.requires_grad_(True)
        theirs.weight.requires_grad_(False)
        a, b = theirs.lora_A.weight.detach().numpy(), theirs.lora_B.weight.detach().numpy()
        own[n].addition = LowRank(a.copy(), b.copy(), SCALE, np.zeros_like(a), np.zeros_like(b))

    row, theirs_row = make_row(some, start), shared.make_row(some, start)
    below = shared.lower_states_of(module, theirs_row, FIRST)
    x = below.clone().requires_grad_(True)
    states = shared.final_states_of(module, theirs_row, FIRST, x)
    slope = draw.standard_normal(states.shape).astype(np.float32)
    states.backward(torch.from_numpy(slope))

    mine, back = upper(below[: len(row.ids)].numpy(), row)
    np.testing.assert_allclose(mine, states.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert x.grad is not None
    close(back(slope), x.grad[: len(row.ids)].numpy())
    for n, theirs in placed.items():
        addition = own[n].addition
        assert addition is not None and theirs.lora_A.weight.grad is not None and theirs.lora_B.weight.grad is not None
        close(addition.to_a, theirs.lora_A.weight.grad.numpy())
        close(addition.to_b, theirs.lora_B.weight.grad.numpy())
    assert np.array_equal(row.targets, theirs_row.targets.numpy())
    assert np.array_equal(row.learnt, theirs_row.learnt.numpy())


def close(mine: np.ndarray, theirs: np.ndarray) -> None:
    """Within 1e-4 of the largest."""
    assert np.abs(theirs).max() > 0
    assert np.abs(mine - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_the_same_row_gives_the_same_bits() -> None:
    upper = UpperLayers.read(BASE, lambda n: random_checkpoint(BASE).tensor(n).to_float32(), FIRST)
    row = make_row(documents([30, 40]), 0)
    x = np.random.default_rng(0).standard_normal((70, 48)).astype(np.float32)
    once, again = (upper(x, row) for _ in range(2))
    assert once[0].tobytes() == again[0].tobytes()
    assert once[1](once[0]).tobytes() == again[1](again[0]).tobytes()
