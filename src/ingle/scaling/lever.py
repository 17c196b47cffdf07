"""Levers: each is one way to spend the next unit of compute. To add one, add a line to `LEVERS`.

A training lever changes the settings of a sweep, and nothing else: so the sweep's own runner can try it on the same held-out text.
A command lever is an `ingle` command that makes a model of another one; that model is read on the same text.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ingle.core.config import to_table
from ingle.core.errors import ConfigError
from ingle.scaling.sweep_settings import LEAST_STEPS, RATE, SweepSettings, rung

Changes = Callable[[SweepSettings], Sequence[SweepSettings]]


def unchanged(settings: SweepSettings) -> Sequence[SweepSettings]:
    """Return the settings as they are: the law of the sweep alone says what such a lever gives."""
    return (settings,)


@dataclass(frozen=True, slots=True)
class TrainingLever:
    """A way to train another model."""

    words: str  # the act, for people: `train another size`
    changes: Changes = unchanged  # settings to try instead of the sweep's; none where it can't be done there
    sizes: Literal["all", "same", "others"] = "all"  # sizes that may be chosen: that of the best model, the others, or any

    @property
    def needs_probe(self) -> bool:
        """Whether the sweep's own runs say nothing of it."""
        return self.changes is not unchanged


@dataclass(frozen=True, slots=True)
class Errand:
    """The details that the command of a lever needs."""

    sweep: str
    sources: tuple[str, ...]  # texts of the sweep
    minutes: float  # how long it may train


@dataclass(frozen=True, slots=True)
class CommandLever:
    """A way to make a better model of one that is kept."""

    words: str
    start: str  # the model that it begins with
    # Arguments of `ingle`: `make`, the verb, the model that it begins with, and the rest with `--name`.
    arguments: Callable[[Errand], tuple[str, ...]]
    tells: str  # its other use, beside the loss, as a sentence

    def made(self, errand: Errand) -> str:
        """Return the name of the model that the command makes."""
        arguments = self.arguments(errand)
        return f"{arguments[2]}+{arguments[arguments.index('--name') + 1]}"


Lever = TrainingLever | CommandLever
TIMES = (2, 4, 8, 16)  # readings of a text: they help where new text is short (arXiv 2305.16264)
FEWEST_WORDS = 258  # 256 bytes, the end of a text, and a word
TOKENS_PER_S = 900  # SmolLM2's, measured with LoRA of rank 16 on two cores (LOG.md)
STEP = 2048  # tokens of a step of such a training


