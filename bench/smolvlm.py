"""Seconds for one tile of 512 × 512 pixels, in SmolVLM-256M's shape: Ingle's int8, bf16 and fp32, and transformers' fp32 and bf16.

    python bench/smolvlm.py [--rounds 5] [--threads 2] [--without "transformers bf16"]

One tile is SigLIP-B/16 (93 million weights, 1,024 patches), neighbours joined to 64 vectors, and the linear behind them. Weights are
random, because no package holds SmolVLM's. With trained ones, int8 may take longer: groups of inputs with outliers are multiplied twice.
Each contender runs in a process of its own, in turn. No time is told unless its vectors are those of transformers' fp32: within 1e-3 of
their spread in fp32, and within a tenth of it in fewer bits.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harness import Engine, Figure, alternate, finish, ratios, show

SIDE, PATCH, JOINED, HIDDEN, TEXT = 512, 16, 4, 768, 576
EYE, CONNECTION = "model.vision_model.", "model.connector.modality_projection.proj.weight"
REFERENCE = "transformers fp32"
NAMES = ("ingle int8", "ingle bf16", "ingle fp32", REFERENCE, "transformers bf16")
SPREAD = {"fp32": 1e-3, "bf16": 0.1, "int8": 0.1}
"""How far vectors may be off (root mean square), in parts of their standard deviation."""


class Eye(Engine):
    """A contender in a process of its own."""

    script = "smolvlm.py"


def write_weights(path: Path) -> None:
    """Random ones, in bfloat16 as SmolVLM's own."""
    import torch
    from safetensors.torch import save_file

    eye = transformers_eye()
    draw = torch.Generator().manual_seed(0)
    tensors = {EYE + name: weight for name, weight in eye.state_dict().items()}
    tensors[CONNECTION] = torch.empty(TEXT, HIDDEN * JOINED**2)
    for name, weight in tensors.items():
        norm = "norm" in name and name.endswith("weight")
        weight.copy_(float(norm) + (0.1 if weight.ndim == 1 else weight[0].numel() ** -0.5) * torch.randn(weight.shape, generator=draw))
    save_file({name: weight.to(torch.bfloat16).contiguous() for name, weight in tensors.items()}, path)


def transformers_eye() -> Any:
    """transformers' eye, in SmolVLM-256M's shape."""
    from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionConfig, Idefics3VisionTransformer

    config = Idefics3VisionConfig(
        hidden_size=HIDDEN, intermediate_size=4 * HIDDEN, num_hidden_layers=12, num_attention_heads=12, image_size=SIDE, patch_size=PATCH
    )
    config._attn_implementation = "sdpa"
    return Idefics3VisionTransformer(config).eval().requires_grad_(False)


def pixels(seed: int) -> np.ndarray:
    """A tile, normalised: waves and noise, float32 [512, 512, 3]."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    waves = np.stack([np.sin(x / draw.uniform(5, 50) + y / draw.uniform(5, 50)) for _ in range(3)], axis=2)
    return (0.7 * waves + 0.1 * draw.standard_normal(waves.shape)).astype(np.float32)


def ours(path: Path, threads: int, format_: str) -> Callable[[np.ndarray], np.ndarray]:
    """Ingle's eye and connection."""
    from ingle.home.place import find_home
    from ingle.kernels.tower import EncoderShape, PackedProduct
    from ingle.media.eyes.siglip import Siglip, SiglipShape
    from ingle.media.sight import Gaze
    from ingle.model.checkpoint import read_safetensors

    os.environ.setdefault("INGLE_KERNEL_CACHE", str(find_home().create().jit))
    tensors = {tensor.name: tensor for tensor in read_safetensors(path)}
    shape = SiglipShape(EncoderShape(HIDDEN, 4 * HIDDEN, 12, 12, 1e-6), SIDE, PATCH)
    eye = Siglip(shape, lambda name: tensors[EYE + name].to_float32(), format_)
    gaze = Gaze(eye, JOINED, PackedProduct(tensors[CONNECTION].to_float32(), None, format_))
    return lambda tile: gaze(tile, threads)


