"""`tune`: from a kept model and examples to a candidate, with a report of its cost and effect."""

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ingle.core.candidate import Admit, Candidate, weakened
from ingle.core.delta import Delta
from ingle.core.digest import canonical_json, digest_bytes, digest_file, digest_json
from ingle.core.errors import ConfigError, HomeError, PullError
from ingle.core.files import os_errors, write_atomic
from ingle.core.progress import silent
from ingle.core.report import Event, Sink
from ingle.engine.packs import Source, candidate_source, checkpoint_tokenizer, kept_source, open_weights, served_size
from ingle.home.base import CURVES
from ingle.home.deltas import delta_report
from ingle.home.kept import Kept, get_kept
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.measure.suites import find_suite
from ingle.model.checkpoint import Checkpoint
from ingle.model.module import CausalLM, load_module
from ingle.model.tokenizer import Tokenizer
from ingle.train.by_document import Sketcher
from ingle.train.checkpoints import put_back
from ingle.train.corpus import EXAMPLES, KeptExamples, write_kept
from ingle.train.loop import joined, train_for
from ingle.train.loop_settings import TrainReport, TrainSettings
from ingle.train.making import (
    DeltaJob,
    MadeDelta,
    RunWatch,
    TrainError,
    held_out_of,
    make_delta,
    memory_errors,
    provenance,
    smaller_batches,
)
from ingle.train.objectives import Answers, Distillation, Hold, Objective, Predictions, Preference, reference_log_probabilities
from ingle.train.optimisers import DTYPES, choose, device_of
from ingle.train.packing import Data, Order
from ingle.tuning import comparison
from ingle.tuning.comparison import Sample, Standing, judge, sample, samples, stand
from ingle.tuning.data import Learnt, bring, find_sources, hold_of, learn_from, with_virtual_tokens
from ingle.tuning.linears import chosen_layers
from ingle.tuning.need import TuneTokens, tune_need
from ingle.tuning.tune_settings import TuneSettings, course_of, method_settings, plain
from ingle.tuning.tune_settings import told as told_course
from ingle.tuning.tuning_method import Attached, Method, check_touched, find_method

# Origin of a run: kept in HOME/tuning/KEY/run.json while it is unfinished, so that the delta tells of its first sitting.


FILE = "run.json"


def read_origin(folder: Path) -> dict[str, str] | None:
    """Read the origin of the run in this folder, or None. Raises HomeError if the file can't be read."""
    path = folder / FILE
    if not path.exists():
        return None
    with os_errors(path):
        data = path.read_bytes()
    try:
        return {str(key): str(value) for key, value in json.loads(data).items()}
    except (ValueError, AttributeError) as error:
        raise HomeError(str(path), "must describe an unfinished run", error, f"Delete the folder {folder}.") from error


def write_origin(folder: Path, origin: Mapping[str, str]) -> None:
    """Keep the origin. Raises HomeError."""
    with os_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(folder / FILE, json.dumps(dict(origin), indent=1).encode(), mode=0o600)


def files_of(origin: Mapping[str, str]) -> list[Path]:
    """Return the files of a finished delta's origin that stand where its command named them, seen from this folder."""
    names = set(origin.get("data", "").split(", "))
    try:
        named = [Path(word) for word in shlex.split(origin.get("command", ""))]
    except ValueError:
        return []
    return [path for path in dict.fromkeys(named) if path.name in names and path.is_file()]


# One tuning run, and the steps that its parts share: reading the data, measuring the model.


