"""From the command to its first word, and the memory that a chat holds.

    python bench/start.py [--rounds 7]

Warm: kernels compiled, weights packed. First ever: neither (an empty home but for the pulled file; the compiler's own files are in the
system's cache). Memory: resident set of `ingle chat` itself, ledger and screen included, as the system counts it.
"""

import argparse
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


def chat_memory_mb(format_: str) -> dict[str, float]:
    """Resident memory of a real `ingle chat` in a terminal, after five turns that fill 2,048 tokens of context or a little more."""
    import pexpect

    command = f"{Path(sys.executable).parent / 'ingle'} chat --format {format_} --max-tokens 64 --temperature 0"
    chat = pexpect.spawn(command, dimensions=(40, 100), timeout=60, encoding="utf-8")
    chat.expect("›")
    for _ in range(5):
        chat.sendline("Tell me about fire. " + "word " * 340)
        time.sleep(2)
        while True:
            try:
                chat.read_nonblocking(100_000, 1)
            except pexpect.TIMEOUT:
                break
    chat.sendline("/stats")
    chat.expect(r"([\d,]+) of [\d,]+ tokens")
    tokens = int(chat.match.group(1).replace(",", ""))
    status = dict(line.split(":", 1) for line in Path(f"/proc/{chat.pid}/status").read_text().splitlines() if ":" in line)
    chat.sendline("/quit")
    return {"tokens": tokens} | {key: int(status[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM", "RssAnon", "RssFile")}


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


def help_s() -> float:
    """Seconds that `ingle --help` takes."""
    start = time.perf_counter()
    subprocess.run([str(Path(sys.executable).parent / "ingle"), "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


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
    helped = Figure(tuple(help_s() for _ in range(rounds)))
    memory = {format_: chat_memory_mb(format_) for format_ in ("auto", "int8")}
    rows: list[list[object]] = [
        ["", "figure"],
        ["command to first word, warm, s", warm],
        ["command to first word, first ever, s", first],
        ["--help, s", helped],
    ]
    rows += [[f"resident in chat, {name}, {m['tokens']:.0f} tokens, MB", f"{m['VmRSS']:.0f}"] for name, m in memory.items()]
    show("Start and memory, SmolLM2-135M-Instruct", rows)
    finish("start", {"warm_s": warm.table(), "first_ever_s": first.table(), "help_s": helped.table(), "memory_mb": memory})


if __name__ == "__main__":
    main()
