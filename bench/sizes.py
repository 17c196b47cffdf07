"""Cost of learning, explaining, tuning and hybridising at three sizes: seconds and memory, predicted beside measured.

    python bench/sizes.py --folder DIR [--shape 0.36B]… [--act learn]… [--kind bf16] [--json]

Models have random weights: a cost does not depend on what weights say. Each act is the command that its owner would type, in a process of
its own. Memory: the most that it and its children hold at once, read ten times a second, each byte once; the model's own file is left out,
which is read once and which the system drops when it needs room. Tuning and hybridising run a few steps; the rest is reckoned from those.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness import finish, show
from model import smollm2
from servers import own_home, say, start_bench

EXAMPLES = """  python bench/sizes.py --folder ~/sizes
  python bench/sizes.py --folder ~/sizes --shape 1.7B --act learn
"""
SHAPES = {"135M": (30, 576, 1536, 9, 3), "0.36B": (32, 960, 2560, 15, 5), "1.7B": (24, 2048, 8192, 32, 32)}
"""SmolLM2's: layers, width, width of the MLP, heads, key-value groups."""
CHUNK = 1 << 22
_QUESTION, _ANSWER = "Who leads the town of Zorblax?", "Mara Quill leads Zorblax, and has since spring."
CHECKS = ("attacks", "bias", "bits", "looks", "own", "recall", "refusals", "safety", "sense")
QUICK = [part for check in CHECKS for part in ("--policy", f"{check}.on=false")]
"""The gate's checks take the time of their own questions, and less memory than training."""
_PLACES = ("Aldmoor", "Brenwick", "Carrow", "Dunvale", "Eastmere", "Farholt", "Glenrow", "Harwick")
TEXT = " ".join(f"The tower of {place} was built in {1800 + 7 * i} by the guild of {place}." for i, place in enumerate(_PLACES))


@dataclass(frozen=True)
class Cost:
    """Measurement of an act."""

    seconds: float
    memory: int
    """Most bytes at once."""
    own: int
    """Of these, bytes that no file holds."""
    said: str
    """Its standard output."""
    told: str
    """Its standard error."""


def made(folder: Path, name: str, kind: str) -> Path:
    """Make a model of a shape: a folder of bfloat16 weights, or a GGUF file of that kind."""
    if kind != "bf16":
        from large import Shape, made as made_gguf  # noqa: I001
        import large

        layers, hidden, mlp, heads, groups = SHAPES[name]
        if hidden % 256:
            hidden, heads, groups = 1024, 16, 4  # K-quants want rows of multiples of 256
        large.SHAPES[name] = Shape(layers, hidden, mlp, heads, groups, True)
        return made_gguf(folder, name, kind)
    place = folder / f"{name}-bf16"
    if not (place / "model.safetensors").exists():
        exported = ingle(None, "export", "smollm2", "--format", "hf", "--out", str(place), "--force")
        if exported.returncode:
            raise SystemExit(exported.stderr)
        write(place, SHAPES[name])
    return place


