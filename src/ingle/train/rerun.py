"""A training run gone through again, step by step, in float32: with what stood before each step, and the loss of each example in it.

It does what `loop.train` does with the same module, data and settings; in float32 its parameters are the same to the last bit. It writes
nothing, so a run can be looked at from within.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.progress import Counted, silent
from ingle.model.module import CausalLM
from ingle.train.checkpoints import load_tensors, save_tensors
from ingle.train.forward import final_states, first_trained_layer
from ingle.train.loop import Activations
from ingle.train.loop_settings import TrainSettings
from ingle.train.objectives import Hold, cross_entropy
from ingle.train.optimisers import Trained
from ingle.train.packing import Batch, Data, Order, make_batch

_CACHE_BYTES = 1 << 30
Flats = list[Tensor]  # a flat tensor for each group of parameters


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """Values before a step, and the gradient that it took."""

    number: int  # number of the step, from 0
    values: Flats
    means: Flats  # the optimiser's mean gradient
    squares: Flats  # the optimiser's mean square
    gradient: Flats  # mean over the terms, after it was shortened
    shortened: float  # factor by which the gradient was shortened; 1 = it was not
    terms: float  # answer tokens of the step
    losses: dict[int, float]  # sum of the nats of each example's answer, before the step


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Losses and gradient of a step's examples at some values of the parameters."""

    losses: dict[int, float]  # sum of the nats of each example's answer
    tokens: dict[int, int]  # answer tokens of each example
    gradient: Flats  # gradient of the sum of all losses

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


# The gradient of a loss through a whole training: how much lower each example made it (arXiv 2503.13751, MAGIC).
# Training is a function of the weights w of its examples, all 1. Its derivative is followed back from the last step to the first, through
# AdamW's means, its rate and the shortening of long gradients: for a question's loss L, dL/dw of each example. Leaving the example out
# changes the loss by about −dL/dw.
# Differs from MAGIC: what a step needs of second derivatives, the Hessian along one direction and each example's slope along it, is taken
# by differences, (f(θ + εd) − f(θ)) / ε. So a step back costs one ordinary reading of its batch, and works with every method and every
# kernel that training has.
# Symbols as in the code of one step: θ values, m and v the optimiser's means, g the gradient after shortening, η the rate.


# Added under the root of AdamW's mean square, squared, on the way back only. Without it a parameter whose gradients were all nearly 0, as B
# = 0 makes A's in the first step, seems to matter without end.
SOFT = 1e-4
# Length of a difference's step, as a share of AdamW's longest. A tenth or five times of it gave the same (tests/train).
_REACH = 0.05
MEMORY_BYTES = 1 << 30  # memory for what stood before the steps; a longer training is replayed in pieces


@dataclass(slots=True, eq=False)
class Slope:
    """How a question's loss depends on the state of a training before some step."""

    values: Flats
    means: Flats
    squares: Flats
    # dL/dw by example of the corpus, of the steps gone back so far.
    effects: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


