"""Sketches of examples: the gradient of each example's loss, folded by random signs into a few numbers, of length 1.

Two examples whose gradients point alike teach alike, so the product of their sketches says how alike, from −1 to 1, give or take
1 / √SIZE. A sketch adds up the gradient's numbers, each times a random sign, at their place modulo SIZE (Charikar et al. 2002: the
expected product of two sketches is the gradients' own).

Only parameters of the upper third of the layers are looked at, if any are trained there: that is two thirds of the backward pass saved.

The examples of a batch are read together: where only low-rank additions W + s · B A are trained, the gradients of one document are
products of its own tokens' rows, dB = s · gᵀ (x Aᵀ) and dA = s · (g B)ᵀ x. For other methods each example is read alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ingle.core.digest import digest_json
from ingle.model.module import CausalLM
from ingle.train.corpus import Corpus
from ingle.train.forward import final_states
from ingle.train.losses import cross_entropy
from ingle.train.low_rank import LowRankLinear
from ingle.train.packing import Batch, make_batch, plan

SIZE = 2048
_BATCH_TOKENS = 512


class Sketcher:
    """Sketches of examples at the present values of some parameters, all of one type."""

    def __init__(self, module: CausalLM, parameters: Mapping[str, nn.Parameter]) -> None:
        parameters = _upper(module, parameters)
        self._module, self._parameters, self._device = module, parameters, module.lm_head.weight.device
        self._signs = {name: _signs(name, parameter.numel()).to(parameter.device) for name, parameter in parameters.items()}
        owners = {name: name.rsplit(".", 2)[0] for name in parameters}
        linears = {owner: module.get_submodule(owner) for owner in dict.fromkeys(owners.values())}
        fitting = all(type(one) is LowRankLinear and one.mask is None for one in linears.values())
        self._linears = {name: one for name, one in linears.items() if isinstance(one, LowRankLinear)} if fitting else {}

    def of_corpus(
        self, corpus: Corpus, examples: Sequence[int], done: Callable[[int, int], None] = lambda _done, _all: None
    ) -> npt.NDArray[np.float16]:
        """Sketches of these examples of a corpus, in their order: float16 [examples, SIZE]."""
        place = {example: i for i, example in enumerate(examples)}
        sketches = np.zeros((len(examples), SIZE), np.float16)
        most, count = max(_BATCH_TOKENS, int(corpus.sizes.max())), 0
        for some in plan(corpus.sizes, examples, most, None):
            sketches[[place[example] for example in some]] = self.of_batch(make_batch(corpus, some, self._device)).cpu().numpy()
            done(count := count + len(some), len(examples))
        return sketches

    def of_batch(self, batch: Batch) -> Tensor:
        """Sketches of a batch's documents: float32 [documents, SIZE], each of length 1."""
        training = self._module.training
        self._module.eval()
        try:
            rows = self._together(batch) if self._linears else self.naive(batch)
        finally:
            self._module.train(training)
        return nn.functional.normalize(rows, dim=1)

    def naive(self, batch: Batch) -> Tensor:
        """Unscaled sketches of a batch's documents, each read alone: the reference for what is read together."""
        rows = torch.zeros(len(batch.documents), SIZE, device=self._device)
        for number in range(len(batch.documents)):
            loss = self._loss(_alone(batch, number))
            found = torch.autograd.grad(loss, list(self._parameters.values()), allow_unused=True)
            for name, gradient in zip(self._parameters, found, strict=True):
                if gradient is not None:
                    self._add(rows[number], name, gradient)
        return rows

    def _together(self, batch: Batch) -> Tensor:
        rows = torch.zeros(len(batch.documents), SIZE, device=self._device)
        spans = np.asarray(batch.bounds)
        answers = np.searchsorted(batch.owners.cpu().numpy(), np.arange(len(batch.documents) + 1))

        def take(name: str, linear: LowRankLinear, x: Tensor, g: Tensor) -> None:
            edges = spans if len(x) == len(batch.ids) else answers  # the last layer reads the answers' rows alone
            a, b, scale = linear.lora_A.weight.data, linear.lora_B.weight.data, linear.scale
            t, u = (x @ a.t()).mul_(scale), (g @ b).mul_(scale)
            for number, (start, stop) in enumerate(pairwise(edges)):
                own = slice(int(start), int(stop))
                self._add(rows[number], f"{name}.lora_A.weight", u[own].t() @ x[own])
                self._add(rows[number], f"{name}.lora_B.weight", g[own].t() @ t[own])

        with self._listening(take):
            loss = self._loss(batch)
            if loss.requires_grad:
                torch.autograd.grad(loss, list(self._parameters.values()), allow_unused=True)
        return rows

    @contextmanager
    def _listening(self, take: Callable[[str, LowRankLinear, Tensor, Tensor], None]) -> Iterator[None]:
        """Call `take` with each linear's inputs [T, K] and the gradient of its outputs [T, N]."""

        def hook(name: str) -> Callable[[Any, Any, Any], None]:
            def after(linear: LowRankLinear, inputs: tuple[Tensor], output: Tensor) -> None:
                x = inputs[0].detach().flatten(0, -2)
                if output.requires_grad:
                    output.register_hook(lambda g: take(name, linear, x, g.flatten(0, -2)))  # type: ignore[no-untyped-call]

            return after

        handles = [linear.register_forward_hook(hook(name)) for name, linear in self._linears.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _loss(self, batch: Batch) -> Tensor:
        return cross_entropy(final_states(self._module, batch), self._module.lm_head.weight, batch.targets)

    def _add(self, row: Tensor, name: str, gradient: Tensor) -> None:
        """Fold a gradient into a row."""
        signed = gradient.detach().flatten().float() * self._signs[name]
        whole = len(signed) // SIZE * SIZE
        row += signed[:whole].view(-1, SIZE).sum(0)
        row[: len(signed) - whole] += signed[whole:]


def _upper(module: CausalLM, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The parameters of the upper third of the layers; all of them if none is trained there."""
    least = 2 * len(module.model.layers) // 3
    layers = {name: name.removeprefix("model.layers.").partition(".")[0] for name in parameters}
    chosen = {name: parameters[name] for name, layer in layers.items() if layer.isdecimal() and int(layer) >= least}
    return chosen or dict(parameters)


def _signs(name: str, count: int) -> Tensor:
    """float32 [count] of −1 and 1, which follow from the parameter's name."""
    generator = torch.Generator().manual_seed(int(digest_json(["sketch", name])[:15], 16))
    return torch.randint(0, 2, (count,), generator=generator, dtype=torch.int8).float().mul_(2).sub_(1)


def _alone(batch: Batch, number: int) -> Batch:
    """One document of a batch, as a batch."""
    start, stop = batch.bounds[number], batch.bounds[number + 1]
    own = batch.owners == number
    return Batch(
        (batch.documents[number],), (0, stop - start), batch.ids[start:stop], batch.positions[start:stop], batch.rows[own] - start,
        batch.targets[own], batch.owners[own] - number, batch.labels[:0],
    )  # fmt: skip