def theirs(path: Path, threads: int, format_: str) -> Callable[[np.ndarray], np.ndarray]:
    """transformers' eye and connection."""
    import torch
    from safetensors.torch import load_file
    from transformers import Idefics3Config
    from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector

    torch.set_num_threads(threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[format_]
    weights, eye = load_file(path), transformers_eye()
    config = Idefics3Config(
        vision_config={"hidden_size": HIDDEN}, text_config={"model_type": "llama", "hidden_size": TEXT}, scale_factor=JOINED
    )
    connector = Idefics3Connector(config)
    eye.load_state_dict({name.removeprefix(EYE): weight for name, weight in weights.items() if name != CONNECTION})
    connector.load_state_dict({"modality_projection.proj.weight": weights[CONNECTION]})
    eye, connector = eye.to(dtype), connector.to(dtype)

    def look(tile: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return connector(eye(torch.from_numpy(tile).permute(2, 0, 1)[None].to(dtype)).last_hidden_state)[0].float().numpy()

    return look


def worker(name: str, path: Path, threads: int) -> None:
    """Answer {"seed": s} with seconds and, where asked, the vectors."""
    whose, format_ = name.split()
    began = time.perf_counter()
    look = (ours if whose == "ingle" else theirs)(path, threads, format_)
    look(pixels(0))
    print(json.dumps({"opened_s": time.perf_counter() - began, "resident_mb": resident_mb()}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        tile, began, used = pixels(question["seed"]), time.perf_counter(), time.process_time()
        vectors = look(tile)
        answer = {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - used}
        print(json.dumps(answer | ({"vectors": vectors.tolist()} if question.get("vectors") else {})), flush=True)


def resident_mb() -> float:
    """Memory of this process now."""
    status = Path("/proc/self/status").read_text() if Path("/proc/self/status").exists() else "VmRSS: 0 kB"
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def off(vectors: np.ndarray, reference: np.ndarray) -> float:
    """Root mean square of the difference, in parts of the reference's standard deviation."""
    return float(np.sqrt(((vectors - reference) ** 2).mean()) / reference.std())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without", action="append", default=[])
    options = parser.parse_args()
    names = [name for name in NAMES if name not in options.without]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "eye.safetensors"
        write_weights(path)
        eyes = {name: Eye(name, str(path), str(options.threads)) for name in names}
        vectors = {name: np.array(eye.ask(seed=1, vectors=True)["vectors"]) for name, eye in eyes.items()}
        reference = vectors.get(REFERENCE)
        if reference is None:
            raise SystemExit(f"{REFERENCE} is what the others are compared with")
        errors = {name: off(of, reference) for name, of in vectors.items()}
        for name, error in errors.items():
            if error > SPREAD[name.split()[1]]:
                raise SystemExit(f"{name} sees something else: {error:.2g} of the spread")
        used: dict[str, list[float]] = {name: [] for name in names}

        def look(name: str) -> float:
            answer = eyes[name].ask(seed=2)
            used[name].append(answer["cpu_s"])
            return answer["seconds"]

        figures = alternate(options.rounds, {name: partial(look, name) for name in names})
        cpu = {name: Figure(tuple(values[1:])) for name, values in used.items()}  # the first was to warm up
        about = {name: eye.about for name, eye in eyes.items()}
        for eye in eyes.values():
            eye.close()
    rows = [["", "seconds a tile", f"{REFERENCE} ÷ it", "CPU-seconds", "off by", "opened, s", "resident, MB"]]
    for name in names:
        quotient = ratios(figures[REFERENCE], figures[name])
        opened, resident = f"{about[name]['opened_s']:.1f}", f"{about[name]['resident_mb']:.0f}"
        rows.append([name, str(figures[name]), str(quotient), str(cpu[name]), f"{errors[name]:.2g}", opened, resident])
    show(f"one tile in SmolVLM-256M's shape, {options.threads} threads, median (range) of {options.rounds} alternating runs", rows)
    tables = {name: {"seconds": figures[name].table(), "cpu_s": cpu[name].table(), "off": errors[name], **about[name]} for name in names}
    finish("smolvlm", {"threads": options.threads, "rounds": options.rounds, "contenders": tables})


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in NAMES:
        worker(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
