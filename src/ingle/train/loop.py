"""A training run, from the first step to the last: batches in, moved parameters out.

A run is a function of module, parameters, data, settings and objective. Stopped at any moment, by Ctrl-C, kill -9 or a power cut, the
same call goes on from its last checkpoint and ends with the same bytes (on the same machine with the same number of threads).
"""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ingle.core.digest import digest_json
from ingle.core.energy import Energy
from ingle.core.errors import ConfigError
from ingle.core.process import release_memory
from ingle.energy.meter import Span, open_meter
from ingle.model.module import CausalLM
from ingle.model.module_parts import RecurrentMemory
from ingle.train.activations import Activations
from ingle.train.checkpoints import (
    BEST,
    TRAINED,
    TrainingState,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
    save_tensors,
    sweep_checkpoints,
)
from ingle.train.forks import Fork, Forks
from ingle.train.forward import final_states, first_trained_layer
from ingle.train.journal import Journal, JournalLine
from ingle.train.kernel_attention import KERNELS, fits_heads
from ingle.train.kernel_memory import KERNELS as MEMORY_KERNELS
from ingle.train.objectives import Answers, Objective
from ingle.train.optimisers import Trained, check_names
from ingle.train.packing import Batch, Data, Order, make_batch, plan
from ingle.train.precision import DTYPES, choose, keep_few_programs, multiplies_bf16
from ingle.train.ranks import Ranks, joined
from ingle.train.settings import TrainProgress, TrainReport, TrainSettings, TrainWatch, run_digest
from ingle.train.team import compile_ahead
from ingle.train.trouble import Stop, memory_errors, not_finite, peak_bytes, smaller_batches, stop_signals

_FILL: Any = torch.utils.deterministic


def train(
    module: CausalLM, parameters: Mapping[str, nn.Parameter], data: Data, settings: TrainSettings, out_folder: Path,
    watch: TrainWatch = TrainWatch(), objective: Objective = Answers(), forks: Sequence[tuple[Path, TrainSettings]] = (),  # noqa: B008 - frozen
) -> TrainReport:  # fmt: skip
    """Train these parameters of the module, in place. All others keep their values, but not their type.

    The module is cast to what the machine computes fastest in; the trained parameters are float32 beside it. At the end they are in
    `out_folder`/trained.safetensors: the last ones, or with `patience` those with the lowest held-out loss. If the folder holds a
    checkpoint of the same run, the run goes on from there. `forks`: folders and settings of shorter runs that begin alike (train/forks.py).

    Raises ConfigError for settings, data or a folder that don't fit; TrainError for numbers that ran away or memory that ran out;
    HomeError where the disk refuses. Whatever it raises, the last checkpoint is whole.
    """
    keep_few_programs()
    check_names(parameters, module)
    if data.corpus.wanted != objective.wanted:
        raise ConfigError("data", f"must be {objective.wanted} to learn {objective.name} from", data.corpus.wanted)
    if settings.patience and not data.held_out:
        raise ConfigError("patience", "needs held-out examples", "none", "Set held_out above 0.")
    cure = smaller_batches(settings.batch_tokens, settings.recompute)
    with joined() as ranks, stop_signals() as stop, determined(), memory_errors(cure):
        own_watch = watch if ranks.first else TrainWatch()
        if fits_heads(module.lm_head.weight.device, module.config.head_dim):
            remembers = any(isinstance(part, RecurrentMemory) for part in module.modules())
            compile_ahead((*KERNELS, *(MEMORY_KERNELS if remembers else ())), own_watch.say)
        run = TrainingRun(module, parameters, data, settings, out_folder, own_watch, objective, ranks, forks)
        try:
            return run.to_the_end(stop)
        finally:
            module.eval()
            release_memory()  # of batches: what is measured next is another model


