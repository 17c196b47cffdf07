"""Search for the groups that keep full attention: those without which facts in a long text are lost.

A group that streams instead of looking at everything changes its heads' output. m between 0 and 1 mixes the two, window + m · (full −
window), and −dL/dm says to first order by how much the loss L rises if the group gives up full attention. Groups give it up in rounds,
the cheapest first. Each round measures anew without those, for groups stand in for each other. m is drawn anew for each document, so the
average covers the whole way from full attention to none (as integrated gradients do it, arXiv 1703.01365).

The groups left after these rounds are not yet the best set: a group that was given up early may be worth more beside those that stayed. So
groups are then exchanged, the one with the least effect for the one that is missed most, and the loss itself decides (floating search:
Pudil et al. 1994, Pattern Recognition Letters 15(11)).

L: nats per token of answers about facts, in documents with many facts (`hybridize.lessons`). The loss on texts depends on the window and
hardly on which groups these are (LOG.md), so texts are not used. Effect counts, not where attention goes: much attention is paid to
tokens that hardly matter.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ingle.core.spec import LayerSpec, ModelConfig
from ingle.hybridize.budget import Group, all_groups
from ingle.hybridize.settings import HybridSettings
from ingle.model.module import CausalLM
from ingle.model.packed_rows import Attend, PackedRows
from ingle.train.attention import attend_on
from ingle.train.corpus import Corpus
from ingle.train.kernel_memory import read_packed
from ingle.train.losses import cross_entropy
from ingle.train.packing import Batch, make_batch

Progress = Callable[[int, int], None]
VERSION = 8
"""Changes when the same settings find other groups than before."""
_DEARER = 3
"""An exchange must promise this many times the effect of the group that it gives up. Giving a group up costs two to three times its slope,
for the loss bends upwards there, and another brings only half to nine tenths of its slope (measured, LOG.md)."""


@dataclass(frozen=True, slots=True)
class Mixing:
    """Attention between full and windowed. Parts with a share of 0 are not computed, and have no gradient."""

    inner: Attend
    share: Tensor
    """[G]: 1 = full attention, 0 = window and sinks."""
    streaming: LayerSpec
    asked: frozenset[int]
    """Groups whose share has a gradient even where it is 0."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, spec: LayerSpec, some: bool) -> Tensor:
        """See `ingle.model.module.Attend`."""
        q, slopes = q.view(len(q), k.shape[1], -1, q.shape[-1]), torch.is_grad_enabled()
        outs, alike = list[Tensor](), dict[tuple[float, bool], list[int]]()
        for group, share in enumerate(self.share.tolist()):
            alike.setdefault((share, group in self.asked), []).append(group)
        for (share, asked), chosen in alike.items():
            see = partial(self.inner, q[:, chosen].flatten(1, 2), k[:, chosen], v[:, chosen], cos, sin, some=some)
            with torch.set_grad_enabled(slopes and share != 1):
                out = see(spec=self.streaming)
            if asked or share != 0:
                with torch.set_grad_enabled(slopes and share != 0):
                    full = see(spec=LayerSpec(tuple(range(len(chosen)))))
                out = out + self.share[chosen].repeat_interleave(q.shape[2])[:, None].to(q.dtype) * (full - out)
            outs.append(out.view(len(out), len(chosen), *q.shape[2:]))
        order = torch.tensor([group for chosen in alike.values() for group in chosen])
        return torch.cat(outs, 1)[:, order.argsort()].flatten(1, 2)


@dataclass(frozen=True, slots=True)
class FoundGroups:
    """Progress of a search."""

    rounds: int
    """Number of finished rounds."""
    kept: tuple[Group, ...]
    """Groups that keep full attention after them."""
    effects: Mapping[Group, float]
    """Effect of each group when last measured: by how much the loss rises, to first order, if it gives up full attention."""
    loss: float = math.inf
    """Nats per token that counts, with the kept groups; known once groups are exchanged."""
    tried: tuple[tuple[Group, ...], ...] = ()
    """Sets whose loss is known; the first is the result of the rounds."""


