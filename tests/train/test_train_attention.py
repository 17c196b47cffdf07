"""Attention in blocks is PyTorch's, forward and back, for every kind of group, for any cut into documents, for some queries or all."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ingle.core.spec import LayerSpec
from ingle.kernels import packed_attention
from ingle.train import forward
from ingle.train.forward import ATTENTION_KERNELS, BlockAttention, EachAttention, attend_on, fits
from tests.examples import examples

SPECS = (LayerSpec((0, 1)), LayerSpec((1,), window=5, sinks=2), LayerSpec((), window=7), LayerSpec((), window=1, sinks=3))


def inputs(
    tokens: int, queries: int, seed: int, dtype: torch.dtype = torch.float64, dim: int = 8
) -> tuple[list[Tensor], Tensor, Tensor]:  # fmt: skip
    draw = torch.Generator().manual_seed(seed)
    qkv = [torch.randn(n, heads, dim, generator=draw, dtype=dtype) for n, heads in ((queries, 6), (tokens, 2), (tokens, 2))]
    angle = torch.rand(tokens, dim // 2, generator=draw, dtype=dtype).repeat(1, 2)
    return [tensor.requires_grad_() for tensor in qkv], angle.cos(), angle.sin()


@examples(60)
@given(data=st.data(), spec=st.sampled_from(SPECS), some=st.booleans(), block=st.sampled_from([1, 4, 64]))
def test_blocks_are_documents_one_by_one(data: st.DataObject, spec: LayerSpec, some: bool, block: int) -> None:
    lengths = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    bounds, tokens = tuple(np.cumsum([0, *lengths]).tolist()), sum(lengths)
    chosen = sorted(data.draw(st.sets(st.integers(0, tokens - 1), min_size=1)))
    wanted = torch.tensor(chosen) if some else None
    qkv, cos, sin = inputs(tokens, len(chosen) if some else tokens, tokens)
    results = []
    before, packed_attention.BLOCK = packed_attention.BLOCK, block
    try:
        for kind in (BlockAttention, EachAttention):
            y = kind(bounds, wanted)(*qkv, cos, sin, spec, some)
            slope = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)
            results.append((y.detach(), *torch.autograd.grad(y, qkv, slope)))
    finally:
        packed_attention.BLOCK = before
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@examples(60)
@given(data=st.data(), spec=st.sampled_from(SPECS), some=st.booleans(), threads=st.sampled_from([1, 2, 3]), dim=st.sampled_from([32, 64]))
def test_kernels_match_their_naive_reference(data: st.DataObject, spec: LayerSpec, some: bool, threads: int, dim: int) -> None:
    """In float32 against PyTorch's products in float64, with documents of many blocks, and of many runs."""
    lengths = data.draw(st.lists(st.integers(1, 150) | st.integers(500, 1100), min_size=1, max_size=3))
    bounds, tokens = tuple(np.cumsum([0, *lengths]).tolist()), sum(lengths)
    chosen = sorted(data.draw(st.sets(st.integers(0, tokens - 1), min_size=1, max_size=200)))
    wanted = torch.tensor(chosen) if some else None
    qkv, cos, sin = inputs(tokens, len(chosen) if some else tokens, tokens, dim=dim)
    qkv[2].data[::7] = 0.0
    results, before = [], torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for dtype in (torch.float32, torch.float64):
            given_ = [tensor.detach().to(dtype).requires_grad_() for tensor in qkv]
            y = BlockAttention(bounds, wanted)(*given_, cos.to(dtype), sin.to(dtype), spec, some)
            slope = torch.linspace(-1, 2, y.numel(), dtype=dtype).view_as(y)
            results.append([tensor.double() for tensor in (y.detach(), *torch.autograd.grad(y, given_, slope))])
    finally:
        torch.set_num_threads(before)
    for mine, theirs in zip(*results, strict=True):
        assert (mine - theirs).norm() < 3e-6 * (theirs.norm() + slope.norm())  # with one key there is no slope at q but rounding's


