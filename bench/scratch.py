"""From scratch: a transformer and a hybrid of equal size, on the same tokens in the same order. What is each worth, and how fast?

    python bench/scratch.py                     three sizes, three seeds

Both have the same number of parameters (the hybrid's MLP is narrower by what its memories take), the same vocabulary, texts, rows, order,
optimiser and learning rates; only how layers look back differs. With `--same-time` a third side stands beside them: the transformer
trained on so many more tokens as the hybrid's slower training would have left it time for.

- bits per byte on held-out texts of three sources, paired by document: the hybrid's minus the transformer's, with an interval; also of
  those that are as long as the rows of training at most, and of longer ones;
- recall: values of key-value pairs (see `scratch/text_sources.py`) in rows that nobody has trained on, among held-out prose, by distance,
  inside the hybrid's window and beyond it; paired by row. At a size at which the transformer doesn't recall either, recall says nothing,
  and that is said;
- decode at 4,096 tokens of context on the CPU backend, each in a process of its own, in turn;
- seconds of training, of a few steps of each side in turn: the trainings themselves may run beside others.

A model that is in the folder is not trained again, a text that was measured is not measured again, and neither are the steps. So
trainings can be spread over days and processes (`--only` trains some of them and stops there); decode is measured each time, and wants a
machine where nothing else runs.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness import Engine, Figure, alternate, finish, ratios, show
from ingle.core.config import from_table, to_table
from ingle.core.digest import digest_json
from ingle.core.errors import IngleError
from ingle.core.files import write_atomic
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.base import base_report
from ingle.home.kept import Kept, get_kept, list_kept
from ingle.home.place import Home
from ingle.measure.figures import TextBits, forgetting
from ingle.measure.intervals import paired_bootstrap
from ingle.scratch.first_model import new_module
from ingle.scratch.scratch import Judged, columns, groups, held_out_rows, judge, recalled
from ingle.scratch.scratch_settings import ScratchSettings, TextSettings, config_of, course, parameters_of
from ingle.scratch.text_sources import CHOICES, Texts, find_suites, find_vocabulary, make_data, read_texts
from ingle.train.loop import train
from ingle.train.optimisers import choose
from servers import CACHE, own_home, say, start_bench

EXAMPLES = """  python bench/scratch.py --sizes small --seeds 1 --items 20 --rounds 3      a quick look
  python bench/scratch.py --same-time
  python bench/scratch.py --only small-hybrid,small-transformer-0     train these alone, for a later run
"""
SOURCES = ["suite:debian-bits", "suite:xsum-bits", "suite:wiki-bits"]
WINDOW = 64
CONTEXT, WRITTEN = 4096, 64
PAIR_ROWS = 100
PAIRS = 0.3
"""Share of the rows. Recall is learnt all at once, after some two million tokens (LOG.md)."""
ROW, BATCH = 512, 2048
RATE = ScratchSettings(TextSettings(("none",))).train.optimiser.learning_rate
LENGTHS = (("bits/byte", 0, math.inf), (f"texts of up to {ROW} tokens", 0, ROW), ("longer texts", ROW + 1, math.inf))
"""All texts; those that are no longer than the rows of training; and those that end at positions which full attention has never seen."""
FEWEST = 20
"""Texts for which such a part is told."""
STEPS, STEP_ROUNDS = 30, 5


@dataclass(frozen=True)
class Size:
    """One pair of models."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    parameters: int
    words: int
    text: int
    """Tokens; pairs come on top."""
    retrieval: int
    """Of the hybrid: every n-th layer sees everything."""


SIZES = {
    "small": Size(3, 128, 2, 1, 600_000, 2048, 4_500_000, 3),
    "middle": Size(4, 128, 2, 1, 1_200_000, 2048, 3_000_000, 4),
    "large": Size(6, 192, 3, 1, 2_400_000, 2048, 3_000_000, 3),
}
SIDES = ("transformer", "hybrid")
AS_LONG = "as-long"
"""The third side."""


