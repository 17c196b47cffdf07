"""Operations with hand-written backward passes, because autograd would keep more tensors, and rotary positions."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """factor · x / rms(x) · weight, the mean square in float32 (arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float, factor: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps, self.factor = eps, factor

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: [..., size] → same shape."""
        y: Tensor = _Normed.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return y if self.factor == 1.0 else y * self.factor


class Embedding(nn.Embedding):
    """Rows of a table, times a factor."""

    def __init__(self, count: int, size: int, factor: float) -> None:
        super().__init__(count, size)
        self.factor = factor

    def forward(self, input: Tensor) -> Tensor:
        """Look up: ids int [...] → [..., size]."""
        x = super().forward(input)
        return x if self.factor == 1.0 else x * self.factor


class _Normed(torch.autograd.Function):
    """RMSNorm that keeps its input and one number a row for the backward pass, where autograd would keep five tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, scale)
        return weight * (wide * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        normed, [g] = x * scale, grads
        inner = (g * weight).float()
        to_x = ((inner - normed * (inner * normed).mean(-1, keepdim=True)) * scale).to(x.dtype)
        to_weight = (g * normed).flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        return to_x, to_weight, None


def activated(kind: str, gate: Tensor) -> Tensor:
    """Return an MLP's activation of its gate: `silu`, or `gelu` in the form with tanh."""
    return nn.functional.silu(gate) if kind == "silu" else nn.functional.gelu(gate, approximate="tanh")


class Gated(torch.autograd.Function):
    """activation(gate) · up; it keeps gate and up only."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, kind: str) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.kind = kind
        return activated(kind, gate) * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (gate, up), [g] = ctx.saved_tensors, grads
        if ctx.kind == "silu":
            slope = torch.ops.aten.silu_backward(g * up, gate)
        else:
            slope = torch.ops.aten.gelu_backward(g * up, gate, approximate="tanh")
        return slope, activated(ctx.kind, gate).mul_(g), None


@contextlib.contextmanager
def made_again(tensor: Tensor, make: Callable[[], Tensor]) -> Iterator[None]:
    """Recompute this contiguous tensor in the backward pass, instead of keeping what autograd would: less memory, for one more pass over
    it."""
    place, size = tensor.data_ptr(), tensor.numel()

    def pack(saved: Tensor) -> Tensor | torch.Size:
        return saved.shape if saved.data_ptr() == place and saved.numel() == size else saved

    def unpack(packed: Tensor | torch.Size) -> Tensor:
        return packed if isinstance(packed, Tensor) else make().view(packed)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply RoPE to [..., T, D]: the pair (i, i + D/2) turns by its angle."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin
