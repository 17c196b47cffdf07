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
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ingle.core.candidate import Admit, Candidate
from ingle.core.config import to_table
from ingle.core.delta import Delta
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.core.headroom import Need, speed
from ingle.core.progress import Counted, silent
from ingle.core.report import Event, Sink
from ingle.core.spec import LayerSpec, ModelConfig
from ingle.core.state import StateLayout
from ingle.engine.delta_kinds import LAYERS_KIND, spec_tensors
from ingle.engine.packs import LIBRARIES as SERVING
from ingle.engine.packs import ServedSize, checkpoint_tokenizer, open_weights, served_size
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.hybridize.hybrid_lessons import (
    Mixers,
    Sources,
    answers_of,
    hybrid_module,
    make_lessons,
    memories_of,
    original_of,
    read_texts,
    set_aside,
)
from ingle.hybridize.hybrid_settings import LEAST_DIALOGUE, HybridSettings, Lesson
from ingle.model.module import CausalLM, load_module
from ingle.model.module_parts import Attend, PackedRows
from ingle.model.tensor import size_of
from ingle.model.tokenizer import Tokenizer
from ingle.train.checkpoints import put_back
from ingle.train.corpus import Corpus
from ingle.train.forward import attend_on, read_packed
from ingle.train.loop import train_for
from ingle.train.loop_settings import TrainSettings
from ingle.train.making import (
    LIBRARIES,
    DeltaJob,
    MadeDelta,
    RunWatch,
    TrainingPass,
    computed_bytes,
    delta_job,
    energy_facts,
    made_event,
    make_delta,
    memory_errors,
    taught_nothing,
)
from ingle.train.objectives import Distillation, Objective, Predictions, cross_entropy
from ingle.train.optimisers import DTYPES, choose, keep_few_programs
from ingle.train.packing import Batch, Data, make_batch

# Budget: how many groups may keep full attention, so that a state stays within its size.


Group = tuple[int, int]  # layer and key-value group


def all_groups(config: ModelConfig) -> list[Group]:
    """All groups of a model, layer by layer."""
    return [(layer, group) for layer in range(len(config.layers)) for group in range(config.num_kv_heads)]


def layers_of(config: ModelConfig, kept: Collection[Group], settings: HybridSettings) -> tuple[LayerSpec, ...]:
    """Make layers in which these groups keep full attention, and all others stream."""
    memory = "none" if settings.method == "training-free" else settings.memory
    layers = []
    for i in range(len(config.layers)):
        retrieval = tuple(group for layer, group in sorted(kept) if layer == i)
        whole = len(retrieval) == config.num_kv_heads
        layers.append(LayerSpec(retrieval) if whole else LayerSpec(retrieval, settings.window, settings.sinks, memory))
    return tuple(layers)


def share_of(config: ModelConfig, layers: tuple[LayerSpec, ...], tokens: int) -> float:
    """Size of a state of so many tokens, as a share of the original's, at the same precision."""
    whole, hybrid = StateLayout.of(config), StateLayout.of(config.with_layers(layers))
    return hybrid.nbytes(tokens) / whole.nbytes(tokens)


