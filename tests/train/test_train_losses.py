"""Losses in chunks are PyTorch's on whole logits, values and gradients; preferences are the papers' formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from ingle.train.objectives import cross_entropy, distillation, dpo, drift, kto, log_probabilities, orpo
from tests.examples import examples

D = torch.float64


def some(rows: int, seed: int = 0, dtype: torch.dtype = D) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    states, head = (torch.randn(n, 6, generator=draw, dtype=dtype).requires_grad_() for n in (rows, 11))
    return states, head, torch.randint(0, 11, (rows,), generator=draw)


def grads(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [tensor for tensor in inputs if tensor.requires_grad]))


@examples(40)
@given(rows=st.integers(0, 9), chunk=st.integers(1, 10), head_trained=st.booleans())
def test_cross_entropy(rows: int, chunk: int, head_trained: bool) -> None:
    states, head, targets = some(rows)
    head.requires_grad_(head_trained)
    mine = cross_entropy(states, head, targets, chunk)
    naive = functional.cross_entropy(states @ head.T, targets, reduction="sum")
    torch.testing.assert_close(mine, naive)
    for a, b in zip(grads(3 * mine, states, head), grads(3 * naive, states, head), strict=True):
        torch.testing.assert_close(a, b)


@examples(40)
@given(rows=st.integers(0, 9), chunk=st.integers(1, 10), head_trained=st.booleans())
def test_log_probabilities(rows: int, chunk: int, head_trained: bool) -> None:
    states, head, targets = some(rows)
    head.requires_grad_(head_trained)
    factors = torch.linspace(-1, 2, rows, dtype=D)  # not alike, so that a row's gradient can't pass for another's
    mine = (log_probabilities(states, head, targets, chunk) * factors).sum()
    naive = ((states @ head.T).log_softmax(-1).gather(-1, targets[:, None])[:, 0] * factors).sum()
    torch.testing.assert_close(mine, naive)
    for a, b in zip(grads(mine, states, head), grads(naive, states, head), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_distillation(temperature: float, chunk: int) -> None:
    states, head, _ = some(7)
    teacher = torch.randn(7, 11, dtype=D)
    mine = distillation(states, head, lambda at: teacher[at], temperature, chunk)
    ours, theirs = ((logits / temperature).log_softmax(-1) for logits in (states @ head.T, teacher))
    naive = temperature**2 * functional.kl_div(ours, theirs, reduction="sum", log_target=True)
    torch.testing.assert_close(mine, naive)
    for a, b in zip(grads(mine, states, head), grads(naive, states, head), strict=True):
        torch.testing.assert_close(a, b)
    itself, states = (states @ head.T).detach(), states.detach()
    assert float(distillation(states, head, lambda at: itself[at], temperature, chunk)) == pytest.approx(0, abs=1e-12)


def test_gradients_by_finite_differences() -> None:
    states, head, targets = some(4)
    teacher = torch.randn(4, 11, dtype=D)
    assert torch.autograd.gradcheck(lambda s, h: cross_entropy(s, h, targets, 3), (states, head))
    assert torch.autograd.gradcheck(lambda s, h: log_probabilities(s, h, targets, 3), (states, head))
    assert torch.autograd.gradcheck(lambda s, h: distillation(s, h, lambda at: teacher[at], 2.0, 3), (states, head))


def test_no_tensor_has_all_rows_and_the_whole_vocabulary() -> None:
    """Neither in the forward pass nor in what is kept for the way back."""
    from torch.utils._python_dispatch import TorchDispatchMode

    biggest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal biggest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                biggest = max(biggest, out.numel())
            return out

    states, head = torch.randn(512, 8).requires_grad_(), torch.randn(1000, 8)
    targets = torch.randint(0, 1000, (512,))
    with Watch():
        cross_entropy(states, head, targets, 64).backward()
    assert biggest == 64 * 1000


def test_in_bfloat16_sums_are_float32() -> None:
    states, head, targets = some(200, dtype=torch.bfloat16)
    loss = cross_entropy(states, head, targets)
    assert loss.dtype == torch.float32
    exact = functional.cross_entropy((states @ head.T).float(), targets, reduction="sum")
    assert float(loss) == pytest.approx(float(exact), rel=1e-6)


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_dpo_by_hand() -> None:
    c, r, c0, r0 = (torch.tensor(values, dtype=D) for values in ([-3.0, -1], [-2.0, -4], [-2.5, -2], [-2.0, -3]))
    margins = [0.2 * ((-3 + 2.5) - (-2 + 2)), 0.2 * ((-1 + 2) - (-4 + 3))]
    assert float(dpo(c, r, c0, r0, 0.2)) == pytest.approx(-sum(math.log(sigma(m)) for m in margins))
    smooth = -sum(0.9 * math.log(sigma(m)) + 0.1 * math.log(sigma(-m)) for m in margins)
    assert float(dpo(c, r, c0, r0, 0.2, 0.1)) == pytest.approx(smooth)
    assert float(dpo(c, r, c, r)) == pytest.approx(2 * math.log(2))


def test_orpo_by_hand() -> None:
    chosen, rejected = torch.tensor([-0.5, -3.0], dtype=D), torch.tensor([-2.0, -0.01], dtype=D)
    total = 0.0
    for c, r in zip(chosen.tolist(), rejected.tolist(), strict=True):
        odds = [math.exp(x) / (1 - math.exp(x)) for x in (c, r)]
        total += -c - 0.3 * math.log(sigma(math.log(odds[0] / odds[1])))
    assert float(orpo(chosen, rejected, 0.3)) == pytest.approx(total)
    for edge in (-1e-12, -60.0, 0.0):
        x = torch.tensor([edge], requires_grad=True)
        loss = orpo(x, torch.tensor([-1.0]))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(x.grad).all()


def test_kto_by_hand() -> None:
    answer, before = torch.tensor([-1.0, -2.0, -3.0], dtype=D), torch.tensor([-2.0, -1.0, -3.0], dtype=D)
    z = drift(torch.tensor([-1.0, -2.0], dtype=D), torch.tensor([-2.0, -2.5], dtype=D))
    assert float(z) == pytest.approx(0.75)
    assert float(drift(torch.tensor([-5.0]), torch.tensor([-2.0]))) == 0
    liked = torch.tensor([True, False, True])
    expected = 2 * (1 - sigma(0.1 * (1 - 0.75))) + 3 * (1 - sigma(0.1 * (0.75 + 1))) + 2 * (1 - sigma(0.1 * (0 - 0.75)))
    assert float(kto(answer, before, z, liked, 0.1, 2.0, 3.0)) == pytest.approx(expected)
