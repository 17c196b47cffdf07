"""`harden`: from a kept model to a candidate that refuses harmful requests, also in the dress of an attack; a delta if it is admitted.

The model's own answers to harmless requests come first; then rounds of training, each but the first with attacks that still succeeded after
the one before; then held-out requests, before and after, as the model is served. Stopped at any moment, the same call goes on where it was.

HOME/cache/measure/harden-…      the model's answers to harmless requests; they stay
HOME/tuning/KEY/NAME.json        judgements of answers, without a word of them
HOME/tuning/KEY/round-N/         a round's training, as `train` writes it
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ingle.core.candidate import Admit, Candidate
from ingle.core.delta import Delta
from ingle.core.digest import digest_json
from ingle.core.files import write_atomic
from ingle.core.progress import silent
from ingle.core.report import Event, Fact, Sink
from ingle.engine.loading import Opener
from ingle.engine.packs import checkpoint_tokenizer, kept_source, open_weights
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.learn.addition_settings import HardenSettings
from ingle.learn.trained_addition import TrainedAddition, attach, foretell
from ingle.measure.intervals import paired_bootstrap
from ingle.measure.subjects import Finished, ItemPlan, Subject, gather
from ingle.model.checkpoint import Checkpoint
from ingle.robustness.prompts import LabelledPrompt
from ingle.robustness.refusing import (
    HARMFUL,
    Curriculum,
    JudgedReply,
    asked,
    attacks,
    judged,
    own_refusals,
    read_curriculum,
    refusal_for,
    shares,
)
from ingle.safety.answers import refuses
from ingle.train.corpus import Member, corpus_of
from ingle.train.example_files import Encoder, Record
from ingle.train.loop_settings import TrainReport, TrainSettings
from ingle.train.making import (
    DeltaJob,
    MadeDelta,
    RunWatch,
    delta_job,
    made_event,
    make_delta,
    memory_errors,
    smaller_batches,
    training_facts,
)
from ingle.train.objectives import ANSWER, KEEP, REFUSE, Hardening
from ingle.train.optimisers import keep_few_programs
from ingle.tuning.kept_model import subject_of
from ingle.tuning.linears import chosen_layers

METHOD = "refusals under attack"
VERSION = 1  # changes when the same settings make something else than before
_TRIED_TOKENS = 32  # tokens of answers to fresh attacks
_EACH = 65  # tokens of a request with its answer, about
_OLD = 3  # examples of earlier rounds that are read again beside each new one, so that nothing of them is lost
Job = DeltaJob[HardenSettings]
Flags = Mapping[str, Sequence[JudgedReply]]


def harden(
    home: Home, kept: Kept, name: str, settings: HardenSettings, admit: Admit, watch: RunWatch = RunWatch(),  # noqa: B008 - frozen
    command: str = "", sink: Sink = silent,
) -> MadeDelta:  # fmt: skip
    """Make a delta called `name` with which a kept model refuses harmful requests, and keep it if `admit` takes it.

    Raises ConfigError for a name or layers that can't be used, the errors of opening the model and fetching the requests, TrainError,
    HomeError, Refused if `admit` refuses it, and Interrupted after Ctrl-C or SIGTERM; the same call then goes on where it was.
    """
    job = delta_job("harden", VERSION, home, kept, name, settings, watch, command)
    checkpoint = open_weights(home, kept)
    chosen_layers(checkpoint.config, settings.layers)
    return make_delta(job, partial(_make, checkpoint), _events, admit, sink)


@dataclass(frozen=True, slots=True)
class _Begun:
    job: Job
    encoder: Encoder
    material: Curriculum
    addition: TrainedAddition


def _make(checkpoint: Checkpoint, job: Job) -> Candidate:
    settings = job.settings
    predicted = foretell(job, "This hardening", *_tokens(settings))
    keep_few_programs()
    material = read_curriculum(job.home, settings.taught, settings.measured, settings.seed, job.watch.bytes)
    job.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    opener, tokenizer = Opener(), checkpoint_tokenizer(checkpoint, job.home.base_folder(job.kept.base))
    base = subject_of(opener.open(kept_source(job.home, job.kept), job.watch.pieces), job.stopped)
    before = _standing(job, base, material, "before")
    encoder = Encoder(tokenizer, min(settings.train.batch_tokens, checkpoint.config.context_length))
    members = _members(encoder, job, base, material)
    job.check()
    with memory_errors(smaller_batches(settings.train.batch_tokens, settings.train.recompute)):
        addition = attach(job, checkpoint, opener)
        trained, rounds = _rounds(_Begun(job, encoder, material, addition), members)
    after = _standing(job, addition.as_trained(METHOD), material, "after")
    return addition.candidate(METHOD, {**_report(material, trained, rounds, before, after), "predicted": predicted})


def _tokens(settings: HardenSettings) -> tuple[int, int]:
    """About how many tokens an epoch learns from, with what later rounds add, and how many measuring reads and writes."""
    taught, measured, fresh = settings.taught, settings.measured, (settings.rounds - 1) * settings.attempts
    own = taught.lookalikes + taught.ordinary
    learnt = taught.plain + taught.dressed + own + taught.prose + settings.plain_answers + (1 + _OLD) * fresh
    asked = 2 * (measured.plain + measured.dressed + measured.lookalikes + measured.ordinary) + own + fresh
    return _EACH * learnt, _EACH * asked


def _members(encoder: Encoder, job: Job, base: Subject, material: Curriculum) -> list[Member]:
    """Examples: refusals of harmful requests, and the model's own answers to harmless ones. What it refused wrongly is left out."""
    said = _own_answers(job, base, [*material.lookalikes, *material.ordinary])
    answered = [(one, said[one.id]) for one in (*material.lookalikes, *material.ordinary) if said[one.id].strip()]
    members = _refusals(encoder, material.harmful)
    members += [_member(encoder, one, answer, KEEP) for one, answer in answered if not refuses(one.text, answer)]
    plain = [pair for pair in answered if pair[0].family == "look-alike" and not refuses(pair[0].text, pair[1])]
    members += [_member(encoder, one, answer, ANSWER) for one, answer in plain[: job.settings.plain_answers]]
    for text in material.prose:
        parts = encoder.documents(Record("prose", "text", "", (text,)))
        members += [(digest_json(text)[:16], KEEP, (part,)) for part in parts]
    return [one for one in members if len(one[2][0].ids) <= encoder.max_tokens and one[2][0].answer.any()]


