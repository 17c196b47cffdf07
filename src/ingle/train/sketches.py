"""Sketches of examples: the gradient of each example's loss, folded by random signs into a few numbers, of length 1.

Two examples whose gradients point alike teach alike, so the product of their sketches says how alike, from −1 to 1, give or take
1 / √SIZE. A sketch adds up the gradient's numbers, each times a random sign, at their place modulo SIZE (Charikar et al. 2002: the
expected product of two sketches is the gradients' own).

Only parameters of the upper third of the layers are looked at, if any are trained there: that is two thirds of the backward pass saved.

The examples of a batch are read together where only low-rank additions are trained (train/by_document.py), else each alone.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ingle.core.digest import digest_json
from ingle.model.module import CausalLM
from ingle.train.by_document import Take, low_rank_owners, one_by_one, together
from ingle.train.corpus import Corpus
from ingle.train.packing import Batch, make_batch, plan

SIZE = 2048
_BATCH_TOKENS = 512


class Sketcher:
    """Sketches of examples at the present values of some parameters, all of one type."""

    def __init__(self, module: CausalLM, parameters: Mapping[str, nn.Parameter]) -> None:
        parameters = _upper(module, parameters)
        self._module, self._parameters, self._device = module, parameters, module.lm_head.weight.device
        self._signs = {name: _signs(name, parameter.numel()).to(parameter.device) for name, parameter in parameters.items()}
        self._linears = low_rank_owners(module, parameters)

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
