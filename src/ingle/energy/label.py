"""Energy labels: joules per 1,000 answers to a fixed set of prompts, to compare models, formats and machines.

Comparable to AI Energy Score (huggingface.github.io/AIEnergyScore) in the unit (Wh per 1,000 queries), the batch size of one, the kind of
four of its tasks and the sum of reading and writing; not in the rest, and `COMPARABLE` says so on every label.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ingle.core.config import from_table
from ingle.core.digest import digest_json
from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import ConfigError, IngleError
from ingle.core.files import write_atomic
from ingle.core.message import Usage
from ingle.core.progress import Progress, silent
from ingle.core.report import Event

# The prompts of a label: a fixed set for four kinds of task. A change of any word requires a new `label.VERSION`.


_STORY = (
    "The harbour town had two bakers. Old Marit opened at four, when the boats went out, and sold dark bread that kept for a week. "
    "Young Ossian opened at nine and sold white rolls that were stale by noon. In the winter of the great ice no boat went out for "
    "forty days, and nobody bought bread that keeps. Marit lent Ossian her oven, because it was larger, and Ossian baked for both. When"
    " the ice broke the fishermen found one bakery with two names over the door, open from four, with bread for the week and rolls for "
    "the morning."
)
_REPORT = (
    "The bridge over the Lenne was closed on Monday after inspectors found cracks in two of its eight piers. It was built in 1962 for "
    "9,000 vehicles a day and lately carried 31,000. Lorries are led over the motorway, which adds 23 minutes; cars may use the old "
    "ferry, which takes twelve of them at a time. The county expects repairs to last eleven months and to cost 4.2 million. Shopkeepers"
    " on the eastern bank asked for a second ferry; the county will decide on it in March."
)
_MANUAL = (
    "Before the first use fill the tank to the upper mark with cold water and let the pump run for two minutes without coffee. Descale "
    "every three months, or when the red lamp blinks twice. The lamp blinks once when the tank is empty. Never use vinegar: it harms "
    "the seals. The brewing group may be washed by hand, the drip tray in a dishwasher at 60 degrees."
)
# (task, most tokens of an answer, prompts).
TASKS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    (
        "text generation", 96,
        (
            "What is a hearth good for?",
            "Write a short letter to a neighbour whose dog barks at night.",
            "Explain to a child why the moon changes its shape.",
            "Give me three ideas for a rainy Sunday at home.",
            "How do I sharpen a kitchen knife?",
            "Tell the beginning of a story about a lighthouse keeper who finds a map.",
            "Which is better for a small garden, a pear tree or a plum tree, and why?",
            "List what should be in a first-aid kit.",
        ),
    ),
    ("summarisation", 64, tuple(f"Summarise this in one or two sentences.\n\n{text}" for text in (_STORY, _REPORT, _MANUAL))),
    (
        "extractive question answering", 24,
        (
            f"{_STORY}\n\nFor how many days did no boat go out? Answer with words of the text.",
            f"{_STORY}\n\nWhat did Marit sell? Answer with words of the text.",
            f"{_REPORT}\n\nHow many vehicles did the bridge lately carry a day? Answer with words of the text.",
            f"{_REPORT}\n\nWhat did the shopkeepers ask for? Answer with words of the text.",
            f"{_MANUAL}\n\nWhat does it mean when the lamp blinks once? Answer with words of the text.",
            f"{_MANUAL}\n\nWhat must never be used? Answer with words of the text.",
        ),
    ),
    (
        "binary text classification", 4,
        tuple(
            f"Is this review positive or negative? Answer with one word.\n\n{review}"
            for review in (
                "The soup was cold and so was the waiter. Never again.",
                "I have worn these boots for three winters and they look like new.",
                "A film that trusts its audience; I left the cinema humming.",
                "The battery lasts an hour, the manual is a joke, and nobody answers the phone.",
                "Quiet room, kind people, and the best breakfast on the coast.",
                "It broke on the second day and the shop would not take it back.",
                "Slow to start, but the last hundred pages are worth all the others.",
                "Two weeks late, the wrong colour, and a scratch on the lid.",
            )
        ),
    ),
)  # fmt: skip


VERSION = 1  # raised when prompts or method change: labels of different versions can't be compared
METHOD = (
    "After one to warm up, each prompt is asked alone (batch of one), nothing of it known from before, greedily, up to the task's limit "
    "of tokens. Reading, writing and drawing tokens are in it; loading the model, guards and the network are not."
)
COMPARABLE = (
    "Unit and tasks' kinds are AI Energy Score's (Wh per 1,000 queries, batch of one). Not the same: its prompts are 1,000 for each "
    "task from public data sets, ours a small fixed set; it counts the GPU alone on an NVIDIA H100, we the CPU and memory of this "
    "machine; it runs 16-bit weights in Transformers, we what is served here. So a label compares models on one machine, not with its "
    "leaderboard."
)
Ask = Callable[[str, int], Usage]  # answers a prompt with at most so many tokens, and returns its usage

PROMPTS = digest_json([VERSION, TASKS])


@dataclass(frozen=True, slots=True)
class LabelPart:
    """One task of a label."""

    task: str
    answers: int
    prompt_tokens: int
    completion_tokens: int
    energy: Energy  # energy of all its answers
    seconds: float  # seconds of reading and writing

    @property
    def per_thousand(self) -> Energy:
        """The energy for 1,000 answers."""
        return self.energy.scaled(1000 / self.answers)


@dataclass(frozen=True, slots=True)
class Label:
    """The measured energy of 1,000 answers of a model on this machine."""

    model: str
    digest: str  # digest of the kept model: base and deltas
    model_digest: str  # digest of the running model: base, deltas, format of the weights
    machine: str
    cores: int  # cores that it may use
    table: str  # the energy model's row for this CPU; it matters where nothing is counted
    rounds: int  # the number of times that every prompt was asked
    spread: float  # the spread of the rounds: largest less smallest, as a share of the mean; 0 for one round
    parts: tuple[LabelPart, ...]
    at: str  # UTC, ISO 8601
    prompts: str = PROMPTS  # digest of the prompts
    version: int = VERSION
    method: str = METHOD
    comparable: str = COMPARABLE

    @property
    def per_thousand(self) -> Energy:
        """The energy for 1,000 answers in which every task has the same share."""
        whole = NOTHING
        for part in self.parts:
            whole = whole + part.per_thousand.scaled(1 / len(self.parts))
        return whole

    def facts(self) -> Event:
        """Return the fact for the ledger, with the energy of the measurement itself."""
        whole = NOTHING
        for part in self.parts:
            whole = whole + part.energy
        figures = self.per_thousand.table()
        label_figures = {f"per_1000_{name}": figures[name] for name in ("joules", "low", "high")}
        return Event("energy.label", self.model, {"model": self.model_digest, "prompts": self.prompts, **label_figures, **whole.facts()})


def measure(
    ask: Ask, about: Label, rounds: int = 2, progress: Progress = silent
) -> Label:  # fmt: skip
    """Ask all prompts and return `about` with its parts filled in. Raises ConfigError if the answers carry no joules."""
    if rounds < 1:
        raise ConfigError("--rounds", "must be at least 1", rounds)
    ask(TASKS[0][2][0], 8)  # to warm up: what is read from the disk at first is no answer's
    usages: list[tuple[int, str, Usage]] = []
    everything = [(number, task, limit, prompt) for number in range(rounds) for task, limit, prompts in TASKS for prompt in prompts]
    for done, (number, task, limit, prompt) in enumerate(everything):
        progress("energy label", done, len(everything))
        usages.append((number, task, ask(prompt, limit)))
    progress("energy label", len(everything), len(everything))
    parts = tuple(_part(task, [usage for _, name, usage in usages if name == task]) for task, _, _ in TASKS)
    sums = [sum(_energy(usage).joules for at, _, usage in usages if at == number) for number in range(rounds)]
    spread = (max(sums) - min(sums)) * rounds / sum(sums) if sum(sums) else 0.0
    table = {name: getattr(about, name) for name in ("model", "digest", "model_digest", "machine", "cores", "table")}
    return Label(**table, rounds=rounds, spread=spread, parts=parts, at=datetime.now(UTC).isoformat(timespec="seconds"))


def save(folder: Path, label: Label) -> Path:
    """Save a label under the digest of its model, over an earlier one. Returns the file."""
    path = folder / f"{label.digest}.json"
    write_atomic(path, json.dumps(to_table(label), indent=1, ensure_ascii=False).encode(), mode=0o600)
    return path


def load(folder: Path, digest: str) -> Label | None:
    """Return the label of a kept model; None if it has none, or one that can't be read or compared any more."""
    try:
        table = json.loads((folder / f"{digest}.json").read_bytes())
        label = from_table(Label, {key: value for key, value in table.items() if key != "per_thousand"})
    except (OSError, ValueError, TypeError, IngleError):
        return None
    return label if label.version == VERSION and label.prompts == PROMPTS else None


