"""The objective of debiasing: two texts that say the same of two people become equally likely, and all else stays as it was.

An example is two documents; its label says what becomes of it. a, b: log-probabilities of their weighed tokens; °: before training.

| label | loss |
|---|---|
| EQUAL | smooth-L1 of a − b (arXiv 1504.08083), and `level` × smooth-L1 of (a + b) − (a° + b°): they meet in the middle, neither fades |
| ABOVE | log(1 + exp(margin − (a − b))): the first becomes likelier |
| KEEP | `keep` × KL from the predictions of the model before, per token |
| BOTH | −a − b: plain counterfactual fine-tuning, to compare with |
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss, softplus

from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM
from ingle.train.corpus import Corpus, Wanted
from ingle.train.losses import distillation, log_probabilities
from ingle.train.objectives import Predictions, States, TokenLoss
from ingle.train.packing import Batch, make_batch

KEEP, EQUAL, ABOVE, BOTH = 0, 1, 2, 3
"""Labels of examples."""


@dataclass(frozen=True, slots=True)
class EqualSettings:
    """Weights of the parts."""

    equal: float = 1.0
    """Weight of the difference between the texts of a pair."""
    level: float = 0.25
    """Weight of their joint likelihood, which is to stay."""
    above: float = 1.0
    """Weight of answers that are to be likelier than others."""
    margin: float = 2.0
    """By how many nats they are to be."""
    keep: float = 4.0
    """Weight of the KL from the model before."""

    def __post_init__(self) -> None:
        for name in ("equal", "level", "above", "margin", "keep"):
            if getattr(self, name) < 0:
                raise ConfigError(f"weights.{name}", "must not be negative", getattr(self, name))


@dataclass(frozen=True, slots=True, eq=False)
class Equalising:
    """Pairs that become equally likely, answers that become likelier, and what is to stay."""

    corpus: Corpus
    before: Predictions
    """The model before."""
    before_digest: str
    reference: Tensor
    """float32 [documents]: log-probability of each document's weighed tokens before training (`reference_log_probabilities`)."""
    weights: EqualSettings
    wanted: Wanted = "pairs"

    @property
    def name(self) -> str:
        """See `Objective`."""
        return f"equalising of {self.before_digest[:16]}, {self.weights}"

    def __call__(self, module: CausalLM, states: States, batch: Batch) -> TokenLoss:
        """See `Objective`."""
        head, final, of, most = module.lm_head.weight, states(), batch.owners // 2, len(batch.documents)
        kept = batch.labels[of] == KEEP
        total = torch.zeros((), device=final.device)
        if not bool(kept.all()):
            rows = log_probabilities(final[~kept], head, batch.targets[~kept])
            sums = torch.zeros(most, dtype=rows.dtype, device=rows.device).index_add(0, batch.owners[~kept], rows)
            total = total + self._pairs(sums, self.reference[list(batch.documents)].to(sums), batch.labels)
        if (own := self._kept(batch)) is not None:
            total = total + self.weights.keep * distillation(final[kept], head, self.before(own))
        return TokenLoss(total, len(batch.targets))

    def _pairs(self, sums: Tensor, before: Tensor, labels: Tensor) -> Tensor:
        """Sum of the losses of all pairs. sums, before [documents]; labels [examples]."""
        apart, moved = sums[0::2] - sums[1::2], (sums - before)[0::2] + (sums - before)[1::2]
        weights = self.weights
        losses = {
            EQUAL: weights.equal * _smooth(apart) + weights.level * _smooth(moved),
            ABOVE: weights.above * softplus(weights.margin - apart),
            BOTH: -(sums[0::2] + sums[1::2]),
        }
        zero = torch.zeros_like(apart)
        return torch.stack([torch.where(labels == label, loss, zero).sum() for label, loss in losses.items()]).sum()

    def _kept(self, batch: Batch) -> Batch | None:
        """A batch of the examples alone that are to stay, in the same order."""
        numbers = [number // 2 for number, of in zip(batch.documents[::2], batch.labels.tolist(), strict=True) if of == KEEP]
        return make_batch(self.corpus, numbers, batch.ids.device) if numbers else None


def _smooth(values: Tensor) -> Tensor:
    return smooth_l1_loss(values, torch.zeros_like(values), reduction="none")
