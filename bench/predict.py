"""The speed that the catalogue foretells for this machine, beside the speed that the decoder then has.

    python bench/predict.py --folder DIR [--shape 0.36B --shape 1.7B] [--rounds 7] [--threads 2] [--others 0.15] [--minutes 30]

A round measures the machine as `ingle pull` does (engine/bandwidth.py, 2 s), foretells the decoding of one file from its shape alone, and
then decodes 48 tokens of it after a prompt of 8. The files take turns. They are those of bench/large.py (weights by chance, llama.cpp's own
quantiser), and smollm2. Memory: what is resident after decoding, and what is foretold.

What is foretold is the speed of a machine that does nothing else. So a round waits until the cores are idle, and is thrown away, whatever
it gave, if other programs took more than `--others` of all cores' time during it. The table says how many were. Where that never comes,
`--clock cpu` counts the seconds that one thread worked, on both sides: it tries the arithmetic, and not what several threads give.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness import Engine, Figure, finish, ratios, show
from ingle.core.clock import REAL, Clock
from ingle.engine.bandwidth import measure
from ingle.home.catalogue import CATALOGUE, PROCESS_BYTES
from ingle.home.model_size import ModelShape, cache_bytes, file_bytes
from large import SHAPES, made, memory
from model import smollm2
from peers import Ingle

PROMPT, TOKENS = 8, 48
WORDS = 49152
"""Of the tokenizer in all these files."""


@dataclass
class Model:
    """A file, and what came of it."""

    file: Path
    shape: ModelShape
    quantisation: str
    pid: int
    decode: Callable[[int], float]
    """Decodes by a prompt of this seed; returns tokens a second."""
    told: list[float] = field(default_factory=list)
    came: list[float] = field(default_factory=list)


def shape_of(name: str) -> ModelShape:
    """The shape of a file of bench/large.py."""
    of = SHAPES[name]
    return ModelShape(of.layers, of.hidden, of.mlp, of.heads, of.kv_heads, of.hidden // of.heads, WORDS, of.tied)


def busy() -> tuple[int, int]:
    """Clock ticks that all cores have worked, and that have passed on them."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def own(pids: list[int]) -> int:
    """Clock ticks that these processes have worked."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            total += sum(int(word) for word in words[11:15])
    return total


def wait_for_quiet(until: float) -> None:
    """Wait until the cores have been idle for a second."""
    while time.monotonic() < until:
        worked, passed = busy()
        time.sleep(1)
        now, all_now = busy()
        if now - worked < 0.1 * (all_now - passed):
            return


def in_process(file: Path, shape: ModelShape, quantisation: str, threads: int) -> Model:
    """Open a model of its own engine process."""
    engine = Engine("ingle", str(file), str(threads))
    return Model(
        file, shape, quantisation, engine.pid,
        lambda seed: (TOKENS - 1) / engine.ask(prompt=PROMPT, tokens=TOKENS, seed=seed)["rest_s"],
    )  # fmt: skip


def in_here(file: Path, shape: ModelShape, quantisation: str) -> Model:
    """Open a model in this process, whose one thread's working time is counted."""
    from ingle.engine.backend import prefill, step

    backend = Ingle(file, 1).model.backend

    def decode(seed: int) -> float:
        ids = np.random.default_rng(seed).integers(1000, 40_000, PROMPT).tolist()
        state = backend.new_state()
        token = int(prefill(backend, ids, state).argmax())
        began = time.process_time()
        for _ in range(TOKENS - 1):
            token = int(step(backend, [(state, token)])[0].argmax())
        return (TOKENS - 1) / (time.process_time() - began)

    return Model(file, shape, quantisation, os.getpid(), decode)


def one_round(model: Model, threads: int, seed: int, clock: Clock) -> tuple[float, float, float, float]:
    """Tokens a second that were foretold and came, the seconds of the measurement, and the share of all cores that others took."""
    pids = [*{os.getpid(), model.pid}]
    worked, passed, mine = *busy(), own(pids)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bandwidth = measure(Path(folder), threads, clock=clock)
    seconds = time.perf_counter() - began
    came = model.decode(seed)
    now, all_now = busy()
    others = (now - worked - (own(pids) - mine)) / (all_now - passed)
    return 1 / bandwidth.token_s(model.shape, model.quantisation, PROMPT + TOKENS // 2), came, seconds, others


def main() -> None:
    """Makes the files, and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--shape", action="append", choices=list(SHAPES))
    parser.add_argument("--kind", default="Q4_K_M")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--others", type=float, default=0.15)
    parser.add_argument("--clock", default="wall", choices=("wall", "cpu"))
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    small = CATALOGUE["smollm2"]
    assert small.shape
    files = {"135M Q4_1": (smollm2(), small.shape, small.quantisation)}
    for name in options.shape or ("0.36B", "1.7B"):
        files[f"{name} {options.kind}"] = made(options.folder, name, options.kind), shape_of(name), options.kind
    wall = options.clock == "wall"
    threads, clock = (options.threads, REAL) if wall else (1, Clock(now=time.process_time))
    models = {name: in_process(*of, threads) if wall else in_here(*of) for name, of in files.items()}
    seeds, took, thrown = itertools.count(), list[float](), list[float]()
    for model in models.values():
        one_round(model, threads, next(seeds), clock)  # compiles what is missing
    until = time.monotonic() + 60 * options.minutes
    while time.monotonic() < until and (left := [name for name, model in models.items() if len(model.came) < options.rounds]):
        name = min(left, key=lambda one: len(models[one].came))
        if wall:
            wait_for_quiet(until)
        told, came, seconds, others = one_round(models[name], threads, next(seeds), clock)
        if wall and others > options.others:
            thrown.append(told / came)
            continue
        models[name].told.append(told)
        models[name].came.append(came)
        took.append(seconds)
        print(f"{name}: {told:.1f} foretold, {came:.1f} came, others {others:.2f}", flush=True)
    report({name: model for name, model in models.items() if model.came}, took, thrown, threads)


def report(models: dict[str, Model], took: list[float], thrown: list[float], threads: int) -> None:
    """Print the table and the JSON line."""
    rows: list[list[Any]] = [["", "rounds", "foretold, tokens/s", "came, tokens/s", "foretold ÷ came", "resident, MB", "foretold, MB"]]
    result: dict[str, Any] = {"seconds": Figure(tuple(took)).table() if took else None, "thrown": thrown}
    for name, model in models.items():
        told, came, held = Figure(tuple(model.told)), Figure(tuple(model.came)), memory(model.pid)["VmRSS"]
        guess = file_bytes(model.shape, model.quantisation) + cache_bytes(model.shape, PROMPT + TOKENS) + PROCESS_BYTES
        ratio = ratios(told, came)
        rows.append([name, len(model.came), told, came, ratio, f"{held:.0f}", f"{guess / 1e6:.0f}"])
        result[name] = {"told": told.table(), "came": came.table(), "ratio": ratio.table(), "resident_mb": held, "told_mb": guess / 1e6}
    took_s = f"; a measurement takes {Figure(tuple(took))} s" if took else ""
    show(f"{threads} threads, median (range); {len(thrown)} rounds thrown away{took_s}", rows)
    finish("predict", result)


if __name__ == "__main__":
    main()
