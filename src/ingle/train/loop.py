"""The training loop: from batches to moved parameters, on one process or several that learn as one, and on from any stop to the bit."""

import contextlib
import math
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ingle.core.digest import digest_json
from ingle.core.energy import Energy
from ingle.core.errors import ConfigError
from ingle.core.files import os_errors
from ingle.core.process import release_memory
from ingle.energy.meter import Span, open_meter
from ingle.model.module import CausalLM
from ingle.model.module_parts import RecurrentMemory
from ingle.train.checkpoints import (
    BEST,
    TRAINED,
    Fork,
    Forks,
    TrainingState,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
    save_tensors,
    sweep_checkpoints,
)
from ingle.train.corpus import Corpus
from ingle.train.forward import (
    ATTENTION_KERNELS,
    MEMORY_KERNELS,
    compile_ahead,
    final_states,
    first_trained_layer,
    fits_heads,
    lower_states,
)
from ingle.train.loop_settings import TrainProgress, TrainReport, TrainSettings, TrainWatch, run_digest
from ingle.train.loss_curve import Journal, JournalLine
from ingle.train.making import MakingJob, Stop, memory_errors, not_finite, peak_bytes, smaller_batches, stop_signals
from ingle.train.objectives import Answers, Objective
from ingle.train.optimisers import DTYPES, Trained, check_names, choose, keep_few_programs, multiplies_bf16
from ingle.train.packing import Batch, Data, Order, make_batch, plan

# Ranks: several processes that learn as one, started by torchrun. Each takes its share of the batches; gradients are added up.
#
#     torchrun --standalone --nproc-per-node 2 SCRIPT
#
# Every process holds the whole model. Tested: processes on one machine's CPU, over gloo.


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among its peers. In a single process every method does nothing."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.world > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return each number's sum over all processes."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self.sums([float(flag)])[0] > 0

    def check_equal(self, what: str, digest: str) -> None:
        """Raises ConfigError unless all processes have the same digest."""
        if self.world == 1:
            return
        own = torch.frombuffer(bytearray.fromhex(digest), dtype=torch.uint8)
        digests = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(digests, own)
        count = len({bytes(other.tolist()) for other in digests})
        if count > 1:
            cure = "Use the same files, settings and seed."
            raise ConfigError(what, "must be the same in every process", f"{count} different ones", cure)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun started, or yield this one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield Ranks()
        return
    mine = not dist.is_initialized()
    if mine:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        if mine:
            dist.destroy_process_group()


# Inputs of the first trained layer, kept for each document, so that the layers below run once instead of once an epoch.
# A document's states are computed from it alone, never in a row with others; so they are the same to the last bit whether they were kept or
# not, however batches are cut, and after a run was killed. They are kept in the type that the module computes in, without loss: in memory,
# or in a file, which other runs on the same data and the same lower layers go on using.


_ZEROS = 1 << 22  # bytes written at a time
_RAW = {2: torch.int16, 4: torch.int32}  # NumPy has no bfloat16; bytes are bytes


