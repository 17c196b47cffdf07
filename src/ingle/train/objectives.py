"""Objectives: the loss of a batch, as a sum and the number of its terms, so that batches of any size add up to one mean."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.model.module import CausalLM
from ingle.train.corpus import Corpus, Wanted
from ingle.train.forward import final_states
from ingle.train.holding import Hold
from ingle.train.losses import Teacher, cross_entropy, distillation, log_probabilities
from ingle.train.packing import Batch, make_batch, plan
from ingle.train.preference import dpo, drift, kto, orpo

REFERENCE_FILE = "reference.safetensors"


States = Callable[[], Tensor]
"""Computes the final states [A, hidden] at `batch.rows`, after the final norm."""


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """A sum and what to divide it by."""

    total: Tensor
    terms: int


class Objective(Protocol):
    """The loss that training lowers. `name` identifies it, settings included: a run goes on only under the same name."""

    @property
    def name(self) -> str: ...

    @property
    def wanted(self) -> Wanted:
        """The kind of data that it learns from."""
        ...

    def __call__(self, module: CausalLM, states: States, batch: Batch) -> TokenLoss:
        """Compute the loss of a batch. States that the objective doesn't ask for are not computed."""
        ...


@dataclass(frozen=True, slots=True)
class Answers:
    """Cross-entropy per token of the answers, and while it learns, the divergence of what is held."""

    hold: Hold | None = None
    wanted: Wanted = "answers"

    @property
    def name(self) -> str:
        """See `Objective`."""
        return "answers" if self.hold is None else f"answers, {self.hold.name}"

    def __call__(self, module: CausalLM, states: States, batch: Batch) -> TokenLoss:
        """See `Objective`."""
        total, terms = cross_entropy(states(), module.lm_head.weight, batch.targets), len(batch.targets)
        if self.hold is not None and torch.is_grad_enabled():
            total = total + terms * self.hold(module)
        return TokenLoss(total, terms)


@dataclass(frozen=True, slots=True)
class Predictions:
    """A teacher's predictions, for a model that is to follow them (see `Distillation`)."""

    model: CausalLM

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Teacher:
        """Return its logits at `batch.rows`, slice by slice."""
        states, head = final_states(self.model, batch), self.model.lm_head.weight
        return lambda span: states[span] @ head.T


@dataclass(frozen=True, slots=True)
class Distillation:
    """Distillation from a teacher's logits: KL per token, mixed with the cross-entropy of the data."""

    teacher: Callable[[Batch], Teacher]
    """For a batch, the teacher's logits at `batch.rows`, slice by slice."""
    teacher_digest: str
    temperature: float = 1.0
    data_share: float = 0.0
    """Share of the data's cross-entropy in the loss, 0 to 1."""
    wanted: Wanted = "answers"

    @property
    def name(self) -> str:
        """See `Objective`."""
        return f"distillation of {self.teacher_digest[:16]}, temperature {self.temperature}, data {self.data_share}"

    def __call__(self, module: CausalLM, states: States, batch: Batch) -> TokenLoss:
        """See `Objective`."""
        head, final = module.lm_head.weight, states()
        total = torch.zeros((), device=final.device)
        if self.data_share < 1:
            total = total + (1 - self.data_share) * distillation(final, head, self.teacher(batch), self.temperature)
        if self.data_share > 0:
            total = total + self.data_share * cross_entropy(final, head, batch.targets)
        return TokenLoss(total, len(batch.targets))


@dataclass(frozen=True, slots=True)
class Preference:
    """DPO, ORPO or KTO; see `train.preference`."""

    method: Literal["dpo", "orpo", "kto"]
    reference: Tensor | None = None
    """float32 [documents of the corpus]: log-probability of each answer before training (`reference_log_probabilities`); not for ORPO."""
    beta: float = 0.1
    """How closely the model stays with the reference (DPO, KTO); λ of ORPO."""
    smoothing: float = 0.0
    """DPO: the share of pairs that are thought to be the wrong way round."""

    def __post_init__(self) -> None:
        if self.method != "orpo" and self.reference is None:
            raise ConfigError("reference", f"is needed for {self.method}", "nothing", "See reference_log_probabilities.")

    @property
    def name(self) -> str:
        """See `Objective`."""
        return f"{self.method}, beta {self.beta}, smoothing {self.smoothing}"

    @property
    def wanted(self) -> Wanted:
        """See `Objective`."""
        return "labels" if self.method == "kto" else "pairs"

    def __call__(self, module: CausalLM, states: States, batch: Batch) -> TokenLoss:
        """See `Objective`."""
        sums = answer_log_probabilities(module, states(), batch)
        first, second = sums[0::2], sums[1::2]
        if self.reference is None:
            counts = torch.bincount(batch.owners, minlength=len(batch.documents))
            return TokenLoss(orpo(first / counts[0::2], second / counts[1::2], self.beta), len(first))
        before = self.reference[list(batch.documents)].to(sums.device)
        if self.method == "dpo":
            return TokenLoss(dpo(first, second, before[0::2], before[1::2], self.beta, self.smoothing), len(first))
        return TokenLoss(kto(first, before[0::2], drift(second, before[1::2]), batch.labels == 1, self.beta), len(first))


def answer_log_probabilities(module: CausalLM, states: Tensor, batch: Batch) -> Tensor:
    """log p of each document's answer, in nats: float32 [documents]."""
    rows = log_probabilities(states, module.lm_head.weight, batch.targets)
    return torch.zeros(len(batch.documents), dtype=rows.dtype, device=rows.device).index_add(0, batch.owners, rows)


@torch.no_grad()
def reference_log_probabilities(module: CausalLM, corpus: Corpus, batch_tokens: int, folder: Path | None = None) -> Tensor:
    """log p of every document's answer under the module as it is now: float32 [documents].

    Log-probabilities are kept in `folder`, for by then a continued run has another module. Raises ConfigError for those of other data.
    """
    from safetensors import safe_open
    from safetensors.torch import save

    path = None if folder is None else folder / REFERENCE_FILE
    if path is not None and path.exists():
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("data") != corpus.digest:
                raise ConfigError(str(path), "must be of the same data", "others", "Give another folder, or delete this file.")
            values: Tensor = file.get_tensor("log_probabilities")
            return values
    values = torch.zeros(len(corpus.bounds) - 1)
    for examples in plan(corpus.sizes, range(len(corpus)), batch_tokens, None):
        batch = make_batch(corpus, examples, module.lm_head.weight.device)
        values[list(batch.documents)] = answer_log_probabilities(module, final_states(module, batch), batch).float().cpu()
    if path is not None:
        write_atomic(path, save({"log_probabilities": values}, {"data": corpus.digest}))
    return values
