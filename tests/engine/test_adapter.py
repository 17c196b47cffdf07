"""Adapters beside packed weights: each sequence its own, equal to their naive reference, and without a trace when they are gone."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import DeltaError
from ingle.core.spec import ModelConfig
from ingle.engine.adapter import Addition, Additions, linear_shapes
from ingle.engine.backend import Segment
from ingle.model.checkpoint import Checkpoint
from tests.engine.test_cpu import configs, naive_logits
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config, tokens
from tests.examples import examples
from tests.kernels.naive import unpack_adapter


def random_additions(config: ModelConfig, seed: int, share: float = 1.0, most_rank: int = 20, bent: float = 0.0) -> Additions:
    """To this share of the linears; `bent`: the share of these that have a rectifier between A and B."""
    draw = np.random.default_rng(seed)
    additions = {}
    for name, (outputs, inputs) in linear_shapes(config).items():
        if draw.random() < share or not additions:
            rank = int(draw.integers(1, most_rank + 1))
            a, b = draw.standard_normal((rank, inputs)) * 0.15, draw.standard_normal((outputs, rank)) * 0.15
            additions[name] = Addition(a, b, draw.standard_normal(rank) * 0.3 if draw.random() < bent else None)
    return additions


@given(
    config=configs(),
    seed=st.integers(0, 10**6),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    share=st.sampled_from([0.3, 1.0]),
    bent=st.sampled_from([0.0, 0.5, 1.0]),
)
@examples(25)
def test_a_step_with_an_adapter_is_its_naive_reference(config: ModelConfig, seed: int, cuts: list[int], share: float, bent: float) -> None:
    ids, additions = tokens(config, sum(cuts), seed), random_additions(config, seed, share, bent=bent)
    with TemporaryDirectory() as folder:
        backend = backend_of(Path(folder), random_checkpoint(config, seed))
        adapter, state, rows, start = backend.adapter(additions, "a"), backend.new_state(), [], 0
        for count in cuts:
            rows.append(backend.forward([Segment(state, ids[start : start + count], "all", adapter)])[0].copy())
            start += count
        expected = naive_logits(config, Path(folder) / "fp32", ids, "float32", unpack_adapter(config, additions))
    # Rounding the input to int8 flips where float32 and float64 differ in the last bit; most rows see few flips and agree closely.
    difference = np.abs(np.concatenate(rows) - expected).max(axis=1) / np.abs(expected).max()
    assert np.median(difference) < 4e-3
    assert difference.max() < 3e-2


@pytest.mark.parametrize("format_", ["fp32", "int8", "int4", "bf16"])
def test_many_adapters_in_one_batch_are_as_if_each_were_alone(tmp_path: Path, format_: str) -> None:
    config = tiny_config()
    backend = backend_of(tmp_path, random_checkpoint(config), format_)
    ids = tokens(config, 40)
    plain = backend.forward([Segment(backend.new_state(), ids, "all")])[0].copy()
    made = [random_additions(config, seed, most_rank=4 + 16 * seed, bent=seed % 3 / 2) for seed in range(4)]
    adapters = [None, *(backend.adapter(additions, str(seed)) for seed, additions in enumerate(made)), None]
    alone = [backend.forward([Segment(backend.new_state(), ids, "all", adapter)])[0].copy() for adapter in adapters]
    states = [backend.new_state() for _ in adapters]
    backend.forward([Segment(state, ids[:33], "none", adapter) for state, adapter in zip(states, adapters, strict=True)])
    for at in range(33, 40):  # one token of each at a time
        rows = backend.forward([Segment(state, ids[at : at + 1], "last", a) for state, a in zip(states, adapters, strict=True)])
        for row, expected in zip(rows, alone, strict=True):
            np.testing.assert_array_equal(row[0], expected[at])
    for other in alone[1:-1]:
        assert np.abs(other - plain).max() > 0.1
    np.testing.assert_array_equal(alone[0], plain)
    np.testing.assert_array_equal(backend.forward([Segment(backend.new_state(), ids, "all")])[0], plain)


def by_pytorch(checkpoint: Checkpoint, ids: list[int], additions: Additions) -> np.ndarray:
    """Logits of the model in PyTorch with additions to its linears."""
    import torch

    from ingle.model.module import load_module

    module = load_module(checkpoint)
    for name, added in additions.items():
        a, b, bias = (None if part is None else torch.from_numpy(part).float() for part in (added.a, added.b, added.bias))

        def add(_linear: Any, inputs: Any, y: Any, a: Any = a, b: Any = b, bias: Any = bias) -> Any:
            inner = torch.nn.functional.linear(inputs[0], a, bias)
            return y + torch.nn.functional.linear(inner if bias is None else inner.relu(), b)

        module.get_submodule(name).register_forward_hook(add)
    with torch.no_grad():
        return module(torch.tensor([ids]))[0].numpy()


@pytest.mark.parametrize("bent", [0.0, 0.7])
def test_pytorch_adds_the_same(tmp_path: Path, bent: float) -> None:
    checkpoint = random_checkpoint(tiny_config(biases=not bent))
    additions, ids = random_additions(checkpoint.config, 5, bent=bent), tokens(checkpoint.config, 50)
    straight = {name: replace(added, bias=None) for name, added in additions.items()}
    cpu, expected = backend_of(tmp_path, checkpoint), by_pytorch(checkpoint, ids, additions)
    without = by_pytorch(checkpoint, ids, straight if bent else {})
    assert np.abs(without - expected).max() > 0.1
    [ours] = cpu.forward([Segment(cpu.new_state(), ids, "all", cpu.adapter(additions, "a"))])
    assert np.abs(ours - expected).max() < 0.05 * np.abs(expected - without).max(), "rounding an adapter to int8 costs little of it"


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    config = tiny_config()
    backend = backend_of(tmp_path, random_checkpoint(config))
    good = random_additions(config, 0)
    name = next(iter(good))
    a, b = good[name].a, good[name].b
    bad: list[tuple[Additions, str]] = [
        ({}, "at least one"),
        ({"lm_head": Addition(a, b)}, "must name linears"),
        ({name: Addition(a[:, :-1], b)}, "must have A of"),
        ({name: Addition(a, b[:, :0])}, "must have A of"),
        ({name: Addition(a[:0], b[:, :0])}, "must have A of"),
        ({name: Addition(a, b, np.zeros(len(a) + 1))}, "must have a bias of"),
        ({name: Addition(np.full_like(a, np.nan), b)}, "finite"),
        ({name: Addition(a, b, np.full(len(a), np.inf))}, "finite"),
    ]
    for additions, what in bad:
        with pytest.raises(DeltaError, match=what):
            backend.adapter(additions, "x")
