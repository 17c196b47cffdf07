"""Influence: which training examples made a tuned model say something."""

import random
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load, save
from torch import Tensor

from ingle.core.candidate import Candidate, weakened
from ingle.core.config import from_table
from ingle.core.delta import Delta
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError, IngleError, counted
from ingle.core.files import os_errors, write_atomic
from ingle.core.message import Request
from ingle.engine.answer import write
from ingle.engine.loading import open_model
from ingle.engine.packs import Source, candidate_source, checkpoint_tokenizer, kept_source, open_weights
from ingle.engine.scoring import score
from ingle.home.deltas import delta_report, delta_tensors, get_delta
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.model.module import CausalLM, load_module
from ingle.model.tokenizer import Tokenizer
from ingle.train.by_document import Sketcher
from ingle.train.checkpoints import put_back
from ingle.train.corpus import EXAMPLES, KeptExamples, corpus_of, read_kept
from ingle.train.example_files import Document, ExampleTally, Record, read_records
from ingle.train.loop import train
from ingle.train.loop_settings import TrainReport, TrainWatch
from ingle.train.making import MakingJob, RunWatch, at_work, provenance
from ingle.train.objectives import Answers, Hold
from ingle.train.optimisers import device_of
from ingle.train.packing import Batch, Data, make_batch
from ingle.train.rerun import Halfway, Rerun, through_training
from ingle.tuning.data import SUITE, hold_of, with_virtual_tokens
from ingle.tuning.linears import chosen_layers
from ingle.tuning.tune_settings import TuneSettings, method_settings
from ingle.tuning.tuning_method import Attached, find_method
from ingle.tuning.virtual import with_virtual

# A finished tune, ready to be trained again: from the delta, its report, and what it kept of its examples.


@dataclass(frozen=True, slots=True, eq=False)
class TracedTune:
    """A delta that a tune made, with all that it was made of."""

    home: Home
    kept: Kept
    below: Kept  # the model that was tuned
    delta: Delta
    report: Mapping[str, Any]
    settings: TuneSettings
    examples: KeptExamples

    @property
    def steps(self) -> int:
        """Steps up to the parameters that were kept."""
        return len(self.examples.steps)

    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return checkpoint_tokenizer(open_weights(self.home, self.below), self.home.base_folder(self.below.base))

    def untrained(self) -> tuple[CausalLM, Attached]:
        """Return the module as it was before the first step, and its trainable parts. Raises the errors of opening the model."""
        checkpoint = open_weights(self.home, self.below)
        module = load_module(checkpoint, device=device_of(self.settings.device))
        layers = chosen_layers(checkpoint.config, self.settings.layers)
        method = find_method(self.settings.method)
        return module, method.attach(module, layers, method_settings(self.settings), self.settings.train.seed)

    def tuned(self) -> tuple[CausalLM, Attached]:
        """Return the module as it was after the last step, in float32; only for methods that `can_be_put_back`."""
        module, attached = self.untrained()
        tensors, parameters, ends = delta_tensors(self.home, self.delta), attached.parameters, list[Mapping[str, Tensor]]()
        for value in (0.0, 1.0):  # what is kept is the parameters times a scale: two values tell which
            for parameter in parameters.values():
                parameter.data = torch.full_like(parameter, value, dtype=torch.float32)
            ends.append(attached.collect())
        for name, parameter in parameters.items():
            start, scale = ends[0][name], ends[1][name] - ends[0][name]
            parameter.data = (torch.from_numpy(tensors[name]).to(scale.device) - start) / scale
            parameter.requires_grad_(True)
        return module, attached

    def hold(self, watch: RunWatch, stopped: Callable[[], bool]) -> Hold | None:
        """Return what the tune held; None where it held nothing. Raises ConfigError where the model answers otherwise today, and the
        errors of opening it."""
        if not (digest := self.report.get("hold")):
            return None
        checkpoint = open_weights(self.home, self.below)
        module = load_module(checkpoint, device=device_of(self.settings.device))
        hold = hold_of(self.home, self.below, self.tokenizer(), module, self.settings, watch, stopped)
        if hold is None or hold.corpus.digest != digest:
            cure = "It was tuned on another machine or with another version; tune it again here."
            raise ConfigError("model", "The answers that the tune held can't be made again as they were", "", cure)
        return with_virtual_tokens(hold, self.report.get("virtual_tokens", 0), module)

    def data(self, left_out: Collection[int] = ()) -> Data:
        """The examples, some of them left out."""
        return Data(self.examples.corpus, self.examples.train, self.examples.held_out, frozenset(left_out))

    def question(self, prompt: Sequence[int], answer: Sequence[int], attached: Attached, module: CausalLM) -> Batch:
        """Return an answer with its prompt as a batch of one document. Raises ConfigError for an empty one."""
        if not prompt or not answer:
            raise ConfigError("answer", "must have a token at least, and a prompt")
        ids = np.array([*prompt, *answer], np.int32)
        corpus = corpus_of("answers", [("question", -1, (Document(ids, np.arange(len(ids)) >= len(prompt)),))])
        return make_batch(with_virtual(corpus, attached.virtual_tokens, module.config.vocab_size), [0], module.lm_head.weight.device)

    def again(
        self, left_out: Collection[int], hold: Hold | None, folder: Path, watch: TrainWatch
    ) -> tuple[TrainReport, Candidate]:  # fmt: skip
        """Train anew without these examples, the others in their places; goes on where a folder's run was stopped. `hold`: as of `hold`.

        The candidate is of use only if the report says that the run was not interrupted. Raises the errors of `train`.
        """
        module, attached = self.untrained()
        trained = train(module, attached.parameters, self.data(left_out), self.settings.train, folder, watch, Answers(hold))
        if trained.stopped != "interrupted":
            put_back(attached.parameters, folder)
        tensors = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in attached.collect().items()}
        candidate = Candidate(self.delta.name, self.delta.kind, self.below.digest, tensors, {"method": self.settings.method})
        return trained, weakened(candidate, self.settings.strength) or candidate

    def records(self) -> dict[str, Record]:
        """Return each record that still stands in a file of the tune, by its digest."""
        found = dict[str, Record]()
        for source in self.report.get("sources", ()):
            if source.startswith(SUITE):
                continue
            try:
                for record in read_records([Path(source)], ExampleTally(), skip_bad=True):
                    found.setdefault(record.digest, record)
            except IngleError:  # it is gone, or no longer what it was: then no line is named
                continue
        return found


