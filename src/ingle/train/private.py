"""One step's gradient with a bound on what any record has to do with it: every record's own gradient is cut to a length, then summed.

A record is one line of the data. Of a text that was cut into pieces, or a conversation with several documents, the first one alone is
read: so one record is one gradient. A record's loss is the mean over its answer's tokens. Sums are in float64, since in float32 their
rounding would depend on what else was summed; noise is for the caller to add (DP-SGD, arXiv 1607.00133).
"""

import secrets
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ingle.model.module import CausalLM
from ingle.train.by_document import low_rank_owners, one_by_one, summed_loss, together
from ingle.train.corpus import Corpus
from ingle.train.packing import Batch, make_batch, plan

MARGIN = 1e-3
"""Records are cut this much shorter than the length promised: lengths are worked out in float32."""
_GRAIN = 1 << 53
Sums = dict[str, Tensor]
"""By parameter, float64."""


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
    done: Callable[[int, int], None] = lambda _done, _all: None,
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
