"""The speed that the catalogue foretells for this machine, beside the speed that the decoder then has.

    python bench/predict.py --folder DIR [--shape 0.36B --shape 1.7B] [--rounds 7] [--threads 2]

Each round measures the machine as `ingle pull` does (engine/bandwidth.py, 2 s), foretells the decoding of every file from its shape alone,
and then decodes 48 tokens of each after a prompt of 8. Files are those of bench/large.py (weights by chance, llama.cpp's own quantiser),
and smollm2. All alternate, so that a drift of the machine falls on both. Memory: what is resident after decoding, and what is foretold.
"""

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Engine, Figure, finish, ratios, show
from ingle.engine.bandwidth import Bandwidth, measure
from ingle.home.catalogue import CATALOGUE
from ingle.home.hub_models import PROCESS_BYTES
from ingle.home.model_size import ModelShape, cache_bytes, file_bytes
from large import SHAPES, made, memory
from model import smollm2

PROMPT, TOKENS = 8, 48
WORDS = 49152
"""Of the tokenizer in all these files."""


def shape_of(name: str) -> ModelShape:
    """The shape of a file of bench/large.py."""
    of = SHAPES[name]
    return ModelShape(of.layers, of.hidden, of.mlp, of.heads, of.kv_heads, of.hidden // of.heads, WORDS, of.tied)


def measured(threads: int) -> tuple[Bandwidth, float]:
    """The machine's bandwidth now, and how many seconds that took."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bandwidth = measure(Path(folder), threads)
    return bandwidth, time.perf_counter() - began


def main() -> None:
    """Makes the files, and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--shape", action="append", choices=list(SHAPES))
    parser.add_argument("--kind", default="Q4_K_M")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    small = CATALOGUE["smollm2"]
    assert small.shape
    models = {"135M Q4_1": (smollm2(), small.shape, small.quantisation)}
    for name in options.shape or ("0.36B", "1.7B"):
        models[f"{name} {options.kind}"] = made(options.folder, name, options.kind), shape_of(name), options.kind
    engines = {name: Engine("ingle", str(file), str(options.threads)) for name, (file, _, _) in models.items()}
    seeds, load = itertools.count(), list[float]()
    told: dict[str, list[float]] = {name: [] for name in models}
    came: dict[str, list[float]] = {name: [] for name in models}
    took = list[float]()
    for name, engine in engines.items():
        engine.ask(prompt=PROMPT, tokens=TOKENS, seed=next(seeds))
        print(f"{name} is warm", flush=True)
    measured(options.threads)  # compiles what is missing
    for number in range(options.rounds):
        load.append(os.getloadavg()[0])
        bandwidth, seconds = measured(options.threads)
        took.append(seconds)
        for name, (_, shape, quantisation) in models.items():
            told[name].append(1 / bandwidth.token_s(shape, quantisation, PROMPT + TOKENS // 2))
            came[name].append((TOKENS - 1) / engines[name].ask(prompt=PROMPT, tokens=TOKENS, seed=next(seeds))["rest_s"])
        print(f"round {number + 1} of {options.rounds}", flush=True)
    rows: list[list[Any]] = [["", "foretold, tokens/s", "came, tokens/s", "foretold ÷ came", "resident, MB", "foretold, MB", "file ÷ told"]]
    result: dict[str, Any] = {"seconds": Figure(tuple(took)).table(), "load": Figure(tuple(load)).table()}
    for name, (file, shape, quantisation) in models.items():
        before, after, held = Figure(tuple(told[name])), Figure(tuple(came[name])), memory(engines[name].pid)["VmRSS"]
        size, guess = file.stat().st_size, file_bytes(shape, quantisation)
        need = (guess + cache_bytes(shape, PROMPT + TOKENS) + PROCESS_BYTES) / 1e6
        ratio = ratios(before, after)
        rows.append([name, before, after, ratio, f"{held:.0f}", f"{need:.0f}", f"{size / guess:.4f}"])
        result[name] = {"told": before.table(), "came": after.table(), "ratio": ratio.table(), "resident_mb": held, "told_mb": need}
    title = f"{options.threads} threads, median (range) of {options.rounds} alternating rounds; load {result['load']['median']:.1f}"
    show(f"{title}; a measurement takes {Figure(tuple(took))} s", rows)
    finish("predict", result)
    for engine in engines.values():
        engine.close()


if __name__ == "__main__":
    main()
