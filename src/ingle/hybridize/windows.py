"""How far the streaming groups of each layer see, if windows are shared out among the layers by what they seem to be worth there.

Off unless `search.windows` says otherwise: on SmolLM2 what it chose was worse than one window for all layers at the same bytes (LOG.md);
the hybrid that comes with Ingle was made with it.

As in `hybridize.search`, m mixes window + m · (full − window), now for all streaming groups at once, and −dL/dm averaged over the way
says how much of the loss's rise each layer's groups are to blame for; the shares add up to the rise (integrated gradients, arXiv
1703.01365). That is measured for each width, and the widths are then chosen so that the sum is least at the bytes that one window for all
layers would take. What it leaves out: each width is measured with all layers at that width, and they stand in for each other.

L: nats per token of texts. Planted facts don't count here: what is to be recalled lies mostly beyond any window.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from ingle.core.blocks import BLOCK_TOKENS
from ingle.core.spec import ModelConfig
from ingle.hybridize.budget import Group
from ingle.hybridize.search import Progress, shares_of, slope
from ingle.hybridize.settings import HybridSettings
from ingle.model.module import CausalLM
from ingle.train.corpus import Corpus
from ingle.train.packing import make_batch

Effects = Mapping[int, Sequence[float]]
"""For each width, and each layer: by how much the loss rises if the streaming groups of that layer see no more."""


def find_windows(
    module: CausalLM, texts: Corpus, kept: Sequence[Group], settings: HybridSettings, progress: Progress = lambda _done, _all: None
) -> tuple[list[int], dict[int, list[float]]]:
    """The window of each layer, and the effects that they were chosen by (nats per token); all alike without `search.windows`."""
    config = module.config
    widths = sorted({*settings.search.windows, settings.window}) if settings.search.windows else []
    effects: dict[int, list[float]] = {}
    for width in widths:
        slopes = torch.zeros(len(config.layers), config.num_kv_heads)
        for number in range(len(texts)):
            shares = shares_of(config, kept, 1.0, others=(number + 0.5) / len(texts))
            slopes += slope(module, make_batch(texts, [number]), shares, width, settings.sinks) / len(texts)
            progress(len(effects) * len(texts) + number + 1, len(widths) * len(texts))
        for place in kept:
            slopes[place] = 0
        effects[width] = [-float(row) for row in slopes.sum(1)]
    return share_out(effects, _streaming(config, kept), settings.window), effects


def share_out(effects: Effects, groups: Sequence[int], window: int) -> list[int]:
    """A width for each layer, of `groups` streaming groups, so that the sum of the effects is least and rings take no more than with
    `window` everywhere. What seems to do good to be without counts as nothing: it is noise.

    By dynamic programming over what has been spent, so the choice is exact.
    """
    if not effects:
        return [window] * len(groups)
    spend: Callable[[int], int] = lambda width: math.ceil(width / BLOCK_TOKENS)  # noqa: E731
    most = sum(groups) * spend(window)
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}  # what is spent: effect, widths
    for layer, count in enumerate(groups):
        found: dict[int, tuple[float, list[int]]] = {}
        for spent, (effect, widths) in best.items():
            for width, rows in effects.items():
                total, rise = spent + count * spend(width), effect + max(0.0, rows[layer])
                if total <= most and (total not in found or rise < found[total][0]):
                    found[total] = rise, [*widths, width]
        best = found
    return min(best.items(), key=lambda one: (one[1][0], one[0]))[1][1]


def _streaming(config: ModelConfig, kept: Sequence[Group]) -> list[int]:
    """How many groups of each layer stream."""
    return [config.num_kv_heads - sum(layer == i for layer, _ in kept) for i in range(len(config.layers))]
