"""Which training examples made a tuned model say something: proposed by likeness, then proved by training again without them.

`proposed` holds the answer's gradient against the sketches that the tune kept: it opens the model and reads the answer once. `proved`
takes the examples that the gradient through the training names (three or four trainings), or likeness, and trains again without them,
and without as many random ones (a training each). Likeness is not cause: only what training without the examples shows is proved.

HOME/tuning/KEY/    unfinished proofs: what was followed back, and a folder for each training. The same call goes on where it was.
"""

import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError, counted
from ingle.core.files import os_errors, write_atomic
from ingle.core.message import Request
from ingle.engine.answer import write
from ingle.engine.loading import open_model
from ingle.engine.packs import Source, candidate_source, kept_source
from ingle.engine.scoring import score
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.train.examples import Record
from ingle.train.holding import Hold
from ingle.train.making import MakingJob, RunWatch, at_work, provenance
from ingle.train.rerun import Rerun
from ingle.train.settings import TrainWatch
from ingle.train.sketches import Sketcher
from ingle.train.through import Halfway, through_training
from ingle.tuning.settings import TuneSettings
from ingle.tuning.traced import TracedTune, need_answers, traced

By = Literal["through", "alike"]
LEAST_NATS = 0.5
"""A smaller rise is never called a cause; as in explain/cause.py."""
VERSION = 1
_RISES, _HALFWAY = "rises.safetensors", "halfway.safetensors"
_MORE = 8
"""Tokens by which the answer without the examples may be longer."""
Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class TrainingCause:
    """An example of a tune that may have taught an answer."""

    example: int
    """Its number among the tune's examples."""
    asked: str
    """The example's prompt: the last question if it still stands in its file, else all that the model read."""
    answer: str
    where: str
    """File and line, if it still stands there; else empty."""
    steps: tuple[int, ...]
    """Numbers of the steps that read it, from 1."""
    alike: float | None = None
    """Cosine of its gradient with the answer's, −1 to 1: looks alike; not shown to be the cause. None where no sketch was kept."""
    rise: float | None = None
    """About how many nats less likely the answer would be without it, by the gradient through the training; None = not followed."""


@dataclass(frozen=True, slots=True)
class ProvedExamples:
    """Effect on an answer of training again without some examples. All losses are nats of the whole answer, as the model is served."""

    causes: tuple[TrainingCause, ...]
    """The examples that were left out together, the most telling first."""
    by: By
    """How they were chosen."""
    before: float
    """Loss of the answer in the model that was tuned."""
    whole: float
    """Loss in the tuned model."""
    without_top: float
    """Loss in the model trained again without them."""
    without_random: tuple[float, ...]
    """Losses in models trained again without as many random ones."""
    answer_without: str
    """Answer of the model trained without them, greedily."""
    same_programs: bool
    """Whether versions and threads are those of the tune; if not, some of the difference may be theirs."""
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