@dataclass(frozen=True, slots=True)
class Begun:
    """The opened model, with the files of the data."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer
    files: Sequence[Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneJob(DeltaJob[TuneSettings]):
    """One tuning run. Its key doesn't cover the data's content; work on other data lies in another folder."""

    sources: Sequence[str]  # absolute paths, and `suite:NAME`
    method: Method

    def begin(self) -> Begun:
        """Open model and data. Raises ConfigError for layers that aren't there, and the errors of opening and fetching."""
        checkpoint = open_weights(self.home, self.kept)
        tokenizer = checkpoint_tokenizer(checkpoint, self.home.base_folder(self.kept.base))
        chosen_layers(checkpoint.config, self.settings.layers)
        files = bring(self.home, self.sources, self.settings.max_examples, self.folder / "data", self.watch.bytes)
        self.check()
        return Begun(checkpoint, tokenizer, files)

    def learnt(self, begun: Begun, virtual: int) -> Learnt:
        """Read the data, with room for so many virtual tokens in context and batch. Raises ConfigError."""
        limit = min(begun.checkpoint.config.context_length, self.settings.train.batch_tokens) - virtual
        self.watch.bytes("reading examples", 0, None)
        return learn_from(begun.files, begun.tokenizer, limit, self.settings)

    def work_folder(self, data_digest: str) -> Path:
        """Folder where `train` works: one for each state of the data, so changed data begin anew."""
        return self.folder / data_digest[:16]

    def standing(self, source: Source, learnt: Learnt) -> Standing | None:
        """Measure a model on the held-out examples and on general text, as it is served."""
        settings, watch = self.settings.judge, self.watch
        documents = sample(learnt.data, settings.held_out)
        return stand(self.home, source, documents, settings, self.stopped, watch.pieces, watch.bytes)


# Keeping of a tune's examples beside its delta, after the last step: nothing in what is learnt depends on it.


def keep_examples(
    job: TuneJob, folder: Path, module: CausalLM, attached: Attached, data: Data, course: TrainSettings, trained: TrainReport
) -> dict[str, Any]:  # fmt: skip
    """Write what is kept of the examples into the work `folder`, while the parameters are as training left them.

    Returns the report's table of it: empty where nothing is kept. Raises HomeError, and Interrupted after Ctrl-C.
    """
    settings, began = job.settings.examples, time.perf_counter()
    if not settings.keep or len(data.corpus) > settings.most:
        return {}
    path = folder / EXAMPLES
    sketches = None
    if settings.sketches and data.corpus.wanted == "answers" and can_be_put_back(attached):

        def done(count: int, of: int) -> None:
            job.watch.pieces("sketching examples", count, of)
            job.check("after the last step")

        sketches = Sketcher(module, attached.parameters).of_corpus(data.corpus, data.train, done)
    steps = read_by_steps(data, course, trained.best_step if course.patience else trained.steps)
    sha256 = write_kept(path, KeptExamples(data.corpus, tuple(data.train), tuple(data.held_out), steps, sketches))
    return {"sha256": sha256, "bytes": path.stat().st_size, "sketches": sketches is not None, "seconds": time.perf_counter() - began}


def can_be_put_back(attached: Attached) -> bool:
    """Whether the delta's tensors tell the trained parameters, so that an answer's gradient can be taken there later on."""
    collected = {name: (tensor.shape, tensor.dtype) for name, tensor in attached.collect().items()}
    return collected == {name: (parameter.shape, torch.float32) for name, parameter in attached.parameters.items()}


def read_by_steps(data: Data, course: TrainSettings, steps: int) -> tuple[tuple[int, ...], ...]:
    """Return the examples that each of the first steps read, all processes together."""
    with joined() as ranks:
        order = Order(data, course.batch_tokens, course.accumulate * ranks.world, 0, 1, course.seed)
    places = [order.place(step) for step in range(steps)]
    return tuple(tuple(example for batch in order.batches(*place) for example in batch) for place in places)


def put_beside(work: Path, folder: Path, table: Mapping[str, Any]) -> None:
    """Copy the file from the work folder to the delta's, if the report names it. Raises HomeError."""
    source = work / EXAMPLES
    if table.get("kept_examples") and source.exists() and digest_file(source) == table["kept_examples"]["sha256"]:
        write_atomic(folder / EXAMPLES, source.read_bytes(), mode=0o600)


# From weights and examples to a candidate: attach, train, check that something changed, collect, and measure it as it would be served.


