"""The kind `layers`: a transformer becomes a hybrid by a delta, on every backend alike, and nothing else is touched."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ingle.core.errors import DeltaError
from ingle.core.spec import LayerSpec
from ingle.engine.backend import prefill
from ingle.engine.delta_kinds import Array, Change, merged, spec_tensors
from ingle.model.tensor import expected_shapes
from tests.engine.test_delta_kinds import random_change, values
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config, tokens

LAYERS = (LayerSpec((0,), window=5, sinks=2, memory="gated_delta"), LayerSpec((1,), window=7, sinks=1))


def hybrid_change(layers: tuple[LayerSpec, ...] = LAYERS, seed: int = 0) -> Change:
    draw, base = np.random.default_rng(seed), tiny_config()
    shapes = {name: shape for name, shape in expected_shapes(base.with_layers(layers)).items() if name not in expected_shapes(base)}
    memories = {name: (0.3 * draw.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    return Change("hybrid", "layers", memories | spec_tensors(layers, base.num_kv_heads))


def test_a_transformer_becomes_a_hybrid() -> None:
    base, change = random_checkpoint(tiny_config()), hybrid_change()
    made = merged(base, [change])
    assert made.config == base.config.with_layers(LAYERS)
    assert sum("memory" in name for name in made.names) == 9
    for name in made.names:
        expected = change.tensors[name] if "memory" in name else values(base, name)
        np.testing.assert_array_equal(values(made, name), expected)


def test_a_hybrid_of_before_there_were_ages_has_ages_of_0(tmp_path: Path) -> None:
    """So it answers as it did."""
    base, change = random_checkpoint(tiny_config()), hybrid_change()
    name = "model.layers.0.self_attn.memory.age"
    older = Change("hybrid", "layers", {key: tensor for key, tensor in change.tensors.items() if key != name})
    nothing = Change("hybrid", "layers", {**change.tensors, name: np.zeros_like(change.tensors[name])})
    made, expected = merged(base, [older]), merged(base, [nothing])
    assert made.names == expected.names and not values(made, name).any()
    backends = [backend_of(tmp_path / str(i), one) for i, one in enumerate((made, expected, merged(base, [change])))]
    older_says, same, aged = (prefill(backend, tokens(made.config, 60), backend.new_state()) for backend in backends)
    np.testing.assert_array_equal(older_says, same)
    assert (aged != same).any()


def test_a_later_change_may_touch_a_memory_and_the_linears_of_a_hybrid() -> None:
    base, change = random_checkpoint(tiny_config()), hybrid_change()
    name = "model.layers.0.self_attn.memory.gate.bias"
    more = Change("more", "full", {name: np.ones(expected_shapes(base.config.with_layers(LAYERS))[name], np.float32)})
    made = merged(base, [change, more, random_change(base.config, "lora")])
    np.testing.assert_array_equal(values(made, name), change.tensors[name] + 1)
    assert not np.array_equal(values(made, "model.layers.1.mlp.down_proj.weight"), values(base, "model.layers.1.mlp.down_proj.weight"))


def test_it_is_served_as_pytorch_computes_it(tmp_path: Path) -> None:
    import torch

    from ingle.model.module import load_module

    made = merged(random_checkpoint(tiny_config()), [hybrid_change()])
    backend, module, ids = backend_of(tmp_path, made), load_module(made), tokens(made.config, 60)
    with torch.no_grad():
        expected = module(torch.tensor([ids]))[0, -1].numpy()
    np.testing.assert_allclose(prefill(backend, ids, backend.new_state()), expected, rtol=1e-4, atol=1e-4)


def changed(**tensors: Array) -> Callable[[], Change]:
    def make() -> Change:
        change = hybrid_change()
        named = {name.replace("__", "."): values for name, values in tensors.items()}
        return Change("hybrid", "layers", {name: values for name, values in {**change.tensors, **named}.items() if values.size})

    return make


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(layers__window=np.zeros(0, np.float32)), "layers.window must have shape"),
        (changed(layers__window=np.float32([5.5, 7])), "whole numbers"),
        (changed(layers__window=np.float32([np.nan, 7])), "whole numbers"),
        (changed(layers__sinks=np.float32([-1, 7])), "whole numbers"),
        (changed(layers__retrieval=np.float32([[1, 2], [0, 1]])), "0 or 1"),
        (changed(layers__window=np.float32([5, 0])), "see nothing"),
        (changed(model__layers__0__self_attn__memory__gate__bias=np.zeros(3, np.float32)), "must have shape"),
        (changed(model__norm__weight=np.zeros(48, np.float32)), "no part"),
    ],
)
def test_what_says_nothing_a_layer_can_be_is_refused(change: Callable[[], Change], message: str) -> None:
    with pytest.raises(DeltaError, match=message):
        merged(random_checkpoint(tiny_config()), [change()])


def test_memories_that_are_no_numbers_and_hybrids_of_hybrids_are_refused() -> None:
    change = hybrid_change()
    name = "model.layers.0.self_attn.memory.gate.bias"
    damaged = Change("hybrid", "layers", {**change.tensors, name: np.full_like(change.tensors[name], np.inf)})
    with pytest.raises(DeltaError, match="finite"):
        merged(random_checkpoint(tiny_config()), [damaged])
    with pytest.raises(DeltaError, match="full attention only"):
        merged(random_checkpoint(tiny_config()), [change, change])
