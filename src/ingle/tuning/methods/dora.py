"""DoRA: LoRA for the direction of each row, and a learnt length beside it (arXiv 2402.09353)."""

from typing import Any

import torch
from torch import Tensor, nn

from ingle.model.module import CausalLM
from ingle.train.low_rank import LowRankLinear, added_backward, kaiming
from ingle.tuning.low_rank_settings import LowRankSettings, attach_low_rank
from ingle.tuning.tuning_method import Attached

KIND = "dora"
RATE = 3e-4
Settings = LowRankSettings


class DirectedLinear(LowRankLinear):
    """y_n = m_n ((W + s B A) x)_n / ‖(W + s B A)_n‖ + b_n. The norm is a constant in the backward pass (the paper's section 4.3).

    Trained is the lengths' distance from ‖W_n‖: it is small, so bfloat16 is fine enough for it.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__(linear, rank, scale, dropout)
        self.lora_magnitude_change = nn.Parameter(torch.zeros(linear.out_features, device=linear.weight.device))
        self.squares = linear.weight.detach().float().square().sum(1)  # no buffer: float32, whatever the module is cast to

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: x [..., K] → y [..., N]."""
        if self.dropout and self.training:
            return self.naive(x)
        y: Tensor = _Directed.apply(  # type: ignore[no-untyped-call]
            x.flatten(0, -2), self.weight, self.bias, self.lora_A.weight, self.lora_B.weight, self.lora_magnitude_change, self.scale,
            self.squares, self.norms(),
        )  # fmt: skip
        return y.view(*x.shape[:-1], -1)

    def naive(self, x: Tensor) -> Tensor:
        """See `LowRankLinear.naive`."""
        h = nn.functional.linear(x, self.weight) + self.addition(x)
        y = h + h * (self.magnitudes() / self.norms() - 1).to(h.dtype)
        return y if self.bias is None else y + self.bias

    def magnitudes(self) -> Tensor:
        """Lengths m of the rows: float32 [N]."""
        return self.squares.sqrt() + self.lora_magnitude_change

    @torch.no_grad()
    def norms(self) -> Tensor:
        """‖(W + s B A)_n‖, float32 [N], from three products with A and B in place of a matrix as large as W."""
        a, b, s = self.lora_A.weight, self.lora_B.weight, self.scale
        crossed = (b.t() * (a @ self.weight.t())).sum(0, dtype=self.squares.dtype)
        own = ((b @ (a @ a.t())) * b).sum(1, dtype=self.squares.dtype)
        return (self.squares + 2 * s * crossed + s * s * own).clamp_min(1e-12).sqrt()

    def tensors(self) -> dict[str, Tensor]:
        """See `LowRankLinear.tensors`."""
        return super().tensors() | {"lora_magnitude_vector": self.magnitudes().detach()}


class _Directed(torch.autograd.Function):
    """x [T, K] → [T, N]. Keeps the scaled output, part of which others keep anyway, instead of the output before scaling."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, change: Tensor, scale: float, squares: Tensor,
        norms: Tensor,
    ) -> Tensor:  # fmt: skip
        t = x @ a.t()
        y = nn.functional.linear(x, weight).addmm_(t, b.t(), alpha=scale)
        magnitudes = squares.sqrt() + change
        more = (magnitudes / norms - 1).to(y.dtype)
        y.addcmul_(y, more)
        if bias is not None:
            y.add_(bias)
        ctx.save_for_backward(x, weight, bias, a, b, t, y, more, magnitudes)
        ctx.scale = scale
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight, bias, a, b, t, y, more, magnitudes), [g] = ctx.saved_tensors, grads
        inner = (g * y).sum(0, dtype=magnitudes.dtype)
        if bias is not None:
            inner -= g.sum(0, dtype=magnitudes.dtype) * bias
        to_change = torch.where(magnitudes != 0, inner / magnitudes, 0).to(g.dtype)  # (y − b) / m is the row's direction times x
        to_x, to_a, to_b = added_backward(torch.addcmul(g, g, more), x, weight, a, b, t, ctx.scale, ctx.needs_input_grad[0])
        return to_x, None, None, to_a, to_b, to_change, None, None, None


def attach(module: CausalLM, layers: tuple[int, ...], settings: LowRankSettings, seed: int) -> Attached:
    """See `tuning.tuning_method.Method`. Raises ConfigError for targets or a rank that don't fit."""
    return attach_low_rank(module, layers, settings, settings.alpha / settings.rank, seed, kaiming, DirectedLinear)[0]