def traced(home: Home, kept: Kept) -> TracedTune:
    """Return the tune behind a model's last delta.

    Raises ConfigError where no tune made it, or nothing was kept of its examples; NotKept for a delta that is gone; HomeError for a file
    that is damaged or gone.
    """
    if not kept.deltas:
        raise ConfigError("model", f"{kept.name} was not tuned here", "", "Name a model with the delta of a tune, as MODEL+DELTA.")
    delta = get_delta(home, kept.deltas[-1])
    report = delta_report(home, delta.digest) or {}
    if "run" not in delta.origin or "sources" not in report:
        cure = "Name a model whose last delta is of a tune."
        raise ConfigError("model", f"The last delta of {kept.name} was not made by `ingle make tune` in this home", "", cure)
    table = report.get("kept_examples") or {}
    if not table:
        cure = "Tune again with examples.keep = true, or fewer examples than examples.most."
        raise ConfigError("model", f"Nothing was kept of the examples of {kept.name}", "", cure)
    examples = read_kept(home.delta_folder(delta.digest) / EXAMPLES, table["sha256"])
    below = Kept(kept.name.rpartition("+")[0] or kept.name, kept.base, kept.deltas[:-1], kept.created_at)
    return TracedTune(home, kept, below, delta, report, from_table(TuneSettings, report["settings"]), examples)


def need_answers(tune: TracedTune) -> None:
    """Raises ConfigError for a tune that learnt from something else than answers."""
    if (kind := tune.settings.objective.kind) != "answers":
        raise ConfigError("objective", "must be answers to trace one back", kind, "Preferences and distillation can't be traced yet.")


# Which training examples made a tuned model say something: proposed by likeness, then proved by training again without them.
# `proposed` holds the answer's gradient against the sketches that the tune kept: it opens the model and reads the answer once. `proved`
# takes the examples that the gradient through the training names (three or four trainings), or likeness, and trains again without them, and
# without as many random ones (a training each). Likeness is not cause: only what training without the examples shows is proved.
# HOME/tuning/KEY/ unfinished proofs: what was followed back, and a folder for each training. The same call goes on where it was.


By = Literal["through", "alike"]
LEAST_NATS = 0.5  # a smaller rise is never called a cause; as in explain/cause.py
VERSION = 1
_RISES, _HALFWAY = "rises.safetensors", "halfway.safetensors"
_MORE = 8  # tokens by which the answer without the examples may be longer
Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class TrainingCause:
    """An example of a tune that may have taught an answer."""

    example: int  # its number among the tune's examples
    asked: str  # the example's prompt: the last question if it still stands in its file, else all that the model read
    answer: str
    where: str  # file and line, if it still stands there; else empty
    steps: tuple[int, ...]  # numbers of the steps that read it, from 1
    # Cosine of its gradient with the answer's, −1 to 1: looks alike; not shown to be the cause. None where no sketch was kept.
    alike: float | None = None
    # About how many nats less likely the answer would be without it, by the gradient through the training; None = not followed.
    rise: float | None = None