def find_groups(
    module: CausalLM,
    corpus: Corpus,
    count: int,
    settings: HybridSettings,
    begun: FoundGroups,
    progress: Progress = lambda _done, _all: None,
) -> Iterator[FoundGroups]:
    """Search for the `count` groups that are to keep full attention. Yields the result after each round; the last one is final.

    `corpus`: documents with facts (`hybridize.lessons`). `begun`: an earlier result, at least with all groups.
    """
    search, groups, every = settings.search, all_groups(module.config), len(corpus)
    sizes = _sizes(len(groups), count, search.rounds)
    tries = 1 + search.exchanges if search.exchanges and 0 < count < len(groups) else 0
    result = begun
    for parameter in module.parameters():
        parameter.requires_grad_(False)

    streaming = LayerSpec((), settings.window, settings.sinks)

    def measure(step: int, kept: Sequence[Group], values: Iterable[float], asked: Sequence[Group]) -> tuple[float, Mapping[Group, float]]:
        """Mean loss of all documents, and the effects of the groups `asked`; kept groups have these values, one for each document."""
        loss, slopes = 0.0, torch.zeros(len(module.config.layers), module.config.num_kv_heads)
        for document, value in zip(range(every), values, strict=True):
            shares = shares_of(module.config, kept, value)
            one, slope = loss_and_slope(module, make_batch(corpus, [document]), shares, streaming, asked)
            loss, slopes = loss + one / every, slopes + slope / every
            progress(step * every + document + 1, (len(sizes) + tries) * every)
        return loss, {place: -float(slopes[place]) for place in asked}

    for number in range(result.rounds, len(sizes)):
        _, effects = measure(number, result.kept, np.random.default_rng([search.seed, number]).uniform(0.1, 1, every), result.kept)
        effects = {**result.effects, **effects}
        best = sorted(result.kept, key=lambda place: -effects[place])[: sizes[number]]
        result = FoundGroups(number + 1, tuple(sorted(best)), effects)
        yield result
    while len(result.tried) < tries and (kept := exchanged(result) if result.tried else result.kept):
        loss, effects = measure(len(sizes) + len(result.tried), kept, [1.0] * every, groups)
        tried = (*result.tried, kept)
        result = replace(result, kept=kept, loss=loss, effects=effects, tried=tried) if loss < result.loss else replace(result, tried=tried)
        yield result


def exchanged(found: FoundGroups) -> tuple[Group, ...] | None:
    """The set with the most promising exchange of one group for another that has not been tried; None if none is promising."""
    others = [place for place in found.effects if place not in found.kept]
    gains = {(old, new): found.effects[new] - _DEARER * found.effects[old] for old in found.kept for new in others}
    for old, new in sorted((pair for pair in gains if gains[pair] > 0), key=lambda pair: -gains[pair]):
        kept = tuple(sorted({*found.kept, new} - {old}))
        if kept not in found.tried:
            return kept
    return None


def loss_of(module: CausalLM, batch: Batch, shares: Tensor, streaming: LayerSpec, asked: Collection[Group] = ()) -> Tensor:
    """Nats of all that counts in a batch, with each group between full (1) and windowed attention (0): shares [layers, G].

    Every share that isn't 0 has a gradient, and those of the groups `asked`.
    """
    attend = attend_on(batch.ids.device, batch.edges, batch.rows)
    x = module.model.embed_tokens(batch.ids)
    cos, sin = module.angles(batch.positions, x.dtype)
    for index, (layer, share) in enumerate(zip(module.model.layers, shares, strict=True)):
        mixing = Mixing(attend, share, streaming, frozenset(group for other, group in asked if other == index))
        x = layer(x, cos, sin, PackedRows(mixing, batch.edges, batch.rows, read_packed))
    return cross_entropy(module.model.norm(x), module.lm_head.weight, batch.targets)


def loss_and_slope(module: CausalLM, batch: Batch, shares: Tensor, streaming: LayerSpec, asked: Collection[Group]) -> tuple[float, Tensor]:
    """L, in nats per token that counts, and dL/dm of the groups `asked` at these shares, [layers, G]."""
    shares = shares.clone().requires_grad_()
    loss = loss_of(module, batch, shares, streaming, asked) / len(batch.targets)
    loss.backward()  # type: ignore[no-untyped-call]
    assert shares.grad is not None
    return float(loss.detach()), shares.grad


def shares_of(config: ModelConfig, kept: Sequence[Group], value: float) -> Tensor:
    """Shares [layers, G]: `value` of the kept groups, 0 of all others."""
    shares = torch.zeros(len(config.layers), config.num_kv_heads)
    for place in kept:
        shares[place] = value
    return shares


def _sizes(start: int, end: int, rounds: int) -> list[int]:
    """Numbers of kept groups after each round: each gives up the same share of them."""
    if end >= start:
        return []
    sizes = [round(start * (max(end, 1) / start) ** (i / rounds)) for i in range(rounds + 1)]
    sizes[-1] = end
    return [b for a, b in pairwise(sizes) if b < a or b == end]
