"""Attention while training: our kernels, the same blocks by PyTorch's products, and PyTorch's own attention document by document.

Rows of 2,048 tokens in documents of one length, SmolLM2's heads (9 queries, 3 keys and values, 64 wide), bfloat16, forward and back. All in
turn; before each, a product of PyTorch's, as there is in training. The three must agree, against float64, before anything is timed.

python bench/attention.py [--rounds 15] [--lengths 64,160,512,2048] [--threads N]
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from harness import Figure, alternate, finish, ratios, show
from ingle.core.spec import LayerSpec
from ingle.kernels import packed_attention
from ingle.train import forward
from ingle.train.forward import BlockAttention, Blocks, EachAttention, KernelBlocks

TOKENS, HEADS, GROUPS, DIM = 2048, 9, 3, 64
WORST = 0.01
"""Of the square error, as a share of the square: what bfloat16 going in and out allows."""
SPEC = LayerSpec(tuple(range(GROUPS)))


def inputs(seed: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """q, k, v that will be learnt from, and the angles."""
    draw = torch.Generator().manual_seed(seed)
    qkv = [torch.randn(TOKENS, heads, DIM, generator=draw).bfloat16().requires_grad_() for heads in (HEADS, GROUPS, GROUPS)]
    angle = torch.rand(TOKENS, DIM // 2, generator=draw).repeat(1, 2) * 6
    return qkv, angle.cos().bfloat16(), angle.sin().bfloat16()


def ways(bounds: tuple[int, ...]) -> dict[str, Callable[..., Tensor]]:
    """Each by its name. The twin is what `BlockAttention` takes where no kernel fits, with the larger blocks that suit it."""

    def blocks(way: type, size: int) -> Callable[..., Tensor]:
        attend = BlockAttention(bounds)

        def run(*given: object) -> Tensor:
            before = forward.KernelBlocks, packed_attention.BLOCK
            forward.KernelBlocks, packed_attention.BLOCK = way, size
            try:
                return attend(*given)  # type: ignore[arg-type]
            finally:
                forward.KernelBlocks, packed_attention.BLOCK = before

        return run

    return {"kernels": blocks(KernelBlocks, packed_attention.BLOCK), "products": blocks(Blocks, 96), "PyTorch's": EachAttention(bounds)}


def all_of(attend: Callable[..., Tensor], qkv: list[Tensor], cos: Tensor, sin: Tensor) -> list[Tensor]:
    """What comes out, and the slopes."""
    y = attend(*qkv, cos, sin, SPEC, False)
    return [y, *torch.autograd.grad(y, qkv, torch.linspace(-1, 1, y.numel()).view_as(y).to(y.dtype))]


def check(bounds: tuple[int, ...]) -> None:
    """Raises SystemExit unless all agree with float64."""
    qkv, cos, sin = inputs(1)
    exact = [tensor.detach().double().requires_grad_() for tensor in qkv]
    truth = all_of(EachAttention(bounds), exact, cos.double(), sin.double())
    for name, attend in ways(bounds).items():
        for mine, theirs in zip(all_of(attend, qkv, cos, sin), truth, strict=True):
            if (off := float((mine.detach().double() - theirs.detach()).norm() / theirs.detach().norm())) > WORST:
                raise SystemExit(f"{name} is off by {off:.3g} of the values: nothing was timed")


def milliseconds(attend: Callable[..., Tensor]) -> float:
    """Of one layer, forward and back."""
    qkv, cos, sin = inputs(2)
    torch.ones(TOKENS, 576) @ torch.ones(576, 576)
    began = time.perf_counter()
    all_of(attend, qkv, cos, sin)
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--lengths", default="64,160,512,2048")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    table, result = [["tokens a document", "kernels, ms", "products, ms", "PyTorch's, ms", "products ÷ kernels", "PyTorch's ÷ kernels"]], {}
    for length in map(int, options.lengths.split(",")):
        bounds = (*range(0, TOKENS, length), TOKENS)
        check(bounds)
        found: dict[str, Figure] = alternate(options.rounds, {name: (lambda w=way: milliseconds(w)) for name, way in ways(bounds).items()})
        shares = {name: ratios(figure, found["kernels"]) for name, figure in found.items()}
        table.append([str(length), *map(str, found.values()), *(str(shares[name]) for name in ("products", "PyTorch's"))])
        result[length] = {name: figure.table() | {"of_kernels": shares[name].table()} for name, figure in found.items()}
    show(f"one layer of {TOKENS:,} tokens, forward and back, {torch.get_num_threads()} threads", table)
    finish("attention", {"tokens": TOKENS, "threads": torch.get_num_threads(), "lengths": result})


if __name__ == "__main__":
    main()
