"""Exactness: Ingle's float32 logits against Hugging Face's, for random models of all three families and for the real weights.

    python bench/exact.py [--tokens 300]

Prints the largest absolute difference of any logit, and whether 50 greedy tokens are the same. Exits 1 if a bar is missed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

from harness import finish, show
from ingle.engine import packs
from ingle.engine.backend import Backend, Segment, prefill, step
from ingle.engine.packs import checkpoint_tokenizer
from ingle.model.checkpoint import Checkpoint, open_checkpoint
from ingle.model.hf_config import config_to_hf
from model import documents, smollm2

BAR = 1e-3
CLASSES = {
    "llama": ("LlamaConfig", "LlamaForCausalLM"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM"),
}
SIZES = {
    "vocab_size": 1000, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 2, "max_position_embeddings": 2048,
}  # fmt: skip


def random_model(family: str, folder: Path) -> Checkpoint:
    """A model of this family with random weights, saved by transformers itself."""
    torch.manual_seed(0)
    config_class, model_class = (getattr(transformers, name) for name in CLASSES[family])
    model = model_class(config_class(**SIZES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1).add_(0.02 * torch.randn_like(parameter))  # biases and norms are not all alike
    model.save_pretrained(folder)
    return open_checkpoint(folder)


def hugging_face(checkpoint: Checkpoint) -> torch.nn.Module:
    """The same weights in transformers' own class."""
    table = config_to_hf(checkpoint.config)
    config_class, model_class = (getattr(transformers, name) for name in CLASSES[checkpoint.config.family])
    model = model_class(config_class(**{k: v for k, v in table.items() if k not in ("architectures", "model_type")})).eval()
    model.load_state_dict({name: torch.from_numpy(checkpoint.tensor(name).to_float32()) for name in checkpoint.names}, strict=False)
    return model


def compare(checkpoint: Checkpoint, ids: list[int], folder: Path) -> tuple[float, bool]:
    """(largest difference of a logit, whether 50 greedy tokens agree)."""
    info = packs.pack_checkpoint(checkpoint, "exact", "fp32", folder)
    backend, oracle = Backend(folder, info, cache="float32"), hugging_face(checkpoint)
    state, rows = backend.new_state(), []
    for start in range(0, len(ids), 200):
        rows.append(backend.forward([Segment(state, ids[start : start + 200], "all")])[0].copy())
    with torch.no_grad():
        expected = oracle(torch.tensor([ids])).logits[0].numpy()
        theirs = oracle.generate(torch.tensor([ids[:40]]), max_new_tokens=50, min_new_tokens=50, do_sample=False)[0, 40:].tolist()
    state = backend.new_state()
    mine = [int(prefill(backend, ids[:40], state).argmax())]
    while len(mine) < 50:
        mine.append(int(step(backend, [(state, mine[-1])])[0].argmax()))
    return float(np.abs(np.concatenate(rows) - expected).max()), mine == theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=300)
    count = parser.parse_args().tokens
    table, result = [["model", "largest difference", "same 50 greedy tokens"]], {}
    for name in ("llama", "qwen2", "qwen3", "SmolLM2"):
        with tempfile.TemporaryDirectory() as folder:
            if name == "SmolLM2":
                checkpoint = open_checkpoint(smollm2())
                ids = checkpoint_tokenizer(checkpoint, smollm2().parent).encode(documents(1)[0][0])[:count]
            else:
                checkpoint = random_model(name, Path(folder) / "hf")
                ids = np.random.default_rng(0).integers(0, SIZES["vocab_size"], count).tolist()
            difference, same = compare(checkpoint, ids, Path(folder) / "pack")
        table.append([name if name == "SmolLM2" else f"{name}, random", f"{difference:.2e}", "yes" if same else "no"])
        result[name] = {"max_abs_difference": difference, "same_greedy_tokens": same}
    show(f"float32 logits against transformers {transformers.__version__}, {count} tokens", table)
    finish("exact", {"bar": BAR, "models": result})
    sys.exit(any(r["max_abs_difference"] > BAR or not r["same_greedy_tokens"] for r in result.values()))


if __name__ == "__main__":
    main()
