"""Gradients of each document by itself: all of a batch are read together, and each one's gradient is taken from the same backward pass.

Of a low-rank addition W + s · B A the gradients of one document are products of its own tokens' rows, dB = s · gᵀ (x Aᵀ) and
dA = s · (g B)ᵀ x, with x the inputs and g the gradients of the outputs; and a document's tokens lie side by side in the row. So one by
one they cost what their sum costs. `one_by_one` is the reference, which reads each document alone, by PyTorch's own differentiation.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ingle.model.module import CausalLM
from ingle.train.forward import final_states, first_trained_layer, lower_states
from ingle.train.losses import cross_entropy
from ingle.train.low_rank import LowRankLinear
from ingle.train.packing import Batch

Take = Callable[[int, str, Tensor], None]
"""Gets a document's place in the batch, a parameter's name, and the gradient of the sum of that document's losses."""


def low_rank_owners(module: CausalLM, parameters: Mapping[str, nn.Parameter]) -> dict[str, LowRankLinear]:
    """Return the linears, by name, that these parameters belong to; none if any parameter is of another kind."""
    owners = {name: module.get_submodule(name) for name in dict.fromkeys(name.rsplit(".", 2)[0] for name in parameters)}
    if not all(type(one) is LowRankLinear and one.mask is None for one in owners.values()):
        return {}
    return {name: one for name, one in owners.items() if isinstance(one, LowRankLinear)}


def together(
    module: CausalLM, linears: Mapping[str, LowRankLinear], parameters: Mapping[str, nn.Parameter], batch: Batch, take: Take
) -> None:
    """Hand `take` every document's gradient of each of these parameters, which belong to these linears. What is zero may be left out."""
    spans = np.asarray(batch.bounds)
    answers = np.searchsorted(batch.owners.cpu().numpy(), np.arange(len(batch.documents) + 1))

    def told(name: str, linear: LowRankLinear, x: Tensor, g: Tensor) -> None:
        edges = spans if len(x) == len(batch.ids) else answers  # the last layer reads the answers' rows alone
        a, b, scale = linear.lora_A.weight.data, linear.lora_B.weight.data, linear.scale
        to_a, to_b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        u = (g @ b).mul_(scale) if to_a in parameters else None
        t = (x @ a.t()).mul_(scale) if to_b in parameters else None
        for number, (start, stop) in enumerate(pairwise(edges)):
            own = slice(int(start), int(stop))
            if u is not None:
                take(number, to_a, u[own].t() @ x[own])
            if t is not None:
                take(number, to_b, g[own].t() @ t[own])

    with _listening(linears, told):
        loss = summed_loss(module, batch, first_trained_layer(module, tuple(parameters)))
        if loss.requires_grad:
            torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)


def one_by_one(module: CausalLM, parameters: Mapping[str, nn.Parameter], batch: Batch, take: Take) -> None:
    """Hand `take` every document's gradient of each parameter, each document read alone. Works for every method; naive reference."""
    first = first_trained_layer(module, tuple(parameters))
    for number in range(len(batch.documents)):
        found = torch.autograd.grad(summed_loss(module, _alone(batch, number), first), list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                take(number, name, gradient)


def summed_loss(module: CausalLM, batch: Batch, first: int = 0) -> Tensor:
    """Sum of the batch's losses, in nats. Nothing is kept of the layers below the `first`, whose parameters get no gradient."""
    x = lower_states(module, batch.ids, first, batch.edges) if first else None
    return cross_entropy(final_states(module, batch, first, x), module.lm_head.weight, batch.targets)


@contextmanager
def _listening(linears: Mapping[str, LowRankLinear], told: Callable[[str, LowRankLinear, Tensor, Tensor], None]) -> Iterator[None]:
    """Call `told` with each linear's inputs [T, K] and the gradient of its outputs [T, N]."""

    def hook(name: str) -> Callable[[Any, Any, Any], None]:
        def after(linear: LowRankLinear, inputs: tuple[Tensor], output: Tensor) -> None:
            x = inputs[0].detach().flatten(0, -2)
            if output.requires_grad:
                output.register_hook(lambda g: told(name, linear, x, g.flatten(0, -2)))  # type: ignore[no-untyped-call]

        return after

    handles = [linear.register_forward_hook(hook(name)) for name, linear in linears.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _alone(batch: Batch, number: int) -> Batch:
    """One document of a batch, as a batch."""
    start, stop = batch.bounds[number], batch.bounds[number + 1]
    own = batch.owners == number
    return Batch(
        (batch.documents[number],), (0, stop - start), batch.ids[start:stop], batch.positions[start:stop], batch.rows[own] - start,
        batch.targets[own], batch.owners[own] - number, batch.labels[:0],
    )  # fmt: skip