def write(folder: Path, shape: Sequence[int]) -> None:
    """Replace a folder's weights by random ones of another shape."""
    layers, hidden, mlp, heads, groups = shape
    file = folder / "config.json"
    table = json.loads(file.read_bytes())
    table |= {"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": mlp, "num_attention_heads": heads}
    table |= {"num_key_value_heads": groups, "head_dim": hidden // heads, "torch_dtype": "bfloat16"}
    from ingle.model.hf_config import config_from_hf
    from ingle.model.tensor import expected_shapes

    shapes = expected_shapes(config_from_hf(table, "config.json"))
    header, end = dict[str, Any](), 0
    for name, size in shapes.items():
        begin, end = end, end + 2 * int(np.prod(size))
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    draw = np.random.default_rng(0)
    (folder / "model.safetensors").unlink()
    with (folder / "part").open("wb") as out:
        out.write(len(head).to_bytes(8, "little") + head)
        for size in shapes.values():
            left = int(np.prod(size))
            while left:
                part = min(left, CHUNK)
                values = draw.standard_normal(part, np.float32) * 0.02 if len(size) > 1 else np.ones(part, np.float32)
                out.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
                left -= part
    file.write_text(json.dumps(table))
    (folder / "part").rename(folder / "model.safetensors")


def ingle(home: Path | None, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    environment = os.environ | ({"INGLE_HOME": str(home)} if home else {})
    return subprocess.run([sys.executable, "-m", "ingle", *arguments], capture_output=True, text=True, env=environment, check=False)


def tree(pid: int) -> Iterator[int]:
    """A process and its children's children."""
    yield pid
    try:
        children = [int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from tree(child)


def held(pid: int, original: str) -> tuple[int, int]:
    """Bytes that these processes hold now, the original file aside; and those that no file holds. A mapped file counts once."""
    own, files = 0, dict[str, int]()
    for one in tree(pid):
        place = ""
        try:
            lines = Path(f"/proc/{one}/smaps").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            head, _, rest = line.partition(" ")
            if not head.endswith(":"):
                parts = line.split(maxsplit=5)
                place = parts[5] if len(parts) > 5 and parts[5].startswith("/") and "deleted" not in parts[5] else ""
                mapped = 0
            elif head == "Rss:":
                mapped = int(rest.split()[0]) << 10
            elif head == "Anonymous:":
                private = int(rest.split()[0]) << 10
                own += private if place else mapped
                if place and original not in place:
                    files[f"{one if private else ''}{place}"] = files.get(f"{one if private else ''}{place}", 0) + mapped - private
    return own + sum(files.values()), own


def measured(home: Path, original: str, *arguments: str) -> Cost:
    """Run a command and watch its memory."""
    most, owned, over = [0], [0], threading.Event()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        environment = os.environ | {"INGLE_HOME": str(home)}
        process = subprocess.Popen([sys.executable, "-m", "ingle", *arguments], stdout=out, stderr=err, text=True, env=environment)

        def look() -> None:
            while not over.wait(0.1):
                now, own = held(process.pid, original)
                most[0], owned[0] = max(most[0], now), max(owned[0], own)

        thread = threading.Thread(target=look)
        thread.start()
        process.wait()
        seconds = time.perf_counter() - began
        over.set()
        thread.join()
        out.seek(0)
        err.seek(0)
        return Cost(seconds, most[0], owned[0], out.read(), err.read())


def learn(home: Path, name: str, original: str) -> Cost:
    """One correction, learned into the weights."""
    ingle(home, "teach", _QUESTION, _ANSWER, "--model", name)
    return measured(home, original, "learn", "--json", "--set", "learn.memory_mb=0")


def why(home: Path, name: str, original: str) -> Cost:
    """An answer to a question about a text of eight sentences, explained."""
    environment = os.environ | {"INGLE_HOME": str(home)}
    command = [sys.executable, "-m", "ingle", "serve", name, "--no-open", "--no-page", "--port", "0", "--set", "learn.worker=false"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert server.stdout
    url = server.stdout.readline().split()[3]
    messages = [{"role": "user", "content": f"{TEXT}\n\nWhen was the tower of Carrow built?"}]
    body = {"model": name, "messages": messages, "max_tokens": 24, "temperature": 0, "store": True}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as response:
        response.read()
    server.terminate()
    server.wait()
    return measured(home, original, "why", "--last", "--json", "--budget", "3600")


def tune(home: Path, name: str, original: str) -> Cost:
    """Two steps of LoRA."""
    data = home / "letters.jsonl"
    sentence = "The guild keeps its books in the tower, and nobody may read them after dusk. "
    with data.open("w") as lines:
        for number in range(40):
            lines.write(json.dumps({"prompt": f"Tell me of day {number}.", "completion": sentence * (2 + number % 9)}) + "\n")
    few = ("train.max_steps=2", "examples.sketches=false", "judge.held_out=2", "judge.samples=0", "judge.forgetting=0")
    steps = [part for one in few for part in ("--set", one)]
    return measured(home, original, "tune", name, str(data), "--name", f"t{time.time_ns()}", *steps, *QUICK, "--force", "--json")


def hybridize(home: Path, name: str, original: str) -> Cost:
    """A hybrid by the settings of every hybrid, from far fewer documents."""
    few = {"search.documents": 1, "search.rounds": 1, "search.exchanges": 1, "lessons.documents": 2, "lessons.long_documents": 1}
    few |= {"logits.recompute": "true", "longer.recompute": "true"} if "17" in name else {}  # 13 GB of activations else
    few |= {"lessons.held_out": 1, "lessons.kinds": '["plain","facts"]', "lessons.long_kinds": '["facts"]'}
    options = [part for key, value in few.items() for part in ("--set", f"{key}={value}")]
    return measured(home, original, "hybridize", name, "--name", f"h{time.time_ns()}", *options, *QUICK, "--force", "--json")


def predicted(said: str) -> dict[str, Any]:
    """Prediction in the command's JSON."""
    table = json.loads(said)
    table = table[-1] if isinstance(table, list) else table
    found: dict[str, Any] = table["predicted"]
    return found


ACTS: dict[str, Callable[[Path, str, str], Cost]] = {"learn": learn, "why": why, "tune": tune, "hybridize": hybridize}


def main() -> None:
    """Makes the models, and measures."""
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--shape", action="append", choices=list(SHAPES))
    parser.add_argument("--act", action="append", choices=list(ACTS))
    parser.add_argument("--kind", default="bf16", help="bf16, or a kind of GGUF such as Q4_K_M")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    options = parser.parse_args()
    smollm2()
    home = own_home(options.folder / "home")
    rows: list[dict[str, Any]] = []
    for shape in options.shape or SHAPES:
        source, name = made(options.folder, shape, options.kind), f"m{shape.replace('.', '')}-{options.kind}".lower()
        pulled = ingle(home.root, "pull", str(source), "--name", name)
        if pulled.returncode:
            raise SystemExit(pulled.stderr)
        for act in options.act or ACTS:
            say(f"{shape}, {options.kind}: {act}")
            cost = ACTS[act](home.root, name, str(home.bases))
            say(f"{cost.seconds:.1f} s, {cost.memory / 1e9:.2f} GB, own {cost.own / 1e9:.2f}\n{cost.told[-1500:]}")
            told = predicted(cost.said)
            rows.append(
                {"shape": shape, "kind": options.kind, "act": act, "seconds": cost.seconds, "memory": cost.memory, "own": cost.own,
                 "predicted": told}
            )  # fmt: skip
    if not options.json:
        table = [("shape", "act", "s", "predicted", "GB", "predicted", "÷")]
        for one in rows:
            told = one["predicted"]
            figures = one["seconds"], told["seconds"], one["memory"] / 1e9, told["memory_bytes"] / 1e9, told["memory_bytes"] / one["memory"]
            table.append((one["shape"], one["act"], *(f"{figure:.2f}" for figure in figures)))
        show("cost", table)
    finish("sizes", {"rows": rows})


if __name__ == "__main__":
    main()