class Activations:
    """States [tokens, hidden] at the input of layer `first`, by document."""

    def __init__(self, module: CausalLM, corpus: Corpus, first: int, budget_bytes: int, folder: Path | None = None) -> None:
        """Keeps as many documents as fit into the budget; with a folder, in a file there. Raises HomeError if that can't be made."""
        self._module, self._corpus, self.first = module, corpus, first
        weight = module.model.embed_tokens.weight
        self._dtype, self._device = weight.dtype, weight.device
        width = module.config.hidden_size * weight.element_size()
        fitting = int(np.searchsorted(corpus.bounds, budget_bytes // width, "right")) - 1
        self._kept = max(0, min(fitting, len(corpus.bounds) - 1))
        tokens, kind = int(corpus.bounds[self._kept]), f"i{weight.element_size()}"
        shape = (tokens, module.config.hidden_size)
        self._states: npt.NDArray[Any]
        self._sums: npt.NDArray[Any]  # 1 + the CRC-32 of each document's states; 0 = not there yet
        if folder is None or not self._kept:
            self._states, self._sums = np.empty(shape, kind), np.zeros(self._kept, np.int64)
        else:
            name = folder / f"activations-{self._digest()[:16]}-{self._kept}"
            with os_errors(name):
                folder.mkdir(parents=True, exist_ok=True)
                self._states = _mapped(name.with_suffix(".states"), kind, shape)
                self._sums = _mapped(name.with_suffix(".sums"), "i8", (self._kept,))
        self._checked: set[int] = set()
        self.hits = 0  # documents whose states were kept
        self.misses = 0  # documents that had to be computed

    @property
    def hit_rate(self) -> float:
        """Share of the documents asked for whose states were kept."""
        return self.hits / max(1, self.hits + self.misses)

    @property
    def share_kept(self) -> float:
        """Share of all documents that have a place."""
        return self._kept / max(1, len(self._corpus.bounds) - 1)

    def states(self, batch: Batch) -> Tensor:
        """States [T, hidden] of a batch; 0 behind its documents."""
        edges = pairwise(batch.bounds)
        states = [self._document(number, batch.ids[a:b]) for number, (a, b) in zip(batch.documents, edges, strict=True)]
        return torch.cat([*states, states[0].new_zeros(len(batch.ids) - batch.tokens, states[0].shape[1])])

    def _document(self, number: int, ids: Tensor) -> Tensor:
        span = slice(self._corpus.bounds[number], self._corpus.bounds[number + 1])
        if number < self._kept and self._is_there(number, span):
            self.hits += 1
            return torch.from_numpy(self._states[span]).view(self._dtype).to(self._device)
        self.misses += 1
        states = lower_states(self._module, ids, self.first)
        if number < self._kept:
            self._states[span] = states.cpu().view(_RAW[self._dtype.itemsize]).numpy()
            self._sums[number] = 1 + zlib.crc32(np.ascontiguousarray(self._states[span]).data)
            self._checked.add(number)
        return states

    def _is_there(self, number: int, span: slice) -> bool:
        """Whether this document's states are kept and, checked once a run, whole: a crash may have cut off the file."""
        if number in self._checked:
            return True
        if not self._sums[number] or self._sums[number] != 1 + zlib.crc32(np.ascontiguousarray(self._states[span]).data):
            return False
        self._checked.add(number)
        return True

    def _digest(self) -> str:
        """Digest of all that the states follow from: corpus, configuration, type, lower weights."""
        names = ("model.embed_tokens.", *(f"model.layers.{i}." for i in range(self.first)))
        weights = {name: _sum(p) for name, p in self._module.named_parameters() if name.startswith(names)}
        return digest_json([self._corpus.digest, repr(self._module.config), str(self._dtype), self.first, weights])


def _mapped(path: Path, kind: str, shape: Sequence[int]) -> npt.NDArray[Any]:
    """A file as an array, zeros if it is new. Its place on the disk is taken at once: a full disk is an error here, not a crash later."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    if not path.exists() or path.stat().st_size != size:
        try:
            with path.open("wb") as file:
                for start in range(0, size, _ZEROS):
                    file.write(bytes(min(_ZEROS, size - start)))
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return np.memmap(path, kind, "r+", shape=tuple(shape))


def _sum(parameter: Tensor) -> str:
    import hashlib

    raw = parameter.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(raw.data).hexdigest()


# A training run, from the first step to the last: batches in, moved parameters out.
# A run is a function of module, parameters, data, settings and objective. Stopped at any moment, by Ctrl-C, kill -9 or a power cut, the
# same call goes on from its last checkpoint and ends with the same bytes (on the same machine with the same number of threads).


_FILL: Any = torch.utils.deterministic


def train_for(
    job: MakingJob[Any], module: CausalLM, parameters: Mapping[str, nn.Parameter], data: Data, settings: TrainSettings, out_folder: Path,
    objective: Objective = Answers(), where: str = "",  # noqa: B008 - frozen
) -> TrainReport:  # fmt: skip
    """Train for a job, whose watch hears it. `where`: its present part, in words. Raises Interrupted if it was stopped; else as `train`."""
    done = train(module, parameters, data, settings, out_folder, TrainWatch(job.watch.train, job.watch.say), objective)
    if done.stopped == "interrupted":
        raise job.interrupted(f"{where}, after step {done.steps}".removeprefix(", "))
    return done


def train(
    module: CausalLM, parameters: Mapping[str, nn.Parameter], data: Data, settings: TrainSettings, out_folder: Path,
    watch: TrainWatch = TrainWatch(), objective: Objective = Answers(), forks: Sequence[tuple[Path, TrainSettings]] = (),  # noqa: B008 - frozen
) -> TrainReport:  # fmt: skip
    """Train these parameters of the module, in place. All others keep their values, but not their type.

    The module is cast to what the machine computes fastest in; the trained parameters are float32 beside it. At the end they are in
    `out_folder`/trained.safetensors: the last ones, or with `patience` those with the lowest held-out loss. If the folder holds a
    checkpoint of the same run, the run goes on from there. `forks`: folders and settings of shorter runs that begin alike
    (train/checkpoints.py).

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
            compile_ahead((*ATTENTION_KERNELS, *(MEMORY_KERNELS if remembers else ())), own_watch.say)
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