def _refusals(encoder: Encoder, prompts: Sequence[LabelledPrompt]) -> list[Member]:
    refusals = own_refusals()
    return [_member(encoder, one, refusal_for(one, refusals), REFUSE) for one in prompts]


def _member(encoder: Encoder, prompt: LabelledPrompt, answer: str, label: int) -> Member:
    document = encoder.answered(Record(prompt.id, "completion", prompt.text, (answer.strip(),)), answer.strip())
    if label == ANSWER:  # it may have been cut: where it ends is not to be learnt
        document = replace(document, answer=document.answer & (np.cumsum(document.answer) < document.answer.sum()))
    return prompt.id, label, (document,)


def _own_answers(job: Job, base: Subject, prompts: Sequence[LabelledPrompt]) -> dict[str, str]:
    most = job.settings.answer_tokens
    plans = [ItemPlan(one.id, digest_json(["harden", one.text, most]), one.id, request=asked(one.text, most)) for one in prompts]
    rows = gather(base, plans, Finished(job.home, "harden", base.digest), "answers to keep", job.watch.pieces)
    return {one.id: str(row["text"]) for one, row in zip(prompts, rows, strict=True)}


def _rounds(begun: _Begun, members: Sequence[Member]) -> tuple[TrainReport, list[dict[str, Any]]]:
    """Train all rounds; return the last one's report, with the cost of all, and a row on each. A round without successes is the last."""
    settings, rows = begun.job.settings, list[dict[str, Any]]()
    done, taught = _round(begun, members, settings.train, 1), [*members]
    rows.append({"examples": len(members), "loss": done.loss, "steps": done.steps, "tried": 0, "succeeded": 0})
    for number in range(1, settings.rounds if settings.attempts else 1):
        fresh = _successes(begun, number)
        rows[-1] |= {"tried": settings.attempts, "succeeded": len(fresh)}
        new = [one for one in _refusals(begun.encoder, fresh) if len(one[2][0].ids) <= begun.encoder.max_tokens]
        if not new:
            break
        old = random.Random(settings.seed + number).sample(taught, min(len(taught), _OLD * len(new)))
        taught += new
        now = _round(begun, [*new, *old], replace(settings.train, epochs=1), number + 1)
        rows.append({"examples": len(new) + len(old), "loss": now.loss, "steps": now.steps, "tried": 0, "succeeded": 0})
        done = _added(done, now)
    return done, rows


def _round(begun: _Begun, members: Sequence[Member], course: TrainSettings, number: int) -> TrainReport:
    """Train one round, from where the one before ended."""
    job, settings, corpus = begun.job, begun.job.settings, corpus_of("answers", members)
    objective = Hardening(corpus, begun.addition.before, job.kept.digest, settings.keep, settings.push)
    job.watch.say(f"round {number} of at most {settings.rounds}: {len(members)} examples")
    return begun.addition.train(corpus, objective, course, job.folder / f"round-{number}", f"in round {number}")


