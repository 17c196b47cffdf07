"""The kind `shape`: fewer layers, channels and groups, on every backend alike, in the form in which the file has them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ingle.core.errors import DeltaError
from ingle.core.spec import LayerSpec, Rope, Ways
from ingle.engine.backend import prefill
from ingle.engine.cut_model import Smaller, columns_of, rows_of
from ingle.engine.delta_kinds import Array, Change, merged
from ingle.model.module import load_module
from ingle.model.tensor import Tensor
from tests.engine.test_delta_kinds import random_change, values
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config, tokens

CONFIG = tiny_config(heads=6, groups=3, layers=(LayerSpec((0, 1, 2)),) * 4, biases=True)
BASE = random_checkpoint(CONFIG)
SMALLER = Smaller((0, 2, 3), np.array([np.arange(0, 64), np.arange(16, 80), np.arange(0, 80)[::5].repeat(4) + np.tile(range(4), 16)]),
                  np.array([[0, 1], [0, 2], [1, 2]]))  # fmt: skip


def change(smaller: Smaller = SMALLER, **more: Array) -> Change:
    return Change("small", "shape", smaller.tensors() | {name.replace("__", "."): value for name, value in more.items()})


def test_layers_channels_and_groups_go_together() -> None:
    made = merged(BASE, [change()])
    config = made.config
    assert (len(config.layers), config.intermediate_size, config.num_heads, config.num_kv_heads) == (3, 64, 4, 2)
    assert SMALLER.channels is not None
    gate = values(BASE, "model.layers.2.mlp.gate_proj.weight")[SMALLER.channels[1]]
    np.testing.assert_array_equal(values(made, "model.layers.1.mlp.gate_proj.weight"), gate)
    np.testing.assert_array_equal(
        values(made, "model.layers.1.mlp.down_proj.weight"), values(BASE, "model.layers.2.mlp.down_proj.weight")[:, SMALLER.channels[1]]
    )
    heads = [*range(24), *range(48, 72)]  # groups 0 and 2, of two query heads of 12 each
    np.testing.assert_array_equal(
        values(made, "model.layers.1.self_attn.q_proj.weight"), values(BASE, "model.layers.2.self_attn.q_proj.weight")[heads]
    )
    np.testing.assert_array_equal(
        values(made, "model.layers.1.self_attn.o_proj.weight"), values(BASE, "model.layers.2.self_attn.o_proj.weight")[:, heads]
    )
    np.testing.assert_array_equal(
        values(made, "model.layers.1.self_attn.k_proj.bias"),
        values(BASE, "model.layers.2.self_attn.k_proj.bias")[[*range(12), *range(24, 36)]],
    )
    np.testing.assert_array_equal(values(made, "model.norm.weight"), values(BASE, "model.norm.weight"))


def test_layers_keep_their_own_positions_when_others_go() -> None:
    ways = Ways(unturned=(1, 3), local=(0, 2), local_rope=Rope(500.0))
    after = Smaller((0, 2, 3)).config(replace(CONFIG, ways=ways))
    assert (after.ways.unturned, after.ways.local) == ((2,), (0, 1))
    assert [after.ropes[after.rope_of(i)] for i in range(3)] == [Rope(500.0), Rope(500.0), None]


def test_it_computes_what_the_original_computes_without_these_parts(tmp_path: Path) -> None:
    """The parts that go are made silent in the original; layers whose outputs are zero are as if they were not there."""
    original = load_module(BASE)
    with torch.no_grad():
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            silent = original.model.layers[1].get_submodule(name)
            silent.weight.zero_()
            silent.bias.zero_()
        assert SMALLER.channels is not None and SMALLER.groups is not None
        for i, layer in enumerate(SMALLER.layers):
            gone = [c for c in range(80) if c not in SMALLER.channels[i]]
            original.model.layers[layer].mlp.down_proj.weight[:, gone] = 0
            [group] = {0, 1, 2} - set(SMALLER.groups[i].tolist())
            original.model.layers[layer].self_attn.o_proj.weight[:, group * 24 : group * 24 + 24] = 0
    made, ids = merged(BASE, [change()]), tokens(CONFIG, 40)
    with torch.no_grad():
        expected = original(torch.tensor([ids]))[0, -1].numpy()
        np.testing.assert_allclose(load_module(made)(torch.tensor([ids]))[0, -1].numpy(), expected, rtol=1e-4, atol=1e-4)
    backend = backend_of(tmp_path, made)
    np.testing.assert_allclose(prefill(backend, ids, backend.new_state()), expected, rtol=1e-4, atol=1e-4)


def test_other_values_a_repair_and_changes_before_and_after() -> None:
    down, up = "model.layers.2.mlp.down_proj", "model.layers.2.mlp.up_proj"
    draw = np.random.default_rng(3)
    other, a, b = (draw.standard_normal(shape).astype(np.float32) for shape in ((48, 64), (2, 48), (64, 2)))
    before = random_change(CONFIG, "lora", linears=("model.layers.3.mlp.up_proj",))
    small = change(**{f"{down}.weight": other.astype(np.float16), f"{up}.lora_A.weight": a, f"{up}.lora_B.weight": b})
    made = merged(BASE, [before, small])
    np.testing.assert_array_equal(values(made, f"{down}.weight"), other.astype(np.float16).astype(np.float32))
    assert SMALLER.channels is not None
    first = values(merged(BASE, [before]), "model.layers.3.mlp.up_proj.weight")[SMALLER.channels[2]]
    np.testing.assert_allclose(values(made, f"{up}.weight"), first + b @ a, rtol=1e-5, atol=1e-5)
    after = random_change(made.config, "lora", linears=(up,))
    more = after.tensors[f"{up}.lora_B.weight"] @ after.tensors[f"{up}.lora_A.weight"]
    twice = merged(BASE, [before, small, after, change(Smaller((2,)))])
    np.testing.assert_allclose(values(twice, "model.layers.0.mlp.up_proj.weight"), first + b @ a + more, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "size", "head"), [("Q4_1", 20, 0), ("Q3_16", 16, 4), ("Q4_16", 20, 4)])
def test_stored_blocks_stay_as_they_are(kind: str, size: int, head: int) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (6, head + 4 * size)).astype(np.uint8)
    raw[:, head:].reshape(6, 4, size)[..., 1::2][..., :2] = 40  # scales and minima that are numbers
    raw[:, :head] = np.arange(6, 30, dtype=np.float32).view(np.uint8)[: 6 * head].reshape(6, head) if head else 0
    tensor = Tensor("w", (6, 128), kind, raw)
    columns = np.concatenate([np.arange(32, 64), np.arange(96, 128)])
    cut = columns_of(rows_of(tensor, np.array([1, 4])), columns)
    assert (cut.kind, cut.shape) == (kind, (2, 64))
    np.testing.assert_array_equal(cut.to_float32(), tensor.to_float32()[[1, 4]][:, columns])
    loose = columns_of(tensor, columns[1:])
    assert loose.kind == "F32"
    np.testing.assert_array_equal(loose.to_float32(), tensor.to_float32()[:, columns[1:]])


def without(name: str) -> Callable[[], Change]:
    return lambda: Change("small", "shape", {key: value for key, value in change().tensors.items() if key != name})


def changed(**more: Array) -> Callable[[], Change]:
    return lambda: change(**more)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without("shape.layers"), "shape.layers is missing"),
        (changed(shape__layers=np.float32([0, 0, 1])), "ascending"),
        (changed(shape__layers=np.float32([0, 1, 4])), "below 4"),
        (changed(shape__layers=np.float32([0, 1.5, 2])), "whole"),
        (changed(shape__layers=np.float32([0, np.nan, 2])), "whole"),
        (changed(shape__channels=np.zeros((2, 5), np.float32)), "each of 3 layers"),
        (changed(shape__groups=np.zeros((3, 0), np.float32)), "each of 3 layers"),
        (changed(model__layers__3__mlp__up_proj__weight=np.zeros((64, 48), np.float32)), "no part"),
        (changed(model__layers__2__mlp__up_proj__weight=np.zeros((80, 48), np.float32)), "must have shape"),
        (changed(model__layers__2__mlp__up_proj__weight=np.full((64, 48), np.inf, np.float32)), "finite"),
        (changed(model__layers__2__mlp__up_proj__lora_A__weight=np.zeros((2, 48), np.float32)), "both"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], Change], message: str) -> None:
    with pytest.raises(DeltaError, match=message):
        merged(BASE, [make()])


def test_groups_of_a_hybrid_stay_and_its_layers_may_go() -> None:
    config = tiny_config(layers=(LayerSpec((0,), 8, 2, "gated_delta"), LayerSpec((0, 1))))
    with pytest.raises(DeltaError, match="full attention only"):
        merged(random_checkpoint(config), [change(Smaller((0,), None, np.array([[0]])))])
    made = merged(random_checkpoint(config), [change(Smaller((0,)))])
    assert made.config.layers == config.layers[:1]
    assert values(made, "model.layers.0.self_attn.memory.gate.bias").size
