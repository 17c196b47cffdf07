"""`hybridize`: from a kept transformer to a candidate of the kind `layers`; a delta if it is admitted.

Stopped at any moment, the same call goes on where it was.

HOME/cache/measure/talks-…       the model's answers for lessons; they stay
HOME/cache/groups/KEY.json       groups that keep full attention, after each step of a search; they stay, for they don't depend on lessons
HOME/tuning/KEY/precision        number format of the search for groups
HOME/tuning/KEY/mixers-DATA/     the memories' first lesson on these documents, as `train` writes it
HOME/tuning/KEY/logits-DATA/     their second
HOME/tuning/KEY/longer-DATA/     their last
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ingle.core.candidate import Admit, Candidate
from ingle.core.config import to_table
from ingle.core.delta import Delta
from ingle.core.digest import digest_json
from ingle.core.energy import reported, total
from ingle.core.event import Event, Sink
from ingle.core.files import write_atomic
from ingle.core.room import room_for
from ingle.core.spec import LayerSpec
from ingle.engine.hybrid import KIND, spec_tensors
from ingle.engine.need import served_size
from ingle.engine.source import checkpoint_tokenizer, open_weights
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.hybridize.budget import all_groups, check_lengths, layers_of, retrieval_count, share_of
from ingle.hybridize.dialogues import answers_of
from ingle.hybridize.lessons import Sources, make_lessons, read_texts, set_aside
from ingle.hybridize.need import CURE, hybrid_need
from ingle.hybridize.search import VERSION as SEARCH
from ingle.hybridize.search import FoundGroups, find_groups
from ingle.hybridize.settings import HybridSettings, Lesson
from ingle.hybridize.teaching import Mixers, hybrid_module, memories_of, original_of
from ingle.model.module import CausalLM, load_module
from ingle.model.tokenizer import Tokenizer
from ingle.train.checkpoints import put_back
from ingle.train.loop import train
from ingle.train.making import DeltaJob, MadeDelta, RunWatch, Steps, delta_job, make_delta, nobody
from ingle.train.objectives import Distillation, Objective, Predictions
from ingle.train.packing import Data
from ingle.train.precision import DTYPES, choose, keep_few_programs
from ingle.train.report import taught_nothing
from ingle.train.settings import TrainSettings, TrainWatch
from ingle.train.trouble import memory_errors

VERSION = 13
"""Changes when the same settings make something else than before."""


def hybridize(
    home: Home, kept: Kept, name: str, settings: HybridSettings, admit: Admit, watch: RunWatch = RunWatch(),  # noqa: B008 - frozen
    command: str = "", sink: Sink = nobody,
) -> MadeDelta:  # fmt: skip
    """Make a delta called `name` that turns a kept transformer into a hybrid, and keep it if `admit` takes it.

    Raises ConfigError for a name, model, budget or window that can't be used, the errors of opening the model and fetching the texts,
    TrainError, HomeError, Refused if `admit` refuses it, and Interrupted after Ctrl-C or SIGTERM; the same call then goes on where it was.
    """
    job = delta_job("hybridize", VERSION, home, kept, name, settings, watch, command)
    checkpoint = open_weights(home, kept)
    count = retrieval_count(checkpoint.config, settings)
    check_lengths(checkpoint.config, settings)

    def make(job: DeltaJob[HybridSettings]) -> Candidate:
        room = room_for(hybrid_need(served_size(home, kept), settings))
        watch.room(room)
        room.check(CURE)
        tokenizer = checkpoint_tokenizer(checkpoint, home.base_folder(kept.base))
        texts = read_texts(home, settings.lessons.suites, watch.bytes)
        keep_few_programs()
        watch.pieces("loading weights", 0, 1)
        with memory_errors(f"Lower search.tokens (now {settings.search.tokens}), or close other programs."):
            candidate = _make(job, load_module(checkpoint, DTYPES[_precision(job)]), tokenizer, texts, count)
        return replace(candidate, report={**(candidate.report or {}), "predicted": room.table()})

    return make_delta(job, Steps(make, _events), admit, sink)


def _make(job: DeltaJob[HybridSettings], original: CausalLM, tokenizer: Tokenizer, texts: Sources, count: int) -> Candidate:
    settings, config = job.settings, original.config
    result = _groups(job, original, tokenizer, texts, count)
    layers = layers_of(config, result.kept, settings)
    tokens = min(settings.context, config.context_length)
    report: dict[str, Any] = {
        "version": VERSION, "model": job.model, "base": job.kept.digest, "kind": KIND, "method": settings.method,
        "settings": to_table(settings), "retrieval": count, "groups": len(config.layers) * config.num_kv_heads, "lessons": {},
        "state_tokens": tokens, "state_share": share_of(config, layers, tokens),
    } | _effects_table(result)  # fmt: skip
    tensors = spec_tensors(layers, config.num_kv_heads)
    if any(spec.remembering(config.num_kv_heads) for spec in layers):
        hybrid = _taught(job, original, layers, tokenizer, texts, report)
        tensors |= {name: parameter.detach().float().cpu().numpy() for name, parameter in memories_of(hybrid).items()}
    return Candidate(job.name, KIND, job.kept.digest, tensors, job.origin(settings.method), report)


def _groups(job: DeltaJob[HybridSettings], original: CausalLM, tokenizer: Tokenizer, texts: Sources, count: int) -> FoundGroups:
    """Find the groups that keep full attention, and the effect of each: now, or from an equal search before."""
    chosen, config = job.settings.search, original.config
    precision = original.lm_head.weight.dtype

    def tell(done: int, total: int) -> None:
        job.check("while groups were sought")
        job.watch.pieces("finding retrieval groups", done, total)

    corpus = make_lessons(tokenizer, [(texts, chosen.documents)], min(chosen.tokens, config.context_length), chosen.seed, ("facts",))
    # Kept under all that the result follows from, not in the job's own folder: lessons don't change it.
    inputs = [SEARCH, job.kept.digest, corpus.digest, count, job.settings.window, job.settings.sinks, to_table(chosen), str(precision)]
    path = job.home.root / "cache" / "groups" / f"{digest_json(inputs)[:32]}.json"
    result = begun = _read(path) or FoundGroups(0, tuple(all_groups(config)), {})
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for result in find_groups(original, corpus, count, job.settings, begun, tell):
        progress = {"rounds": result.rounds, "loss": result.loss, "tried": result.tried}
        write_atomic(path, json.dumps(progress | _effects_table(result)).encode(), mode=0o600)
    return result


def _precision(job: DeltaJob[HybridSettings]) -> str:
    """Number format of the search and the frozen weights: as an earlier sitting chose, for timed again it might be the other."""
    path = job.folder / "precision"
    if not path.exists():
        job.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, choose(job.settings.mixers.precision, torch.device("cpu")).encode(), mode=0o600)
    return path.read_text("ascii")


def _effects_table(result: FoundGroups) -> dict[str, Any]:
    """Kept groups and effects as plain values, for a report and a file."""
    return {"kept": result.kept, "effects": [[layer, group, effect] for (layer, group), effect in sorted(result.effects.items())]}


def _read(path: Path) -> FoundGroups | None:
    """Read an earlier search's result; None if there is none, or it can't be read."""
    try:
        table = json.loads(path.read_bytes())
        kept, *tried = (tuple((layer, group) for layer, group in places) for places in (table["kept"], *table["tried"]))
        effects = {(layer, group): effect for layer, group, effect in table["effects"]}
        return FoundGroups(table["rounds"], kept, effects, table["loss"], tuple(tried))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _taught(
    job: DeltaJob[HybridSettings],
    original: CausalLM,
    layers: tuple[LayerSpec, ...],
    tokenizer: Tokenizer,
    texts: Sources,
    report: dict[str, Any],
) -> CausalLM:  # fmt: skip
    """Return the hybrid after its lessons; their results go into the report."""
    hybrid = hybrid_module(original, layers)
    lessons = _lessons(job, original_of(hybrid), tokenizer, texts)
    for number, lesson in enumerate(lessons, 1):
        job.check(f"before the lesson {lesson.name}")
        job.watch.say(f"lesson {number} of {len(lessons)}, {lesson.name}: {lesson.taught}")
        watch = TrainWatch(job.watch.train, job.watch.say)
        folder = job.folder / f"{lesson.name}-{lesson.data.corpus.digest[:16]}"  # another where the texts have become others
        done = train(hybrid, memories_of(hybrid), lesson.data, lesson.settings, folder, watch, lesson.objective)
        if done.stopped == "interrupted":
            raise job.interrupted(f"lesson {lesson.name}, step {done.steps}")
        put_back(memories_of(hybrid), folder)
        if lesson.settings.patience:  # the best parameters are those that were kept
            done = replace(done, held_out=done.best_held_out)
        if nothing := taught_nothing(done, 0, f"lesson {lesson.name}"):
            job.watch.say(nothing)
        report["lessons"][lesson.name] = asdict(done)
    return hybrid


@dataclass(frozen=True, slots=True)
class _Lesson:
    name: str
    """Name of its folder, in the report and in the ledger."""
    taught: str
    """One line on what memories learn."""
    settings: TrainSettings
    objective: Objective
    data: Data


def _lessons(job: DeltaJob[HybridSettings], theirs: CausalLM, tokenizer: Tokenizer, texts: Sources) -> list[_Lesson]:
    """Prepare all lessons, with their documents; the model's own answers for them are asked for here."""
    options, ask = job.settings.lessons, answers_of(job.home, job.kept, job.watch.bytes)
    learnt, aside = set_aside(texts)

    def tell(done: int, of: int) -> None:
        job.check("while lessons were prepared")
        job.watch.pieces("preparing lessons", done, of)

    def data_of(tokens: int, documents: int, kinds: Sequence[Lesson], seed: int) -> Data:
        tell(0, options.held_out + documents)
        within = min(tokens, theirs.config.context_length)
        corpus = make_lessons(tokenizer, [(aside, options.held_out), (learnt, documents)], within, seed, kinds, ask, tell)
        return Data(corpus, range(options.held_out, len(corpus)), range(options.held_out))

    distillation = Distillation(Predictions(theirs), job.kept.digest)
    longer = replace(distillation, data_share=options.data_share)
    data = data_of(options.tokens, options.documents, options.kinds, options.seed)
    lessons = [
        _Lesson("mixers", "each layer's memory gives what full attention gave", job.settings.mixers, Mixers(theirs), data),
        _Lesson("logits", "all together give the original's predictions", job.settings.logits, distillation, data),
    ]
    if options.long_documents:
        data = data_of(options.long_tokens, options.long_documents, options.long_kinds, options.seed + _APART)
        lessons.append(_Lesson("longer", "the same on longer documents, and what they say", job.settings.longer, longer, data))
    return lessons


def _events(report: Mapping[str, Any], delta: Delta) -> list[Event]:
    lessons = {f"{name}_{side}": result[key] for name, result in report["lessons"].items() for side, key in _SIDES.items()}
    facts = {"delta": delta.digest, "base": report["base"], "method": report["method"], "retrieval": report["retrieval"]}
    facts |= {"groups": report["groups"], "state_share": report["state_share"], "state_tokens": report["state_tokens"]}
    metered = [energy for result in report["lessons"].values() if (energy := reported(result))]
    if metered:
        facts |= total(metered).facts()
    return [Event("hybridize", report["model"], facts | {key: value for key, value in lessons.items() if value is not None})]


_APART = 1_000_000
"""Distance between the seeds of short and long documents, so that no seed's long ones are in the order of another's short ones."""
_SIDES = {"before": "first_held_out", "after": "held_out"}
