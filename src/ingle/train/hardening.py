"""The objective of hardening: learn to refuse, under a push against it, and keep all else as the model before said it.

A document's label says what becomes of it: REFUSE and ANSWER are learnt by cross-entropy, KEEP follows the predictions of the model before
(KL per token). With `push.steps`, refusals are learnt a second time while the residual stream of one layer is moved against them, at the
places of the request (latent adversarial training, arXiv 2407.15549). Below that layer the pushed pass trains nothing; the plain one does.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM
from ingle.train.corpus import Corpus, Wanted
from ingle.train.forward import final_states, lower_states
from ingle.train.losses import cross_entropy, distillation
from ingle.train.objectives import Predictions, States, TokenLoss
from ingle.train.packing import Batch, make_batch

KEEP, REFUSE, ANSWER = 0, 1, 2
"""Labels of documents."""


@dataclass(frozen=True, slots=True)
class PushSettings:
    """The latent attack in the loss."""

    steps: int = 2
    """Gradient steps against a batch's refusals; 0 = no attack. Each costs two thirds of a training step on these documents."""
    depth: float = 0.3
    """Depth of the layer whose input is moved, as a share of all layers."""
    radius: float = 0.3
    """Most that a token's state is moved, as a share of its length."""
    weight: float = 0.5
    """Weight of the pushed loss beside the plain one."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ConfigError("push.steps", "must not be negative", self.steps)
        if not 0 <= self.depth < 1:
            raise ConfigError("push.depth", "must be at least 0 and below 1", self.depth)
        if self.radius <= 0 or self.weight < 0:
            raise ConfigError("push", "must have a radius above 0 and a weight of at least 0", f"{self.radius}, {self.weight}")


@dataclass(frozen=True, slots=True, eq=False)
class Hardening:
    """Refusals, answers, and what is to stay."""

    corpus: Corpus
    before: Predictions
    """The model before."""
    before_digest: str
    keep: float = 1.0
    """Weight of the KL from the model before."""
    push: PushSettings = field(default_factory=PushSettings)
    wanted: Wanted = "answers"

    @property
    def name(self) -> str:
        """See `Objective`."""
        return f"hardening of {self.before_digest[:16]}, keep {self.keep}, {self.push}"

    def __call__(self, module: CausalLM, states: States, batch: Batch) -> TokenLoss:
        """See `Objective`."""
        head, final = module.lm_head.weight, states()
        kept = batch.labels[batch.owners] == KEEP
        total = torch.zeros((), device=final.device)
        if not bool(kept.all()):
            total = total + cross_entropy(final[~kept], head, batch.targets[~kept])
        if (own := self._part(batch, KEEP)) is not None:
            total = total + self.keep * distillation(final[kept], head, self.before(own))
        if self.push.steps and torch.is_grad_enabled() and (own := self._part(batch, REFUSE)) is not None:
            total = total + self.push.weight * self._pushed(module, own)
        return TokenLoss(total, len(batch.targets))

    def _part(self, batch: Batch, label: int) -> Batch | None:
        """Return a batch of those documents alone that have this label, in the same order."""
        numbers = [number for number, of in zip(batch.documents, batch.labels.tolist(), strict=True) if of == label]
        return make_batch(self.corpus, numbers, batch.ids.device) if numbers else None

    def _pushed(self, module: CausalLM, batch: Batch) -> Tensor:
        """Cross-entropy of these refusals, with the states of their requests moved to where they are least likely."""
        layer, head = int(self.push.depth * len(module.model.layers)), module.lm_head.weight
        x = lower_states(module, batch.ids, layer, batch.edges)
        most = self.push.radius * x.float().norm(dim=-1, keepdim=True) * requests_of(batch)[:, None]
        moved = torch.zeros_like(x, dtype=torch.float32)
        for _ in range(self.push.steps):
            moved.requires_grad_(True)
            loss = cross_entropy(final_states(module, batch, layer, x + moved.to(x.dtype)), head, batch.targets)
            [slope] = torch.autograd.grad(loss, moved)
            direction = slope / slope.norm(dim=-1, keepdim=True).clamp_min(1e-12)
            moved = moved.detach() + direction * (most * 2 / (self.push.steps + 1))
            moved = moved * (most / moved.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0)
        return cross_entropy(final_states(module, batch, layer, x + moved.to(x.dtype)), head, batch.targets)


def requests_of(batch: Batch) -> Tensor:
    """float32 [T]: 1 at the tokens before each document's answer, 0 elsewhere."""
    places = torch.zeros(len(batch.ids), device=batch.ids.device)
    first: dict[int, int] = {}
    for row, owner in zip(batch.rows.tolist(), batch.owners.tolist(), strict=True):
        first.setdefault(owner, row)
    for owner, row in first.items():
        places[batch.bounds[owner] : row + 1] = 1.0
    return places
