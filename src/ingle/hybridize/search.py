"""Which groups keep full attention: those without which planted facts are lost, and texts become harder to predict.

A group that streams instead of looking at everything changes what its heads give; m between 0 and 1 mixes the two, window + m · (full −
window), and −dL/dm says to first order by how much the loss L rises if the group gives full attention up. Groups are given up in rounds,
the cheapest first, and each round measures anew with those gone, for groups stand in for each other. m is drawn anew for each document, so
that what is averaged over is the whole way from full attention to none (as integrated gradients do it, arXiv 1703.01365).

L: nats per token of planted facts (`measure.recall`) and of texts. By effect, not by where attention goes: much attention is paid to tokens
that hardly matter.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ingle.core.spec import LayerSpec, ModelConfig
from ingle.hybridize.budget import Group, all_groups
from ingle.hybridize.settings import HybridSettings
from ingle.measure.items import Text
from ingle.measure.recall import assemble, plant
from ingle.model.module import Attend, CausalLM, Packed
from ingle.model.tokenizer import Tokenizer
from ingle.train.attention import attend_on
from ingle.train.corpus import Corpus, corpus_of
from ingle.train.encode import Document
from ingle.train.losses import cross_entropy
from ingle.train.packing import Batch, make_batch

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Mixing:
    """Attention between full and windowed."""

    inner: Attend
    share: Tensor
    """[G]: 1 = full attention, 0 = window and sinks."""
    streaming: LayerSpec

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, spec: LayerSpec, some: bool) -> Tensor:
        """See `ingle.model.module.Attend`."""
        groups, repeats = k.shape[1], q.shape[1] // k.shape[1]
        full = self.inner(q, k, v, cos, sin, LayerSpec(tuple(range(groups))), some)
        near = self.inner(q, k, v, cos, sin, self.streaming, some)
        share = self.share.repeat_interleave(repeats)[:, None].to(q.dtype)
        return near + share * (full - near)


def find_groups(
    module: CausalLM, corpora: tuple[Corpus, Corpus], count: int, settings: HybridSettings, progress: Progress = lambda _done, _all: None
) -> tuple[list[Group], dict[Group, float]]:
    """The `count` groups that keep full attention, and by how much the loss rose to first order when each of the others was given up.

    `corpora`: facts and texts (see `search_corpora`). Those that are kept are given with their effect in the last round.
    """
    config, told = module.config, settings.search
    kept, effects = all_groups(config), dict[Group, float]()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    draw, done = np.random.default_rng(told.seed), 0
    sizes = _sizes(len(kept), count, told.rounds)
    total = len(sizes) * sum(map(len, corpora))
    for size in sizes:
        slopes = torch.zeros(len(config.layers), config.num_kv_heads)
        for corpus, weight in zip(corpora, (told.recall_share, 1 - told.recall_share), strict=True):
            for number in range(len(corpus)):
                shares = shares_of(config, kept, float(draw.uniform(0.1, 1)))
                slopes += slope(module, make_batch(corpus, [number]), shares, settings.window, settings.sinks) * (weight / len(corpus))
                done += 1
                progress(done, total)
        found = {place: -float(slopes[place]) for place in kept}
        effects |= found
        kept = sorted(sorted(kept, key=lambda place: -found[place])[:size])
    return kept, effects


def search_corpora(tokenizer: Tokenizer, texts: Sequence[Text], settings: HybridSettings) -> tuple[Corpus, Corpus]:
    """Facts planted in texts, whose answers count, and texts of which every token beyond a window counts. Raises ConfigError."""
    told = settings.search
    facts = []
    for item in plant(texts, told.tokens, told.documents, told.seed):
        asked, answer = assemble(tokenizer, item)
        ids = np.array(asked + answer, np.int32)
        facts.append((item.id, -1, (Document(ids, np.arange(len(ids)) >= len(asked)),)))
    return corpus_of("answers", facts), plain_corpus(tokenizer, texts, told.documents, told.tokens, settings.window, told.seed)


def plain_corpus(tokenizer: Tokenizer, texts: Sequence[Text], count: int, tokens: int, behind: int, seed: int) -> Corpus:
    """`count` documents of texts on end, of `tokens` tokens each, of which those count that have more than `behind` before them."""
    draw, plain = random.Random(seed), []
    for i in range(count):
        text: list[int] = []
        while len(text) < tokens:
            text += tokenizer.encode(f"{draw.choice(texts).text}\n\n")
        counted = np.arange(tokens) > min(behind, tokens // 2)
        plain.append((str(i), -1, (Document(np.array(text[:tokens], np.int32), counted),)))
    return corpus_of("answers", plain)


def loss_of(module: CausalLM, batch: Batch, shares: Tensor, window: int, sinks: int) -> Tensor:
    """Nats of all that counts in a batch, with each group between full (1) and windowed attention (0): shares [layers, G]."""
    attend = attend_on(batch.ids.device, batch.edges, batch.rows)
    streaming = LayerSpec((), window, sinks)
    x = module.model.embed_tokens(batch.ids)
    cos, sin = module.angles(batch.positions, x.dtype)
    for layer, share in zip(module.model.layers, shares, strict=True):
        x = layer(x, cos, sin, Packed(Mixing(attend, share, streaming), batch.edges, batch.rows))
    return cross_entropy(module.model.norm(x), module.lm_head.weight, batch.targets)


def slope(module: CausalLM, batch: Batch, shares: Tensor, window: int, sinks: int) -> Tensor:
    """dL/dm of every group at these shares, [layers, G]; L: nats per token that counts."""
    shares = shares.clone().requires_grad_()
    loss = loss_of(module, batch, shares, window, sinks) / len(batch.targets)
    loss.backward()  # type: ignore[no-untyped-call]
    assert shares.grad is not None
    return shares.grad


def shares_of(config: ModelConfig, kept: Sequence[Group], value: float, others: float = 0.0) -> Tensor:
    """[layers, G]: of the groups that are kept, and of all others."""
    shares = torch.full((len(config.layers), config.num_kv_heads), others)
    for place in kept:
        shares[place] = value
    return shares


def _sizes(start: int, end: int, rounds: int) -> list[int]:
    """How many are kept after each round: the same share of them goes in each."""
    if end >= start:
        return []
    sizes = [round(start * (max(end, 1) / start) ** (i / rounds)) for i in range(rounds + 1)]
    sizes[-1] = end
    return [b for a, b in pairwise(sizes) if b < a or b == end]
