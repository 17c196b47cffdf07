"""From the command to its first word, and the memory that a chat holds.

    python bench/start.py [--rounds 7]

Warm: kernels compiled, weights packed. First ever: neither (an empty home but for the pulled file; the compiler's own files are in the
system's cache). Memory: resident set of a process that has read 2,048 tokens and is answering, as the system counts it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Figure, finish, show
from ingle.home.place import find_home
from model import smollm2

MEMORY = """
import json, os, resource
from ingle.home.place import find_home
from pathlib import Path
home = find_home()
os.environ["INGLE_KERNEL_CACHE"] = str(home.jit)
from ingle.core.message import Request, Sampling
from ingle.engine.answer import answer
from ingle.engine.opening import Source, open_model
from ingle.home.kept import get_kept
base = get_kept(home, "smollm2").base
model = open_model(Source("smollm2", home.base_folder(base), base, home.pack_folder(base)), "{format}")
request = Request(prompt="word " * 1900, max_tokens=100, sampling=Sampling(logit_bias=tuple((t, -100.0) for t in model.tokenizer.eos_ids)))
for chunk in answer(model, request):
    pass
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
mb = {{key: int(status[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM", "RssAnon", "RssFile")}}
print(json.dumps(mb | {{"tokens": chunk.usage.prompt_tokens + chunk.usage.completion_tokens, "state_mb": chunk.usage.state_bytes / 2**20}}))
"""


def first_word_s(environment: dict[str, str]) -> float:
    """Seconds from starting `ingle run` to the first byte of its answer."""
    command = [str(Path(sys.executable).parent / "ingle"), "run", "Say hello.", "--max-tokens", "8", "--temperature", "0"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment)
    assert process.stdout
    first = process.stdout.read(1)
    taken = time.perf_counter() - start
    _, error = process.communicate()
    if not first or process.returncode:
        raise SystemExit(error.decode())
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    smollm2()
    here = {key: value for key, value in os.environ.items() if key != "INGLE_KERNEL_CACHE"}
    first_word_s(here)
    warm = Figure(tuple(first_word_s(here) for _ in range(rounds)))
    cold = []
    for _ in range(max(3, rounds // 2)):
        with tempfile.TemporaryDirectory() as folder:
            for part in ("bases", "models"):
                shutil.copytree(find_home().root / part, Path(folder) / part)
            cold.append(first_word_s({**here, "INGLE_HOME": folder}))
    first = Figure(tuple(cold))
    memory = {}
    for format_ in ("auto", "int8"):
        out = subprocess.run([sys.executable, "-c", MEMORY.format(format=format_)], capture_output=True, text=True, check=True, env=here)
        memory[format_] = json.loads(out.stdout.splitlines()[-1])
    rows: list[list[object]] = [["", "figure"], ["command to first word, warm, s", warm], ["command to first word, first ever, s", first]]
    rows += [[f"resident at 2k tokens, {name}, MB", f"{m['VmRSS']:.0f} (peak {m['VmHWM']:.0f})"] for name, m in memory.items()]
    show("Start and memory, SmolLM2-135M-Instruct", rows)
    finish("start", {"warm_s": warm.table(), "first_ever_s": first.table(), "memory_mb": memory})


if __name__ == "__main__":
    main()