class TrainingRun:
    """A run in this process."""

    def __init__(
        self, module: CausalLM, parameters: Mapping[str, nn.Parameter], data: Data, settings: TrainSettings, folder: Path,
        watch: TrainWatch, objective: Objective, ranks: Ranks, forks: Sequence[tuple[Path, TrainSettings]] = (),
    ) -> None:  # fmt: skip
        self.module, self.data, self.settings, self.folder = module, data, settings, folder
        self.watch, self.objective, self.ranks = watch, objective, ranks
        self.device = module.lm_head.weight.device
        digests = [run_digest(module, parameters, data, one, objective.name, ranks.world) for one in (settings, *(s for _, s in forks))]
        digest = digests[0]
        self.forks = Forks(settings, [Fork(*fork, run) for fork, run in zip(forks, digests[1:], strict=True)])
        ranks.check_equal("run", digest)
        saved = load_checkpoint(folder)
        if saved is not None and saved[0].run != digest:
            cure = "Give another folder, or the model, data and settings with which it began."
            raise ConfigError(str(folder), "holds another run, by its model, data, parameters or settings", saved[0].run[:12], cure)
        name = saved[0].precision if saved else choose(settings.precision, self.device) if ranks.first else ""
        self.precision: Literal["bf16", "fp32"] = "bf16" if ranks.any(name == "bf16") else "fp32"
        if settings.precision == "bf16" and not multiplies_bf16(self.device):
            watch.say("this machine has no instructions for bf16 and computes in it many times as slowly: precision = auto is faster here")
        self.state = saved[0] if saved else TrainingState(digest, self.precision)
        self.trained = Trained(parameters, settings.optimiser, DTYPES[self.precision])
        for name, parameter in module.named_parameters():
            if name not in parameters:
                parameter.requires_grad_(False)
                parameter.data = parameter.data.to(DTYPES[self.precision])
        if saved:
            self.trained.load(saved[1], saved[2])
        self.order = Order(data, settings.batch_tokens, settings.accumulate, ranks.rank, ranks.world, settings.seed)
        self.steps = settings.max_steps or sum(self.order.steps(epoch) for epoch in range(settings.epochs))
        self.cache = self._cache(tuple(parameters))
        if ranks.first:
            sweep_checkpoints(folder)
        self.journal = Journal(folder, self.state.step) if ranks.first else None
        self._span = Span(open_meter(gpus_of(self.device)))
        self._saved = time.monotonic()
        self._recent: list[tuple[float, float]] = []  # seconds and tokens of the last steps

    def to_the_end(self, stop: Stop) -> TrainReport:
        """Do all steps that are left."""
        self.module.train()
        if self.state.step == 0 and self.data.held_out and not self.state.stopped:
            self._judge()
            self.state = replace(self.state, first_held_out=self.state.held_out)
        while self.state.step < self.steps and not self.state.stopped:
            epoch, index = self.order.place(self.state.step)
            line = self._step(epoch, index)
            every = self.settings.evaluate_every
            due = self.state.step % every == 0 if every else index + 1 == self.order.steps(epoch)
            if self.data.held_out and (due or self.state.step == self.steps):
                line = replace(line, held_out=self._judge())
            if self.journal is not None:
                self.journal.add(line)
            self._tell(line)
            if self.forks.due(self.state.step) and self.ranks.first:
                self.forks.save(self.state, self.trained.values(), self.trained.state())
            if self.ranks.any(stop.asked):
                self._save()
                return self._report("interrupted")
            if self._is_due():
                self._save()
        return self._finish()

    def _step(self, epoch: int, index: int) -> JournalLine:
        """Do one step: batches forward and back, then the parameters move."""
        began, number, settings = time.perf_counter(), self.state.step, self.settings
        torch.manual_seed(int(digest_json([settings.seed, number, self.ranks.rank])[:15], 16))
        total, terms, tokens = 0.0, 0.0, 0.0
        for examples in self.order.batches(epoch, index):
            batch = make_batch(self.data.corpus, examples, self.device)
            loss = self.objective(self.module, partial(self._states, batch), batch)
            if loss.total.requires_grad:  # else no trained parameter had a part in it
                loss.total.backward()  # type: ignore[no-untyped-call]
            self.trained.collect()
            total, terms, tokens = total + float(loss.total.detach()), terms + loss.terms, tokens + batch.tokens
        total, terms, tokens = self._sums(total, terms, tokens)
        terms = terms or 1.0  # all of the step's examples are left out
        gradients = [group.gradient for group in self.trained.groups]
        self.ranks.add_up(gradients)
        factor = settings.schedule.factor(number, self.steps)
        rate, limit = settings.optimiser.learning_rate * factor, settings.optimiser.clip_norm
        mean, norm = total / terms, float(self.trained.norm()) / terms
        for what, value in (("loss", mean), ("gradient", norm)):
            if not math.isfinite(value):
                raise not_finite(what, number + 1, rate, self.precision == "bf16")
        scale = (limit / norm if limit and norm > limit else 1.0) / terms
        for gradient in gradients:
            gradient *= scale
        self.trained.step(number + 1, factor)
        seconds = time.perf_counter() - began
        self._recent = [*self._recent[-29:], (seconds, tokens)]
        state = self.state
        first = mean if state.first_loss is None else state.first_loss
        self.state = replace(
            state, step=number + 1, tokens=state.tokens + int(tokens), seconds=state.seconds + seconds, first_loss=first, loss=mean
        )
        return JournalLine(
            number + 1, epoch + (index + 1) / self.order.steps(epoch), self.state.tokens, self.state.seconds, rate, norm, mean
        )

    def _states(self, batch: Batch) -> torch.Tensor:
        """Final states of a batch, from the first trained layer on where its inputs are cached."""
        if self.cache is None:
            return final_states(self.module, batch, recompute=self.settings.recompute)
        return final_states(self.module, batch, self.cache.first, self.cache.states(batch), self.settings.recompute)

    @torch.no_grad()
    def _evaluate(self) -> float:
        """Mean loss on the held-out examples."""
        self.module.eval()
        total, terms = 0.0, 0.0
        batches = plan(self.data.corpus.sizes, self.data.held_out, self.settings.batch_tokens, None)
        for examples in batches[self.ranks.rank :: self.ranks.world]:
            batch = make_batch(self.data.corpus, examples, self.device)
            loss = self.objective(self.module, partial(self._states, batch), batch)
            total, terms = total + float(loss.total), terms + loss.terms
        self.module.train()
        total, terms = self._sums(total, terms)
        return total / terms

    def _judge(self) -> float:
        """Measure on the held-out examples, keep the best parameters, and stop the run where it has been worse for too long."""
        loss, state = self._evaluate(), self.state
        best, first, least = state.best_held_out, state.first_held_out or loss, self.settings.least_gain
        better = best is None or loss < best
        gains = best is None or loss < best - least * max(0.0, first - loss)
        worse = 0 if gains else state.worse + 1
        self.state = replace(state, held_out=loss, worse=worse)
        if better:
            self.state = replace(self.state, best_held_out=loss, best_step=state.step)
            if self.settings.patience and self.ranks.first:
                save_tensors(self.folder / BEST / TRAINED, self.trained.values())
        if self.settings.patience and state.step != self.steps:
            if first > loss and loss <= least * (first - loss):
                why = f"of the held-out loss of {first:.3f}, {loss:.3f} is left"
            elif worse >= self.settings.patience:
                why = f"no held-out loss {'much ' if least else ''}below {best:.4f} in {worse} measurements"
            else:
                return loss
            self.watch.say(f"training stops here: {why}")
            self.state = replace(self.state, stopped="early")
        return loss

    def _finish(self) -> TrainReport:
        """Write the result to its file, and put it into the module."""
        stopped: Literal["finished", "early"] = "early" if self.state.stopped == "early" else "finished"
        if not self.state.stopped or self.state.stopped == "early":
            self.state = replace(self.state, stopped=stopped)
            self._save()
        self.ranks.wait()
        if self.settings.patience and self.state.best_step != self.state.step:
            self.watch.say(f"the parameters of step {self.state.best_step} are kept: their held-out loss was the lowest")
            self.trained.load(load_tensors(self.folder / BEST / TRAINED), {})
        if self.ranks.first:
            save_tensors(self.folder / TRAINED, self.trained.values())
        if self.journal is not None:
            self.journal.draw()  # a kill may have come between the last checkpoint and its curve
        if self.cache is not None and self.cache.hits == 0 and self.cache.misses:
            self.watch.say("the cache of lower layers was never hit: it pays from the second epoch on, or if held-out data is read twice")
        return self._report(stopped)

    def _save(self) -> None:
        """Write a checkpoint."""
        if self.ranks.first:
            save_checkpoint(self.folder, self.state, self.trained.values(), self.trained.state())
        if self.journal is not None:
            self.journal.draw()
        self._saved = time.monotonic()

    def _sums(self, *values: float) -> list[float]:
        """Sums over all processes. The energy that all of them used since the last call is added to the state."""
        used = self._span.end_of_piece()
        *sums, joules, low, high = self.ranks.sums((*values, used.joules, used.low, used.high))
        self.state = replace(self.state, energy=self.state.energy + Energy(joules, low, high, used.source))
        return sums

    def _is_due(self) -> bool:
        every, minutes = self.settings.checkpoint_every, self.settings.checkpoint_minutes
        by_time = minutes > 0 and time.monotonic() - self._saved >= 60 * minutes
        return by_time or (every > 0 and self.state.step % every == 0)

    def _cache(self, names: tuple[str, ...]) -> Activations | None:
        if not self.settings.cache_mb:
            return None
        first = first_trained_layer(self.module, names)
        if first == 0:
            self.watch.say("the cache of lower layers does nothing here: a parameter of the first layer, or below it, is trained")
            return None
        folder = self.folder / "activations" / str(self.ranks.rank) if self.settings.cache_on_disk else None
        cache = Activations(self.module, self.data.corpus, first, self.settings.cache_mb << 20, folder)
        if cache.share_kept < 1:
            self.watch.say(f"the cache of lower layers has room for {cache.share_kept:.0%} of the documents; raise cache_mb for more")
        return cache

    def _tell(self, line: JournalLine) -> None:
        seconds, tokens = (sum(values) for values in zip(*self._recent, strict=True))
        left = (self.steps - line.step) * seconds / len(self._recent)
        self.watch.progress(TrainProgress(line.step, self.steps, line.epoch, line.loss, self.state.held_out, tokens / seconds, left))

    def _report(self, stopped: Literal["finished", "early", "interrupted"]) -> TrainReport:
        state = self.state
        count = sum(group.master.numel() for group in self.trained.groups)
        return TrainReport(
            stopped, state.step, state.tokens, state.seconds, state.tokens / max(state.seconds, 1e-9), state.first_loss, state.loss,
            state.first_held_out, state.held_out, state.best_held_out, state.best_step, count, self.precision, peak_bytes(),
            None if self.cache is None else self.cache.hit_rate, self.data.corpus.digest, state.energy,
        )  # fmt: skip


def gpus_of(device: torch.device) -> tuple[str, ...]:
    """The driver's name of this device's GPU; none for the CPU."""
    return (f"GPU-{torch.cuda.get_device_properties(device).uuid}",) if device.type == "cuda" else ()


@contextlib.contextmanager
def determined() -> Iterator[None]:
    """Fix PyTorch's choices among algorithms, and restore its random numbers afterwards."""
    before, filled = torch.are_deterministic_algorithms_enabled(), _FILL.fill_uninitialized_memory
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng():
        torch.use_deterministic_algorithms(True, warn_only=True)
        _FILL.fill_uninitialized_memory = False  # it writes every new tensor twice
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warned)
            _FILL.fill_uninitialized_memory = filled
