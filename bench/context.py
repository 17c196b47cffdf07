"""Decode speed as the context grows: Ingle and llama.cpp, without and with flash attention, on the same file, in turn.

python bench/context.py [--rounds 5]
"""

import argparse
import itertools

from harness import LLAMA, Engine, Figure, alternate, finish, over_best, ratios, show
from model import smollm2

LENGTHS = (64, 512, 2048)
TOKENS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    engines = {name: Engine(name, str(smollm2()), "2") for name in ("ingle", *LLAMA)}
    seeds = itertools.count()

    def speed(name: str, length: int) -> float:
        return (TOKENS - 1) / engines[name].ask(prompt=length, tokens=TOKENS, seed=next(seeds))["rest_s"]

    runs = {f"{name} {length}": (lambda n=name, k=length: speed(n, k)) for length in LENGTHS for name in engines}
    figures: dict[str, Figure] = alternate(rounds, runs)
    rows = [["context", *engines, "Ingle ÷ the faster llama.cpp"]]
    for length in LENGTHS:
        mine, *others = [figures[f"{name} {length}"] for name in engines]
        rows.append([str(length), *map(str, (mine, *others)), str(over_best(mine, others))])
    show("decode, tokens/s, median (range)", rows)
    kept = {name: ratios(figures[f"{name} 2048"], figures[f"{name} 64"]) for name in engines}
    print("speed at 2,048 over speed at 64:", {name: str(figure) for name, figure in kept.items()})
    table = {name: figure.table() for name, figure in figures.items()}
    finish("context", {"tokens_per_s": table, "2048_over_64": {name: figure.table() for name, figure in kept.items()}})
    for engine in engines.values():
        engine.close()


if __name__ == "__main__":
    main()