def settings_for(size: Size, side: str, seed: int, tokens: int, options: argparse.Namespace) -> ScratchSettings:
    """What one model is told."""
    shape: dict[str, Any] = {
        "layers": size.layers, "width": size.width, "heads": size.heads, "kv_heads": size.kv_heads, "parameters": size.parameters,
        "context": 2 * CONTEXT,
    }  # fmt: skip
    if side == "hybrid":
        shape |= {"retrieval": size.retrieval, "window": WINDOW, "sinks": 4, "memory": "gated_delta"}
    table = {
        "model": shape,
        "tokenizer": {"size": size.words},
        "data": {"sources": SOURCES, "row_tokens": ROW, "max_tokens": tokens, "pairs": PAIRS, "seed": seed},
        "train": {"batch_tokens": BATCH, "seed": seed, "precision": options.precision, "optimiser": {"learning_rate": options.rate}},
        "judge": {"items": options.items, "pair_rows": PAIR_ROWS},
    }
    return from_table(ScratchSettings, table)


def trained(home: Home, name: str, settings: ScratchSettings) -> Kept:
    """The model of that name, trained by `ingle make train` in a process of its own if it isn't there yet."""
    if name not in {kept.name for kept in list_kept(home)}:
        say(f"training {name} …")
        with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
            file.write(_toml(to_table(settings)))
            file.flush()
            command = [sys.executable, "-m", "ingle", "train", file.name, "--name", name]
            done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env={**os.environ, "INGLE_HOME": str(home.root)})
        if done.returncode:
            raise SystemExit(f"training {name} failed")
    kept = get_kept(home, name)
    report = base_report(home, kept.base)
    if report is None or report["settings"] != json.loads(json.dumps(to_table(settings))):
        raise SystemExit(f"{name} was made with other settings; remove it: INGLE_HOME={home.root} ingle rm {name}")
    return kept


def _toml(table: dict[str, Any], prefix: str = "") -> str:
    """A table of plain values as TOML; JSON writes single values alike."""
    flat = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items() if not isinstance(value, dict))
    nested = ((f"{prefix}{key}", value) for key, value in table.items() if isinstance(value, dict))
    return flat + "".join(f"[{name}]\n{_toml(value, f'{name}.')}" for name, value in nested)


@dataclass(frozen=True)
class Side:
    """One trained model, measured."""

    judged: Judged
    rows: Sequence[Any]
    hits: Sequence[Sequence[bool]]


def measured(home: Home, name: str, texts: Texts, settings: ScratchSettings) -> Side:
    """The model on the held-out texts and pairs."""
    model = open_model(kept_source(home, trained(home, name, settings)))
    rows = held_out_rows(model, texts, settings.data, PAIR_ROWS)
    return Side(judge(home, model, texts, settings.data, settings.judge, lambda: False), rows, recalled(model, rows, lambda: False))


def compared(first: Side, second: Side) -> dict[str, Any]:
    """The second minus the first, with intervals: bits per byte by source (item by item), recall by distance (row by row)."""
    found: dict[str, Any] = {}
    for suite in first.judged.texts:
        sides = [
            {row["asked"]: TextBits(**{key: row[key] for key in TextBits.__dataclass_fields__}) for row in side.judged.texts[suite].rows}
            for side in (first, second)
        ]
        for name, shortest, longest in LENGTHS:
            asked = [key for key, text in sides[0].items() if shortest <= text.tokens <= longest]
            if name == "bits/byte" or FEWEST <= len(asked) < len(sides[0]):
                lost = forgetting(*({key: texts[key] for key in asked} for texts in sides))
                found[f"{suite}, {name}"] = _figure(lost.before, lost.after, lost.change)
    assert [row.ids for row in first.rows] == [row.ids for row in second.rows], "both are asked the same"
    for name, low, high in groups():
        tables = [columns(side.rows, side.hits, low, high) for side in (first, second)]
        if tables[0][:, 1].sum():
            shares = [float(table[:, 0].sum() / table[:, 1].sum()) for table in tables]
            found[name.replace("_", " ")] = _figure(shares[0], shares[1], paired_bootstrap(*tables))
    return found


def _figure(before: float, after: float, change: Any) -> dict[str, float]:
    return {"first": before, "second": after, "change": change.value, "low": change.interval.low, "high": change.interval.high}