def through_training(
    rerun: Rerun, steps: int, questions: Sequence[Batch], done: Counted = silent,
    memory_bytes: int = MEMORY_BYTES, halfway: "Halfway | None" = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:  # fmt: skip
    """Train anew for `steps` steps and follow each question's loss back. A question is a batch of one document.

    Returns (losses [questions] at the end, rises [questions, examples]): how much about the loss would rise, in nats of the whole answer,
    had the example not been there; 0 for examples that were never read. `done` hears how many of how many steps are done, both ways.
    `halfway`: a file from which a stopped way back goes on.
    """
    begun = halfway.load(rerun) if halfway is not None else None
    left = steps if begun is None else begun[0]
    kept = left if 16 * rerun.size * left <= memory_bytes else math.ceil(math.sqrt(left))
    pieces = [range(start, min(start + kept, left)) for start in range(0, left, max(1, kept))]
    tick = _Ticks(done, left + (left - len(pieces[-1])) + left if pieces else 0)
    marks, moments = list[Moment](), list[Moment]()
    for piece in pieces:
        moments = []  # before the next ones come: they may fill the memory
        for number in piece:
            moments.append(tick(rerun.step(number)))
        marks.append(moments[0])
    losses, slopes = _ends(rerun, questions) if begun is None else begun[1:]
    for place in range(len(pieces) - 1, -1, -1):
        if place < len(pieces) - 1:
            rerun.put_back(marks[place])
            moments = [tick(rerun.step(number)) for number in pieces[place]]
        for moment in reversed(moments):
            slopes = [back(rerun, moment, slope) for slope in slopes]
            if halfway is not None:
                halfway.save(moment.number, losses, slopes)
            tick(moment)
    return np.array(losses), -np.stack([slope.effects for slope in slopes])


class Halfway:
    """A file in the folder of a proof: the slopes before the last step that was followed back."""

    def __init__(self, path: Path, every_s: float = 60.0) -> None:
        self._path, self._every_s, self._saved = path, every_s, time.monotonic()

    def save(self, number: int, losses: Sequence[float], slopes: Sequence[Slope]) -> None:
        """Keep the slopes before step `number`, if a while has passed. Raises HomeError."""
        if time.monotonic() - self._saved < self._every_s:
            return
        tensors = {"losses": torch.tensor(losses, dtype=torch.float64), "number": torch.tensor(number)}
        for i, slope in enumerate(slopes):
            for what, flats in (("values", slope.values), ("means", slope.means), ("squares", slope.squares)):
                tensors |= {f"{i}.{what}.{group}": flat for group, flat in enumerate(flats)}
            tensors[f"{i}.effects"] = torch.from_numpy(slope.effects)
        save_tensors(self._path, tensors)
        self._saved = time.monotonic()

    def load(self, rerun: Rerun) -> tuple[int, list[float], list[Slope]] | None:
        """Return (number, losses, slopes) as they were kept; None where nothing was. Raises CheckpointError for a damaged file."""
        if not self._path.exists():
            return None
        tensors, device = load_tensors(self._path), rerun.values[0].device
        losses, groups = tensors["losses"].tolist(), range(len(rerun.values))
        slopes = []
        for i in range(len(losses)):
            values, means, squares = (
                [tensors[f"{i}.{what}.{group}"].to(device) for group in groups] for what in ("values", "means", "squares")
            )  # fmt: skip
            slopes.append(Slope(values, means, squares, tensors[f"{i}.effects"].numpy()))
        return int(tensors["number"]), losses, slopes


def _ends(rerun: Rerun, questions: Sequence[Batch]) -> tuple[list[float], list[Slope]]:
    """Losses of the questions at the end of the training, and their slopes there."""
    losses, slopes = list[float](), list[Slope]()
    rerun.module.eval()
    for question in questions:
        losses.append(float(rerun.losses(question, cached=False).sum()))
        nothing = [torch.zeros_like(value) for value in rerun.values]
        slopes.append(Slope(rerun.take(), nothing, list(nothing), np.zeros(len(rerun.data.corpus))))
    rerun.module.train()
    return losses, slopes


def back(rerun: Rerun, moment: Moment, after: Slope) -> Slope:
    """Take a slope from after a step to before it, and add the effects of the step's examples."""
    of, factor = rerun.settings.optimiser, rerun.settings.schedule.factor(moment.number, rerun.steps)
    unmeaned, unsquared = 1 - of.beta1 ** (moment.number + 1), 1 - of.beta2 ** (moment.number + 1)
    values, means, squares, towards = Flats(), Flats(), Flats(), Flats()
    for i, group in enumerate(rerun.trained.groups):
        rate, decay, g = of.learning_rate * factor * group.rule.rate, of.weight_decay * group.rule.decay, moment.gradient[i]
        m = torch.lerp(g, moment.means[i], of.beta1) / unmeaned
        v = torch.lerp(g * g, moment.squares[i], of.beta2) / unsquared
        root = (v + SOFT**2).sqrt_()
        below = root + of.eps
        slope = after.values[i]
        to_mean = after.means[i] - slope * (rate / unmeaned) / below
        to_square = after.squares[i] + slope * (rate / (2 * unsquared)) * m / (below * below * root)
        towards.append((1 - of.beta1) * to_mean + 2 * (1 - of.beta2) * g * to_square)
        values.append(slope * (1 - rate * decay))
        means.append(of.beta1 * to_mean)
        squares.append(of.beta2 * to_square)
    effects = after.effects.copy()
    if moment.shortened < 1:  # the gradient keeps its length, so what is along it has no effect
        along = _dot(moment.gradient, towards) / _dot(moment.gradient, moment.gradient)
        towards = [(t - along * g) * moment.shortened for t, g in zip(towards, moment.gradient, strict=True)]
    length = _dot(towards, towards) ** 0.5
    if length > 0:
        reach = _REACH * of.learning_rate * rerun.size**0.5 / length
        rerun.put([value + reach * step for value, step in zip(moment.values, towards, strict=True)])
        ahead = rerun.look(moment.number)
        for value, one, gradient in zip(values, ahead.gradient, moment.gradient, strict=True):
            value += (one / moment.terms - gradient / moment.shortened) / reach
        mean = _dot(moment.gradient, towards) / moment.shortened
        for example, nats in ahead.losses.items():
            steep = (nats - moment.losses[example]) / reach
            effects[example] += (steep - ahead.tokens[example] * mean) / moment.terms
    return Slope(values, means, squares, effects)


def _dot(one: Flats, other: Flats) -> float:
    return float(sum(torch.dot(a, b) for a, b in zip(one, other, strict=True)))


class _Ticks:
    """Counts steps for whoever watches."""

    def __init__(self, done: Counted, count: int) -> None:
        self._done, self._count, self._number = done, count, 0

    def __call__(self, moment: Moment) -> Moment:
        self._number += 1
        self._done(self._number, self._count)
        return moment
