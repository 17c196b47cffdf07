"""`hybridize`: a kept transformer in, a candidate of the kind `layers` out, a delta if it is admitted.

Stopped at any moment, the same call goes on where it was.

HOME/cache/measure/talks-…       what the model answered for lessons; stays too
HOME/cache/groups/KEY.json       which groups keep full attention, after each step of a search; stays, for other lessons need no other
HOME/tuning/KEY/precision        in which groups are sought
HOME/tuning/KEY/mixers-DATA/     the memories' first lesson, as `train` writes it, for these documents
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
from ingle.core.spec import LayerSpec
from ingle.engine.hybrid import KIND, spec_tensors
from ingle.engine.source import checkpoint_tokenizer, open_weights
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.hybridize.budget import all_groups, check_lengths, layers_of, retrieval_count, share_of
from ingle.hybridize.dialogues import answers_of
from ingle.hybridize.lessons import Sources, make_lessons, read_texts, set_aside
from ingle.hybridize.search import VERSION as SEARCH
from ingle.hybridize.search import Found, find_groups
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
from ingle.train.settings import TrainSettings, Watch
from ingle.train.trouble import memory_errors

VERSION = 13
"""Changes when the same settings make something else than before."""


def hybridize(
    home: Home, kept: Kept, name: str, settings: HybridSettings, admit: Admit, watch: RunWatch = RunWatch(),  # noqa: B008 - frozen
    command: str = "", sink: Sink = nobody,
) -> MadeDelta:  # fmt: skip
    """Makes a delta called `name` that turns a kept transformer into a hybrid, and keeps it if `admit` does.

    Raises ConfigError for a name, model, budget or window that can't be used, what opening the model or fetching the texts raises,
    TrainError, HomeError, Refused if `admit` would not have it, and Interrupted after Ctrl-C or SIGTERM; the same call then goes on where
    it was.
    """
    job = delta_job("hybridize", VERSION, home, kept, name, settings, watch, command)
    checkpoint = open_weights(home, kept)
    count = retrieval_count(checkpoint.config, settings)
    check_lengths(checkpoint.config, settings)

    def make(job: DeltaJob[HybridSettings]) -> Candidate:
        tokenizer = checkpoint_tokenizer(checkpoint, home.base_folder(kept.base))
        texts = read_texts(home, settings.lessons.suites, watch.bytes)
        keep_few_programs()
        watch.pieces("loading weights", 0, 1)
        with memory_errors(f"Lower search.tokens (now {settings.search.tokens}), or close other programs."):
            return _make(job, load_module(checkpoint), tokenizer, texts, count)

    return make_delta(job, Steps(make, _events), admit, sink)


def _make(job: DeltaJob[HybridSettings], original: CausalLM, tokenizer: Tokenizer, texts: Sources, count: int) -> Candidate:
    settings, config = job.settings, original.config
    found = _groups(job, original, tokenizer, texts, count)
    layers = layers_of(config, found.kept, settings)
    tokens = min(settings.context, config.context_length)
    report: dict[str, Any] = {
        "version": VERSION, "model": job.model, "base": job.kept.digest, "kind": KIND, "method": settings.method,
        "settings": to_table(settings), "retrieval": count, "groups": len(config.layers) * config.num_kv_heads, "lessons": {},
        "state_tokens": tokens, "state_share": share_of(config, layers, tokens),
    } | _told(found)  # fmt: skip
    tensors = spec_tensors(layers, config.num_kv_heads)
    if any(spec.remembering(config.num_kv_heads) for spec in layers):
        hybrid = _taught(job, original, layers, tokenizer, texts, report)
        tensors |= {name: parameter.detach().float().cpu().numpy() for name, parameter in memories_of(hybrid).items()}
    return Candidate(job.name, KIND, job.kept.digest, tensors, job.origin(settings.method), report)


def _groups(job: DeltaJob[HybridSettings], original: CausalLM, tokenizer: Tokenizer, texts: Sources, count: int) -> Found:
    """Which groups keep full attention, and what each is worth: found now, or by an earlier search like it."""
    told, config = job.settings.search, original.config
    precision = DTYPES[_precision(job, original)]
    module = original if precision == torch.float32 else _cast(original, precision)

    def tell(done: int, total: int) -> None:
        job.check("while groups were sought")
        job.watch.pieces("finding retrieval groups", done, total)

    corpus = make_lessons(tokenizer, [(texts, told.documents)], min(told.tokens, config.context_length), told.seed, ("facts",))
    # Under all that the result follows from, and not in the job's own folder: with other lessons it is the same.
    asked = [SEARCH, job.kept.digest, corpus.digest, count, job.settings.window, job.settings.sinks, to_table(told), str(precision)]
    path = job.home.root / "cache" / "groups" / f"{digest_json(asked)[:32]}.json"
    found = begun = _read(path) or Found(0, tuple(all_groups(config)), {})
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for found in find_groups(module, corpus, count, job.settings, begun, tell):
        stood = {"rounds": found.rounds, "loss": found.loss, "tried": found.tried}
        write_atomic(path, json.dumps(stood | _told(found)).encode(), mode=0o600)
    return found


def _precision(job: DeltaJob[HybridSettings], original: CausalLM) -> str:
    """In which groups are sought: as an earlier sitting chose, for timed again it might be the other."""
    path = job.folder / "precision"
    if not path.exists():
        job.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, choose(job.settings.mixers.precision, original.lm_head.weight.device).encode(), mode=0o600)
    return path.read_text("ascii")


def _told(found: Found) -> dict[str, Any]:
    """As a report and a file say it."""
    return {"kept": found.kept, "effects": [[layer, group, effect] for (layer, group), effect in sorted(found.effects.items())]}


def _read(path: Path) -> Found | None:
    """What an earlier search had found; None = nothing, or nothing that can be read."""
    try:
        known = json.loads(path.read_bytes())
        kept, *tried = (tuple((layer, group) for layer, group in places) for places in (known["kept"], *known["tried"]))
        effects = {(layer, group): effect for layer, group, effect in known["effects"]}
        return Found(known["rounds"], kept, effects, known["loss"], tuple(tried))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _cast(module: CausalLM, precision: torch.dtype) -> CausalLM:
    """The module in the type in which it will be taught anyway."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(precision)
    return module