def decoded(home: Home, names: Sequence[str], words: int, rounds: int, threads: int) -> dict[str, Figure]:
    """Tokens/s after CONTEXT tokens, in turn."""
    engines = {name: Engine("kept", str(home.root), str(threads), name) for name in names}
    ids = np.random.default_rng(0).integers(300, words, CONTEXT).tolist()

    def speed(name: str) -> float:
        return (WRITTEN - 1) / float(engines[name].ask(ids=ids, tokens=WRITTEN)["rest_s"])

    try:
        return alternate(rounds, {name: (lambda name=name: speed(name)) for name in names})
    finally:
        for engine in engines.values():
            engine.close()


def step_seconds(home: Home, texts: Texts, label: str, options: argparse.Namespace) -> dict[str, Figure]:
    """Seconds of STEPS training steps of each side, in turn. Measured once for these settings and kept: how much text the third side is
    trained on follows from it."""
    size = SIZES[label]
    told = {side: settings_for(size, side, 0, 4 * STEPS * BATCH, options) for side in SIDES}
    key = digest_json([STEPS, texts.digest, *(course(settings) for settings in told.values())])
    kept = home.root / f"{label}-steps-{key[:8]}.json"
    if not kept.exists():
        tokenizer = find_vocabulary(texts.train, size.words)
        data = replace(make_data(texts, tokenizer, told["hybrid"].data), held_out=range(0))

        def seconds(settings: ScratchSettings) -> float:
            module = new_module(config_of(settings.model, tokenizer.vocab_size), 0)
            with tempfile.TemporaryDirectory() as folder:
                short = replace(settings.train, max_steps=STEPS)
                return train(module, dict(module.named_parameters()), data, short, Path(folder)).seconds

        say(f"{label}: {STEPS} steps of each side, {STEP_ROUNDS} times …")
        found = alternate(STEP_ROUNDS, {side: partial(seconds, settings) for side, settings in told.items()})
        write_atomic(kept, json.dumps({side: figure.values for side, figure in found.items()}).encode())
    return {side: Figure(tuple(values)) for side, values in json.loads(kept.read_bytes()).items()}


def told_for(home: Home, texts: Texts, label: str, seed: int, options: argparse.Namespace) -> dict[str, ScratchSettings]:
    """What the models of one size and seed are told, by name of their side."""
    size = SIZES[label]
    told = {side: settings_for(size, side, seed, size.text, options) for side in SIDES}
    if options.same_time:
        transformer, hybrid = step_seconds(home, texts, label, options).values()
        told[AS_LONG] = settings_for(size, "transformer", seed, round(size.text * ratios(hybrid, transformer).median), options)
    return told


def of_size(home: Home, texts: Texts, label: str, options: argparse.Namespace) -> dict[str, Any]:
    """All seeds of one size, and its tables."""
    found = dict[str, list[dict[str, Any]]]()
    for seed in range(options.seeds):
        told = told_for(home, texts, label, seed, options)
        sides = {side: measured(home, f"{label}-{side}-{seed}", texts, settings) for side, settings in told.items()}
        for side in (side for side in sides if side != "hybrid"):
            text = told[side].data.max_tokens
            found.setdefault(side, []).append({"seed": seed, "text": text, "change": compared(sides[side], sides["hybrid"])})
    words, models = SIZES[label].words, {side: told[side].model for side in SIDES}
    speeds = decoded(home, [f"{label}-{side}-0" for side in SIDES], words, options.rounds, options.threads)
    transformer, hybrid = speeds.values()
    for side, pairs in found.items():
        against = "the transformer" if side != AS_LONG else f"the transformer trained as long ({pairs[0]['text']:,} tokens of text)"
        tell(label, pairs, against, options.seeds)
    quotient = ratios(hybrid, transformer)
    print("parameters:", ", ".join(f"{side} {parameters_of(config_of(model, words)):,}" for side, model in models.items()))
    print(f"decode at {CONTEXT:,} tokens, tokens/s: transformer {transformer}, hybrid {hybrid}, ratio {quotient}")
    held = {side: claims(pairs, quotient) for side, pairs in found.items()}
    result = {
        "against": found,
        "decode_tokens_per_s": {side: one.table() for side, one in speeds.items()},
        "decode_ratio": quotient.table(),
    }
    if options.same_time:
        times = step_seconds(home, texts, label, options)
        slower = ratios(times["hybrid"], times["transformer"])
        print(f"{STEPS} training steps, seconds: transformer {times['transformer']}, hybrid {times['hybrid']}, ratio {slower}")
        result["training_ratio"] = slower.table()
    print(f"held: {held}")
    return {**result, "held": held}