def _batch(settings: SweepSettings) -> Sequence[SweepSettings]:
    """Half or twice the tokens a step at the same rate, where the shortest run still has enough steps."""
    least, most = settings.data.row_tokens, min(*settings.tokens, settings.foretold_tokens) // LEAST_STEPS
    sizes = (settings.batch_tokens // 2, settings.batch_tokens * 2)
    return [replace(settings, batch_tokens=size) for size in sizes if least <= size <= most]


def _epochs(settings: SweepSettings) -> Sequence[SweepSettings]:
    return [replace(settings, epochs=settings.epochs * times) for times in TIMES if settings.epochs * times <= TIMES[-1]]


def _hybrid(settings: SweepSettings) -> Sequence[SweepSettings]:
    """Rows must be longer than a window, or memories learn nothing."""
    if settings.kind == "hybrid" or any(rung(size, "transformer").layers == 1 for size in settings.sizes):  # one layer has no others
        return []
    shape = rung(settings.sizes[0], "hybrid")
    return [replace(settings, kind="hybrid")] if settings.data.row_tokens > shape.window + shape.sinks else []


def _rnn(settings: SweepSettings) -> Sequence[SweepSettings]:
    return [replace(settings, kind="rnn")] if settings.kind != "rnn" else []


def _optimiser(settings: SweepSettings) -> Sequence[SweepSettings]:
    """A rate of the sweep's own is changed in proportion to the ladder's rates."""
    other: Literal["muon", "adamw"] = "adamw" if settings.optimiser == "muon" else "muon"
    return [replace(settings, optimiser=other, rate=settings.rate * RATE[other] / RATE[settings.optimiser])]


def _vocabulary(settings: SweepSettings) -> Sequence[SweepSettings]:
    sizes = (settings.vocabulary // 2, settings.vocabulary * 2)
    return [replace(settings, vocabulary=size) for size in sizes if size >= FEWEST_WORDS]


def _tune(errand: Errand, model: str, name: str, *more: str, speed: float = 1.0) -> tuple[str, ...]:
    """Tune a model on the sweep's text. `speed`: tokens a second, as a part of `TOKENS_PER_S`."""
    steps = max(1, round(errand.minutes * 60 * TOKENS_PER_S * speed / STEP))
    settings = (f"--set=train.max_steps={steps}", f"--set=train.batch_tokens={STEP}")
    return ("make", "tune", model, *errand.sources, *more, "--name", f"{errand.sweep}-{name}", *settings)


def _finetune(errand: Errand) -> tuple[str, ...]:
    return _tune(errand, "smollm2", "tuned")


def _distil(errand: Errand) -> tuple[str, ...]:
    """The teacher reads every text, too: a third of the time."""
    return _tune(errand, f"smollm2+{errand.sweep}-pruned", "distilled", "--teacher", "smollm2", speed=0.67)


def _prune(errand: Errand) -> tuple[str, ...]:
    share = ("--structure", "layers", "--share", "1/5")
    return (
        "make",
        "prune",
        "smollm2",
        *share,
        "--recover",
        f"{errand.minutes:.3g}",
        "--name",
        f"{errand.sweep}-pruned",
        "--quality-loss",
        "100%",
    )


def _quantise(errand: Errand) -> tuple[str, ...]:
    return ("make", "quantise", "smollm2", "--bits", "3.75", "--recover", f"{errand.minutes:.3g}", "--name", f"{errand.sweep}-lighter")


# Every lever by name, alphabetically.
LEVERS: Mapping[str, Lever] = {
    "batch": TrainingLever("take another number of tokens a step", _batch),
    "data": TrainingLever("give the best size more text", sizes="same"),
    "distil": CommandLever(
        "let a pruned SmolLM2 follow the whole one", "smollm2, pruned", _distil, "It begins with what the lever prune makes."
    ),
    "epochs": TrainingLever("read the text several times", _epochs),
    "finetune": CommandLever(
        "fine-tune SmolLM2 on the same text", "smollm2", _finetune,
        "A model of 135 million parameters costs more joules a token than the sweep's own.",
    ),
    "hybrid": TrainingLever("train a hybrid", _hybrid),
    "optimiser": TrainingLever("take the other optimiser", _optimiser),
    "prune": CommandLever("remove a fifth of SmolLM2's layers", "smollm2", _prune, "Each token takes a fifth less."),
    "quantise": CommandLever("store SmolLM2 in fewer bits", "smollm2", _quantise, "It takes less memory."),
    "rnn": TrainingLever("train an RNN", _rnn),
    "size": TrainingLever("train another size", sizes="others"),
    "vocabulary": TrainingLever("take another number of words", _vocabulary),
}  # fmt: skip


def chosen(names: Sequence[str]) -> dict[str, Lever]:
    """Return the levers of these names; without names, all. Raises ConfigError with the known ones."""
    for name in names:
        if name not in LEVERS:
            close = difflib.get_close_matches(name, LEVERS, n=1)
            raise ConfigError("LEVER", "is not known", name, f"Did you mean {close[0]}?" if close else f"Known: {', '.join(LEVERS)}.")
    return {name: LEVERS[name] for name in names or LEVERS}


def difference(before: SweepSettings, after: SweepSettings) -> dict[str, Any]:
    """Return the settings that differ, as a plain table: it names a change."""
    old, new = to_table(before), to_table(after)
    return {name: value for name, value in new.items() if old[name] != value}


def shown(changed: Mapping[str, Any]) -> str:
    """Return a change for people: `kind hybrid, rate 0.003`."""
    return ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in changed.items())