@dataclass(frozen=True, slots=True)
class ProvedExamples:
    """Effect on an answer of training again without some examples. All losses are nats of the whole answer, as the model is served."""

    causes: tuple[TrainingCause, ...]  # the examples that were left out together, the most telling first
    by: By  # how they were chosen
    before: float  # loss of the answer in the model that was tuned
    whole: float  # loss in the tuned model
    without_top: float  # loss in the model trained again without them
    without_random: tuple[float, ...]  # losses in models trained again without as many random ones
    answer_without: str  # answer of the model trained without them, greedily
    same_programs: bool  # whether versions and threads are those of the tune; if not, some of the difference may be theirs
    seconds: float

    @property
    def rise(self) -> float:
        """Nats that the answer loses without them."""
        return self.without_top - self.whole

    @property
    def by_chance(self) -> float:
        """Nats that it loses without as many random ones, at most."""
        return max(self.without_random) - self.whole

    @property
    def stands_out(self) -> bool:
        """Whether they matter more than all random ones, and enough to mean something."""
        return self.rise >= LEAST_NATS and self.rise > self.by_chance


def proposed(home: Home, kept: Kept, prompt: Ids, answer: Ids, top: int = 5) -> tuple[TrainingCause, ...]:
    """Return the examples whose gradients are most like the answer's. They look alike; nothing shows that they are the cause.

    `prompt`, `answer`: tokens, as the model read and wrote them. Raises as `traced` does, and ConfigError where no sketches were kept.
    """
    tune = traced(home, kept)
    alike = _alike(tune, prompt, answer)
    if alike is None:
        cure = "Prove it by the gradient through the training. LoRA's kin and bottleneck adapters keep sketches (examples.sketches = true)."
        raise ConfigError("model", f"No sketches were kept of the examples of {kept.name}", tune.settings.method, cure)
    order = np.argsort(-alike, kind="stable")[:top]
    return _causes(tune, [tune.examples.train[i] for i in order], alike, None)


def proved(
    home: Home, kept: Kept, prompt: Ids, answer: Ids, top: int = 5, draws: int = 1, by: By | None = None,
    watch: RunWatch = RunWatch(),  # noqa: B008 - frozen
) -> ProvedExamples:  # fmt: skip
    """Choose the most telling examples and train again without them, and `draws` times without as many random ones.

    `by`: likeness, where sketches were kept, else the gradient through the training, which takes two or three trainings more. After
    Ctrl-C or a kill the same call goes on. Raises as `proposed` does, ConfigError for numbers that don't fit, the errors of training,
    and Interrupted.
    """
    began, tune = time.perf_counter(), traced(home, kept)
    need_answers(tune)
    most = len(tune.examples.train) // 2
    if not 1 <= top <= most or draws < 1:
        raise ConfigError("top", f"must be between 1 and {most}, half of the examples, with a random draw at least", f"{top}, {draws}")
    by = by or ("through" if tune.examples.sketches is None else "alike")
    key = digest_json([VERSION, "why", tune.delta.digest, list(map(int, prompt)), list(map(int, answer)), by])
    proof = MakingJob(
        maker="why", home=home, name=kept.name, settings=tune.settings, key=key, folder=home.tuning / key[:32], watch=watch
    )  # fmt: skip
    with at_work(proof, f"why-{key[:16]}") as job:
        alike = _alike(tune, prompt, answer)
        hold = tune.hold(job.watch, job.stopped)
        rises = _followed(job, tune, hold, prompt, answer) if by == "through" else None
        if (telling := alike if rises is None else rises) is None:
            raise ConfigError("by", "must be through: the tune kept no sketches", by)
        chosen = [tune.examples.train[i] for i in np.argsort(-telling, kind="stable")[:top]]
        others = [example for example in tune.examples.train if example not in chosen]
        sets = [chosen, *(random.Random(f"{key} {number}").sample(others, top) for number in range(draws))]
        scored = [_without(job, tune, hold, left_out, prompt, answer, number, len(sets)) for number, left_out in enumerate(sets)]
        before, whole = (_served(source, prompt, answer)[0] for source in (kept_source(home, tune.below), kept_source(home, kept)))
    return ProvedExamples(
        _causes(tune, chosen, alike, rises), by, before, whole, scored[0][0], tuple(nats for nats, _ in scored[1:]), scored[0][1],
        all(tune.delta.origin.get(name) == value for name, value in provenance().items()), time.perf_counter() - began,
    )  # fmt: skip


