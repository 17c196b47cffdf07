"""Fuzzing of all that a stranger may send: model files, tokenizers, templates, adapters, pictures, sounds, HTTP requests; by Atheris,
guided by coverage.

Each target has a process of its own for its share of the time. An input counts as a fault if it raises anything but Ingle's own errors,
ends the process, or takes more than two seconds (pictures and sounds a minute and 1 GB: their process has limits of its own); it is kept
in --findings, and the target goes on. `http` sends requests to a server of
its own: a status of 500 or more, or no answer within two seconds, is a fault, too.

Atheris is needed: pip install atheris
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

EXAMPLES = """  python bench/fuzz.py --minutes 30
  python bench/fuzz.py gguf template --minutes 5 --findings found
"""
SLOW_S = 2
TARGETS = ("gguf", "safetensors", "config", "tokenizer", "template", "peft", "picture", "sound", "http")
MEDIA = ("picture", "sound")
MEDIA_S = 60
ROOT = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


def seeds(folder: Path) -> None:
    """Write a tiny model in every form, from which inputs are made."""
    import numpy as np
    from safetensors.numpy import save_file

    from ingle.core.spec import LayerSpec, ModelConfig, Rope
    from ingle.model.export_formats import words_of, write_gguf, write_hf
    from ingle.model.tensor import expected_shapes
    from ingle.scratch.text_sources import find_vocabulary

    config = ModelConfig("llama", 300, 32, 48, 2, 1, 16, (LayerSpec((0,)),), 64, Rope(), tie_embeddings=True)
    draw = np.random.default_rng(0)
    tensors = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in expected_shapes(config).items()}
    words = find_vocabulary(["the cat sat on the mat, and the dog barked at it " * 50], 262)
    write_hf(folder / "hf", config, tensors.__getitem__, "float32", words)
    write_gguf(folder / "tiny.gguf", config, tensors.__getitem__, "q8_0", words_of(words, config.vocab_size, {}), "tiny")
    for name, path in {
        "gguf": folder / "tiny.gguf", "safetensors": folder / "hf/model.safetensors", "config": folder / "hf/config.json",
        "tokenizer": folder / "hf/tokenizer.json",
    }.items():  # fmt: skip
        (folder / name).mkdir()
        shutil.copy(path, folder / name / "seed")
    (folder / "template").mkdir()
    for i, template in enumerate(_TEMPLATES):
        (folder / "template" / f"seed{i}").write_text(template)
    low_rank = {f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight": value for side, value in _low_rank(np).items()}
    save_file(low_rank, folder / "adapter.safetensors")
    about = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "base_model_name_or_path": "tiny"}
    (folder / "peft").mkdir()
    (folder / "peft/seed").write_bytes(json.dumps(about).encode() + b"\n" + (folder / "adapter.safetensors").read_bytes())
    media_seeds(folder)
    (folder / "http").mkdir()
    for i, request in enumerate(_REQUESTS):
        (folder / "http" / f"seed{i}").write_bytes(request)


def media_seeds(folder: Path) -> None:
    """Write a small picture and a short sound in every form."""
    import numpy as np
    import soundfile
    from PIL import Image

    draw = np.random.default_rng(0)
    for name in MEDIA:
        (folder / name).mkdir()
    picture = Image.fromarray(draw.integers(0, 256, (24, 32, 3), np.uint8))
    for format_ in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        picture.save(folder / "picture" / format_, format_)
        picture.convert("RGBA" if format_ in ("PNG", "WEBP") else "L").save(folder / "picture" / f"{format_}-other", format_)
    picture.save(folder / "picture" / "scans", "JPEG", progressive=True)
    samples = draw.standard_normal(4000).astype(np.float32) * 0.1
    for format_, coding in (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)):
        with (folder / "sound" / f"{format_}-{coding}").open("wb") as file:
            soundfile.write(file, samples, 16_000, format=format_, subtype=coding)


def _low_rank(np: Any) -> dict[str, Any]:
    return {"A": np.ones((2, 32), np.float32), "B": np.ones((32, 2), np.float32)}


_TEMPLATES = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}",
    "{%- set ns = namespace(n=0) -%}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ m | tojson }}{{ ns.n ~ ':' }}{% endfor %}",
    "{% macro one(m) %}{{ m.content.split(' ')[::2] | join(',') | replace('a', 'b') | upper }}{% endmacro %}{{ one(messages[0]) * 3 }}",
    "{{ raise_exception('no') if messages | selectattr('role', 'equalto', 'user') | list | length > 3 }}{{ strftime_now('%Y') }}",
)
_BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "temperature": 0.5, "stop": ["x"]}
_TOOLED = _BODY | {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}], "logprobs": True}
_SCHEMA = _BODY | {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "integer"}}}}


def _post(path: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + data


_REQUESTS = (
    *(_post("/v1/chat/completions", body) for body in (_BODY, _TOOLED, _SCHEMA)),
    _post("/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 2, "echo": True, "logprobs": 2}),
    _post("/v1/responses", {"model": "tiny", "input": "hi", "max_output_tokens": 2}),
    b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
)


def target(name: str, folder: Path) -> Callable[[bytes], None]:
    """Return the function that takes an input; Ingle's own errors are how it should end."""
    from ingle.core.errors import IngleError
    from ingle.core.message import Message
    from ingle.engine.packs import checkpoint_tokenizer
    from ingle.media.picture import read_picture
    from ingle.media.sound import Recording
    from ingle.model.checkpoint import Checkpoint, open_checkpoint
    from ingle.model.template import encode_chat
    from ingle.model.tokenizer import Tokenizer, TokenizerFacts, open_tokenizer
    from ingle.tuning.peft_files import read_peft

    work = Path(tempfile.mkdtemp(dir=ROOT, prefix=f"fuzz-{name}-"))
    shutil.copytree(folder / "hf", work / "hf")
    plain, config = open_tokenizer(folder / "hf"), open_checkpoint(folder / "hf").config
    turns = [Message.of("system", "Be kind."), Message.of("user", "hi there, a"), Message.of("assistant", "yes"), Message.of("user", "?")]

    def read(checkpoint: Checkpoint) -> None:
        checkpoint_tokenizer(checkpoint, work / "hf").check_fits(checkpoint.config)
        for tensor in checkpoint.names:
            checkpoint.tensor(tensor).to_float32()

    def one(data: bytes) -> None:
        if name == "picture":
            read_picture(data)
        elif name == "sound":
            recording = Recording(data)
            for start in (0, 3000, 480_000, 100):
                recording.piece(start, 2000, 16_000)
        elif name == "gguf":
            (work / "x.gguf").write_bytes(data)
            read(open_checkpoint(work / "x.gguf"))
        elif name in ("safetensors", "config"):
            (work / "hf" / {"safetensors": "model.safetensors", "config": "config.json"}[name]).write_bytes(data)
            read(open_checkpoint(work / "hf"))
        elif name == "tokenizer":
            (work / "hf/tokenizer.json").write_bytes(data)
            tokenizer = open_tokenizer(work / "hf")
            tokenizer.decode(tokenizer.encode("Hello, the cat.\n"))
        elif name == "template":
            facts = TokenizerFacts("bytes", plain.facts.eos_ids, chat_template=data.decode("utf-8", "replace"))
            encode_chat(Tokenizer(plain.fast, facts), turns)
        else:
            about, _, tensors = data.partition(b"\n")
            (work / "adapter_config.json").write_bytes(about)
            (work / "adapter_model.safetensors").write_bytes(tensors)
            read_peft(work, config)

    def guarded(data: bytes) -> None:
        with suppress(IngleError):
            one(data)

    return guarded