def make_candidate(job: TuneJob, begun: Begun, learnt: Learnt) -> Candidate:
    """Train the candidate and measure it, before and after, as it would be served. Returns it with its report.

    Raises ConfigError, TrainError, HomeError, Interrupted.
    """
    trained, learnt, before = _trained(job, begun, learnt)
    candidate = trained if job.settings.strength == 1 else weakened(trained, job.settings.strength) or trained
    table = dict(candidate.report or {})
    after = job.standing(candidate_source(job.home, job.kept, candidate), learnt)
    judgement = judge(before, after, job.settings.judge, comparison.trained_change(table))
    examples = _samples(job, begun.tokenizer, learnt, before, after)
    return replace(candidate, report=comparison.with_judgement(table, judgement, examples))


def _samples(job: TuneJob, tokenizer: Tokenizer, learnt: Learnt, before: Standing | None, after: Standing | None) -> list[Sample]:
    """Held-out examples with the model's answers before and after."""
    if before is None or after is None or not before.answers:
        return []
    documents = sample(learnt.data, job.settings.judge.held_out)[: len(before.answers)]
    return samples(tokenizer, documents, before.answers, after.answers, job.settings.judge.sample_tokens)


def _trained(job: TuneJob, begun: Begun, learnt: Learnt) -> tuple[Candidate, Learnt, Standing | None]:
    """Train: return the candidate with the report of its training, the data, and the model's standing before."""
    settings, checkpoint, tokenizer = job.settings, begun.checkpoint, begun.tokenizer
    for note in learnt.notes():
        job.watch.say(note)
    job.watch.bytes("loading weights", 0, None)
    with memory_errors(smaller_batches(settings.train.batch_tokens, settings.train.recompute)):
        module = load_module(checkpoint, device=device_of(settings.device))
        hold = hold_of(job.home, job.kept, tokenizer, module, settings, job.watch, job.stopped)
        objective = _objective(job, module, tokenizer, learnt, hold)
        layers = chosen_layers(checkpoint.config, settings.layers)
        total = sum(parameter.numel() for parameter in module.parameters())
        attached = job.method.attach(module, layers, method_settings(settings), settings.train.seed)
    check_touched(attached)
    if attached.virtual_tokens:
        if settings.objective.kind != "answers":
            raise ConfigError("objective.kind", f"must be answers for {settings.method}", settings.objective.kind)
        learnt, objective = job.learnt(begun, attached.virtual_tokens), Answers(with_virtual_tokens(hold, attached.virtual_tokens, module))
    origin = _origin(job, learnt)
    job.check()
    data = learnt.with_virtual(attached.virtual_tokens, checkpoint.config.vocab_size)
    course = course_of(settings.train, settings.small, data)
    if longer := told_course(settings.train, course, len(learnt.data.train)):
        job.watch.say(longer)
    before = job.standing(kept_source(job.home, job.kept), learnt)
    job.check()
    folder = job.work_folder(learnt.data.corpus.digest)
    start = _digests(attached.parameters)
    trained = train_for(job, module, attached.parameters, data, course, folder, objective)
    kept_examples = keep_examples(job, folder, module, attached, data, course, trained)
    put_back(attached.parameters, folder)
    moved = check_moved(attached, start)
    tensors = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in attached.collect().items()}
    table = _report(job, learnt, course, trained, attached, moved, total) | {"hold": None if hold is None else hold.corpus.digest}
    table["kept_examples"] = kept_examples
    table["curve"] = comparison.curve(folder / CURVES[0])
    return Candidate(job.name, job.method.KIND, job.kept.digest, tensors, origin, table), learnt, before


def check_moved(attached: Attached, start: Mapping[str, str]) -> int:
    """Count the touched parts that have other values than at the start. Raises TrainError if none has."""
    moved = {name for name, digest in _digests(attached.parameters).items() if digest != start[name]}
    parts = sum(any(name == part or name.startswith(f"{part}.") for name in moved) for part in attached.touched)
    if not moved:
        raise TrainError("training", "must change something", "nothing", "Raise the learning rate, or the number of steps.")
    return parts


def _objective(job: TuneJob, module: CausalLM, tokenizer: Tokenizer, learnt: Learnt, hold: Hold | None) -> Objective:
    chosen, settings = job.settings.objective, job.settings.train
    if chosen.kind == "answers":
        return Answers(hold)
    if chosen.kind == "distil":
        teacher, digest = _teacher(job, tokenizer, module.lm_head.weight.device)
        return Distillation(Predictions(teacher), digest, chosen.temperature, chosen.data_share)
    reference = None
    if chosen.kind != "orpo":
        folder = job.work_folder(learnt.data.corpus.digest)
        reference = reference_log_probabilities(module, learnt.data.corpus, settings.batch_tokens, folder)
    return Preference(chosen.kind, reference, chosen.beta, chosen.smoothing)


