"""Holding a model as it was while it learns: documents along which the trained model follows the predictions of the model before.

Some of them are read beside each batch, and their KL divergence from the model before is part of the loss. So answers are learnt, and
what is far from them stays (learning without forgetting, arXiv 1606.09282). The documents of a step follow from its seed alone, so a run
goes on, and is gone through again, with the same ones.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ingle.core.config import check_seed
from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM
from ingle.train.corpus import Corpus
from ingle.train.forward import final_states
from ingle.train.losses import distillation
from ingle.train.packing import make_batch, plan

_ROW_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class HoldSettings:
    """Settings of how much is held, and how firmly."""

    documents: int = 5
    """Documents that are read beside each batch; 0 = nothing is held."""
    weight: float = 8.0
    """Weight of the divergence, in nats a token, beside the loss of what is learnt."""
    tokens: int = 24
    """Most tokens of an answer that are held."""
    seed: int = 0
    """Seed of the texts that the model writes, to be held."""

    def __post_init__(self) -> None:
        for name in ("documents", "weight", "tokens"):
            if getattr(self, name) < 0:
                raise ConfigError(f"hold.{name}", "must not be negative", getattr(self, name))
        check_seed("hold.seed", self.seed)

    @property
    def on(self) -> bool:
        """Whether anything is held."""
        return bool(self.documents and self.weight and self.tokens)


@dataclass(frozen=True, slots=True, eq=False)
class Hold:
    """Documents, with the model's final states at them before it learned."""

    corpus: Corpus
    before: tuple[Tensor, ...]
    """[answer tokens, hidden] of each document."""
    head: Tensor
    """The output matrix before, [V, hidden]."""
    settings: HoldSettings = field(default_factory=HoldSettings)

    @property
    def name(self) -> str:
        """Its part in an objective's name."""
        return f"hold {self.corpus.digest[:16]}, {self.settings.documents} × {self.settings.weight}"

    def __call__(self, module: CausalLM) -> Tensor:
        """Return the divergence of this step's documents, in nats a token, times its weight. The step is told by PyTorch's seed."""
        draw = torch.Generator().manual_seed(torch.initial_seed() % (1 << 63))
        chosen = torch.randperm(len(self.corpus), generator=draw)[: self.settings.documents].tolist()
        batch, head = make_batch(self.corpus, chosen, self.head.device), module.lm_head.weight
        theirs = torch.cat([self.before[i] for i in chosen]).to(self.head.dtype)
        total = distillation(final_states(module, batch), head, lambda rows: theirs[rows] @ self.head.T)
        return total * (self.settings.weight / max(1, len(batch.targets)))

    def along(self, corpus: Corpus) -> "Hold":
        """Return it for a corpus of the same documents with other tokens before the answers: virtual ones, say."""
        return replace(self, corpus=corpus)


@torch.no_grad()
def held(module: CausalLM, corpus: Corpus, settings: HoldSettings, trained_head: bool) -> Hold:
    """Return what is to be held, with the states of the module as it is now. `trained_head`: whether its output matrix will change."""
    states = dict[int, Tensor]()
    device = module.lm_head.weight.device
    for chosen in plan(corpus.sizes, range(len(corpus)), _ROW_TOKENS, None):
        batch = make_batch(corpus, chosen, device)
        found = final_states(module, batch)
        states |= {number: found[batch.owners == place].clone() for place, number in enumerate(chosen)}
    head = module.lm_head.weight.detach()
    return Hold(corpus, tuple(states[i] for i in range(len(corpus))), head.clone() if trained_head else head, settings)
