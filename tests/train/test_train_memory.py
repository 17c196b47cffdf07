"""Memories by our own kernels are PyTorch's, forward and back, for any cut into documents, any heads, and what comes in bfloat16."""

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ingle.core.spec import LayerSpec
from ingle.model.module_parts import RecurrentMemory, log_held
from ingle.train import forward
from ingle.train.forward import read_packed
from tests.engine.tiny import tiny_config
from tests.examples import examples
from tests.model.test_memory import token_by_token

SPEC = LayerSpec((), window=5, sinks=2, memory="gated_delta")
Form = Callable[..., Tensor]


def a_memory(groups: int, repeats: int, dim: int, keep: float = 6.0, seed: int = 0) -> RecurrentMemory:
    draw = torch.Generator().manual_seed(seed)
    memory = RecurrentMemory(tiny_config(dim=dim, heads=groups * repeats, groups=groups), groups)
    memory.begin()
    with torch.no_grad():
        memory.decay.bias.fill_(keep)
        memory.gate.bias.fill_(0.0)
        for parameter in memory.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=draw)
    return memory


def rows(tokens: int, groups: int, repeats: int, dim: int, seed: int = 0) -> list[Tensor]:
    """What windows saw, q, k and v."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(tokens, groups, repeats, dim)] * 2 + [(tokens, groups, dim)] * 2
    return [torch.randn(shape, generator=draw) for shape in shapes]


def found(form: Form, memory: RecurrentMemory, told: list[Tensor], bounds: list[int], spec: LayerSpec = SPEC) -> list[Tensor]:
    """Outputs and gradients, as float64."""
    leaves = [tensor.clone().requires_grad_() for tensor in told]
    y = form(memory, *leaves, spec, bounds)
    slope = torch.linspace(-1, 2, y.numel()).view_as(y).to(y.dtype)
    return [tensor.double() for tensor in (y.detach(), *torch.autograd.grad(y, [*leaves, *memory.parameters()], slope))]


def alone(memory: RecurrentMemory, window: Tensor, q: Tensor, k: Tensor, v: Tensor, spec: LayerSpec, bounds: list[int]) -> Tensor:
    """Each document by itself, token by token."""
    return torch.cat([_one(memory, window[a:b], q[a:b], k[a:b], v[a:b], spec) for a, b in pairwise(bounds)])


def _one(memory: RecurrentMemory, window: Tensor, q: Tensor, k: Tensor, v: Tensor, spec: LayerSpec) -> Tensor:
    key, value = (nn.functional.pad(tensor, (0, 0, 0, 0, spec.window, 0))[None, : len(q)] for tensor in (k, v))
    count = torch.arange(1, len(q) + 1) - (spec.window + spec.sinks)
    y = token_by_token(memory.features(q[None], key, value, (count > 0)[None]))
    return memory.blend(window[None], y, q[None], log_held(count, spec.window))[0]


@examples(40)
@given(
    lengths=st.lists(st.integers(1, 80) | st.sampled_from([23, 71, 135, 200]), min_size=1, max_size=4),
    groups=st.sampled_from([1, 2, 3]), repeats=st.sampled_from([1, 2, 3]), dim=st.sampled_from([32, 64]),
    keep=st.sampled_from([-8.0, 0.0, 6.0]), threads=st.sampled_from([1, 2, 3]),
    near=st.sampled_from([(5, 2), (0, 0), (0, 3), (1, 0), (64, 0), (5, 70)]),
)  # fmt: skip
def test_kernels_are_their_naive_references(
    lengths: list[int], groups: int, repeats: int, dim: int, keep: float, threads: int, near: tuple[int, int]
) -> None:
    """In float32, against PyTorch's chunks of the same; also where next to nothing is kept."""
    lengths, spec = [*lengths, 80], replace(SPEC, window=near[0], sinks=near[1])
    bounds, before = [0, *accumulate(lengths)], torch.get_num_threads()
    memory, told = a_memory(groups, repeats, dim, keep), rows(bounds[-1], groups, repeats, dim, bounds[-1])
    torch.set_num_threads(threads)
    try:
        mine, theirs, slow = (found(form, memory, told, bounds, spec) for form in (read_packed, RecurrentMemory.packed, alone))
    finally:
        torch.set_num_threads(before)
    for one, two, three in zip(mine, theirs, slow, strict=True):
        for other in (two, three):
            assert (one - other).norm() <= 1e-4 * (1 + other.norm())  # a slope at log α is what is left of sums


@pytest.mark.parametrize("lengths", [[200], [9, 3, 130, 12, 70]])
def test_bfloat16_is_computed_in_float32(lengths: list[int]) -> None:
    bounds = [0, *accumulate(lengths)]
    memory, told = a_memory(2, 3, 32), [tensor.bfloat16() for tensor in rows(bounds[-1], 2, 3, 32)]
    mine, theirs = (found(form, memory, told, bounds) for form in (read_packed, RecurrentMemory.packed))
    assert torch.equal(mine[1], theirs[1]), "what windows saw has the same slopes to the bit"
    for one, two in zip(mine, theirs, strict=True):
        assert (one - two).norm() <= 0.004 * two.norm()
    exact = found(read_packed, memory, [tensor.float() for tensor in told], bounds)
    for one, two in zip(mine[5:], exact[5:], strict=True):
        assert (one - two).norm() <= 0.004 * two.norm(), "but for the slope that comes in, which was rounded"


def test_the_same_bits_by_any_number_of_threads_and_without_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds, before = [0, 80, 211, 212, 240], torch.get_num_threads()
    memory, told = a_memory(2, 3, 64), rows(240, 2, 3, 64)
    runs = [found(read_packed, memory, told, bounds)]
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            runs.append(found(read_packed, memory, told, bounds))
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(forward, "_openmp", lambda: None)
    runs.append(found(read_packed, memory, told, bounds))
    for others in zip(*runs, strict=True):
        assert all(torch.equal(others[0], other) for other in others[1:])


def test_what_kernels_cannot_compute_is_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    called = list[str]()
    way = forward.KernelMemory.apply
    monkeypatch.setattr(forward.KernelMemory, "apply", lambda *told: called.append("kernel") or way(*told))
    for dim, dtype, kernel in ((32, torch.float32, True), (40, torch.float32, False), (32, torch.float16, False)):
        called.clear()
        read_packed(a_memory(1, 2, dim), *(tensor.to(dtype) for tensor in rows(30, 1, 2, dim)), SPEC, [0, 30])
        assert called == ["kernel"] * kernel


def test_where_nothing_enters_it_is_the_window() -> None:
    told = rows(14, 2, 2, 32)
    assert read_packed(a_memory(2, 2, 32), *told, SPEC, [0, 7, 14]) is told[0]
