"""A training run gone through again, step by step, in float32: with what stood before each step, and the loss of each example in it.

It does what `loop.train` does with the same module, data and settings; in float32 its parameters are the same to the last bit. It writes
nothing, so a run can be looked at from within.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM
from ingle.train.activations import Activations
from ingle.train.forward import final_states, first_trained_layer
from ingle.train.holding import Hold
from ingle.train.losses import cross_entropy
from ingle.train.optimisers import Trained
from ingle.train.packing import Batch, Data, Order, make_batch
from ingle.train.settings import TrainSettings

_CACHE_BYTES = 1 << 30
Flats = list[Tensor]
"""A flat tensor for each group of parameters."""


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """Values before a step, and the gradient that it took."""

    number: int
    """Number of the step, from 0."""
    values: Flats
    means: Flats
    """The optimiser's mean gradient."""
    squares: Flats
    """The optimiser's mean square."""
    gradient: Flats
    """Mean over the terms, after it was shortened."""
    shortened: float
    """Factor by which the gradient was shortened; 1 = it was not."""
    terms: float
    """Answer tokens of the step."""
    losses: dict[int, float]
    """Sum of the nats of each example's answer, before the step."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Losses and gradient of a step's examples at some values of the parameters."""

    losses: dict[int, float]
    """Sum of the nats of each example's answer."""
    tokens: dict[int, int]
    """Answer tokens of each example."""
    gradient: Flats
    """Gradient of the sum of all losses."""

    @property
    def terms(self) -> float:
        """Answer tokens of all examples; 1 where there are none, as in training."""
        return float(sum(self.tokens.values()) or 1)


class Rerun:
    """One run, at the place before some step. Only answers can be replayed, and only with AdamW."""

    def __init__(
        self, module: CausalLM, parameters: dict[str, nn.Parameter], data: Data, settings: TrainSettings, hold: Hold | None = None
    ) -> None:  # fmt: skip
        """`hold`: that of the run's objective. The module gets float32 parameters.

        Raises ConfigError for another optimiser, or data that are no answers.
        """
        if settings.optimiser.method != "adamw":
            raise ConfigError("optimiser.method", "must be adamw to follow a training back", settings.optimiser.method)
        if data.corpus.wanted != "answers":
            raise ConfigError("data", "must be answers to follow a training back", data.corpus.wanted)
        self.module, self.data, self.settings, self._hold = module.train(), data, settings, hold
        for name, parameter in module.named_parameters():
            parameter.data = parameter.data.float()
            if name not in parameters:
                parameter.requires_grad_(False)
        self.trained = Trained(parameters, settings.optimiser, torch.float32)
        self.order = Order(data, settings.batch_tokens, settings.accumulate, 0, 1, settings.seed)
        self.steps = settings.max_steps or sum(self.order.steps(epoch) for epoch in range(settings.epochs))
        first = first_trained_layer(module, tuple(parameters))
        self._cache = Activations(module, data.corpus, first, _CACHE_BYTES) if first else None
        for group in self.trained.groups:
            group.state = {"exp_avg": torch.zeros_like(group.master), "exp_avg_sq": torch.zeros_like(group.master)}

    @property
    def values(self) -> Flats:
        """The parameters, flat: the very tensors that the module computes with."""
        return [group.master for group in self.trained.groups]

    @property
    def size(self) -> int:
        """Number of trained parameters."""
        return sum(flat.numel() for flat in self.values)

    def put(self, values: Flats) -> None:
        """Give the parameters these values."""
        for own, value in zip(self.values, values, strict=True):
            own.copy_(value)

    def put_back(self, moment: Moment) -> None:
        """Stand before a step again, as it was."""
        self.put(moment.values)
        for group, mean, square in zip(self.trained.groups, moment.means, moment.squares, strict=True):
            group.state = {"exp_avg": mean.clone(), "exp_avg_sq": square.clone()}
            group.adamw = None

    def batches(self, number: int) -> list[Batch]:
        """The batches of a step."""
        device = self.module.lm_head.weight.device
        return [make_batch(self.data.corpus, examples, device) for examples in self.order.batches(*self.order.place(number))]

    def look(self, number: int) -> Look:
        """Read the examples of a step at the present values."""
        torch.manual_seed(int(digest_json([self.settings.seed, number, 0])[:15], 16))  # as the loop's, for dropout
        losses, tokens = dict[int, float](), dict[int, int]()
        for batch in self.batches(number):
            own = self.losses(batch)
            counts = torch.bincount(batch.owners.cpu(), minlength=len(batch.documents)).tolist()
            if self._hold is not None:
                (len(batch.targets) * self._hold(self.module)).backward()  # type: ignore[no-untyped-call]
                self.trained.collect()
            losses |= dict(zip(batch.documents, own.tolist(), strict=True))
            tokens |= dict(zip(batch.documents, counts, strict=True))
        return Look(losses, tokens, self.take())

    def losses(self, batch: Batch, cached: bool = True) -> Tensor:
        """Read a batch: the gradient of its loss is added up. Returns the nats of each document's answer, float64 [documents].

        `cached`: the documents are those of the corpus, whose lower layers are known.
        """
        seen = torch.empty(len(batch.targets), device=batch.targets.device)
        states = self.states(batch) if cached else final_states(self.module, batch)
        loss = cross_entropy(states, self.module.lm_head.weight, batch.targets, seen=seen)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        self.trained.collect()
        return torch.zeros(len(batch.documents), dtype=torch.float64).index_add(0, batch.owners.cpu(), -seen.double().cpu())

    def take(self) -> Flats:
        """Return the gradient that was added up, and begin anew."""
        taken = [group.gradient.clone() for group in self.trained.groups]
        for group in self.trained.groups:
            group.gradient.zero_()
        return taken

    def step(self, number: int) -> Moment:
        """Do a step; return what stood before it."""
        values = [value.clone() for value in self.values]
        means, squares = ([group.state[name].clone() for group in self.trained.groups] for name in ("exp_avg", "exp_avg_sq"))
        look = self.look(number)
        for group, gradient in zip(self.trained.groups, look.gradient, strict=True):
            group.gradient.copy_(gradient)
        limit, terms = self.settings.optimiser.clip_norm, look.terms
        norm = float(self.trained.norm()) / terms
        shortened = limit / norm if limit and norm > limit else 1.0
        for group in self.trained.groups:
            group.gradient *= shortened / terms
        moment = Moment(number, values, means, squares, self._gradient(), shortened, terms, look.losses)
        self.trained.step(number + 1, self.settings.schedule.factor(number, self.steps))
        return moment

    def without(self, left_out: frozenset[int]) -> None:
        """Leave examples out from here on; the others keep their places."""
        self.data = replace(self.data, left_out=left_out)
        settings = self.settings
        self.order = Order(self.data, settings.batch_tokens, settings.accumulate, 0, 1, settings.seed)

    def _gradient(self) -> Flats:
        return [group.gradient.clone() for group in self.trained.groups]

    def states(self, batch: Batch) -> Tensor:
        """Final states of a batch of the corpus, [A, hidden]."""
        if self._cache is None:
            return final_states(self.module, batch)
        return final_states(self.module, batch, self._cache.first, self._cache.states(batch))