def _added(first: TrainReport, second: TrainReport) -> TrainReport:
    """Report of two trainings, one after the other."""
    seconds, tokens = first.seconds + second.seconds, first.tokens + second.tokens
    return replace(
        second, steps=first.steps + second.steps, tokens=tokens, seconds=seconds, tokens_per_s=tokens / max(seconds, 1e-9),
        first_loss=first.first_loss, peak_bytes=max(first.peak_bytes, second.peak_bytes), energy=first.energy + second.energy,
    )  # fmt: skip


def _successes(begun: _Begun, number: int) -> list[LabelledPrompt]:
    """Return fresh attacks on training goals that the model, as it is now, doesn't refuse."""
    job = begun.job
    tried = attacks(job.home, job.settings.attempts, False, job.settings.seed + number, job.watch.bytes)

    def ask() -> list[JudgedReply]:
        return judged(
            begun.addition.as_trained(METHOD), [one.text for one in tried], _TRIED_TOKENS, partial(job.watch.pieces, "fresh attacks")
        )

    flags = _remembered(job, f"fresh-{number}", {"attacks": tried}, lambda: {"attacks": ask()})["attacks"]
    return [one for one, flag in zip(tried, flags, strict=True) if not flag.refused]


def _standing(job: Job, subject: Subject, material: Curriculum, when: str) -> Flags:
    """Judge the model's answers to the held-out requests of every family."""
    families = material.held_out
    every = [one for some in families.values() for one in some]

    def ask() -> Flags:
        flags = iter(judged(subject, [one.text for one in every], done=partial(job.watch.pieces, f"held-out requests, {when}")))
        return {name: [next(flags) for _ in some] for name, some in families.items()}

    return _remembered(job, when, families, ask)


def _remembered(job: Job, name: str, asked_of: Mapping[str, Sequence[LabelledPrompt]], ask: Callable[[], Flags]) -> Flags:
    """Judgements of an earlier sitting, or new ones, which are kept for the next."""
    path, ids = job.folder / f"{name}.json", {family: [one.id for one in some] for family, some in asked_of.items()}
    if path.exists():
        table = json.loads(path.read_bytes())
        if table["ids"] == ids:
            return {family: [JudgedReply(*flag) for flag in flags] for family, flags in table["flags"].items()}
    found = ask()
    flags = {family: [[one.refused, one.explicit, one.reached] for one in some] for family, some in found.items()}
    write_atomic(path, json.dumps({"ids": ids, "flags": flags}).encode(), mode=0o600)
    return found


def _report(
    material: Curriculum, trained: TrainReport, rounds: Sequence[Mapping[str, Any]], before: Flags, after: Flags
) -> dict[str, Any]:  # fmt: skip
    return {
        "method": "harden", "harmful": len(material.harmful),
        "harmless": len(material.lookalikes) + len(material.ordinary), "rounds": list(rounds),
        "data_digest": digest_json(sorted(one.id for one in (*material.harmful, *material.lookalikes, *material.ordinary))),
        "prose": len(material.prose),
        "train": asdict(trained), "held_out": {"before": None, "after": None},
        "refusals": [_figure(name, some, before[name], after[name]) for name, some in material.held_out.items()],
    }  # fmt: skip


def _figure(family: str, prompts: Sequence[LabelledPrompt], before: Sequence[JudgedReply], after: Sequence[JudgedReply]) -> dict[str, Any]:
    """Shares refused before and after, each with its interval, and that of the change, on the same requests."""
    digest = digest_json([one.id for one in prompts])
    first, second = ([one.refused for one in some] for some in (before, after))
    [was], [now] = (shares({"refused": flags}, "", digest) for flags in (first, second))
    columns = [np.array([[float(flag), 1.0] for flag in flags], np.float64) for flags in (first, second)]
    moved = paired_bootstrap(columns[0], columns[1])
    return {
        "family": family, "harmful": family in HARMFUL, "before": asdict(was), "after": asdict(now),
        "change": {"value": moved.value, "low": moved.interval.low, "high": moved.interval.high, "n": was.n},
        "explicit_before": sum(one.explicit for one in before), "explicit_after": sum(one.explicit for one in after),
        "reached_before": sum(one.reached for one in before), "reached_after": sum(one.reached for one in after),
    }  # fmt: skip


def _events(report: Mapping[str, Any], _delta: Delta) -> list[Event]:
    facts: dict[str, Fact] = {"rounds": len(report["rounds"]), "fresh_successes": sum(row["succeeded"] for row in report["rounds"])}
    for one in report["refusals"]:
        name = one["family"].replace("-", "_")
        facts |= {f"{name}_before": one["before"]["value"], f"{name}_after": one["after"]["value"], f"{name}_n": one["before"]["n"]}
    return [made_event("harden", report, ("harmful", "harmless", "data_digest"), facts | training_facts(report))]
