"""From weights and examples to a candidate: attach, train, check that something changed, collect, and measure it as it would be served."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ingle.core.candidate import Candidate, weakened
from ingle.core.digest import canonical_json, digest_bytes
from ingle.core.errors import ConfigError
from ingle.engine.packs import candidate_source, checkpoint_tokenizer, kept_source, open_weights
from ingle.home.base import CURVES
from ingle.home.kept import get_kept
from ingle.model.module import CausalLM, load_module
from ingle.model.tokenizer import Tokenizer
from ingle.train.checkpoints import put_back
from ingle.train.holding import Hold
from ingle.train.loop import train
from ingle.train.making import provenance
from ingle.train.objectives import Answers, Distillation, Objective, Predictions, Preference, reference_log_probabilities
from ingle.train.precision import DTYPES, choose, device_of
from ingle.train.report import held_out_of
from ingle.train.settings import TrainReport, TrainSettings, TrainWatch
from ingle.train.trouble import TrainError, memory_errors, smaller_batches
from ingle.tuning import report
from ingle.tuning.course import course_of
from ingle.tuning.course import told as told_course
from ingle.tuning.data import Learnt
from ingle.tuning.holding import hold_of, with_virtual_tokens
from ingle.tuning.job import Begun, TuneJob
from ingle.tuning.judge import Standing, judge, sample
from ingle.tuning.keeping import keep_examples
from ingle.tuning.linears import chosen_layers
from ingle.tuning.method import Attached, check_touched
from ingle.tuning.origin import read_origin, write_origin
from ingle.tuning.samples import Sample, samples
from ingle.tuning.settings import method_settings, plain


def make_candidate(job: TuneJob, begun: Begun, learnt: Learnt) -> Candidate:
    """Train the candidate and measure it, before and after, as it would be served. Returns it with its report.

    Raises ConfigError, TrainError, HomeError, Interrupted.
    """
    trained, learnt, before = _trained(job, begun, learnt)
    candidate = trained if job.settings.strength == 1 else weakened(trained, job.settings.strength) or trained
    table = dict(candidate.report or {})
    after = job.standing(candidate_source(job.home, job.kept, candidate), learnt)
    judgement = judge(before, after, job.settings.judge, report.trained_change(table))
    examples = _samples(job, begun.tokenizer, learnt, before, after)
    return replace(candidate, report=report.with_judgement(table, judgement, examples))


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
    trained = train(module, attached.parameters, data, course, folder, TrainWatch(job.watch.train, job.watch.say), objective)
    if trained.stopped == "interrupted":
        raise job.interrupted(f"after step {trained.steps}")
    kept_examples = keep_examples(job, folder, module, attached, data, course, trained)
    put_back(attached.parameters, folder)
    moved = check_moved(attached, start)
    tensors = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in attached.collect().items()}
    table = _report(job, learnt, course, trained, attached, moved, total) | {"hold": None if hold is None else hold.corpus.digest}
    table["kept_examples"] = kept_examples
    table["curve"] = report.curve(folder / CURVES[0])
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
        "version": report.VERSION,
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