def to_table(label: Label) -> dict[str, Any]:
    """Return the label as its file holds it, with its main figure."""
    return {"per_thousand": label.per_thousand.table(), **asdict(label)}


def rows(label: Label) -> list[tuple[str, str, str, str, str]]:
    """Return (task, answers, tokens of an answer, Wh per 1,000, joules per 1,000) for people; the last row is for all tasks alike."""
    table = []
    for part in label.parts:
        tokens = f"{part.prompt_tokens / part.answers:.0f} + {part.completion_tokens / part.answers:.0f}"
        table.append((part.task, str(part.answers), tokens, f"{part.per_thousand.wh:.3g}", str(part.per_thousand)))
    whole = label.per_thousand
    return [*table, ("all tasks alike", str(sum(part.answers for part in label.parts)), "", f"{whole.wh:.3g}", str(whole))]


def _part(task: str, usages: Sequence[Usage]) -> LabelPart:
    energy = NOTHING
    for usage in usages:
        energy = energy + _energy(usage)
    read, written = (sum(getattr(usage, name) for usage in usages) for name in ("prompt_tokens", "completion_tokens"))
    return LabelPart(task, len(usages), read, written, energy, sum(usage.prefill_s + usage.decode_s for usage in usages))


def _energy(usage: Usage) -> Energy:
    if usage.energy is None:
        raise ConfigError("label", "needs answers that are metered", "one without joules")
    return usage.energy
