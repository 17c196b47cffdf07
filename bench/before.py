"""This checkout beside an earlier one, on the same machine and model, in turn: speed, start, memory, serving, and training.

    python bench/before.py ../earlier [--rounds 7] [--without training]

Each figure is told by a command of either checkout, in a process and a home of its own (the kept `smollm2`, packed, kernels compiled).
Decode: tokens per second of a long answer. Prefill: of a prompt of about 500 tokens. Start: from the command to the end of a first word.
Memory: the most that this process had. Serving: tokens per second of eight answers at once by HTTP, of a server without a learner. Idle:
megabytes resident of that server with its page. Training: tokens per second of a LoRA of rank 8, by each checkout's own
`bench/train_runs.py`, all steps but the first two. Answers and losses must be the same on both sides, or nothing is shown.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harness import Figure, alternate, finish, ratios, show
from ingle.engine.packs import checkpoint_tokenizer
from ingle.home.kept import get_kept
from ingle.home.place import find_home
from ingle.model.checkpoint import open_checkpoint
from ingle.model.export_formats import write_hf
from model import smollm2

HERE = Path(__file__).parent.parent
MODEL = "smollm2"
CODE = """
import atexit, sys
from ingle.cli.main import main
atexit.register(lambda: print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr))
sys.exit(main())
"""
SPEC = {
    "rank": 8, "alpha": 16.0, "layers": "all", "seed": 0, "epochs": 1, "max_steps": 6, "batch_tokens": 512, "pieces": 1, "rate": 1e-3,
    "warm_up": 0.1, "cache_mb": 0, "places": 0,
}  # fmt: skip
STORY = "Write a long story about a fire in a cold house."
LONG = "Tell me the story of a lighthouse keeper, from the morning to the night. " * 34


class Checkout:
    """One side: its sources, and a home of its own."""

    def __init__(self, root: Path, work: Path) -> None:
        self.root, self.home, self.said = root, work / f"home-{len([*work.iterdir()])}", dict[str, str]()
        mine = find_home()
        base = get_kept(mine, MODEL).base
        for folder in (mine.base_folder(base), mine.pack_folder(base), mine.root / "models"):
            shutil.copytree(folder, self.home / folder.relative_to(mine.root), copy_function=os.link)
        self.ask("first", "run", "Hi", MODEL, "--max-tokens", "1")  # compiles its kernels

    def ask(self, task: str, *arguments: str) -> tuple[dict[str, Any], float, float]:
        """Run a command; return its JSON, its wall time in seconds, and the most memory that it had, in MB."""
        environment = {**os.environ, "PYTHONPATH": str(self.root / "src"), "INGLE_HOME": str(self.home)}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            began = time.perf_counter()
            process = subprocess.run(
                [sys.executable, "-P", "-c", CODE, *arguments, "--json"], check=False, stdout=out, stderr=err, env=environment
            )
            wall_s = time.perf_counter() - began
            out.seek(0)
            err.seek(0)
            if process.returncode:
                raise SystemExit(f"{self.root}: {' '.join(arguments)[:200]}\n{err.read().decode()[-2000:]}")
            answer: dict[str, Any] = json.loads(out.read())
            most_kb = int(err.read().split()[-2])
        self.said[task] = str(answer.get("text", answer.get("train", {}).get("loss")))
        return answer, wall_s, most_kb / 1024

    def decode(self) -> float:
        """Tokens per second."""
        options = ("--max-tokens", "200", "--temperature", "0")
        return float(self.ask("decode", "run", STORY, MODEL, *options)[0]["usage"]["decode_tokens_per_s"])

    def prefill(self) -> float:
        """Tokens per second."""
        usage = self.ask("prefill", "run", LONG, MODEL, "--max-tokens", "1", "--temperature", "0")[0]["usage"]
        assert not usage["cached_tokens"]
        return float(usage["prefill_tokens_per_s"])

    def start(self) -> float:
        """Starts per second: as for the others, more is better."""
        return 1 / self.ask("start", "run", "Hi", MODEL, "--max-tokens", "1", "--temperature", "0")[1]

    def memory(self) -> float:
        """Megabytes."""
        return self.ask("memory", "run", "Hi", MODEL, "--max-tokens", "1", "--temperature", "0")[2]

    def idle(self) -> float:
        """Megabytes resident of a server with its page, two seconds after it said its address."""
        with self.served() as (process, _):
            time.sleep(2)
            status = Path(f"/proc/{process.pid}/status").read_text("ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def serving(self) -> float:
        """Tokens per second of eight answers at once."""
        with self.served() as (_, url), ThreadPoolExecutor(8) as pool:
            ask = partial(post, f"{url}/v1/chat/completions")
            bodies = [{"messages": [{"role": "user", "content": f"{STORY} It has {n} rooms."}]} for n in range(8)]
            bodies = [{**body, "max_tokens": 100, "temperature": 0} for body in bodies]
            ask(bodies[0])
            began = time.perf_counter()
            answers = list(pool.map(ask, bodies))
            took_s = time.perf_counter() - began
        self.said["serving"] = str([answer["choices"][0]["message"]["content"] for answer in answers])
        return float(sum(answer["usage"]["completion_tokens"] for answer in answers) / took_s)

    @contextmanager
    def served(self) -> "Iterator[tuple[subprocess.Popen[str], str]]":
        """A server of this side, with its address, for as long as the block lasts."""
        environment = {**os.environ, "PYTHONPATH": str(self.root / "src"), "INGLE_HOME": str(self.home)}
        command = [sys.executable, "-P", "-c", CODE, "serve", MODEL, "--no-open", "--port", "0", "--set", "learn.worker=false"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split()[3]
        finally:
            process.terminate()
            process.communicate()

    def training(self, work: Path) -> float:
        """Tokens per second."""
        out = work / f"run-{self.home.name}"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        (out / "spec.json").write_text(json.dumps({**SPEC, "model": str(work / "model"), "data": str(work / "data.npz"), "out": str(out)}))
        command = [sys.executable, str(self.root / "bench" / "train_runs.py"), "ours", str(out / "spec.json")]
        environment = {**os.environ, "PYTHONPATH": str(self.root / "src"), "INGLE_KERNEL_CACHE": str(self.home / "cache" / "jit")}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"{self.root}: {done.stderr[-2000:]}")
        result = json.loads(done.stdout.strip().splitlines()[-1])
        self.said["training"] = str([round(loss, 3) for loss in result["losses"]])
        return float(sum(result["tokens"][2:]) / sum(result["seconds"][2:]))


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a request in JSON."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def prepare(work: Path) -> None:
    """Write what a training reads: the model as a Hugging Face folder, and documents of random tokens."""
    checkpoint = open_checkpoint(smollm2())
    tokenizer = checkpoint_tokenizer(checkpoint, smollm2().parent)
    write_hf(work / "model", checkpoint.config, lambda name: checkpoint.tensor(name).to_float32(), "float32", tokenizer)
    draw = np.random.default_rng(0)
    sizes = draw.integers(40, 240, 160)
    answer = np.concatenate([np.arange(size) > size // 2 for size in sizes])
    ids = draw.integers(100, 40_000, sizes.sum(), dtype=np.int32)
    numbers = np.arange(len(sizes))
    np.savez(work / "data.npz", ids=ids, answer=answer, bounds=np.cumsum([0, *sizes]), train=numbers[:150], held_out=numbers[150:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("earlier", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--without", action="append", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sides = {"earlier": Checkout(options.earlier.resolve(), work), "this": Checkout(HERE, work)}
        prepare(work)
        tasks = ["decode", "prefill", "start", "memory", "serving", "idle", "training"]
        result: dict[str, dict[str, Figure]] = {}
        for task in (task for task in tasks if task not in options.without):
            calls = {name: partial(side.training, work) if task == "training" else getattr(side, task) for name, side in sides.items()}
            result[task] = alternate(options.rounds, calls)
            said = {side.said.get(task) for side in sides.values()}
            if len(said) > 1:
                raise SystemExit(f"{task}: the two sides say different things: {said}")
    rows = [["", *sides, "this ÷ earlier"]]
    rows += [[task, str(by["earlier"]), str(by["this"]), str(ratios(by["this"], by["earlier"]))] for task, by in result.items()]
    show(f"{MODEL}, median (range) of {options.rounds} alternating runs", rows)
    quotients = {task: ratios(by["this"], by["earlier"]).table() for task, by in result.items()}
    figures = {task: {name: figure.table() for name, figure in by.items()} for task, by in result.items()}
    finish("before", {"rounds": options.rounds, "figures": figures, "quotients": quotients})


if __name__ == "__main__":
    main()