def test_kernels_give_the_same_bits_again_and_without_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    qkv, cos, sin = inputs(300, 300, 5, torch.float32, 64)

    def run() -> list[Tensor]:
        y = BlockAttention((0, 120, 300))(*qkv, cos, sin, SPECS[1], False)
        return [y.detach(), *torch.autograd.grad(y, qkv, torch.ones_like(y))]

    first, again = run(), run()
    monkeypatch.setattr(forward, "_openmp", lambda: None)
    for one, two, three in zip(first, again, run(), strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


@pytest.mark.parametrize("spec", SPECS)
def test_some_queries_are_the_same_as_among_all(spec: LayerSpec) -> None:
    wanted = torch.tensor([2, 3, 9, 10, 24])
    qkv, cos, sin = inputs(25, 25, 0)
    attend = BlockAttention((0, 10, 25), wanted)
    whole = attend(*qkv, cos, sin, spec, False)
    part = attend(qkv[0][wanted], *qkv[1:], cos, sin, spec, True)
    torch.testing.assert_close(part, whole[wanted], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dim", [8, 64])
def test_bfloat16_is_as_close_as_pytorchs(dim: int) -> None:
    """Against float64 on the same numbers, and with scores as large as trained models have them."""
    bounds, spec = (0, 70, 200), LayerSpec((0, 1))
    exact, cos, sin = inputs(200, 200, 1, dim=dim)
    with torch.no_grad():
        for tensor in exact[:2]:
            tensor.mul_(4)
        narrow = [tensor.to(torch.bfloat16) for tensor in exact]
        cos, sin = cos.bfloat16(), sin.bfloat16()
        truth = EachAttention(bounds)(*(tensor.double() for tensor in narrow), cos.double(), sin.double(), spec, False)
        found = [kind(bounds)(*narrow, cos, sin, spec, False).double() for kind in (BlockAttention, EachAttention)]
        errors = [(y - truth).norm() / truth.norm() for y in found]
    assert errors[0] < 1.3 * errors[1]


def test_a_gpu_gets_pytorchs_own() -> None:
    assert isinstance(attend_on(torch.device("cpu"), (0, 4)), BlockAttention)
    assert isinstance(attend_on(torch.device("cuda"), (0, 4)), EachAttention)


def test_kernels_get_what_they_can_compute_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype, dim, device, fit in (
        (torch.float32, 64, "cpu", True), (torch.bfloat16, 32, "cpu", True), (torch.float64, 64, "cpu", False),
        (torch.float16, 64, "cpu", False), (torch.float32, 80, "cpu", False), (torch.bfloat16, 64, "meta", False),
    ):  # fmt: skip
        assert fits(torch.empty(2, dim, dtype=dtype, device=device)) == fit
    called = list[str]()
    for name in ("KernelBlocks", "Blocks"):
        way = getattr(forward, name)
        monkeypatch.setattr(forward, name, type(name, (), {"apply": lambda *given, n=name, w=way: called.append(n) or w.apply(*given)}))
    for dtype in (torch.float32, torch.float64):
        qkv, cos, sin = inputs(40, 40, 3, dtype, 32)
        BlockAttention((0, 40))(*qkv, cos, sin, SPECS[0], False)
    assert called == ["KernelBlocks", "Blocks"]


def test_kernels_that_were_never_compiled_are_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    said, built = list[str](), list[list[str]]()
    monkeypatch.setattr(forward, "stored", lambda name: None if name == "turn_in" else b"")
    monkeypatch.setattr(forward, "build", lambda names: built.append(list(names)))
    forward.compile_ahead(ATTENTION_KERNELS, said.append)
    assert built == [["turn_in"]] and "once" in said[0]
    monkeypatch.setattr(forward, "stored", lambda _name: b"")
    forward.compile_ahead(ATTENTION_KERNELS, said.append)
    assert (len(built), len(said)) == (1, 1)