def claims(pairs: Sequence[dict[str, Any]], quotient: Figure) -> dict[str, bool | None]:
    """Whether the hybrid does what is claimed of it: no more bits per byte of any source (median of the seeds), recall not below in most
    seeds (no interval below 0; None where recall says nothing), and faster decoding."""
    changes: dict[str, list[dict[str, float]]] = {}
    for pair in pairs:
        for name, one in pair["change"].items():
            changes.setdefault(name, []).append(one)
    bits = all(statistics.median(one["change"] for one in each) <= 0 for name, each in changes.items() if name.endswith("bits/byte"))
    kept = all(sum(one["high"] >= 0 for one in each) * 2 > len(each) for name, each in changes.items() if name.startswith("recalled"))
    return {"bits_per_byte": bits, "recall": kept if recalls(pairs) else None, "faster": quotient.median > 1}


def recalls(pairs: Sequence[dict[str, Any]]) -> bool:
    """Whether what the hybrid is compared with recalls clearly more than chance, in the median of the seeds."""
    return statistics.median(pair["change"]["recalled"]["first"] for pair in pairs) > 2 / CHOICES


def tell(label: str, pairs: Sequence[dict[str, Any]], against: str, seeds: int) -> None:
    """A table over seeds: medians with their range, and in how many seeds the interval lies above, around or below zero."""
    rows: list[list[object]] = [["", against, "hybrid", "difference, median (range)", "intervals below, around, above 0"]]
    for name in pairs[0]["change"]:
        each = [pair["change"][name] for pair in pairs if name in pair["change"]]
        first, second, change = (Figure(tuple(one[key] for one in each)) for key in ("first", "second", "change"))
        below, above = sum(one["high"] < 0 for one in each), sum(one["low"] > 0 for one in each)
        row = [name, f"{first.median:.4f}", f"{second.median:.4f}"]
        rows.append(
            [
                *row,
                f"{change.median:+.4f} ({min(change.values):+.4f} … {max(change.values):+.4f})",
                f"{below}, {len(each) - below - above}, {above}",
            ]
        )
    show(f"{label}: hybrid against {against}, {seeds} seeds", rows)
    if not recalls(pairs):
        print(f"recall says nothing at this size: {against} recalls hardly more than chance would ({1 / CHOICES:.3f})")


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--items", type=int, default=150, help="held-out texts of each source")
    parser.add_argument("--rounds", type=int, default=7, help="of decoding")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("bf16", "fp32"), help="of training (default: what this machine is faster at)")
    parser.add_argument("--rate", type=float, default=RATE, help="learning rate at its peak (default: that of `ingle make train`)")
    parser.add_argument("--same-time", action="store_true", help="also a transformer that is trained for as long as the hybrid")
    parser.add_argument("--only", default="", help="names of models, SIZE-SIDE-SEED or their beginnings: train these and stop there")
    parser.add_argument("--folder", type=Path, default=CACHE.parent / "scratch", help="where models and measurements are kept")
    options = parser.parse_args()
    unknown = set(options.sizes.split(",")) - SIZES.keys()
    if unknown:
        parser.error(f"--sizes: must be of {', '.join(SIZES)} (got {', '.join(sorted(unknown))})")
    options.precision = choose(options.precision or "auto", torch.device("cpu"))
    home = own_home(options.folder)
    texts = read_texts(home, find_suites(SOURCES, 0.05))
    if options.only:
        wanted = {
            f"{label}-{side}-{seed}": settings
            for label in options.sizes.split(",")
            for seed in range(options.seeds)
            for side, settings in told_for(home, texts, label, seed, options).items()
            if f"{label}-{side}-{seed}".startswith(tuple(options.only.split(",")))
        }
        if not wanted:
            parser.error(f"--only: must begin the name of a model, such as small-hybrid-0 (got {options.only})")
        for name, settings in wanted.items():
            trained(home, name, settings)
        return
    results = {label: of_size(home, texts, label, options) for label in options.sizes.split(",")}
    told = {"window": WINDOW, "context": CONTEXT, "precision": options.precision, "rate": options.rate}
    finish("scratch", {"texts_digest": texts.digest, **told, "sizes": results})


if __name__ == "__main__":
    try:
        main()
    except IngleError as error:
        raise SystemExit(str(error)) from error
