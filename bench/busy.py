"""Answering beside other programs: threads that give way, against one thread and one for each core, quiet and beside busy loops.

All three decode the same tokens with the same weights, in turn, round by round, while 0, 1 and 2 loops that never rest keep cores busy.
First, their logits must be the same to the last bit. The bar: never below 0.9 of the better fixed number.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from harness import alternate, finish, over_best, show
from ingle.engine.backend import Backend, prefill, step
from ingle.engine.loading import Opener
from ingle.engine.threads import Cores
from ingle.home.kept import get_kept
from ingle.home.place import find_home
from model import smollm2

EXAMPLES = """  python bench/busy.py
  python bench/busy.py --rounds 3 --tokens 100 --busy 0 1
"""
BAR = 0.9
PROMPT_TOKENS = 40


@contextmanager
def loops(count: int) -> Iterator[None]:
    """So many programs beside us that never rest."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.5 if count else 0)
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def decode(backend: Backend, tokens: int) -> float:
    """Tokens a second of one greedy answer, its prompt aside."""
    state = backend.new_state()
    token = int(prefill(backend, list(range(100, 100 + PROMPT_TOKENS)), state).argmax())
    start = time.perf_counter()
    for _ in range(tokens):
        token = int(step(backend, [(state, token)])[0].argmax())
    return tokens / (time.perf_counter() - start)


def main() -> None:
    """Prints tables and one line of JSON; exits with 1 below the bar."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=200, help="tokens of one answer")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="how many programs compute beside it")
    options = parser.parse_args()
    smollm2()  # where compiled kernels are kept
    home = find_home()
    ways = {"gives way": Cores(), "one thread": Cores(1), "a thread per core": Cores(gives_way=False)}
    backends = {name: Opener(cores=cores)(home, get_kept(home, "smollm2")).backend for name, cores in ways.items()}
    logits = [prefill(backend, list(range(300)), backend.new_state()).copy() for backend in backends.values()]
    same = all(np.array_equal(logits[0], other) for other in logits)
    print(f"logits are the same to the last bit: {same}")
    held, result = same, dict[str, Any]()
    for count in options.busy:
        with loops(count):
            figures = alternate(options.rounds, {name: partial(decode, backend, options.tokens) for name, backend in backends.items()})
        ratio = over_best(figures["gives way"], [figure for name, figure in figures.items() if name != "gives way"])
        held = held and ratio.median >= BAR
        rows = [(name, str(figure)) for name, figure in figures.items()]
        show(
            f"{count} busy programs beside it, tokens/s", [("", "median (range)"), *rows, ("ratio to the better fixed number", str(ratio))]
        )
        result[str(count)] = {name: figure.table() for name, figure in figures.items()} | {"ratio": ratio.table()}
    finish("busy", {"same_logits": same, "bar": BAR, "held": held, "by_busy": result})
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
