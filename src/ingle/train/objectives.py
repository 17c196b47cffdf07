"""Losses on the vocabulary, in chunks of rows: the logits of all rows (49,152 numbers each, for SmolLM2) are never whole in memory.

Gradients are computed in the forward pass, chunk by chunk, while the logits are there. Kept is a gradient of the size of the states, and
one of the head's weight only if that is trained. (The idea is Liger-Kernel's, arXiv 2410.10989.) Where a loss of log-probabilities is
not known yet, as with preferences, each row's gradient is kept unscaled; the head's is computed in the backward pass.

Shapes: A rows, h hidden, V vocabulary. Logits are computed in the states' type and taken to float32 from there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, smooth_l1_loss, softplus

from ingle.core.config import Amount, NotNegative, Part, check_bounds, check_seed
from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.model.module import CausalLM
from ingle.train.corpus import Corpus, Wanted
from ingle.train.forward import final_states, lower_states
from ingle.train.packing import Batch, make_batch, plan

CHUNK = 128  # rows: 128 × 49,152 float32 are 25 MB
Teacher = Callable[[slice], Tensor]  # the teacher's logits [n, V] of a slice of the rows


def cross_entropy(states: Tensor, head: Tensor, targets: Tensor, chunk: int = CHUNK, seen: Tensor | None = None) -> Tensor:
    """Sum over rows of −log p(target), in nats. states [A, h], head [V, h], targets int [A] → float32 scalar.

    `seen` [A] is filled with log p(target) of each row.
    """
    total: Tensor = _Summed.apply(states, head, _Targets(targets, seen), chunk)  # type: ignore[no-untyped-call]
    return total


def distillation(
    states: Tensor, head: Tensor, teacher: Teacher, temperature: float = 1.0, chunk: int = CHUNK, seen: Tensor | None = None
) -> Tensor:
    """Sum over rows of τ² · KL(teacher ‖ student), both softened by the temperature τ (arXiv 1503.02531). Shapes as `cross_entropy`.

    `seen` [A] is filled with each row's part of the sum.
    """
    total: Tensor = _Summed.apply(states, head, _Softened(teacher, temperature, seen), chunk)  # type: ignore[no-untyped-call]
    return total


def log_probabilities(states: Tensor, head: Tensor, targets: Tensor, chunk: int = CHUNK) -> Tensor:
    """log p(target) of each row, in nats: float32 [A]. Shapes as `cross_entropy`."""
    rows: Tensor = _Rowwise.apply(states, head, targets, chunk)  # type: ignore[no-untyped-call]
    return rows


class _Targets:
    """Cross-entropy of a chunk of rows."""

    def __init__(self, targets: Tensor, seen: Tensor | None = None) -> None:
        self._targets, self._seen = targets, seen

    def __call__(self, rows: slice, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(loss, gradient of the logits) of float32 logits; the gradient overwrites them."""
        targets = self._targets[rows, None]
        chosen, top = logits.gather(-1, targets), logits.amax(-1, keepdim=True)
        total = logits.sub_(top).exp_().sum(-1, keepdim=True)  # as logsumexp does, but in place and once for both
        losses = total.log() + (top - chosen)
        if self._seen is not None:
            self._seen[rows] = -losses.squeeze(-1)
        loss = losses.sum()
        slope = logits.div_(total)
        return loss, slope.scatter_add_(-1, targets, slope.new_full((1, 1), -1.0).expand_as(targets))