def retrieval_count(config: ModelConfig, settings: HybridSettings) -> int:
    """Count the groups that keep full attention: the number in the settings, or the most that the budget allows.

    Raises ConfigError for a model that is a hybrid already, and for a budget that can't be met.
    """
    config.check_plain("made a hybrid")
    if not config.is_transformer:
        raise ConfigError("model", "must have full attention everywhere", "a hybrid", "Name the original model.")
    tokens = min(settings.context, config.context_length)
    groups = all_groups(config)

    def share(count: int) -> float:  # spread evenly over the layers: the bytes hardly depend on which groups they are
        chosen = [groups[i * len(groups) // count] for i in range(count)] if count else []
        return share_of(config, layers_of(config, chosen, settings), tokens)

    if settings.retrieval is not None:
        if settings.retrieval > len(groups):
            raise ConfigError("retrieval", f"must be at most {len(groups)}, all groups of the model", settings.retrieval)
        return settings.retrieval
    fitting = [count for count in range(len(groups) + 1) if share(count) <= settings.state_budget]
    if not fitting:
        cure = f"Without any full attention it is {share(0):.3f}; lower the window, or raise the budget."
        raise ConfigError("state_budget", f"can't be met at {tokens} tokens", f"{settings.state_budget:.4f}", cure)
    return max(fitting)


def check_lengths(config: ModelConfig, settings: HybridSettings) -> None:
    """Raises ConfigError where nothing would leave a window, so that memories learn nothing, and where a dialogue has no room."""
    near, lessons = settings.window + settings.sinks, settings.lessons
    lengths: dict[str, tuple[int, Sequence[Lesson]]] = {"search.tokens": (settings.search.tokens, ())}
    if settings.method == "distil" and settings.memory != "none":
        lengths["lessons.tokens"] = lessons.tokens, lessons.kinds
        if lessons.long_documents:
            lengths["lessons.long_tokens"] = lessons.long_tokens, lessons.long_kinds
    for name, (tokens, kinds) in lengths.items():
        length = min(tokens, config.context_length)
        if length <= near:
            rule = f"must be above window + sinks = {near}, or nothing ever leaves a window"
            raise ConfigError(name, rule, length, "Lower the window (--window), or make documents longer.")
        if "asked" in kinds and length < LEAST_DIALOGUE:
            cure = "Leave asked out of the lessons' kinds, or make documents longer."
            raise ConfigError(name, f"must be at least {LEAST_DIALOGUE} for dialogues (asked), and the model's context too", length, cure)


# Time and memory of a conversion, before its weights are loaded.


CURE = "Lower search.tokens, or set logits.recompute and longer.recompute to true, which keep little and take a third more time."
_JUDGED_TOKENS = 60_000  # tokens that the gate has both models read and write
_START_S = 30.0


def hybrid_need(served: ServedSize, settings: HybridSettings) -> Need:
    """Predict the memory and the time of a conversion of this model on a CPU."""
    config, each = served.config, computed_bytes(settings.mixers.precision)
    size, passes = size_of(config), _passes(config, settings, each)
    asked = served.weights + served.packing + SERVING + served.state_bytes(settings.context)
    rows = max(one.row_bytes + one.trained_bytes for one, _ in passes)
    largest = {"the model in PyTorch": each * size.whole, "PyTorch itself": LIBRARIES}
    moments = [{**largest, "a batch": rows}]
    if settings.method == "distil":
        moments.append({**largest, "the model as it is served": asked})
    rate = speed(None, each)
    learning = sum(one.operations(tokens) for one, tokens in passes) / rate
    judging = 4 * size.read * _JUDGED_TOKENS / speed(None, 1)
    return Need("This conversion", max(moments, key=lambda one: sum(one.values())), _START_S + learning + judging)


def _passes(config: ModelConfig, settings: HybridSettings, each: int) -> list[tuple[TrainingPass, int]]:
    """Return the search and every lesson, with how many tokens each reads."""
    layers, within = len(config.layers), config.context_length
    search, lessons = settings.search, settings.lessons
    sought = min(search.tokens, within)
    tries = search.rounds + (1 + search.exchanges if search.exchanges else 0)
    passes = [(TrainingPass(config, "search", sought, layers, 0, each), sought * search.documents * tries)]
    if settings.method != "distil":
        return passes
    hybrid = config.with_layers(layers_of(config, all_groups(config)[:0], settings))
    memories = size_of(hybrid).whole - size_of(config).whole

    def lesson(kind: str, course: TrainSettings, tokens: int, documents: int) -> tuple[TrainingPass, int]:
        row = min(course.batch_tokens, tokens * documents)
        read = course.max_steps * course.batch_tokens if course.max_steps else course.epochs * documents * min(tokens, within)
        again = course.recompute and kind != "mixers"  # mixers don't go through the layers, so nothing can be made again
        one = TrainingPass(hybrid, "mixers" if kind == "mixers" else "follow", row, layers, memories, each, again)
        return one, read + 2 * lessons.held_out * min(tokens, within) // 3

    passes += [lesson(name, getattr(settings, name), lessons.tokens, lessons.documents) for name in ("mixers", "logits")]
    if lessons.long_documents:
        passes.append(lesson("longer", settings.longer, lessons.long_tokens, lessons.long_documents))
    return passes


# Search for the groups that keep full attention: those without which facts in a long text are lost.
# A group that streams instead of looking at everything changes its heads' output. m between 0 and 1 mixes the two, window + m · (full −
# window), and −dL/dm says to first order by how much the loss L rises if the group gives up full attention. Groups give it up in rounds,
# the cheapest first. Each round measures anew without those, for groups stand in for each other. m is drawn anew for each document, so the
# average covers the whole way from full attention to none (as integrated gradients do it, arXiv 1703.01365).
# The groups left after these rounds are not yet the best set: a group that was given up early may be worth more beside those that stayed.
# So groups are then exchanged, the one with the least effect for the one that is missed most, and the loss itself decides (floating search:
# Pudil et al. 1994, Pattern Recognition Letters 15(11)).
# L: nats per token of answers about facts, in documents with many facts (`hybridize.hybrid_lessons`). The loss on texts depends on the
# window and hardly on which groups these are (LOG.md), so texts are not used. Effect counts, not where attention goes: much attention is
# paid to tokens that hardly matter.


SEARCH = 8  # changes when the same settings find other groups than before
# An exchange must promise this many times the effect of the group that it gives up. Giving a group up costs two to three times its slope,
# for the loss bends upwards there, and another brings only half to nine tenths of its slope (measured, LOG.md).
_DEARER = 3


@dataclass(frozen=True, slots=True)
class Mixing:
    """Attention between full and windowed. Parts with a share of 0 are not computed, and have no gradient."""

    inner: Attend
    share: Tensor  # [G]: 1 = full attention, 0 = window and sinks
    streaming: LayerSpec
    asked: frozenset[int]  # groups whose share has a gradient even where it is 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, spec: LayerSpec, some: bool) -> Tensor:
        """See `ingle.model.module.Attend`."""
        q, slopes = q.view(len(q), k.shape[1], -1, q.shape[-1]), torch.is_grad_enabled()
        outs, alike = list[Tensor](), dict[tuple[float, bool], list[int]]()
        for group, share in enumerate(self.share.tolist()):
            alike.setdefault((share, group in self.asked), []).append(group)
        for (share, asked), chosen in alike.items():
            see = partial(self.inner, q[:, chosen].flatten(1, 2), k[:, chosen], v[:, chosen], cos, sin, some=some)
            with torch.set_grad_enabled(slopes and share != 1):
                out = see(spec=self.streaming)
            if asked or share != 0:
                with torch.set_grad_enabled(slopes and share != 0):
                    full = see(spec=LayerSpec(tuple(range(len(chosen)))))
                out = out + self.share[chosen].repeat_interleave(q.shape[2])[:, None].to(q.dtype) * (full - out)
            outs.append(out.view(len(out), len(chosen), *q.shape[2:]))
        order = torch.tensor([group for chosen in alike.values() for group in chosen])
        return torch.cat(outs, 1)[:, order.argsort()].flatten(1, 2)


@dataclass(frozen=True, slots=True)
class FoundGroups:
    """Progress of a search."""

    rounds: int  # number of finished rounds
    kept: tuple[Group, ...]  # groups that keep full attention after them
    # Effect of each group when last measured: by how much the loss rises, to first order, if it gives up full attention.
    effects: Mapping[Group, float]
    loss: float = math.inf  # nats per token that counts, with the kept groups; known once groups are exchanged
    tried: tuple[tuple[Group, ...], ...] = ()  # sets whose loss is known; the first is the result of the rounds


def find_groups(
    module: CausalLM,
    corpus: Corpus,
    count: int,
    settings: HybridSettings,
    begun: FoundGroups,
    progress: Counted = silent,
) -> Iterator[FoundGroups]:
    """Search for the `count` groups that are to keep full attention. Yields the result after each round; the last one is final.

    `corpus`: documents with facts (`hybridize.hybrid_lessons`). `begun`: an earlier result, at least with all groups.
    """
    search, groups, every = settings.search, all_groups(module.config), len(corpus)
    sizes = _sizes(len(groups), count, search.rounds)
    tries = 1 + search.exchanges if search.exchanges and 0 < count < len(groups) else 0
    result = begun
    for parameter in module.parameters():
        parameter.requires_grad_(False)

    streaming = LayerSpec((), settings.window, settings.sinks)

    def measure(step: int, kept: Sequence[Group], values: Iterable[float], asked: Sequence[Group]) -> tuple[float, Mapping[Group, float]]:
        """Mean loss of all documents, and the effects of the groups `asked`; kept groups have these values, one for each document."""
        loss, slopes = 0.0, torch.zeros(len(module.config.layers), module.config.num_kv_heads)
        for document, value in zip(range(every), values, strict=True):
            shares = shares_of(module.config, kept, value)
            one, slope = loss_and_slope(module, make_batch(corpus, [document]), shares, streaming, asked)
            loss, slopes = loss + one / every, slopes + slope / every
            progress(step * every + document + 1, (len(sizes) + tries) * every)
        return loss, {place: -float(slopes[place]) for place in asked}

    for number in range(result.rounds, len(sizes)):
        _, effects = measure(number, result.kept, np.random.default_rng([search.seed, number]).uniform(0.1, 1, every), result.kept)
        effects = {**result.effects, **effects}
        best = sorted(result.kept, key=lambda place: -effects[place])[: sizes[number]]
        result = FoundGroups(number + 1, tuple(sorted(best)), effects)
        yield result
    while len(result.tried) < tries and (kept := exchanged(result) if result.tried else result.kept):
        loss, effects = measure(len(sizes) + len(result.tried), kept, [1.0] * every, groups)
        tried = (*result.tried, kept)
        result = replace(result, kept=kept, loss=loss, effects=effects, tried=tried) if loss < result.loss else replace(result, tried=tried)
        yield result


def exchanged(found: FoundGroups) -> tuple[Group, ...] | None:
    """The set with the most promising exchange of one group for another that has not been tried; None if none is promising."""
    others = [place for place in found.effects if place not in found.kept]
    gains = {(old, new): found.effects[new] - _DEARER * found.effects[old] for old in found.kept for new in others}
    for old, new in sorted((pair for pair in gains if gains[pair] > 0), key=lambda pair: -gains[pair]):
        kept = tuple(sorted({*found.kept, new} - {old}))
        if kept not in found.tried:
            return kept
    return None


def loss_of(module: CausalLM, batch: Batch, shares: Tensor, streaming: LayerSpec, asked: Collection[Group] = ()) -> Tensor:
    """Nats of all that counts in a batch, with each group between full (1) and windowed attention (0): shares [layers, G].

    Every share that isn't 0 has a gradient, and those of the groups `asked`.
    """
    attend = attend_on(batch.ids.device, batch.edges, batch.rows)
    x = module.model.embed_tokens(batch.ids)
    cos, sin = module.angles(batch.positions, x.dtype)
    for index, (layer, share) in enumerate(zip(module.model.layers, shares, strict=True)):
        mixing = Mixing(attend, share, streaming, frozenset(group for other, group in asked if other == index))
        x = layer(x, cos, sin, PackedRows(mixing, batch.edges, batch.rows, read_packed))
    return cross_entropy(module.model.norm(x), module.lm_head.weight, batch.targets)


def loss_and_slope(module: CausalLM, batch: Batch, shares: Tensor, streaming: LayerSpec, asked: Collection[Group]) -> tuple[float, Tensor]:
    """L, in nats per token that counts, and dL/dm of the groups `asked` at these shares, [layers, G]."""
    shares = shares.clone().requires_grad_()
    loss = loss_of(module, batch, shares, streaming, asked) / len(batch.targets)
    loss.backward()  # type: ignore[no-untyped-call]
    assert shares.grad is not None
    return float(loss.detach()), shares.grad


def shares_of(config: ModelConfig, kept: Sequence[Group], value: float) -> Tensor:
    """Shares [layers, G]: `value` of the kept groups, 0 of all others."""
    shares = torch.zeros(len(config.layers), config.num_kv_heads)
    for place in kept:
        shares[place] = value
    return shares


def _sizes(start: int, end: int, rounds: int) -> list[int]:
    """Numbers of kept groups after each round: each gives up the same share of them."""
    if end >= start:
        return []
    sizes = [round(start * (max(end, 1) / start) ** (i / rounds)) for i in range(rounds + 1)]
    sizes[-1] = end
    return [b for a, b in pairwise(sizes) if b < a or b == end]


VERSION = 13  # changes when the same settings make something else than before


def hybridize(
    home: Home, kept: Kept, name: str, settings: HybridSettings, admit: Admit, watch: RunWatch = RunWatch(),  # noqa: B008 - frozen
    command: str = "", sink: Sink = silent,
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
        predicted = job.foretell(hybrid_need(served_size(home, kept), settings), CURE)
        tokenizer = checkpoint_tokenizer(checkpoint, home.base_folder(kept.base))
        texts = read_texts(home, settings.lessons.suites, watch.bytes)
        keep_few_programs()
        watch.pieces("loading weights", 0, 1)
        with memory_errors(f"Lower search.tokens (now {settings.search.tokens}), or close other programs."):
            candidate = _make(job, load_module(checkpoint, DTYPES[_precision(job)]), tokenizer, texts, count)
        return replace(candidate, report={**(candidate.report or {}), "predicted": predicted})

    return make_delta(job, make, _events, admit, sink)


def _make(job: DeltaJob[HybridSettings], original: CausalLM, tokenizer: Tokenizer, texts: Sources, count: int) -> Candidate:
    settings, config = job.settings, original.config
    result = _groups(job, original, tokenizer, texts, count)
    layers = layers_of(config, result.kept, settings)
    tokens = min(settings.context, config.context_length)
    report: dict[str, Any] = {
        "retrieval": count, "groups": len(config.layers) * config.num_kv_heads, "lessons": {},
        "state_tokens": tokens, "state_share": share_of(config, layers, tokens),
    } | _effects_table(result)  # fmt: skip
    tensors = spec_tensors(layers, config.num_kv_heads)
    if any(spec.remembering(config.num_kv_heads) for spec in layers):
        hybrid = _taught(job, original, layers, tokenizer, texts, report)
        tensors |= {name: parameter.detach().float().cpu().numpy() for name, parameter in memories_of(hybrid).items()}
    return job.candidate(LAYERS_KIND, settings.method, tensors, report)


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
        folder = job.folder / f"{lesson.name}-{lesson.data.corpus.digest[:16]}"  # another where the texts have become others
        where = f"lesson {lesson.name}"
        done = train_for(job, hybrid, memories_of(hybrid), lesson.data, lesson.settings, folder, lesson.objective, where)
        put_back(memories_of(hybrid), folder)
        if lesson.settings.patience:  # the best parameters are those that were kept
            done = replace(done, held_out=done.best_held_out)
        if nothing := taught_nothing(done, 0, where):
            job.watch.say(nothing)
        report["lessons"][lesson.name] = asdict(done)
    return hybrid


@dataclass(frozen=True, slots=True)
class _Lesson:
    name: str  # name of its folder, in the report and in the ledger
    taught: str  # one line on what memories learn
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


def _events(report: Mapping[str, Any], _delta: Delta) -> list[Event]:
    lessons = {f"{name}_{side}": result[key] for name, result in report["lessons"].items() for side, key in _SIDES.items()}
    facts = energy_facts(*report["lessons"].values()) | {key: value for key, value in lessons.items() if value is not None}
    return [made_event("hybridize", report, ("retrieval", "groups", "state_share", "state_tokens"), facts)]


# Distance between the seeds of short and long documents, so that no seed's long ones are in the order of another's short ones.
_APART = 1_000_000
_SIDES = {"before": "first_held_out", "after": "held_out"}
