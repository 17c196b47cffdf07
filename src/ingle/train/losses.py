"""Losses on the vocabulary, in chunks of rows: the logits of all rows (49,152 numbers each, for SmolLM2) are never whole in memory.

Gradients are computed in the forward pass, chunk by chunk, while the logits are there. Kept is a gradient of the size of the states, and
one of the head's weight only if that is trained. (The idea is Liger-Kernel's, arXiv 2410.10989.) Where a loss of log-probabilities is
not known yet, as with preferences, each row's gradient is kept unscaled; the head's is computed in the backward pass.

Shapes: A rows, h hidden, V vocabulary. Logits are computed in the states' type and taken to float32 from there.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CHUNK = 128  # rows: 128 × 49,152 float32 are 25 MB
Teacher = Callable[[slice], Tensor]
"""The teacher's logits [n, V] of a slice of the rows."""


def cross_entropy(states: Tensor, head: Tensor, targets: Tensor, chunk: int = CHUNK, seen: Tensor | None = None) -> Tensor:
    """Sum over rows of −log p(target), in nats. states [A, h], head [V, h], targets int [A] → float32 scalar.

    `seen` [A] is filled with log p(target) of each row.
    """
    total: Tensor = _Summed.apply(states, head, _Targets(targets, seen), chunk)  # type: ignore[no-untyped-call]
    return total


def distillation(
    states: Tensor, head: Tensor, teacher: Teacher, temperature: float = 1.0, chunk: int = CHUNK, seen: Tensor | None = None
) -> Tensor:
    """Sum over rows of τ² · KL(teacher ‖ student), both softened by the temperature τ (arXiv 1503.02531). Shapes as `cross_entropy`.

    `seen` [A] is filled with each row's part of the sum.
    """
    total: Tensor = _Summed.apply(states, head, _Softened(teacher, temperature, seen), chunk)  # type: ignore[no-untyped-call]
    return total


def log_probabilities(states: Tensor, head: Tensor, targets: Tensor, chunk: int = CHUNK) -> Tensor:
    """log p(target) of each row, in nats: float32 [A]. Shapes as `cross_entropy`."""
    rows: Tensor = _Rowwise.apply(states, head, targets, chunk)  # type: ignore[no-untyped-call]
    return rows


class _Targets:
    """Cross-entropy of a chunk of rows."""

    def __init__(self, targets: Tensor, seen: Tensor | None = None) -> None:
        self._targets, self._seen = targets, seen

    def __call__(self, rows: slice, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(loss, gradient of the logits) of float32 logits; the gradient overwrites them."""
        targets = self._targets[rows, None]
        chosen, top = logits.gather(-1, targets), logits.amax(-1, keepdim=True)
        total = logits.sub_(top).exp_().sum(-1, keepdim=True)  # as logsumexp does, but in place and once for both
        losses = total.log() + (top - chosen)
        if self._seen is not None:
            self._seen[rows] = -losses.squeeze(-1)
        loss = losses.sum()
        slope = logits.div_(total)
        return loss, slope.scatter_add_(-1, targets, slope.new_full((1, 1), -1.0).expand_as(targets))


class _Softened:
    """Distillation loss of a chunk of rows."""

    def __init__(self, teacher: Teacher, temperature: float, seen: Tensor | None = None) -> None:
        self._teacher, self._temperature, self._seen = teacher, temperature, seen

    def __call__(self, rows: slice, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See `_Targets`."""
        tau = self._temperature
        ours = (logits / tau).log_softmax(-1)
        theirs = (self._teacher(rows).to(logits.dtype) / tau).log_softmax(-1)
        chances = theirs.exp()
        losses = tau * tau * (chances * (theirs - ours)).sum(-1)
        if self._seen is not None:
            self._seen[rows] = losses
        loss = losses.sum()
        return loss, ours.exp_().sub_(chances).mul_(tau)


class _Summed(torch.autograd.Function):
    """Sum of a loss that each chunk computes with its gradient."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, loss: _Targets | _Softened, chunk: int) -> Tensor:
        wide, (to_states, to_head, *_) = _wide(states), ctx.needs_input_grad
        total = torch.zeros((), dtype=wide, device=states.device)
        states_grad = torch.empty_like(states) if to_states else None
        head_grad = torch.zeros(head.shape, dtype=wide, device=head.device) if to_head else None
        for start in range(0, len(states), chunk):
            span = slice(start, start + chunk)
            part, slope = loss(span, (states[span] @ head.T).to(wide))
            total += part
            narrow = slope.to(states.dtype)
            if states_grad is not None:
                states_grad[span] = narrow @ head
            if head_grad is not None:
                head_grad += narrow.T @ states[span]
        ctx.save_for_backward(states_grad, None if head_grad is None else head_grad.to(head.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        states_grad, head_grad = ctx.saved_tensors
        to_states, to_head = (None if grad is None else grad * grads[0].to(grad.dtype) for grad in (states_grad, head_grad))
        return to_states, to_head, None, None


class _Rowwise(torch.autograd.Function):
    """Log-probabilities, row by row."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, targets: Tensor, chunk: int) -> Tensor:
        wide = _wide(states)
        rows = torch.empty(len(states), dtype=wide, device=states.device)
        slopes = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        for start in range(0, len(states), chunk):
            span = slice(start, start + chunk)
            logits = (states[span] @ head.T).to(wide)
            total = logits.logsumexp(-1, keepdim=True)
            rows[span] = (logits.gather(-1, targets[span, None]) - total).squeeze(-1)
            if slopes is not None:
                chances = logits.sub_(total).exp_().to(states.dtype)
                slopes[span] = head[targets[span]] - chances @ head
        ctx.save_for_backward(states, head, targets, slopes)
        ctx.chunk = chunk
        return rows

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (states, head, targets, slopes), [g] = ctx.saved_tensors, grads
        to_states = None if slopes is None else slopes * g[:, None].to(slopes.dtype)
        if not ctx.needs_input_grad[1]:
            return to_states, None, None, None
        to_head = torch.zeros(head.shape, dtype=g.dtype, device=head.device)
        for start in range(0, len(states), ctx.chunk):  # their factors are known only now
            span = slice(start, start + ctx.chunk)
            slope = (states[span] @ head.T).to(g.dtype).softmax(-1).neg_()
            slope.scatter_add_(-1, targets[span, None], torch.ones_like(slope[:, :1])).mul_(g[span, None])
            to_head += slope.to(states.dtype).T @ states[span]
        return to_states, to_head.to(head.dtype), None, None


def _wide(states: Tensor) -> torch.dtype:
    return torch.promote_types(states.dtype, torch.float32)