class _Softened:
    """Distillation loss of a chunk of rows."""

    def __init__(self, teacher: Teacher, temperature: float, seen: Tensor | None = None) -> None:
        self._teacher, self._temperature, self._seen = teacher, temperature, seen

    def __call__(self, rows: slice, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See `_Targets`."""
        tau = self._temperature
        ours = (logits / tau).log_softmax(-1)
        theirs = (self._teacher(rows).to(logits.dtype) / tau).log_softmax(-1)
        chances = theirs.exp()
        losses = tau * tau * (chances * (theirs - ours)).sum(-1)
        if self._seen is not None:
            self._seen[rows] = losses
        loss = losses.sum()
        return loss, ours.exp_().sub_(chances).mul_(tau)


class _Summed(torch.autograd.Function):
    """Sum of a loss that each chunk computes with its gradient."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, loss: _Targets | _Softened, chunk: int) -> Tensor:
        wide, (to_states, to_head, *_) = _wide(states), ctx.needs_input_grad
        total = torch.zeros((), dtype=wide, device=states.device)
        states_grad = torch.empty_like(states) if to_states else None
        head_grad = torch.zeros(head.shape, dtype=wide, device=head.device) if to_head else None
        for start in range(0, len(states), chunk):
            span = slice(start, start + chunk)
            part, slope = loss(span, (states[span] @ head.T).to(wide))
            total += part
            narrow = slope.to(states.dtype)
            if states_grad is not None:
                states_grad[span] = narrow @ head
            if head_grad is not None:
                head_grad += narrow.T @ states[span]
        ctx.save_for_backward(states_grad, None if head_grad is None else head_grad.to(head.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        states_grad, head_grad = ctx.saved_tensors
        to_states, to_head = (None if grad is None else grad * grads[0].to(grad.dtype) for grad in (states_grad, head_grad))
        return to_states, to_head, None, None


class _Rowwise(torch.autograd.Function):
    """Log-probabilities, row by row."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, targets: Tensor, chunk: int) -> Tensor:
        wide = _wide(states)
        rows = torch.empty(len(states), dtype=wide, device=states.device)
        slopes = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        for start in range(0, len(states), chunk):
            span = slice(start, start + chunk)
            logits = (states[span] @ head.T).to(wide)
            total = logits.logsumexp(-1, keepdim=True)
            rows[span] = (logits.gather(-1, targets[span, None]) - total).squeeze(-1)
            if slopes is not None:
                chances = logits.sub_(total).exp_().to(states.dtype)
                slopes[span] = head[targets[span]] - chances @ head
        ctx.save_for_backward(states, head, targets, slopes)
        ctx.chunk = chunk
        return rows

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (states, head, targets, slopes), [g] = ctx.saved_tensors, grads
        to_states = None if slopes is None else slopes * g[:, None].to(slopes.dtype)
        if not ctx.needs_input_grad[1]:
            return to_states, None, None, None
        to_head = torch.zeros(head.shape, dtype=g.dtype, device=head.device)
        for start in range(0, len(states), ctx.chunk):  # their factors are known only now
            span = slice(start, start + ctx.chunk)
            slope = (states[span] @ head.T).to(g.dtype).softmax(-1).neg_()
            slope.scatter_add_(-1, targets[span, None], torch.ones_like(slope[:, :1])).mul_(g[span, None])
            to_head += slope.to(states.dtype).T @ states[span]
        return to_states, to_head.to(head.dtype), None, None


def _wide(states: Tensor) -> torch.dtype:
    return torch.promote_types(states.dtype, torch.float32)


# Losses that learn from preferences, on log-probabilities of whole answers.
# | loss | data | formula, summed over examples |
# |---|---|---|
# | DPO, arXiv 2305.18290 eq. 7 | pairs | −log σ(β · ((c − c°) − (r − r°))); smoothed by ε: (1−ε) of it, ε of it swapped |
# | ORPO, arXiv 2403.07691 eq. 6–7 | pairs | −c̄ − λ · log σ(log odds(c̄) − log odds(r̄)), odds(c̄) = exp c̄ / (1 − exp c̄); needs no reference |
# | KTO, arXiv 2402.01306 eq. 8 | labels | w · (1 − σ(β(a − a° − z))) if liked, w · (1 − σ(β(z − a + a°))) if not |
# z = max(0, mean(s − s°)); c, r: log-probability of the chosen and the rejected answer; c̄, r̄: their mean per token; a: that of the
# labelled answer, s: that of the stranger's answer to the same prompt; ° marks the reference, the model before training.


def dpo(
    chosen: Tensor, rejected: Tensor, chosen_before: Tensor, rejected_before: Tensor, beta: float = 0.1, smoothing: float = 0.0
) -> Tensor:
    """DPO loss, summed over pairs. All [pairs], log-probabilities of answers. `smoothing`: ε, the share of pairs with swapped answers."""
    margin = beta * ((chosen - chosen_before) - (rejected - rejected_before))
    return -((1 - smoothing) * logsigmoid(margin) + smoothing * logsigmoid(-margin)).sum()


def orpo(chosen: Tensor, rejected: Tensor, weight: float = 0.1) -> Tensor:
    """ORPO loss, summed over pairs. chosen, rejected [pairs]: log-probabilities of answers, mean per token. `weight`: λ."""
    odds = (chosen - rejected) - (_log1m_exp(chosen) - _log1m_exp(rejected))
    return -(chosen + weight * logsigmoid(odds)).sum()


def kto(
    answer: Tensor, before: Tensor, moved: Tensor, liked: Tensor, beta: float = 0.1, liked_weight: float = 1.0, disliked_weight: float = 1.0
) -> Tensor:
    """KTO loss, summed over examples. answer, before [examples]; liked bool [examples]; moved: scalar z, no gradient, see `drift`."""
    gain = answer - before
    signed = torch.where(liked, gain - moved, moved - gain)
    weights = torch.where(liked, liked_weight, disliked_weight)
    return (weights * (1 - torch.sigmoid(beta * signed))).sum()


def drift(stranger: Tensor, stranger_before: Tensor) -> Tensor:
    """z: how far the model has moved from the reference on answers that don't belong to their prompts; at least 0, without a gradient."""
    return (stranger - stranger_before).detach().mean().clamp(min=0)


def _log1m_exp(x: Tensor) -> Tensor:
    """log(1 − exp(x)) for x < 0, without loss at either end (Mächler 2012). x = 0, a certain answer, is taken for one just below it."""
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    near = x > -0.6931
    return torch.where(near, torch.log(-torch.expm1(torch.where(near, x, -1.0))), torch.log1p(-torch.exp(torch.where(near, -1.0, x))))


# Holding a model as it was while it learns: documents along which the trained model follows the predictions of the model before.
# Some of them are read beside each batch, and their KL divergence from the model before is part of the loss. So answers are learnt, and
# what is far from them stays (learning without forgetting, arXiv 1606.09282). The documents of a step follow from its seed alone, so a run
# goes on, and is gone through again, with the same ones.


_ROW_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class HoldSettings:
    """Settings of how much is held, and how firmly."""

    documents: Amount = 5  # documents that are read beside each batch; 0 = nothing is held
    weight: NotNegative = 8.0  # weight of the divergence, in nats a token, beside the loss of what is learnt
    tokens: Amount = 24  # most tokens of an answer that are held
    seed: int = 0  # seed of the texts that the model writes, to be held

    def __post_init__(self) -> None:
        check_bounds(self, "hold.")
        check_seed("hold.seed", self.seed)

    @property
    def on(self) -> bool:
        """Whether anything is held."""
        return bool(self.documents and self.weight and self.tokens)


@dataclass(frozen=True, slots=True, eq=False)
class Hold:
    """Documents, with the model's final states at them before it learned."""

    corpus: Corpus
    before: tuple[Tensor, ...]  # [answer tokens, hidden] of each document
    head: Tensor  # the output matrix before, [V, hidden]
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


# Objectives: the loss of a batch, as a sum and the number of its terms, so that batches of any size add up to one mean.


REFERENCE_FILE = "reference.safetensors"


States = Callable[[], Tensor]  # computes the final states [A, hidden] at `batch.rows`, after the final norm


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

    teacher: Callable[[Batch], Teacher]  # for a batch, the teacher's logits at `batch.rows`, slice by slice
    teacher_digest: str
    temperature: float = 1.0
    data_share: float = 0.0  # share of the data's cross-entropy in the loss, 0 to 1
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
    """DPO, ORPO or KTO; see `train.objectives`."""

    method: Literal["dpo", "orpo", "kto"]
    # float32 [documents of the corpus]: log-probability of each answer before training (`reference_log_probabilities`); not for ORPO.
    reference: Tensor | None = None
    beta: float = 0.1  # how closely the model stays with the reference (DPO, KTO); λ of ORPO
    smoothing: float = 0.0  # DPO: the share of pairs that are thought to be the wrong way round

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


# The objective of debiasing: who is spoken of changes less of what is likely, and all else stays as it was.
# An example is two documents; its label says what becomes of them. p° is the model before.
# | label | documents | loss |
# |---|---|---|
# | WORDS + k | two beginnings of the k-th style | smooth-L1 of log p(a) − log p(b), mean over all pairs of words (a, b) that may follow |
# | SWAPPED | one text about two people | KL(mean of p° for both ‖ p), per token: they meet in the middle |
# | ABOVE | an answer, and a worse one | log(1 + exp(margin − (log p(first) − log p(second)))) |
# | KEEP | general text | KL(p° ‖ p), per token; with another weight also where WORDS are weighed |
# | BOTH | a pair | −log p of both: plain counterfactual fine-tuning, to compare with |
# Equal log-probabilities of two words are equal logits, so one beginning weighs a hundred pairs for the price of one row.


KEPT_TARGET, SWAPPED, ABOVE, BOTH, WORDS = 0, 1, 2, 3, 10  # labels of examples


@dataclass(frozen=True, slots=True)
class EqualSettings:
    """Weights of the parts."""

    words: NotNegative = 4.0  # weight of pairs of words
    swapped: NotNegative = 1.0  # weight of texts about somebody else
    above: NotNegative = 1.0  # weight of answers that are to be likelier than others
    margin: NotNegative = 2.0  # by how many nats they are to be
    keep: NotNegative = 4.0  # weight of the KL from the model before on general text
    level: NotNegative = 0.5  # weight of the KL where words are weighed: their joint chance is to stay

    def __post_init__(self) -> None:
        check_bounds(self, "weights.")


@dataclass(frozen=True, slots=True, eq=False)
class Equalising:
    """Words and people that become equal, answers that become likelier, and what is to stay."""

    corpus: Corpus
    before: Predictions  # the model before
    before_digest: str
    words: Sequence[Tensor] = ()  # int [pairs, 2] for each style: the tokens that are to be equally likely
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
        weighed = (
            (labels == KEPT_TARGET, self.weights.keep),
            (labels == SWAPPED, self.weights.swapped),
            (labels >= WORDS, self.weights.level),
        )
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


# The objective of hardening: learn to refuse, under a push against it, and keep all else as the model before said it.
# A document's label says what becomes of it: REFUSE and ANSWER are learnt by cross-entropy, KEEP follows the predictions of the model
# before (KL per token). With `push.steps`, refusals are learnt a second time while the residual stream of one layer is moved against them,
# at the places of the request (latent adversarial training, arXiv 2407.15549). Below that layer the pushed pass trains nothing; the plain
# one does.


KEEP, REFUSE, ANSWER = 0, 1, 2  # labels of documents


@dataclass(frozen=True, slots=True)
class PushSettings:
    """The latent attack in the loss."""

    # Gradient steps against a batch's refusals; 0 = no attack. Each costs two thirds of a training step on these documents.
    steps: Amount = 0
    depth: Part = 0.3  # depth of the layer whose input is moved, as a share of all layers
    radius: float = 0.3  # most that a token's state is moved, as a share of its length
    weight: float = 0.5  # weight of the pushed loss beside the plain one

    def __post_init__(self) -> None:
        check_bounds(self, "push.")
        if self.radius <= 0 or self.weight < 0:
            raise ConfigError("push", "must have a radius above 0 and a weight of at least 0", f"{self.radius}, {self.weight}")


@dataclass(frozen=True, slots=True, eq=False)
class Hardening:
    """Refusals, answers, and what is to stay."""

    corpus: Corpus
    before: Predictions  # the model before
    before_digest: str
    keep: float = 1.0  # weight of the KL from the model before
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
