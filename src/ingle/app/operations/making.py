"""Makers of deltas by settings, and models from scratch."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ingle.app.house import House
from ingle.app.making import (
    Config,
    Force,
    Limits,
    MadeTold,
    Model,
    Settings,
    figures,
    gate_rows,
    make_delta,
    percent,
    recorder,
    run_watch,
    share_of,
    talk_with,
    told_of,
)
from ingle.app.operation import About, Note, Rows, Said, operation
from ingle.core.config import load_config
from ingle.core.energy import amount, reported
from ingle.core.errors import ConfigError
from ingle.core.files import need_learning, write_atomic
from ingle.core.report import Event, Fact
from ingle.home.kept import get_kept
from ingle.home.names import check_name

_RECOVER = "recovery.minutes"


@dataclass(frozen=True, slots=True)
class Quantising:
    """A model, and the bits that it is stored in."""

    model: Model
    name: Annotated[str, About("What to call the delta: MODEL+NAME is the quantised model.")] = "quantised"
    bits: Annotated[float | None, About("Bits a weight: 3, 4, 8, or between (the most sensitive linears get most).", sets="bits")] = None
    method: Annotated[str | None, About("Method: round, mse, awq, gptq or guided.", sets="method")] = None
    recover: Annotated[
        float | None, About("Train scales and minima to follow the model as it was; by default not at all.", "MINUTES", sets=_RECOVER)
    ] = None
    documents: Annotated[int | None, About("Rows of 1,024 tokens to calibrate on.", sets="calibration.documents")] = None
    seed: Annotated[int | None, About("Seed for choosing the texts.", sets="calibration.seed recovery.seed")] = None
    config: Config = None
    settings: Settings = ()
    force: Force = False
    policy: Limits = ()


def _says_quantised(told: MadeTold) -> Iterable[Said]:
    report = told.data
    rows = [("linears", f"{report['linears']}", f"of {report['linears'] + report['untouched']}; the others stay as they are")]
    rows.append(("bits a weight", f"{report['bits']:.2f}", f"{report['stored_bits']:.2f} with scales"))
    used = {kind: names for kind, names in report["forms"].items() if names}
    if len(used) > 1:
        rows += [(f"in {kind[3:]} bits" if kind.startswith("int") else f"in {kind}", f"{len(names)}", "") for kind, names in used.items()]
    worst, error = max(report["output_errors"].items(), key=lambda item: item[1])
    rows.append(("error of the outputs", f"{error:.2e}", f"of their square, in {worst}, the worst kind"))
    if recovery := report.get("recovery"):
        rows.append(("KL from the model as it was", f"{recovery['held_out']:.4f}", f"{recovery['first_held_out']:.4f} before the recovery"))
    return (figures([*rows, *_energy("energy", report)]), talk_with(told))


@operation("make quantise", right="owner", says=_says_quantised)
def quantise(house: House, asked: Quantising) -> MadeTold:
    """Store a model's weights in fewer bits.

    For models that come in floating point, or that something was merged into, which are served in 8 bits otherwise; and for those in 4 bits
    that are to become smaller yet. The result is a delta; the model stays as it was. The gate measures it first, and may refuse it.
    Interrupted at any moment, or refused and now with --force, the same command goes on.

    Examples:
        ingle make quantise mymodel --bits 4 --recover 30 --name q4
        ingle make quantise mymodel --bits 5.5 --method gptq --name mixed
        ingle make quantise smollm2 --bits 3.75 --name lighter   (a quarter of what has 4 bits goes to 3)
        ingle make quantise mymodel --set 'forms=["q4_1"]' --name g4   (4 bits as GGUF has them, to be exported)
        ingle make quantise mymodel --bits 8 --method round --name q8 --json
    """
    need_learning()
    from ingle.compress.quantising import QuantiseSettings
    from ingle.compress.quantising import quantise as make

    return make_delta(house, "quantise", asked, make, QuantiseSettings, "recovering")


@dataclass(frozen=True, slots=True)
class Pruning:
    """A model, and what is removed from it."""

    model: Model
    structure: Annotated[
        str | None,
        About("What to remove: layers, channels, heads, 2:4, or none (single weights); by default layers.", sets="structure"),
    ] = None
    share: Annotated[str | None, About("How much to remove, e.g. 1/5 or 0.2.")] = None
    method: Annotated[
        str | None,
        About("Method that chooses what goes: magnitude, wanda, sparsegpt, width, depth; by default what costs the least.", sets="method"),
    ] = None
    recover: Annotated[float | None, About("Train it on the whole model for so long; by default not at all.", "MINUTES", sets=_RECOVER)] = (
        None
    )
    name: Annotated[str, About("What to call the delta: MODEL+NAME is the pruned model.")] = "pruned"
    quality_loss: Annotated[str | None, About("How much bits per byte may rise before the gate refuses it; by default 25%.", "PERCENT")] = (
        None
    )
    seed: Annotated[int | None, About("Seed for choosing the texts.", sets="calibration.seed recovery.seed")] = None
    config: Config = None
    settings: Settings = ()
    force: Force = False
    policy: Limits = ()


def _says_pruned(told: MadeTold) -> Iterable[Said]:
    report = told.data
    before, after = report["parameters_before"], report["parameters"]
    rows = [("method", report["method"], f"{report['structure']}, {report['share']:.3g} of them")]
    rows.append(("parameters", f"{after / 1e6:.1f} M", f"{after / before:.3f} of {before / 1e6:.1f} M"))
    rows += gate_rows(report)
    if recovery := report.get("recovery"):
        rows.append(("KL from the whole model", f"{recovery['held_out']:.4f}", f"{recovery['first_held_out']:.4f} before the recovery"))
        rows += _energy("energy of the recovery", recovery)
    yield figures(rows)
    if report["structure"] in ("none", "2:4"):
        yield Note("Weights that are zero are read and multiplied like others: it is not faster. See docs/prune.md.")
    yield talk_with(told)


@operation("make prune", right="owner", says=_says_pruned)
def prune(house: House, asked: Pruning) -> MadeTold:
    """Make a model smaller by removing parts of it.

    With fewer layers, channels or heads it is faster too; single weights that become zero save nothing here, and are for comparison.
    The result is a delta; the model stays as it was. The gate measures it first, and may refuse it.
    Interrupted at any moment, or refused and now with --force, the same command goes on.

    Examples:
        ingle make prune smollm2 --structure layers --share 1/5 --recover 60 --name small
        ingle make prune smollm2 --structure channels --share 1/4 --name narrow
        ingle make prune smollm2 --structure none --share 0.5 --method wanda --name sparse
        ingle measure smollm2+small --suite wiki-bits
    """
    need_learning()
    from ingle.compress.pruning import PruneSettings
    from ingle.compress.pruning import prune as make

    loss = [] if asked.quality_loss is None else [f"prune.bits.most_rise_percent={percent('--quality-loss', asked.quality_loss)}"]
    share = share_of("--share", asked.share, "1/4, or 0.25") if asked.share is not None else 0.5 if asked.structure == "2:4" else None
    return make_delta(house, "prune", asked, make, PruneSettings, "recovering", limits=loss, more={"share": share})


@dataclass(frozen=True, slots=True)
class Hardening:
    """A model, and how it is hardened."""

    model: Model
    name: Annotated[str, About("What to call the delta: MODEL+NAME is the hardened model.")] = "hard"
    rounds: Annotated[int | None, About("Rounds of training; each learns the attacks that survived the one before.", sets="rounds")] = None
    attempts: Annotated[int | None, About("Fresh attacks between two rounds.", sets="attempts")] = None
    plain: Annotated[int | None, About("Plainly harmful requests to teach with.", sets="taught.plain")] = None
    dressed: Annotated[int | None, About("Attacks to teach with.", sets="taught.dressed")] = None
    epochs: Annotated[int | None, About("Epochs: how often the first round reads every example.", sets="train.epochs")] = None
    seed: Annotated[int | None, About("Seed for the choice of requests, and for the training.", sets="seed train.seed")] = None
    config: Config = None
    settings: Settings = ()
    force: Force = False
    policy: Limits = ()


def _says_hardened(told: MadeTold) -> Iterable[Said]:
    from ingle.train.making import cost_rows

    rows = []
    for one in told.data["refusals"]:
        explicit = f"{one['explicit_before']} → {one['explicit_after']}"
        kind, points = "harmful" if one["harmful"] else "harmless", 100 * one["change"]["value"]
        rows.append((f"{one['family']} ({kind})", _share(one["before"]), _share(one["after"]), f"{points:+.1f}", explicit))
    yield Rows(("held-out requests", "refused before", "after", "points", "said so"), rows)
    yield figures([*gate_rows(told.data), *cost_rows(told.data["train"])])
    yield talk_with(told)


def _share(figure: Any) -> str:
    """A share with its interval and n: `80.0 % (70.1–88.3, n = 60)`."""
    return f"{100 * figure['value']:.1f} % ({100 * figure['low']:.1f}–{100 * figure['high']:.1f}, n = {figure['n']})"


@operation("make harden", right="owner", says=_says_hardened)
def harden(house: House, asked: Hardening) -> MadeTold:
    """Teach a model to refuse harmful requests, also under attack.

    Harmless requests that look harmful are in the training too, so that it doesn't refuse them. Both are measured on held-out
    requests, before and after. The requests are data that are fetched when first needed.
    The result is a delta; the model stays as it was. The gate measures it first, and may refuse it.
    Interrupted at any moment, or refused and now with --force, the same command goes on.

    Examples:
        ingle make harden smollm2 --name hard
        ingle make harden smollm2 --name hard --rounds 3 --attempts 100
        ingle make harden smollm2+mine --name hard --set taught.lookalikes=100 --set push.steps=0
        ingle chat smollm2+hard
    """
    need_learning()
    from ingle.learn.addition_settings import HardenSettings
    from ingle.learn.harden import harden as make

    return make_delta(house, "harden", asked, make, HardenSettings)


@dataclass(frozen=True, slots=True)
class Debiasing:
    """A model, and how it is debiased."""

    model: Model
    name: Annotated[str, About("What to call the delta: MODEL+NAME is the debiased model.")] = "fair"
    counterfactuals: Annotated[int | None, About("Pairs of texts that are to become equally likely.", sets="counterfactuals")] = None
    questions: Annotated[int | None, About("Questions that teach to say when nothing tells; 0 = none.", sets="questions")] = None
    measured: Annotated[int | None, About("Items of every suite to measure before and after; 0 = all.", sets="measured")] = None
    epochs: Annotated[int | None, About("Epochs: how often every pair is read.", sets="train.epochs")] = None
    seed: Annotated[int | None, About("Seed for the counterfactuals, and for the training.", sets="seed train.seed")] = None
    config: Config = None
    settings: Settings = ()
    force: Force = False
    policy: Limits = ()


def _says_debiased(told: MadeTold) -> Iterable[Said]:
    from ingle.app.operations.measuring import says_shifts
    from ingle.learn.debias import shifts_of
    from ingle.train.making import cost_rows

    yield from says_shifts(told.model.rpartition("+")[0], told.model, shifts_of(told.data))
    yield figures([*gate_rows(told.data), *cost_rows(told.data["train"])])
    yield talk_with(told)


@operation("make debias", right="owner", says=_says_debiased)
def debias(house: House, asked: Debiasing) -> MadeTold:
    """Teach a model not to judge people by their group.

    Texts that differ only in whom they speak of become equally likely; all else stays as it was. They are made here, and none is
    from a suite that measures. Suites are measured before and after, and the report says for whom what changed.
    The result is a delta; the model stays as it was. The gate measures it first, and may refuse it.
    Interrupted at any moment, or refused and now with --force, the same command goes on.

    Examples:
        ingle make debias smollm2 --name fair
        ingle make debias smollm2+mine --name fair --set questions=0
        ingle measure bias smollm2+fair --against smollm2
    """
    need_learning()
    from ingle.learn.addition_settings import DebiasSettings
    from ingle.learn.debias import debias as make

    return make_delta(house, "debias", asked, make, DebiasSettings)


@dataclass(frozen=True, slots=True)
class Hybridizing:
    """A model, and the hybrid that it becomes."""

    model: Annotated[str, About("A model with full attention, with or without deltas.", "MODEL", placed=True)]
    name: Annotated[str, About("What to call the delta: MODEL+NAME is the hybrid.")] = "hybrid"
    state_budget: Annotated[
        str | None, About("Most memory for a conversation, as a share of the original's at 8,192 tokens, e.g. 1/6.")
    ] = None
    retrieval: Annotated[int | None, About("How many groups keep full attention; by default what the budget allows.", sets="retrieval")] = (
        None
    )
    window: Annotated[int | None, About("Tokens that all other groups attend to.", sets="window")] = None
    training_free: Annotated[bool, About("Find the groups and stop there: minutes, and no memories.", also=("--training-free",))] = False
    documents: Annotated[int | None, About("From how many documents memories learn; more takes longer.", sets="lessons.documents")] = None
    seed: Annotated[
        int | None,
        About("Seed for the texts and facts, and their order.", sets="search.seed lessons.seed mixers.seed logits.seed longer.seed"),
    ] = None
    config: Config = None
    settings: Settings = ()
    force: Force = False
    policy: Limits = ()


def _says_hybrid(told: MadeTold) -> Iterable[Said]:
    report = told.data
    rows = [("groups with full attention", f"{report['retrieval']} of {report['groups']}", "")]
    rows.append((f"state at {report['state_tokens']:,} tokens", f"{report['state_share']:.3f}", "of the original's"))
    settings = report["settings"]
    rows.append(("window of the others", f"{settings['window']:,}", f"tokens, and the first {settings['sinks']:,}"))
    for lesson, measured in report["lessons"].items():
        before, after = measured["first_held_out"], measured["held_out"]
        rows.append((f"held-out loss of the {lesson}", f"{after:.4f}", f"{before:.4f} before"))
        rows += _energy(f"energy of the {lesson}", measured)
    return (figures(rows), Note("Which groups they are stands in the report (--json, or `ingle show`)."), talk_with(told))


@operation("make hybridize", right="owner", says=_says_hybrid)
def hybridize(house: House, asked: Hybridizing) -> MadeTold:
    """Turn a transformer into a hybrid: less memory for long texts.

    Few groups keep full attention, those that recall needs; all others see the first tokens, a window, and a memory of the rest.
    The result is a delta of a few MB; the model stays as it was. The gate measures it first, and may refuse it.
    Interrupted at any moment, or refused and now with --force, the same command goes on.

    Examples:
        ingle make hybridize smollm2 --state-budget 1/6
        ingle make hybridize smollm2 --training-free --name quick
        ingle make hybridize smollm2 --window 64 --retrieval 12 --name narrow --set lessons.documents=2000
        ingle measure smollm2+hybrid --suite recall-4k
    """
    need_learning()
    from ingle.hybridize.hybrid_settings import HybridSettings
    from ingle.hybridize.hybridizing import hybridize as make

    budget = None if asked.state_budget is None else share_of("--state-budget", asked.state_budget, "1/6, or 0.17")
    more = {"state_budget": budget, "method": "training-free" if asked.training_free else None}
    return make_delta(house, "hybridize", asked, make, HybridSettings, "teaching memories", more=more)


def _energy(label: str, metered: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    energy = reported(metered)
    return [(label, amount(energy.joules), str(energy))] if energy else []


@dataclass(frozen=True, slots=True)
class Merging:
    """A model with deltas, and where it goes as one."""

    model: Annotated[str, About("A model with deltas.", "MODEL+DELTA", placed=True)]
    name: Annotated[str, About("Keep it under this name, as a base of its own.")] = ""
    out: Annotated[Path | None, About("Write it to this folder, in the Hugging Face format.", "DIR")] = None
    kind: Annotated[str | None, About("Number type: f32 or f16; by default f32.", also=("--type",))] = None
    force: Annotated[bool, About("Replace what is there under --out.", also=("--force",))] = False


@dataclass(frozen=True, slots=True)
class MergedTold:
    """A model that its deltas became part of."""

    of: str
    type: str
    name: str  # under which it is kept; "" = not at all
    base: str
    out: str  # folder that it was written to; "" = none


def _says_merged(told: MergedTold) -> Iterable[Said]:
    if told.name:
        yield f"{told.name} is kept: {told.of}, merged."
        yield f"Talk with it: ingle chat {told.name}"
    if told.out:
        yield f"{told.of}, merged, is in {told.out}."


@operation("make merge", right="owner", says=_says_merged)
def merge(house: House, asked: Merging) -> MergedTold:
    """Merge a model and its deltas into a new model.

    The deltas become part of its weights, so it needs neither the model nor the deltas any more. Both stay as they are.

    Examples:
        ingle make merge smollm2+letters --name letters
        ingle make merge smollm2+letters --out letters-hf --type f16
    """
    from ingle.engine.packs import kept_source, warm
    from ingle.tuning.exporting import check_type, export_hf
    from ingle.tuning.exporting import merge as make

    chosen, home, watch = check_type("hf", asked.kind), house.home, house.watch
    if not asked.name and asked.out is None:
        cure = "--name keeps the merged model in this home, --out writes a folder."
        raise ConfigError("--name or --out", "Say where the merged model goes", "", cure)
    kept, base = get_kept(home, asked.model), ""
    facts: dict[str, Fact] = {"of": kept.name, "stack": kept.digest, "type": chosen}
    if asked.name:
        new = make(home, kept, asked.name, chosen, lambda done, of: watch.pieces("merging", done, of))
        house.record(Event("merge", new.name, {**facts, "base": new.base}))
        base = new.base
        warm(kept_source(home, new), progress=watch.pieces)
    if asked.out is not None:
        export_hf(home, kept, asked.out, chosen, asked.force, lambda done, of: watch.pieces("writing", done, of))
        house.record(Event("export", kept.name, {**facts, "format": "hf"}))
    return MergedTold(kept.name, chosen, asked.name, base, str(asked.out or ""))


@dataclass(frozen=True, slots=True)
class Beginning:
    """A model that is trained from scratch."""

    config: Annotated[Path, About("A TOML file: model, tokenizer, data, train, judge.", "CONFIG", placed=True)]
    name: Annotated[str, About("What to call the model.")] = ""
    settings: Settings = ()
    out: Annotated[Path | None, About("Write the report to this file too.")] = None


def _says_trained(told: MadeTold) -> Iterable[Said]:
    from ingle.scratch.first_model import rows

    yield figures(rows(told.data))
    yield from (Note(f"{text}.") for text in told.data["notes"])
    yield f"Loss curve: {told.curve}"
    yield f'Go on with it: ingle "Once" {told.model}'


@operation("make train", right="owner", says=_says_trained)
def train(house: House, asked: Beginning) -> MadeTold:
    """Train a model from scratch: a transformer, a hybrid or an RNN.

    The new model continues plain text; it does not chat. Interrupted at any moment, the same command goes on.

    Examples:
        ingle make train recipes/scratch/hybrid.toml --name little
        ingle make train mine.toml --name mine --set model.layers=8 --set train.max_steps=500
        ingle make train mine.toml --name mine --set 'data.sources=["letters/", "suite:debian-bits"]'
    """
    need_learning()
    if not asked.name:
        raise ConfigError("--name", "Say what to call the model", "", "For example --name little.")
    check_name(asked.name)
    from ingle.scratch.scratch import scratch
    from ingle.scratch.scratch_settings import ScratchSettings
    from ingle.train.making import to_json

    settings = load_config(ScratchSettings, asked.config, asked.settings)
    again = shlex.join(["ingle", "make", "train", asked.config.name, "--name", asked.name, *(f"--set={one}" for one in asked.settings)])
    made = scratch(house.home, asked.name, settings, run_watch(house.watch), again, recorder(house, "base", "judged"))
    if asked.out is not None:
        write_atomic(asked.out, to_json(made.report))
    return told_of(made)
