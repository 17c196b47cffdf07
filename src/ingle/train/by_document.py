"""Gradients of each document by itself: all of a batch are read together, and each one's gradient is taken from the same backward pass.

Of a low-rank addition W + s · B A the gradients of one document are products of its own tokens' rows, dB = s · gᵀ (x Aᵀ) and
dA = s · (g B)ᵀ x, with x the inputs and g the gradients of the outputs; and a document's tokens lie side by side in the row. So one by
one they cost what their sum costs. `one_by_one` is the reference, which reads each document alone, by PyTorch's own differentiation.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ingle.core.digest import digest_json
from ingle.core.progress import Counted, silent
from ingle.model.module import CausalLM
from ingle.train.corpus import Corpus
from ingle.train.forward import final_states, first_trained_layer, lower_states
from ingle.train.low_rank import LowRankLinear
from ingle.train.objectives import cross_entropy
from ingle.train.packing import Batch, make_batch, plan

# Gets a document's place in the batch, a parameter's name, and the gradient of the sum of that document's losses.
Take = Callable[[int, str, Tensor], None]


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
    start, stop = batch.bounds[number], batch.bounds[number + 1]
    own = batch.owners == number
    return Batch(
        (batch.documents[number],), (0, stop - start), batch.ids[start:stop], batch.positions[start:stop], batch.rows[own] - start,
        batch.targets[own], batch.owners[own] - number, batch.labels[:0],
    )  # fmt: skip


# Sketches of examples: the gradient of each example's loss, folded by random signs into a few numbers, of length 1.
# Two examples whose gradients point alike teach alike, so the product of their sketches says how alike, from −1 to 1, give or take 1 /
# √SIZE. A sketch adds up the gradient's numbers, each times a random sign, at their place modulo SIZE (Charikar et al. 2002: the expected
# product of two sketches is the gradients' own).
# Only parameters of the upper third of the layers are looked at, if any are trained there: that is two thirds of the backward pass saved.
# The examples of a batch are read together where only low-rank additions are trained (train/by_document.py), else each alone.


SIZE = 2048
_BATCH_TOKENS = 512


class Sketcher:
    """Sketches of examples at the present values of some parameters, all of one type."""

    def __init__(self, module: CausalLM, parameters: Mapping[str, nn.Parameter]) -> None:
        parameters = _upper(module, parameters)
        self._module, self._parameters, self._device = module, parameters, module.lm_head.weight.device
        self._signs = {name: _signs(name, parameter.numel()).to(parameter.device) for name, parameter in parameters.items()}
        self._linears = low_rank_owners(module, parameters)

    def of_corpus(self, corpus: Corpus, examples: Sequence[int], done: Counted = silent) -> npt.NDArray[np.float16]:
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
        one_by_one(self._module, self._parameters, batch, lambda number, name, gradient: self._add(rows[number], name, gradient))
        return rows

    def _together(self, batch: Batch) -> Tensor:
        rows = torch.zeros(len(batch.documents), SIZE, device=self._device)
        take: Take = lambda number, name, gradient: self._add(rows[number], name, gradient)  # noqa: E731
        together(self._module, self._linears, self._parameters, batch, take)
        return rows

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


# One step's gradient with a bound on what any record has to do with it: every record's own gradient is cut to a length, then summed.
# A record is one line of the data. Of a text that was cut into pieces, or a conversation with several documents, the first one alone is
# read: so one record is one gradient. A record's loss is the mean over its answer's tokens. Sums are in float64, since in float32 their
# rounding would depend on what else was summed; noise is for the caller to add (DP-SGD, arXiv 1607.00133).


MARGIN = 1e-3  # records are cut this much shorter than the length promised: lengths are worked out in float32
_GRAIN = 1 << 53
Sums = dict[str, Tensor]  # by parameter, float64


def records(corpus: Corpus, members: Sequence[int]) -> list[int]:
    """Return the first example of every record among these."""
    first: dict[str, int] = {}
    for member in members:
        first.setdefault(corpus.sources[member], member)
    return list(first.values())


def drawn(members: Sequence[int], share: float) -> list[int]:
    """Draw each of these by itself with the same chance, by the system's own randomness: nobody can know which (Poisson sampling)."""
    return [member for member in members if secrets.randbelow(_GRAIN) < share * _GRAIN]


def clipped_sum(
    module: CausalLM, parameters: Mapping[str, nn.Parameter], corpus: Corpus, chosen: Sequence[int], longest: float, batch_tokens: int,
    done: Counted = silent,
) -> Sums:  # fmt: skip
    """Return the sum of these examples' gradients, each cut to at most `longest` over all parameters together.

    Examples are read together where the parameters allow it (train/by_document.py). Without any, the sum is zero.
    """
    linears = low_rank_owners(module, parameters)
    sums: Sums = {name: torch.zeros(one.shape, dtype=torch.float64, device=one.device) for name, one in parameters.items()}
    count = 0
    for some in plan(corpus.sizes, chosen, batch_tokens, None):
        batch = make_batch(corpus, some, module.lm_head.weight.device)
        found: list[dict[str, Tensor]] = [{} for _ in some]

        def take(number: int, name: str, gradient: Tensor, found: list[dict[str, Tensor]] = found) -> None:
            found[number][name] = gradient.float()

        if linears:
            together(module, linears, parameters, batch, take)
        else:
            one_by_one(module, parameters, batch, take)
        add_clipped(sums, found, batch, longest)
        done(count := count + len(some), len(chosen))
    return sums


def naive_sum(module: CausalLM, parameters: Mapping[str, nn.Parameter], corpus: Corpus, chosen: Sequence[int], longest: float) -> Sums:
    """Do what `clipped_sum` does, one example at a time, by PyTorch's own differentiation: the reference."""
    sums: Sums = {name: torch.zeros(one.shape, dtype=torch.float64, device=one.device) for name, one in parameters.items()}
    for example in chosen:
        batch = make_batch(corpus, [example], module.lm_head.weight.device)
        loss = summed_loss(module, batch) / len(batch.targets)
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        own = {name: one.double() for name, one in zip(parameters, gradients, strict=True) if one is not None}
        length = float(torch.sqrt(sum((one.square().sum() for one in own.values()), torch.zeros((), dtype=torch.float64))))
        for name, gradient in own.items():
            sums[name] += gradient * min(1.0, longest * (1 - MARGIN) / length if length else 1.0)
    return sums


def add_clipped(sums: Sums, found: Sequence[Mapping[str, Tensor]], batch: Batch, longest: float) -> None:
    """Add documents' gradients to the sums, each divided by its losses and cut to `longest`. One that is no number is left out whole."""
    terms = torch.bincount(batch.owners, minlength=len(found)).tolist()
    for gradients, count in zip(found, terms, strict=True):
        if not gradients:
            continue
        length = float(torch.stack([one.double().square().sum() for one in gradients.values()]).sum().sqrt()) / count
        if not length < float("inf"):
            continue
        factor = min(1.0, longest * (1 - MARGIN) / length if length else 1.0) / count
        for name, gradient in gradients.items():
            sums[name].add_(gradient.double(), alpha=factor)