def _teacher(job: TuneJob, tokenizer: Tokenizer, device: torch.device) -> tuple[CausalLM, str]:
    """Open the teacher, in the numbers of the training; return it with its digest. Raises ConfigError for one with other tokens."""
    kept = get_kept(job.home, job.settings.objective.teacher)
    checkpoint = open_weights(job.home, kept)
    theirs = checkpoint_tokenizer(checkpoint, job.home.base_folder(kept.base))
    if theirs.fast.to_str() != tokenizer.fast.to_str():
        raise ConfigError("objective.teacher", "must split texts into the same tokens", kept.name, "Name a model of the same family.")
    module = load_module(checkpoint, device=str(device)).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(DTYPES[choose(job.settings.train.precision, device)])
    return module, kept.digest


def _origin(job: TuneJob, learnt: Learnt) -> dict[str, str]:
    """Origin of the delta: as it was written down when the run began, if it goes on with the same data."""
    before = read_origin(job.folder)
    digest = learnt.data.corpus.digest
    if before is not None and before.get("data_digest") == digest:
        return before
    settings = job.settings
    origin = {
        "method": settings.method,
        "settings": canonical_json(plain(settings, course_only=True)).decode(),
        "data": ", ".join(Path(source).name if "/" in source else source for source in job.sources),
        "data_digest": digest,
        "seed": str(settings.train.seed),
        **provenance(),
        "command": job.command,
        "run": job.key,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_origin(job.folder, origin)
    return origin


def _digests(parameters: Mapping[str, nn.Parameter]) -> dict[str, str]:
    return {name: digest_bytes(parameter.detach().float().cpu().numpy().tobytes()) for name, parameter in parameters.items()}


def _report(
    job: TuneJob, learnt: Learnt, course: TrainSettings, trained: TrainReport, attached: Attached, moved: int, total: int
) -> dict[str, Any]:  # fmt: skip
    before, after = held_out_of(trained, course.patience)
    notes = learnt.notes()
    if moved < len(attached.touched):
        notes.append(f"{len(attached.touched) - moved} of {len(attached.touched)} parts did not change")
    if job.settings.strength < 1:
        notes.append(f"kept at {job.settings.strength:.0%} of its strength, and measured so as it is served")
    if not job.settings.judge.forgetting:
        notes.append("forgetting was not measured (judge.forgetting = 0)")
    return {
        "version": comparison.VERSION,
        "model": job.model,
        "base": job.kept.digest,
        "method": job.settings.method,
        "kind": job.method.KIND,
        "settings": plain(replace(job.settings, train=course)),
        "seed": job.settings.train.seed,
        "sources": list(job.sources),
        "data_digest": learnt.data.corpus.digest,
        "examples": len(learnt.data.train),
        "held_out_examples": len(learnt.data.held_out),
        "tally": asdict(learnt.tally),
        "train": asdict(trained),
        "held_out": {"before": before, "after": after},
        "modules": {"intended": len(attached.intended), "touched": len(attached.touched), "moved": moved},
        "model_parameters": total,
        "virtual_tokens": attached.virtual_tokens,
        "notes": notes,
        "served": [],
        "learned": None,
        "samples": [],
    }


# `tune`: from a kept model and data to a candidate with a report of its cost and effect; a delta in the home, if it is admitted.
# Mistakes in name, method, data and layers are found before weights are loaded. Stopped at any moment, the same call goes on where it was:
# training from its last checkpoint, measuring from its last item.


VERSION = 2  # changes when the same settings train something else than before


def tune(
    home: Home, kept: Kept, data: Sequence[str], name: str, settings: TuneSettings, admit: Admit,
    watch: RunWatch = RunWatch(), command: str = "", sink: Sink = silent,  # noqa: B008 - frozen
) -> MadeDelta:  # fmt: skip
    """Train a delta called `name` on a kept model, and keep it if `admit` takes it.

    `data`: paths of files or folders, or `suite:NAME`. `command`: how it was asked for, for the delta's origin. `sink` takes the facts:
    `tune` as soon as the delta is kept, and `tune.judge` with its measurements; both again if the call goes on after that.

    Raises ConfigError for arguments that can't be used (name, method, options, layers, data, teacher), NotKept for a teacher that isn't
    here, the errors of opening the models, TrainError, HomeError, Refused if `admit` refuses it, and Interrupted after Ctrl-C or SIGTERM.
    After an error the same call goes on where it was: nothing is trained twice, so another `admit` may take the candidate. After success
    the same call changes nothing.
    """
    check_name(name)
    method, sources = find_method(settings.method), find_sources(data)
    if settings.strength < 1 and method.KIND != "lora":
        raise ConfigError(
            "strength", "must be 1 for this method", f"{settings.strength} for {settings.method}", "LoRA and its kin may be weaker."
        )
    teacher = [get_kept(home, settings.objective.teacher).digest] if settings.objective.teacher else []
    key = digest_json([VERSION, kept.digest, name, plain(settings, course_only=True), sources, *teacher])
    job = TuneJob(
        maker="tune", home=home, name=name, settings=settings, key=key, folder=home.tuning / key[:32], watch=watch, command=command,
        kept=kept, sources=sources, method=method,
    )  # fmt: skip
    return make_delta(job, _make, _events, admit, sink, still=_still, finish=_finish)


def _make(job: TuneJob) -> Candidate:
    begun = job.begin()
    learnt = job.learnt(begun, 0)  # before anything is fetched: a bad line should be reported at once
    predicted = _need_room(job, learnt)
    _need_general(job)
    candidate = make_candidate(job, begun, learnt)
    return replace(candidate, report={**(candidate.report or {}), "predicted": predicted})


def _need_room(job: TuneJob, learnt: Learnt) -> dict[str, Any] | None:
    """Say what the tune will take. Raises NoRoom where it would take this machine's memory, and there isn't enough."""
    settings, sizes = job.settings, learnt.data.corpus.sizes
    if device_of(settings.device) != "cpu":
        return None
    teacher = settings.objective.teacher
    tokens = TuneTokens(course_of(settings.train, settings.small, learnt.data), int(sizes[list(learnt.data.train)].sum()))
    other = served_size(job.home, get_kept(job.home, teacher)) if teacher else None
    need = tune_need(served_size(job.home, job.kept), settings, tokens, other)
    return job.foretell(need, smaller_batches(tokens.course.batch_tokens, tokens.course.recompute))


def _still(job: TuneJob, delta: Delta) -> bool:
    """Whether the data are unchanged, and the strength is."""
    if float(delta.origin.get("strength", 1)) != job.settings.strength:
        return False
    table = delta_report(job.home, delta.digest) or {}
    learnt = job.learnt(job.begin(), table.get("virtual_tokens", 0))
    return learnt.data.corpus.digest == delta.origin["data_digest"]


def _finish(job: TuneJob, delta: Delta, table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Put the loss of every step and its plot beside the delta, whose report stays as it was let in. Raises HomeError."""
    work, folder = job.work_folder(delta.origin["data_digest"]), job.home.delta_folder(delta.digest)
    for name in CURVES:
        if (work / name).exists():
            write_atomic(folder / name, (work / name).read_bytes(), mode=0o600)
    put_beside(work, folder, table)
    return table


def _events(table: Mapping[str, Any], _delta: Delta) -> Iterator[Event]:
    yield comparison.trained_event(table)
    if event := comparison.judged_event(table):
        yield event


def _need_general(job: TuneJob) -> None:
    """Make sure that the general text is here: nobody should hear after an hour that it can't be had."""
    if not job.settings.judge.forgetting:
        return
    try:
        find_suite(job.settings.judge.general).read(job.home, job.watch.bytes)
    except PullError as error:
        cure = f"{error.cure} Or don't measure forgetting: --forgetting 0 (judge.forgetting)."
        raise PullError(error.field, error.rule, error.got, cure.strip()) from error
