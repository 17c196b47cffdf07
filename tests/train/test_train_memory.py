"""Memories by our own kernels are PyTorch's, forward and back, for any cut into documents, any heads, and what comes in bfloat16."""

from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ingle.core.spec import LayerSpec
from ingle.model.memory import Features, Memory, naive, unit, walk_documents
from ingle.train import kernel_memory, team
from ingle.train.kernel_memory import walk_memories
from tests.engine.tiny import tiny_config


def leaves(tokens: int, groups: int, repeats: int, dim: int, keep: float, seed: int) -> list[Tensor]:
    """float64: queries, keys, values, log α, β."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    decay = torch.nn.functional.logsigmoid(normal(tokens, groups) + keep)
    queries, keys = unit(normal(tokens, groups, repeats, dim)), unit(normal(tokens, groups, dim))
    return [queries, keys, normal(tokens, groups, dim), decay, torch.sigmoid(2 * normal(tokens, groups))]


def found(walk: object, given_: list[Tensor], edges: list[int], dtype: torch.dtype) -> list[Tensor]:
    """Outputs and gradients, float64."""
    assert callable(walk)
    mine = [tensor.to(dtype).requires_grad_() for tensor in given_]
    y = walk(Features(*mine), edges)
    slope = torch.linspace(-1, 2, y.numel(), dtype=dtype).view_as(y)
    return [tensor.double() for tensor in (y.detach(), *torch.autograd.grad(y, mine, slope))]


def each_by_itself(told: Features, edges: list[int]) -> Tensor:
    """Token by token, document by document."""
    parts = (told.queries, told.keys, told.values, told.decay, told.write)
    spans = [slice(edges[i], edges[i + 1]) for i in range(len(edges) - 1)]
    return torch.cat([naive(Features(*(part[None, span] for part in parts)))[0][0] for span in spans])


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 80) | st.sampled_from([16, 64, 128, 200]), min_size=1, max_size=4),
    groups=st.sampled_from([1, 2, 3]), repeats=st.sampled_from([1, 2, 3]), dim=st.sampled_from([32, 64]),
    keep=st.sampled_from([-8.0, 0.0, 6.0]), threads=st.sampled_from([1, 2, 3]),
)  # fmt: skip
def test_kernels_are_their_twins(lengths: list[int], groups: int, repeats: int, dim: int, keep: float, threads: int) -> None:
    """In float32 against PyTorch's chunks and against single tokens, both in float64; also where next to nothing is kept."""
    edges, before = [0, *accumulate(lengths)], torch.get_num_threads()
    given_ = leaves(edges[-1], groups, repeats, dim, keep, edges[-1])
    torch.set_num_threads(threads)
    try:
        mine = found(walk_memories, given_, edges, torch.float32)
        theirs = found(walk_documents, given_, edges, torch.float64)
        slow = found(each_by_itself, given_, edges, torch.float64)
    finally:
        torch.set_num_threads(before)
    for one, two, three in zip(mine, theirs, slow, strict=True):
        assert (two - three).norm() <= 1e-9 * (1 + three.norm())
        assert (one - two).norm() <= 1e-5 * (1 + two.norm())  # a slope at log α is what is left of sums


def test_the_same_bits_by_any_number_of_threads_and_without_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = [0, 70, 200, 201]
    given_, before = leaves(201, 2, 3, 64, 4.0, 5), torch.get_num_threads()
    runs = [found(walk_memories, given_, edges, torch.float32)]
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            runs.append(found(walk_memories, given_, edges, torch.float32))
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(team, "_openmp", lambda: None)
    runs.append(found(walk_memories, given_, edges, torch.float32))
    for others in zip(*runs, strict=True):
        assert all(torch.equal(others[0], other) for other in others[1:])


def test_what_kernels_cannot_compute_is_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    called = list[str]()
    way = kernel_memory.KernelMemory.apply
    monkeypatch.setattr(kernel_memory.KernelMemory, "apply", lambda *told: called.append("kernel") or way(*told))
    for dtype, dim, kernel in ((torch.float32, 32, True), (torch.float32, 40, False), (torch.float64, 32, False)):
        called.clear()
        found(walk_memories, leaves(30, 1, 2, dim, 3.0, 1), [0, 30], dtype)
        assert called == ["kernel"] * kernel


@pytest.mark.parametrize("lengths", [[200], [9, 3, 130, 12, 70]])
def test_a_whole_memory_is_each_document_read_alone(lengths: list[int]) -> None:
    """From what a layer has in bfloat16, packed by kernels, against the form that reads and keeps a state; of short ones nothing enters."""
    config = tiny_config(dim=32)
    spec, draw = LayerSpec((), window=8, sinks=2, memory="gated_delta"), torch.Generator().manual_seed(3)
    memory, bounds = Memory(config, 2), [0, *accumulate(lengths)]
    memory.begin()
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=draw)
    window, q = (torch.randn(bounds[-1], 2, 2, 32, generator=draw).bfloat16().requires_grad_() for _ in range(2))
    k, v = (torch.randn(bounds[-1], 2, 32, generator=draw).bfloat16().requires_grad_() for _ in range(2))
    told, results = [window, q, k, v, *memory.parameters()], []
    for packed in (True, False):
        if packed:
            y = memory.packed(window, q, k, v, spec, bounds, walk_memories)
        else:
            spans = [slice(a, b) for a, b in pairwise(bounds)]
            y = torch.cat([memory.read(window[None, at], tuple(t[None, at] for t in (q, k, v)), spec, None, 0)[0][0] for at in spans])
        results.append((y.detach(), *torch.autograd.grad(y, told, torch.linspace(-1, 1, y.numel()).view_as(y).to(y.dtype))))
    for mine, theirs in zip(*results, strict=True):
        assert (mine.float() - theirs.float()).norm() <= 0.01 * theirs.float().norm()