def _alike(tune: TracedTune, prompt: Ids, answer: Ids) -> npt.NDArray[np.float64] | None:
    """Cosine of the answer's gradient with that of each example of `train`; None without sketches."""
    if tune.examples.sketches is None:
        return None
    module, attached = tune.tuned()
    own = Sketcher(module, attached.parameters).of_batch(tune.question(prompt, answer, attached, module))[0].double().cpu().numpy()
    return np.asarray(tune.examples.sketches.astype(np.float64) @ own)


def _followed(
    job: MakingJob[TuneSettings], tune: TracedTune, hold: Hold | None, prompt: Ids, answer: Ids
) -> npt.NDArray[np.float64]:  # fmt: skip
    """Rises of the answer's loss by the gradient through the training, for each example of `train`; kept in the job's folder."""
    path = job.folder / _RISES
    if path.exists():
        with os_errors(path):
            kept: npt.NDArray[np.float64] = load(path.read_bytes())["rises"]
        return kept
    module, attached = tune.untrained()
    rerun = Rerun(module, dict(attached.parameters), tune.data(), tune.settings.train, hold)

    def done(step: int, of: int) -> None:
        job.watch.pieces("following the training back", step, of)
        job.check(f"at step {step} of {of}, there and back")

    question = tune.question(prompt, answer, attached, module)
    halfway = Halfway(job.folder / _HALFWAY)
    _, found = through_training(rerun, tune.steps, [question], done, halfway=halfway)
    rises: npt.NDArray[np.float64] = found[0][list(tune.examples.train)]
    write_atomic(path, save({"rises": rises}), mode=0o600)
    return rises


def _without(
    job: MakingJob[TuneSettings], tune: TracedTune, hold: Hold | None, left_out: Sequence[int], prompt: Ids, answer: Ids, number: int,
    of: int,
) -> tuple[float, str]:  # fmt: skip
    """Train without some examples; return the answer's loss, and what is said instead (of the first set alone)."""
    job.watch.say(f"training again without {counted(len(left_out), 'example')}, {number + 1} of {of}")
    folder = job.folder / f"without-{digest_json(sorted(left_out))[:16]}"
    trained, candidate = tune.again(left_out, hold, folder, TrainWatch(job.watch.train, job.watch.say))
    if trained.stopped == "interrupted":
        raise job.interrupted(f"after step {trained.steps} of training {number + 1} of {of}")
    source = candidate_source(tune.home, tune.below, candidate)
    try:
        return _served(source, prompt, answer, ask=number == 0)
    finally:
        if source.packs != kept_source(tune.home, tune.below).packs:  # the candidate was merged; nobody else needs its pack
            shutil.rmtree(source.packs, ignore_errors=True)


def _served(source: Source, prompt: Ids, answer: Ids, ask: bool = False) -> tuple[float, str]:
    """Loss of an answer in a model as it is served; with `ask`, also what it says to the prompt, greedily."""
    model = open_model(source)
    [(_, [nats])] = score(model.backend, [(list(prompt), [list(answer)])], adapter=model.adapter)
    said = ""
    if ask:
        [(_, said)] = write(model, [Request(prompt=tuple(prompt), max_tokens=len(answer) + _MORE)])
    return -float(nats.sum()), said


def _causes(
    tune: TracedTune, chosen: Sequence[int], alike: npt.NDArray[np.float64] | None, rises: npt.NDArray[np.float64] | None
) -> tuple[TrainingCause, ...]:  # fmt: skip
    corpus, tokenizer, records = tune.examples.corpus, tune.tokenizer(), tune.records()
    row = {example: i for i, example in enumerate(tune.examples.train)}
    causes = []
    for example in chosen:
        document = corpus.document(example * corpus.per_example)
        vocabulary = [int(token) for token in document.ids if token < tokenizer.vocab_size]
        virtual, first = len(document.ids) - len(vocabulary), int(np.argmax(document.answer))
        asked, answer = vocabulary[: first - virtual], vocabulary[first - virtual :]
        figures = (None if one is None else float(one[row[example]]) for one in (alike, rises))
        record = records.get(corpus.sources[example])
        words, where = (tokenizer.decode(asked), "") if record is None else (_asked(record), record.where)
        causes.append(TrainingCause(example, words, tokenizer.decode(answer), where, tune.examples.steps_of(example), *figures))
    return tuple(causes)


def _asked(record: Record) -> str:
    """Return the last question of a record."""
    if isinstance(record.prompt, str):
        return record.prompt
    return next((str(turn["content"]) for turn in reversed(record.prompt) if turn["role"] == "user"), "")
