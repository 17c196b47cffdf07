"""Decode and prefill on the same file with the same threads, in turn: Ingle, llama.cpp (with flash attention, too), ik_llama.cpp, OpenVINO.

    python bench/speed.py [--rounds 9] [--threads 2] [--without openvino]

Decode: 200 greedy tokens after a prompt of 40. Prefill: the first token after a prompt of 512. Joules: of 200 greedy tokens after one, by
the same meter in each engine's process (by CPU-seconds; where there are counters these count what else runs, too). No speed is reported
unless all engines go on counting alike, for which ik_llama.cpp has to read prompts in small pieces (`bench/exact.py` and
`bench/quality.py` measure how exact each format is).
"""

import argparse
import itertools
from functools import partial

from harness import LLAMA, Engine, Figure, alternate, finish, ratios, show
from ingle.engine.packs import checkpoint_tokenizer
from ingle.model.checkpoint import open_checkpoint
from model import smollm2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without", action="append", default=[])
    options = parser.parse_args()
    names = [name for name in ("ingle", *LLAMA, "ik_llama.cpp", "openvino") if name not in options.without]
    engines = {name: Engine(name, str(smollm2()), str(options.threads)) for name in names}
    checkpoint = open_checkpoint(smollm2())
    ids = checkpoint_tokenizer(checkpoint, smollm2().parent).encode(", ".join(map(str, range(1, 31))) + ",")
    counted = {name: engine.ask(ids=ids, tokens=20)["tokens"] for name, engine in engines.items()}
    if len({tuple(tokens) for tokens in counted.values()}) > 1:
        raise SystemExit(f"the engines don't count alike: {counted}")
    seeds = itertools.count()

    def decode(name: str) -> float:
        return 199 / engines[name].ask(prompt=40, tokens=200, seed=next(seeds))["rest_s"]

    def prefill(name: str) -> float:
        return 512 / engines[name].ask(prompt=512, tokens=1, seed=1000 + next(seeds))["first_s"]

    def joules(name: str) -> float:
        energy = engines[name].ask(prompt=1, tokens=200, seed=2000 + next(seeds))["energy"]
        sources.add(energy["source"])
        return energy["joules"] / 200

    sources, result = set[str](), dict[str, dict[str, Figure]]()
    tasks = {"decode, tokens/s": decode, "prefill, tokens/s": prefill, "decode, joules/token": joules}
    for task, run in tasks.items():
        seeds = itertools.count()
        result[task] = alternate(options.rounds, {name: partial(run, name) for name in names})
    rows = [["", *names]]
    for task, figures in result.items():
        rows.append([task, *(str(figures[name]) for name in names)])
        rows.append(["Ingle ÷ peer", *(str(ratios(figures["ingle"], figures[name])) if name != "ingle" else "" for name in names)])
    show(f"SmolLM2-135M-Instruct Q4_1, {options.threads} threads, median (range) of {options.rounds} alternating runs", rows)
    print(f"joules by {', '.join(sorted(sources))}")
    figures = {task: {name: figure.table() for name, figure in by.items()} for task, by in result.items()}
    quotients = {task: {name: ratios(by["ingle"], by[name]).table() for name in names[1:]} for task, by in result.items()}
    finish(
        "speed",
        {
            "engines": [engine.about for engine in engines.values()], "figures": figures, "ratio": quotients, "threads": options.threads,
            "joules_by": sorted(sources),
        },
    )  # fmt: skip
    for engine in engines.values():
        engine.close()


if __name__ == "__main__":
    main()