def _taught(
    job: DeltaJob[HybridSettings],
    original: CausalLM,
    layers: tuple[LayerSpec, ...],
    tokenizer: Tokenizer,
    texts: Sources,
    report: dict[str, Any],
) -> CausalLM:  # fmt: skip
    """The hybrid after its lessons; what they came to goes into the report."""
    hybrid = hybrid_module(original, layers)
    lessons = _lessons(job, original_of(hybrid), tokenizer, texts)
    for number, lesson in enumerate(lessons, 1):
        job.check(f"before the lesson {lesson.name}")
        job.watch.say(f"lesson {number} of {len(lessons)}, {lesson.name}: {lesson.taught}")
        watch = Watch(job.watch.train, job.watch.say)
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
    """Its folder's, and what a report and the ledger call it."""
    taught: str
    """What memories learn, in a line."""
    settings: TrainSettings
    objective: Objective
    data: Data


def _lessons(job: DeltaJob[HybridSettings], theirs: CausalLM, tokenizer: Tokenizer, texts: Sources) -> list[_Lesson]:
    """All of them, with what they are about; what the model itself says in them is asked for here."""
    told, ask = job.settings.lessons, answers_of(job.home, job.kept, job.watch.bytes)
    learnt, aside = set_aside(texts)

    def tell(done: int, of: int) -> None:
        job.check("while lessons were prepared")
        job.watch.pieces("preparing lessons", done, of)

    def data_of(tokens: int, documents: int, kinds: Sequence[Lesson], seed: int) -> Data:
        tell(0, told.held_out + documents)
        within = min(tokens, theirs.config.context_length)
        corpus = make_lessons(tokenizer, [(aside, told.held_out), (learnt, documents)], within, seed, kinds, ask, tell)
        return Data(corpus, range(told.held_out, len(corpus)), range(told.held_out))

    distillation = Distillation(Predictions(theirs), job.kept.digest)
    longer = replace(distillation, data_share=told.data_share)
    data = data_of(told.tokens, told.documents, told.kinds, told.seed)
    lessons = [
        _Lesson("mixers", "each layer's memory gives what full attention gave", job.settings.mixers, Mixers(theirs), data),
        _Lesson("logits", "all together give the original's predictions", job.settings.logits, distillation, data),
    ]
    if told.long_documents:
        data = data_of(told.long_tokens, told.long_documents, told.long_kinds, told.seed + _APART)
        lessons.append(_Lesson("longer", "the same on longer documents, and what they say", job.settings.longer, longer, data))
    return lessons


def _events(report: Mapping[str, Any], delta: Delta) -> list[Event]:
    lessons = {f"{name}_{side}": told[key] for name, told in report["lessons"].items() for side, key in _SIDES.items()}
    facts = {"delta": delta.digest, "base": report["base"], "method": report["method"], "retrieval": report["retrieval"]}
    facts |= {"groups": report["groups"], "state_share": report["state_share"], "state_tokens": report["state_tokens"]}
    metered = [energy for told in report["lessons"].values() if (energy := reported(told))]
    if metered:
        facts |= total(metered).facts()
    return [Event("hybridize", report["model"], facts | {key: value for key, value in lessons.items() if value is not None})]


_APART = 1_000_000
"""Between the seeds of short and long documents, so that no seed's long ones stand in the order of another's short ones."""
_SIDES = {"before": "first_held_out", "after": "held_out"}
