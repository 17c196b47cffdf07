"""A tiny model that answers nonsense at once, and ways to run `ingle` as people do."""

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ingle.cli.main import main
from ingle.model.family import whole_of
from ingle.model.hf_config import config_from_hf
from ingle.model.tensor import expected_shapes

CONTEXT = 192
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COMMAND = [sys.executable, "-c", "import sys; from ingle.cli.main import main; sys.exit(main())"]


def write_model(folder: Path, context: int = CONTEXT, changes: Mapping[str, Any] = MappingProxyType({})) -> Path:
    """A Llama of two layers with a byte-level vocabulary, as a Hugging Face folder; `changes`: what else its config.json says."""
    folder.mkdir(parents=True)
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=259, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator(["a b"], trainer)
    fast.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE, "eos_token": "<|im_end|>"}))
    table: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": fast.get_vocab_size(), "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": context, "hidden_act": "silu", "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "rope_theta": 10000.0,
    } | dict(changes)  # fmt: skip
    (folder / "config.json").write_text(json.dumps(table))
    random = np.random.default_rng(0)
    config = config_from_hf(table)
    shapes = expected_shapes(config)
    weights = {name: (0.1 * random.standard_normal(shape) + ("norm" in name)).astype(np.float32) for name, shape in shapes.items()}
    weights["model.embed_tokens.weight"][:3] *= 0  # control tokens are never the likeliest, so answers don't end at once
    whole = whole_of(config, weights.__getitem__)
    save_file({name: np.ascontiguousarray(make()) for name, (_, make) in whole.items()}, folder / "model.safetensors")
    return folder


def environment(home: Path, changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process' environment with another home, and nothing that would change what is printed."""
    env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "INGLE_DEBUG", "COLUMNS", "LINES")}
    return {**env, "INGLE_HOME": str(home), **(changes or {})}


def ingle(
    home: Path, *arguments: str, given: bytes = b"", code: int = 0, changes: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `ingle` within this process, which saves half a second each time; `given` comes through a pipe."""
    out, err = io.BytesIO(), io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        for key in [key for key in os.environ if key not in environment(home, changes)]:
            patch.delenv(key)
        for key, value in environment(home, changes).items():
            patch.setenv(key, value)
        with tempfile.TemporaryFile() as pipe:
            pipe.write(given)
            pipe.seek(0)
            patch.setattr(sys, "stdin", io.TextIOWrapper(pipe, encoding="utf-8"))
            patch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="utf-8", write_through=True))
            patch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding="utf-8", write_through=True))
            got = main(arguments)
        result = subprocess.CompletedProcess(arguments, got, out.getvalue().decode(), err.getvalue().decode())
    assert result.returncode == code, (arguments, result.returncode, result.stdout, result.stderr)
    return result