@contextmanager
def server(folder: Path) -> Iterator[Callable[[bytes], None]]:
    """Serve the tiny model; the yielded function sends it bytes."""
    home = {**os.environ, "INGLE_HOME": str(folder / "home")}
    ingle = [sys.executable, "-m", "ingle"]
    subprocess.run([*ingle, "pull", str(folder / "hf"), "--name", "tiny"], env=home, check=True, stderr=subprocess.DEVNULL)
    quiet = ["--no-open", "--no-page", "--port", "0", "--set", "learn.worker=false", "--set", "serve.requests_per_minute=0"]
    process = subprocess.Popen([*ingle, "serve", "tiny", *quiet], env=home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    host, port = process.stdout.readline().decode().split()[3].removeprefix("http://").split(":")

    def send(data: bytes) -> None:
        began, answer = time.monotonic(), b""
        with socket.create_connection((host, int(port)), SLOW_S) as wire:
            with suppress(OSError):
                wire.sendall(data)
                wire.shutdown(socket.SHUT_WR)
            with suppress(OSError):
                while block := wire.recv(1 << 16):
                    answer += block
        if process.poll() is not None:
            raise AssertionError("the server has ended")
        if answer[9:10] == b"5" and answer[9:12] != b"503":
            raise AssertionError(answer[:2000])
        if time.monotonic() - began > SLOW_S:
            raise AssertionError("no answer in time")

    try:
        yield send
    finally:
        process.terminate()
        process.wait()


def run(name: str, folder: Path, seconds: float) -> None:
    """Fuzz in this process; it ends at the first fault, or when the time is up."""
    import atheris

    slow_s, most_mb = (MEDIA_S, 1024) if name in MEDIA else (SLOW_S, 4096)
    arguments = ["fuzz", str(folder / name), f"-max_total_time={seconds:.0f}", f"-timeout={slow_s}", f"-rss_limit_mb={most_mb}"]
    arguments += [f"-artifact_prefix={folder}/found-{name}-", "-max_len=65536", "-print_final_stats=1", "-verbosity=1"]
    if name == "http":
        with server(folder) as send:
            atheris.Setup(arguments, send)
            atheris.Fuzz()
    with atheris.instrument_imports(include=["ingle"]):
        take = target(name, folder)
    atheris.Setup(arguments, take)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--minutes", type=float, default=30.0, help="all targets together")
    parser.add_argument("--findings", type=Path, default=Path("findings"), help="folder for the inputs that are faults")
    parser.add_argument("--one", nargs=3, metavar=("TARGET", "FOLDER", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run(options.one[0], Path(options.one[1]), float(options.one[2]))
        return
    names = options.targets or list(TARGETS)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=ROOT, prefix="fuzz-") as scratch:
        folder = Path(scratch)
        seeds(folder)
        for name in names:
            rows[name] = fuzz(name, folder, options.minutes * 60 / len(names), options.findings)
            print(
                f"{name}: {rows[name]['inputs']:,} inputs in {rows[name]['seconds']:.0f} s, {len(rows[name]['faults'])} faults", flush=True
            )
    print(json.dumps({"bench": "fuzz", "targets": rows}))
    if any(row["faults"] for row in rows.values()):
        sys.exit(1)


def fuzz(name: str, folder: Path, seconds: float, findings: Path) -> dict[str, Any]:
    """Fuzz one target for so long; begin again after each fault."""
    began, inputs, faults = time.monotonic(), 0, list[str]()
    while (left := seconds - (time.monotonic() - began)) > 1 and len(faults) < 20:
        command = [sys.executable, __file__, "--one", name, str(folder), str(left)]
        done = subprocess.run(command, capture_output=True, check=False, text=True, errors="replace")
        counts = [line.split(":")[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
        inputs += int(counts[-1]) if counts else 0
        for path in sorted(folder.glob(f"found-{name}-*")):
            findings.mkdir(exist_ok=True)
            shutil.move(path, findings / path.name.removeprefix("found-"))
            (findings / f"{path.name.removeprefix('found-')}.txt").write_text(done.stdout[-4000:] + done.stderr[-8000:])
            faults.append(path.name.removeprefix("found-"))
        if done.returncode and not counts:
            (findings).mkdir(exist_ok=True)
            (findings / f"{name}-broken.txt").write_text(done.stdout + done.stderr)
            faults.append("broken")
            break
    return {"inputs": inputs, "seconds": round(time.monotonic() - began, 1), "faults": faults}


if __name__ == "__main__":
    main()
