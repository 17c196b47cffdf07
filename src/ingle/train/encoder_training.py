"""Trains encoders of texts in the four bits in which `model.text_encoder` keeps them: its twin in PyTorch, with gradients.

Gradients pass the rounding by (arXiv 1308.3432). Word embeddings stay as they are, so that words which no training text has go on meaning
what they meant.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ingle.core.errors import Interrupted
from ingle.core.progress import Counted
from ingle.model.text_encoder import GROUP, HEADS, WORDS, WordTable, dequantised, quantised

Array = npt.NDArray[Any]
Row = tuple[Sequence[int], Sequence[int]]  # tokens and segments of one input
PLACES = "embeddings.position_embeddings.weight"
HEAD_RATE, CLIP_NORM, WARM_UP, DECAY, DROPOUT = 1e-3, 1.0, 50, 0.01, 0.1
_EPSILON = 1e-12


def begun(base: Mapping[str, Array], words: WordTable, layers: Sequence[int], places: int, outputs: int) -> dict[str, Tensor]:
    """Return weights to train: these layers of a BERT over words, so many places of a text, and a head of zeros."""
    kept = {name: values for name, values in base.items() if name.startswith("embeddings.") and "position_ids" not in name}
    kept |= dequantised(words.table)
    kept[PLACES] = kept[PLACES][:places]
    for number, layer in enumerate(layers):
        old, new = f"encoder.layer.{layer}.", f"encoder.layer.{number}."
        kept |= {name.replace(old, new, 1): values for name, values in base.items() if name.startswith(old)}
    width = kept[WORDS].shape[1]
    kept |= {"head.weight": np.zeros((outputs, width), np.float32), "head.bias": np.zeros(outputs, np.float32)}
    return _to_train(kept)


def gone_on(words: WordTable, stored: Mapping[str, Array]) -> dict[str, Tensor]:
    """Return weights as `kept` stored them, to be trained further over the same words."""
    return _to_train(dequantised(stored) | dequantised(words.table))


def scores(weights: Mapping[str, Tensor], rows: Sequence[Row], dropout: float = 0.0) -> Tensor:
    """Return the head's outputs on the mean of each row's last states, float32 [rows, outputs]. `dropout`: share of what attention and MLP
    give that is left out."""
    size = max(len(ids) for ids, _ in rows)
    ids, segments = torch.zeros(len(rows), size, dtype=torch.long), torch.zeros(len(rows), size, dtype=torch.long)
    there = torch.zeros(len(rows), size, dtype=torch.bool)
    for number, (tokens, parts) in enumerate(rows):
        ids[number, : len(tokens)], segments[number, : len(tokens)] = torch.tensor(tokens), torch.tensor(parts)
        there[number, : len(tokens)] = True
    states = _states({name: _as_kept(name, values) for name, values in weights.items()}, ids, segments, there, dropout)
    mean = (states * there[..., None]).sum(1) / there.sum(1, keepdim=True)
    return nn.functional.linear(mean.float(), weights["head.weight"], weights["head.bias"])


def fit_encoder(
    weights: Mapping[str, Tensor], batches: Iterable[tuple[Sequence[Row], Tensor]], steps: int, rate: float, watch: Counted,
    stopped: Callable[[], bool] = lambda: False,
) -> float:  # fmt: skip
    """Train weights in place on batches of rows with targets 0 to 1 [rows, outputs], NaN where one is not known. AdamW, its rate rising
    over WARM_UP steps and then falling to 0; bfloat16 products. Return the seconds that it took. Raises Interrupted."""
    heads = [values for name, values in weights.items() if name.startswith("head")]
    others = [values for name, values in weights.items() if values.requires_grad and not name.startswith("head")]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": heads, "lr": HEAD_RATE}]
    optimiser = torch.optim.AdamW(groups, lr=rate, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / WARM_UP) * (1 - step / steps))
    began = time.monotonic()
    for step, (rows, targets) in enumerate(batches):
        if stopped():
            raise Interrupted("training", "was interrupted", f"{step} of {steps} steps", "Run the same command again.")
        watch(step, steps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            odds = scores(weights, rows, DROPOUT)
        known = ~targets.isnan()
        loss = nn.functional.binary_cross_entropy_with_logits(odds[known], targets[known])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([*others, *heads], CLIP_NORM)
        optimiser.step()
        schedule.step()
    watch(steps, steps)
    return time.monotonic() - began


def kept(weights: Mapping[str, Tensor]) -> dict[str, Array]:
    """Return trained weights as they are stored: without the words, which stay what they are."""
    return quantised({name: values.detach().numpy() for name, values in weights.items() if name != WORDS})


def _to_train(weights: Mapping[str, Array]) -> dict[str, Tensor]:
    return {name: torch.tensor(values, dtype=torch.float32, requires_grad=name != WORDS) for name, values in weights.items()}


def _as_kept(name: str, values: Tensor) -> Tensor:
    """Return a weight as it will be stored; its gradient is that of what is stored."""
    if values.ndim == 1 or not values.requires_grad or name.startswith("head"):
        return values
    with torch.no_grad():
        groups = values.view(len(values), -1, GROUP)
        scale = (groups.abs().amax(-1, keepdim=True) / 7).clamp_min(1e-6).half().float()
        rounded = ((groups / scale).round_().clamp_(-7, 7) * scale).view_as(values) - values
    return values + rounded


def _states(weights: Mapping[str, Tensor], ids: Tensor, segments: Tensor, there: Tensor, dropout: float) -> Tensor:
    """Return BERT's last states [rows, tokens, width]; `there`: which tokens there are."""
    places = weights[PLACES][: ids.shape[1]]
    x = _normed(weights[WORDS][ids] + weights["embeddings.token_type_embeddings.weight"][segments] + places, weights, "embeddings")
    number = 0
    while (layer := f"encoder.layer.{number}") + ".output.dense.weight" in weights:
        q, k, v = (
            _linear(x, weights, f"{layer}.attention.self.{part}").view(*x.shape[:2], HEADS, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        seen = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None, :]).transpose(1, 2).flatten(2)
        mixed = nn.functional.dropout(_linear(seen, weights, f"{layer}.attention.output.dense"), dropout)
        x = _normed(x + mixed, weights, f"{layer}.attention.output")
        wide = nn.functional.gelu(_linear(x, weights, f"{layer}.intermediate.dense"), approximate="tanh")
        x = _normed(x + nn.functional.dropout(_linear(wide, weights, f"{layer}.output.dense"), dropout), weights, f"{layer}.output")
        number += 1
    return x


def _linear(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    return nn.functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _normed(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    return nn.functional.layer_norm(x, x.shape[-1:], weights[f"{name}.LayerNorm.weight"], weights[f"{name}.LayerNorm.bias"], _EPSILON)
