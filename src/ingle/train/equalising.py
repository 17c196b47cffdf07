"""The objective of debiasing: who is spoken of changes less of what is likely, and all else stays as it was.

An example is two documents; its label says what becomes of them. p° is the model before.

| label | documents | loss |
|---|---|---|
| WORDS + k | two beginnings of the k-th style | smooth-L1 of log p(a) − log p(b), mean over all pairs of words (a, b) that may follow |
| SWAPPED | one text about two people | KL(mean of p° for both ‖ p), per token: they meet in the middle |
| ABOVE | an answer, and a worse one | log(1 + exp(margin − (log p(first) − log p(second)))) |
| KEEP | general text | KL(p° ‖ p), per token; with another weight also where WORDS are weighed |
| BOTH | a pair | −log p of both: plain counterfactual fine-tuning, to compare with |

Equal log-probabilities of two words are equal logits, so one beginning weighs a hundred pairs for the price of one row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss, softplus

from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM
from ingle.train.corpus import Corpus, Wanted
from ingle.train.forward import final_states
from ingle.train.losses import Teacher, cross_entropy, distillation, log_probabilities
from ingle.train.objectives import Predictions, States, TokenLoss
from ingle.train.packing import Batch

KEEP, SWAPPED, ABOVE, BOTH, WORDS = 0, 1, 2, 3, 10
"""Labels of examples."""


@dataclass(frozen=True, slots=True)
class EqualSettings:
    """Weights of the parts."""

    words: float = 4.0
    """Weight of pairs of words."""
    swapped: float = 1.0
    """Weight of texts about somebody else."""
    above: float = 1.0
    """Weight of answers that are to be likelier than others."""
    margin: float = 2.0
    """By how many nats they are to be."""
    keep: float = 4.0
    """Weight of the KL from the model before on general text."""
    level: float = 0.5
    """Weight of the KL where words are weighed: their joint chance is to stay."""

    def __post_init__(self) -> None:
        for name in ("words", "swapped", "above", "margin", "keep", "level"):
            if getattr(self, name) < 0:
                raise ConfigError(f"weights.{name}", "must not be negative", getattr(self, name))


@dataclass(frozen=True, slots=True, eq=False)
class Equalising:
    """Words and people that become equal, answers that become likelier, and what is to stay."""

    corpus: Corpus
    before: Predictions
    """The model before."""
    before_digest: str
    words: Sequence[Tensor] = ()
    """int [pairs, 2] for each style: the tokens that are to be equally likely."""
    weights: EqualSettings = field(default_factory=EqualSettings)
    wanted: Wanted = "pairs"

    @property
    def name(self) -> str:
        """See `Objective`."""
        pairs = [table.tolist() for table in self.words]
        return f"equalising of {self.before_digest[:16]}, {self.weights}, {pairs}"

    def __call__(self, module: CausalLM, states: States, batch: Batch) -> TokenLoss:
        """See `Objective`."""
        head, final = module.lm_head.weight, states()
        labels = batch.labels[batch.owners // 2]
        total = self._followed(final, head, batch, labels)
        for style, pairs in enumerate(self.words):
            if bool((here := labels == WORDS + style).any()):
                apart = final[here] @ (head[pairs[:, 0]] - head[pairs[:, 1]]).T
                total = total + self.weights.words * _smooth(apart.float()).mean(dim=1).sum()
        if bool((here := labels == ABOVE).any()):
            rows = log_probabilities(final[here], head, batch.targets[here])
            sums = torch.zeros(len(batch.documents), dtype=rows.dtype, device=rows.device).index_add(0, batch.owners[here], rows)
            apart = (sums[0::2] - sums[1::2])[batch.labels == ABOVE]
            total = total + self.weights.above * softplus(self.weights.margin - apart).sum()
        if bool((here := labels == BOTH).any()):
            total = total + cross_entropy(final[here], head, batch.targets[here])
        return TokenLoss(total, len(batch.targets))

    def _followed(self, final: Tensor, head: Tensor, batch: Batch, labels: Tensor) -> Tensor:
        """KL from the model before, where it is followed: at the same place, or at that of the other document."""
        total = torch.zeros((), device=final.device)
        weighed = ((labels == KEEP, self.weights.keep), (labels == SWAPPED, self.weights.swapped), (labels >= WORDS, self.weights.level))
        parts = [(here, weight) for here, weight in weighed if weight and bool(here.any())]
        if not parts:
            return total
        teacher = self.before.model.lm_head.weight
        with torch.no_grad():
            before = final_states(self.before.model, batch)
        other = before[opposite_rows(batch)]
        for here, weight in parts:
            total = total + weight * distillation(final[here], head, _mean(before[here], other[here], teacher))
        return total


def _mean(states: Tensor, other: Tensor, head: Tensor) -> Teacher:
    """Logarithm of the mean of two predictions, slice by slice."""

    def logits(span: slice) -> Tensor:
        mine, theirs = ((one[span] @ head.T).float().log_softmax(-1) for one in (states, other))
        return torch.logaddexp(mine, theirs)

    return logits


def opposite_rows(batch: Batch) -> Tensor:
    """int [A]: for each row itself or, where the example is SWAPPED, the row at the same place of its other document.

    Both documents of such an example weigh the same number of tokens.
    """
    counts = torch.bincount(batch.owners, minlength=len(batch.documents))
    starts = counts.cumsum(0) - counts
    swapped = batch.labels[batch.owners // 2] == SWAPPED
    partner = torch.where(swapped, batch.owners ^ 1, batch.owners)
    return starts[partner] + torch.arange(len(batch.owners), device=batch.owners.device) - starts[batch.owners]


def _smooth(values: Tensor) -> Tensor:
    return smooth_l1_loss(values, torch.zeros_like(values), reduction="none")
